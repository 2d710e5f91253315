"""What an evaluation shows, in sentences that claim no more than its intervals do."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Results = Mapping[str, Any]
"""The content of ``results.json``."""

SMALL = 0.05
"""Shares of images without a face, or that the classifier is unsure of, up to this are not worth a sentence."""
NAMED = 4
"""Targets that get a clause of their own; more are grouped by what happened to them."""
LISTED = 6
ENOUGH = 48
"""Images in all from which on a figure is compared with its noise floor."""


def verdicts(results: Results) -> list[tuple[str, str]]:
    """Return each variant's name and a sentence on it, the original's first.

    A figure "falls" or "rises" only where the interval of its paired change excludes 0. Where a target is not uniform,
    the figure is the total variation: a bias is 0 at equal shares, which nobody asked for.
    """
    first = results["variants"][0]
    return [
        (variant["name"], _sentence([*_of_targets(results, variant, first), *_around(results, variant, first)]))
        for variant in results["variants"]
    ]


def is_uniform(target: Mapping[str, Any]) -> bool:
    """Tell whether the target's shares are equal, so that a bias of 0 is what it asks for."""
    return max(target["shares"]) - min(target["shares"]) < 1e-6


def figure_of(target: Mapping[str, Any]) -> str:
    """Return the key of a target's headline figure: ``bias``, or ``total_variation`` where it is not uniform."""
    return "bias" if is_uniform(target) else "total_variation"


def figure_name(name: str, target: Mapping[str, Any]) -> str:
    """Return what the headline figure of a target is called."""
    return f"{name} bias" if is_uniform(target) else f"distance of {name} from its target"


def largest(target: Mapping[str, Any]) -> float:
    """Return the most that the headline figure of a target can be: all images are of one class, the rarest wanted."""
    return 2 / len(target["classes"]) if is_uniform(target) else 1 - min(target["shares"])


def direction(change: Mapping[str, Any] | None) -> str:
    """Return ``falls``, ``rises`` or, where the change's interval holds 0 or is unknown, ``no clear change``."""
    if change is not None and change["high"] is not None and change["high"] < 0:
        return "falls"
    if change is not None and change["low"] is not None and change["low"] > 0:
        return "rises"
    return "no clear change"


def number(value: float | None) -> str:
    """Write a figure with two digits; a dash for one that does not exist."""
    return "–" if value is None else f"{_away(value):.2f}".replace("-", "−")


def signed(value: float | None) -> str:
    """Write a change with its sign."""
    if value is None:
        return "–"
    said = f"{_away(value):+.2f}".replace("-", "−")
    return "0.00" if said[1:] == "0.00" else said


def percent(value: float | None) -> str:
    """Write a share in percent."""
    return "–" if value is None else f"{value:.0%}"


def fine(value: float | None) -> str:
    """Write a share that may be near 0 or 1."""
    return "–" if value is None else f"{100 * value:.1f}".removesuffix(".0") + "%"


def _of_targets(results: Results, variant: Mapping[str, Any], first: Mapping[str, Any]) -> list[str]:
    judge = results["classifiers"][0]
    found = []
    for name, target in results["targets"].items():
        key, now = figure_of(target), variant["bias"][judge][name]
        images = sum(row["images"] for row in now["prompts"])
        before, change = first["bias"][judge][name][key], now.get("change", {}).get(key)
        found.append(_Figure(name, target, now[key], before, change, images))
    if len(found) <= NAMED:
        return [figure.clause() for figure in found]
    grouped: dict[str, list[str]] = {}
    for figure in found:
        grouped.setdefault(figure.group(), []).append(figure.short())
    return [f"{what} for {_listed(names)}" for what, names in grouped.items()]


@dataclass(frozen=True)
class _Figure:
    """The headline figure of one target: its bias, or its total variation where the target is not uniform."""

    name: str
    target: Mapping[str, Any]
    now: Mapping[str, Any]
    before: Mapping[str, Any]
    change: Mapping[str, Any] | None
    images: int

    def clause(self) -> str:
        """Say what the figure is, or how it moved, and how far it is from the noise floor."""
        what = figure_name(self.name, self.target)
        value, floor = number(self.now["value"]), self.floor()
        if self.now["value"] is None:
            return f"{what} could not be measured: no image counts"
        if self.change is None:
            return f"{what} is {value} ({_range(self.now)}), {floor}"
        if self.before["value"] is None:
            return f"{what} is {value} ({_range(self.now)}), with nothing before to compare it with"
        moves, was = direction(self.change), number(self.before["value"])
        if moves == "no clear change":
            return f"{what} shows no clear change ({was} to {value}), {floor}"
        by = f"{signed(self.change['low'])} to {signed(self.change['high'])}"
        return f"{what} {moves} from {was} to {value} (change {by}), {floor}"

    def floor(self) -> str:
        """Compare the figure's interval with what a fair model would score."""
        fair, low, high = (self.now[key] for key in ("floor", "low", "high"))
        if fair is None or low is None or high is None:
            return "with no noise floor to compare with"
        if self.images < ENOUGH:
            return f"of too few images to compare with the noise floor of {number(fair)}"
        if low > fair:
            return f"above the noise floor of {number(fair)}"
        if high < fair:
            return f"below the noise floor of {number(fair)}: more even than chance would make it"
        return f"not told apart from the noise floor of {number(fair)}"

    def group(self) -> str:
        """Say the same without numbers, so that targets that fared alike can share it."""
        what = "bias" if is_uniform(self.target) else "distance from the target"
        moves = direction(self.change)
        if self.change is None:
            return f"{what} is {self.floor().split(' of ')[0]}"
        return f"no clear change of {what}" if moves == "no clear change" else f"{what} {moves}"

    def short(self) -> str:
        """Name the target with its numbers."""
        value = number(self.now["value"])
        was = "" if self.change is None else f"{number(self.before['value'])} to "
        return f"{self.name} ({was}{value}, fair {number(self.now['floor'])})"


def _around(results: Results, variant: Mapping[str, Any], first: Mapping[str, Any]) -> list[str]:
    """Say what is kept, and how many images the figures leave out or are unsure of."""
    clauses = []
    if variant["kept"] is not None:
        before = None if variant is first else first["kept"]
        clauses.append(_kept(results["kept"], variant["kept"], before, variant["kept_change"]))
    if variant["no_face"] and (missing := variant["no_face"]["value"]) > SMALL:
        clauses.append(f"{fine(missing)} of the images show no face and do not count")
    figures = variant["bias"][results["classifiers"][0]]
    unsure = {name: found["undetermined"]["value"] or 0.0 for name, found in figures.items()}
    if many := [f"{name} in {fine(share)} of the images" for name, share in unsure.items() if share > SMALL]:
        clauses.append(f"the classifier is unsure of {_listed(many)}")
    return clauses


def _kept(
    name: str, now: Mapping[str, Any], before: Mapping[str, Any] | None, change: Mapping[str, Any] | None
) -> str:
    """Say how often what should stay is right, and whether the paired change of it excludes 0."""
    if before is None:
        return f"{name} in {fine(now['value'])} of the images"
    if (moves := direction(change)) != "no clear change":
        return f"{name} {moves} from {fine(before['value'])} to {fine(now['value'])} of the images"
    return f"{name} shows no clear change ({fine(before['value'])} to {fine(now['value'])} of the images)"


def _away(value: float) -> float:
    """Move a tie, such as 1 of 8, off 0: Python would round it to even, the page's script does not."""
    return value + math.copysign(1e-9, value)


def _range(estimate: Mapping[str, Any]) -> str:
    return f"{number(estimate['low'])}–{number(estimate['high'])}"


def _listed(parts: Sequence[str]) -> str:
    """Join with commas and an "and"; many are counted, not named."""
    if len(parts) > LISTED:
        parts = [*parts[:LISTED], f"{len(parts) - LISTED} more"]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _sentence(clauses: Sequence[str]) -> str:
    joined = "; ".join(clauses) + "."
    return joined[0].upper() + joined[1:]
