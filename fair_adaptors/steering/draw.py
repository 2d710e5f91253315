"""Which class an image is to show: an attribute with its target, and a draw for each image."""

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from fair_adaptors.errors import ConfigError


@dataclass(frozen=True)
class Attribute:
    """What should be fair, and what fair means.

    Attributes:
        name: such as ``gender``.
        classes: K words, as they are put into prompts.
        target: the share that each class should have, [K]; they add up to 1.

    Raises:
        ConfigError: fewer than two classes, an empty word, or shares that are no distribution over the classes.
    """

    name: str
    classes: tuple[str, ...]
    target: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or not all(word.strip() for word in (self.name, *self.classes)):
            raise ConfigError(
                f"attribute {self.name!r} has the classes {self.classes}; give a name and two words or more"
            )
        if len(self.target) != len(self.classes):
            raise ConfigError(f"{self.name!r} has {len(self.classes)} classes and {len(self.target)} target shares")
        if not all(share >= 0 for share in self.target) or not math.isclose(sum(self.target), 1, abs_tol=1e-6):
            raise ConfigError(f"{self.name!r} has the target {self.target}; give shares from 0 to 1 that add up to 1")


def draw_class(attribute: Attribute, seed: int) -> int:
    """Draw an image's class from the target: a function of name, target and seed, the same on every machine."""
    uniform = uniform_of(attribute.name, seed)
    return min(bisect_right(list(accumulate(attribute.target)), uniform), len(attribute.classes) - 1)


def uniform_of(name: str, seed: int) -> float:
    """Return a number in [0, 1), uniform over seeds: a function of the two, and independent for other names."""
    digest = hashlib.sha256(f"{name}\n{seed}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def parse_target(text: str) -> tuple[str, tuple[float, ...]]:
    """Read ``gender=0.5,0.5``.

    Raises:
        ConfigError: not of that form, or no distribution.
    """
    name, _, shares = text.partition("=")
    try:
        target = tuple(float(share) for share in shares.split(","))
    except ValueError as error:
        raise ConfigError(f"target {text}: write it as NAME=SHARE,SHARE such as gender=0.5,0.5") from error
    if not name.strip():
        raise ConfigError(f"target {text}: name the attribute, such as gender=0.5,0.5")
    if not all(share >= 0 for share in target) or not math.isclose(sum(target), 1, abs_tol=1e-6):
        raise ConfigError(f"target {text}: the shares must not be negative, and must add up to 1")
    return name.strip(), target


def distinct_attributes(attributes: Sequence[Attribute]) -> Sequence[Attribute]:
    """Return the attributes, which a method is made for.

    Raises:
        ConfigError: there are none, or one is there twice.
    """
    names = [attribute.name for attribute in attributes]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"the attributes are {names}; give at least one, and each once")
    return attributes


def names_of(attributes: Sequence[Attribute]) -> str:
    """Return their names for a sentence."""
    return " and ".join(attribute.name for attribute in attributes)


def hash_of(*parts: Any) -> str:
    """Return a word that changes with any of the parts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
