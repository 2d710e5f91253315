"""How much a page that others can reach draws for them: waiting places, and images in an hour."""

import ipaddress
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from fair_adaptors.errors import ConfigError

from .guard import LOOPBACK

HOUR = 3600.0


@dataclass(frozen=True)
class Limits:
    """What visitors may ask for.

    Attributes:
        waiting: visitors who may wait for their turn; one drawing is made at a time.
        visitor_images: images that are drawn for one visitor in an hour; None for no limit.
        all_images: for all visitors together.
    """

    waiting: int = 20
    visitor_images: int | None = None
    all_images: int | None = None

    def __post_init__(self) -> None:
        for name in ("waiting", "visitor_images", "all_images"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"`{name}` is {value}; it must be at least 1")


ALONE = Limits()
"""For a page that only this machine can reach."""
PUBLIC = Limits(visitor_images=256, all_images=4096)
"""For a page that others can reach."""


def limits_for(
    host: str, *, waiting: int = 20, visitor_images: int | None = None, all_images: int | None = None
) -> Limits:
    """Return the limits of a page that listens on an address; where none is given, those that are usual for it."""
    usual = ALONE if host in LOOPBACK else PUBLIC
    return Limits(waiting, visitor_images or usual.visitor_images, all_images or usual.all_images)


class Allowance:
    """Counts the images that were asked for in the last hour."""

    def __init__(self, limits: Limits, *, clock: Callable[[], float] = time.monotonic):
        self._limits, self._clock, self._lock = limits, clock, threading.Lock()
        self._spent: deque[tuple[float, str, int]] = deque()

    def spend(self, address: str, images: int) -> None:
        """Note that a visitor wants some images.

        Args:
            address: the visitor's; one of IPv6 stands for its network, of which a household has many.

        Raises:
            ConfigError: that is more than they, or all, may have in an hour. It says when they may have it.
        """
        with self._lock:
            now, visitor = self._clock(), _household(address)
            while self._spent and self._spent[0][0] <= now - HOUR:
                self._spent.popleft()
            for most, whose in ((self._limits.visitor_images, visitor), (self._limits.all_images, None)):
                self._check(most, whose, images, now)
            self._spent.append((now, visitor, images))

    def _check(self, most: int | None, whose: str | None, images: int, now: float) -> None:
        if most is None:
            return
        spent = [(at, count) for at, visitor, count in self._spent if whose in (None, visitor)]
        over = sum(count for _, count in spent) + images - most
        if over <= 0:
            return
        all_of = f"This page draws at most {most} images an hour" + (" for each visitor" if whose else "")
        for at, count in spent:
            over -= count
            if over <= 0:
                minutes = math.ceil((at + HOUR - now) / 60)
                raise ConfigError(
                    f"{all_of}, and not enough are left. Try again in {minutes} minutes, or ask for fewer images"
                )
        raise ConfigError(f"{all_of}, and you asked for more. Ask for fewer images")


def _household(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else address
