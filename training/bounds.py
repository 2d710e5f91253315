"""What a setting of a run may be: its bounds, the part of a run that it belongs to, and the check of a value."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args, get_origin

from fair_adaptors.errors import ConfigError

Part = Literal["model", "data", "sampling", "optimisation", "losses", "validation", "output"]
T = TypeVar("T")


@dataclass(frozen=True)
class Bounds:
    """Which numbers a setting may have: ``least`` and ``most`` may be reached, ``above`` and ``below`` may not."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def allow(self, number: float) -> bool:
        """Tell whether a number is within."""
        return (
            (self.least is None or number >= self.least)
            and (self.most is None or number <= self.most)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        words = {"at least": self.least, "at most": self.most, "above": self.above, "below": self.below}
        return " and ".join(f"{word} {bound}" for word, bound in words.items() if bound is not None)


def described(part: Part, **bounds: float) -> dict[str, Any]:
    """Return what a field says of a setting: the part of a run that it belongs to, and its ``Bounds``."""
    return {"part": part, "bounds": Bounds(**bounds)}


def setting(part: Part, default: T, **bounds: float) -> T:
    """Return a field of a dataclass with a default, and what it says of a setting."""
    found: T = field(default=default, metadata=described(part, **bounds))
    return found


def check(setting: dataclasses.Field[Any], value: Any) -> None:
    """Raise ConfigError if a value is out of bounds, not finite, or none of those to choose from."""
    name, bounds = setting.name, setting.metadata["bounds"]
    if get_origin(setting.type) is Literal and value not in get_args(setting.type):
        raise ConfigError(f"{name} is {value!r}; choose one of {', '.join(get_args(setting.type))}")
    if setting.type is float and not math.isfinite(value) and (name, value) != ("max_grad_norm", math.inf):
        raise ConfigError(f"{name} must be a finite number")
    if setting.type in (int, float) and not bounds.allow(value):
        raise ConfigError(f"{name} is {value}; it must be {bounds}")
