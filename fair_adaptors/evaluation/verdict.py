"""What an evaluation shows, in sentences that claim no more than its intervals do."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fair_adaptors.adaptor.results import Estimate, FlooredEstimate, Results, TargetClasses, VariantResults, headline

SMALL = 0.05
"""Shares of images without a face, or that are undetermined, up to this are not worth a sentence."""
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
    return [
        (variant.name, _sentence([*_of_targets(results, variant), *_around(results, variant)]))
        for variant in results.variants
    ]


def figure_name(name: str, target: TargetClasses) -> str:
    """Return what the headline figure of a target is called."""
    return f"{name} bias" if target.is_uniform else f"distance of {name} from its target"


def largest(target: TargetClasses) -> float:
    """Return the most that the headline figure of a target can be: all images are of one class, the rarest wanted."""
    return 2 / len(target.classes) if target.is_uniform else 1 - min(target.shares)


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
    """Write a share in percent."""
    return "–" if math.isnan(value) else f"{value:.0%}"


def fine(value: float) -> str:
    """Write a share that may be near 0 or 1."""
    return "–" if math.isnan(value) else f"{100 * value:.1f}".removesuffix(".0") + "%"


def _of_targets(results: Results, variant: VariantResults) -> list[str]:
    found = []
    for name, target in results.targets.items():
        before, now = (results.figures(one, name) for one in (results.original, variant))
        change = None if now.change is None else headline(now.change, target)
        images = sum(row.images for row in now.prompts)
        found.append(_Figure(name, target, headline(now, target), headline(before, target), change, images))
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
    target: TargetClasses
    now: FlooredEstimate
    before: FlooredEstimate
    change: Estimate | None
    images: int

    def clause(self) -> str:
        """Say what the figure is, or how it moved, and how far it is from the noise floor."""
        what = figure_name(self.name, self.target)
        value, floor = number(self.now.value), self.floor()
        if math.isnan(self.now.value):
            return f"{what} could not be measured: no image counts"
        if self.change is None:
            return f"{what} is {value} ({_range(self.now)}), {floor}"
        if math.isnan(self.before.value):
            return f"{what} is {value} ({_range(self.now)}), with nothing before to compare it with"
        moves, was = direction(self.change), number(self.before.value)
        if moves == "no clear change":
            return f"{what} shows no clear change ({was} to {value}), {floor}"
        by = f"{signed(self.change.low)} to {signed(self.change.high)}"
        return f"{what} {moves} from {was} to {value} (change {by}), {floor}"

    def floor(self) -> str:
        """Compare the figure's interval with what a fair model would score."""
        fair, low, high = self.now.floor, self.now.low, self.now.high
        if math.isnan(fair + low + high):
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
        what = "bias" if self.target.is_uniform else "distance from the target"
        moves = direction(self.change)
        if self.change is None:
            return f"{what} is {self.floor().split(' of ')[0]}"
        return f"no clear change of {what}" if moves == "no clear change" else f"{what} {moves}"

    def short(self) -> str:
        """Name the target with its numbers."""
        was = "" if self.change is None else f"{number(self.before.value)} to "
        return f"{self.name} ({was}{number(self.now.value)}, fair {number(self.now.floor)})"


def _around(results: Results, variant: VariantResults) -> list[str]:
    """Say whether what should stay stays, and how many images the figures leave out or are undetermined."""
    clauses = []
    if results.kept is not None and variant.kept is not None:
        before = None if variant is results.original else results.original.kept
        clauses.append(_kept(results.kept, variant.kept, before, variant.kept_change))
    if variant.no_face is not None and variant.no_face.value > SMALL:
        clauses.append(f"{fine(variant.no_face.value)} of the images show no face and do not count")
    shares = {name: results.figures(variant, name).undetermined.value for name in results.targets}
    many = [(name, fine(share)) for name, share in shares.items() if share > SMALL]
    if many:
        (name, share), *rest = many
        first = f"{name} is undetermined in {share} of the images"
        clauses.append(_listed([first, *(f"{name} in {share}" for name, share in rest)]))
    return clauses


def _kept(name: str, now: Estimate, before: Estimate | None, change: Estimate | None) -> str:
    """Say how often what should stay is right, and whether the paired change of it excludes 0."""
    if before is None:
        return f"{name} in {fine(now.value)} of the images"
    if (moves := direction(change)) != "no clear change":
        return f"{name} {moves} from {fine(before.value)} to {fine(now.value)} of the images"
    return f"{name} shows no clear change ({fine(before.value)} to {fine(now.value)} of the images)"


def _away(value: float) -> float:
    """Move a tie, such as 1 of 8, off 0: Python would round it to even, the page's script does not."""
    return value + math.copysign(1e-9, value)


def _range(estimate: Estimate) -> str:
    return f"{number(estimate.low)}–{number(estimate.high)}"


def _listed(parts: Sequence[str]) -> str:
    """Join with commas and an "and"; many are counted, not named."""
    if len(parts) > LISTED:
        parts = [*parts[:LISTED], f"{len(parts) - LISTED} more"]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _sentence(clauses: Sequence[str]) -> str:
    joined = "; ".join(clauses) + "."
    return joined[0].upper() + joined[1:]
