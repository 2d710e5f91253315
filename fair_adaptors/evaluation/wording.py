"""How figures are written wherever people read them: numbers, shares, changes, lists."""

import math
from collections.abc import Sequence

from fair_adaptors.adaptor.results import Estimate

LISTED = 6


def direction(change: Estimate | None) -> str:
    """Return ``falls``, ``rises`` or, where the change's interval holds 0 or is unknown, ``no clear change``."""
    if change is not None and change.high < 0:
        return "falls"
    if change is not None and change.low > 0:
        return "rises"
    return "no clear change"


def number(value: float) -> str:
    """Write a figure with two digits; a dash for one that does not exist."""
    return "–" if math.isnan(value) else f"{_away(value):.2f}".replace("-", "−")


def signed(value: float) -> str:
    """Write a change with its sign."""
    if math.isnan(value):
        return "–"
    said = f"{_away(value):+.2f}".replace("-", "−")
    return "0.00" if said[1:] == "0.00" else said


def percent(value: float) -> str:
    """Write a share in percent; with a digit more where it would be 0 or 100 and is not."""
    if math.isnan(value):
        return "–"
    return fine(value) if 0 < value < 0.005 or 0.995 <= value < 1 else f"{_away(value):.0%}"


def points(value: float) -> str:
    """Write a change of a share in points of percent, with its sign."""
    said = "–" if math.isnan(value) else f"{_away(100 * value):+.0f}".replace("-", "−")
    return "0" if said[1:] == "0" else said


def fine(value: float) -> str:
    """Write a share that may be near 0 or 1."""
    return "–" if math.isnan(value) else f"{_away(100 * value):.1f}".removesuffix(".0") + "%"


def listed(parts: Sequence[str], most: int = LISTED) -> str:
    """Join with commas and an "and"; many are counted, not named."""
    if len(parts) > most:
        parts = [*parts[:most], f"{len(parts) - most} more"]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def sentence(clauses: Sequence[str]) -> str:
    """Join clauses to one sentence."""
    joined = "; ".join(clauses) + "."
    return joined[0].upper() + joined[1:]


def _away(value: float) -> float:
    """Move a tie, such as 1 of 8, off 0: Python would round it to even, the page's script does not."""
    return value + math.copysign(1e-9, value)
