"""Variety within a prompt as people read it: the rows of its table, and a sentence for each variant."""

import math
from dataclasses import dataclass

from fair_adaptors.adaptor.bases import is_few_step
from fair_adaptors.adaptor.results import Estimate, PairedChange, Results, TargetClasses, VariantResults

from .obeyed import never_open, where_open
from .wording import direction, number, sentence, signed


@dataclass(frozen=True)
class VarietyRow:
    """One figure of variety of one variant.

    Attributes:
        what: what is counted or measured.
        shown: of the variant.
        change: from the original; None for the original itself, or where it was not measured.
        most: the largest value there can be, where classes are counted.
        fair: what a model with the target's shares shows with as many images, where classes are counted; else NaN.
        at_target: what to call that model.
    """

    what: str
    shown: Estimate
    change: PairedChange | None
    most: int | None = None
    fair: float = math.nan
    at_target: str = "a fair model"

    @property
    def is_worse(self) -> bool:
        """Whether images are clearly more alike than the original's. Nothing is better, as nothing aims at variety."""
        return self.most is None and direction(self.change) == "falls"

    def write(self, value: float) -> str:
        """Write the figure; a distance with three digits, as two may be small and their change smaller."""
        return number(value) if self.most or math.isnan(value) else f"{value:.3f}".replace("-", "−")

    def write_change(self, value: float) -> str:
        """Write its change, with its sign."""
        return signed(value) if self.most or math.isnan(value) else f"{value:+.3f}".replace("-", "−")

    @property
    def numbers(self) -> str:
        """The figure; with what it was before, where there is a change."""
        if self.change is None:
            return self.write(self.shown.value)
        return f"{self.write(self.change.before)} → {self.write(self.change.after)}"

    @property
    def interval(self) -> str:
        """The interval of the change, or of the figure where there is none."""
        if self.change is None:
            return f"{self.write(self.shown.low)}–{self.write(self.shown.high)}"
        return f"{self.write_change(self.change.low)} to {self.write_change(self.change.high)}"

    @property
    def clause(self) -> str:
        """The same in words."""
        of = f" of {self.most}" if self.most else ""
        fair = "" if math.isnan(self.fair) else f", where {self.at_target} shows {number(self.fair)}"
        if self.change is None:
            return f"the {self.what} is {self.write(self.shown.value)}{of} ({self.interval}){fair}"
        was, now = self.write(self.change.before), self.write(self.change.after)
        moves = direction(self.change)
        if moves == "no clear change":
            return f"the {self.what} shows no clear change ({was} to {now}{of}){fair}"
        return f"the {self.what} {moves} from {was} to {now}{of} (change {self.interval}){fair}"


def leads_with_variety(results: Results) -> bool:
    """Tell whether a report begins with variety: few-step models are known to draw everybody alike."""
    return is_few_step(results.settings.base, results.settings.num_steps)


def variety_rows(results: Results, variant: VariantResults) -> list[VarietyRow]:
    """Return the figures of variety that were measured: distances first, then for each attribute its classes.

    Distances within a class are told of the attributes that the variant, or for the original any variant, is aimed at.
    """
    found = []
    for encoder in results.encoders:
        by = f" ({encoder})" if len(results.encoders) > 1 else ""
        change = (variant.diversity_change or {}).get(encoder)
        found.append(VarietyRow(f"distance of two images{by}", variant.diversity[encoder], change))
        for name in _aimed(results, variant):
            if within := (variant.within_class or {}).get(encoder, {}).get(name):
                found.append(VarietyRow(f"distance within one {name}{by}", within.distance, within.change))
    for name, target in results.targets.items():
        if len(target.attributes) == 1 and not never_open(results, name):
            found += _classes_shown(results, variant, name, target)
    return [row for row in found if not math.isnan(row.shown.value)]


def variety_sentence(results: Results, variant: VariantResults) -> str:
    """Say how varied the images of a prompt are, and how that changed; empty where nothing was measured of it.

    Classes are told of the attributes that somebody aims at; the table has the others.
    """
    aimed = {f"number of {name} classes" for name in _aimed(results, variant)}
    rows = [
        row
        for row in variety_rows(results, variant)
        if (row.most is None or any(row.what.startswith(one) for one in aimed))
        and (variant is results.original or row.change is not None)
    ]
    return sentence([f"within a prompt {rows[0].clause}", *(row.clause for row in rows[1:])]) if rows else ""


def is_more_alike(results: Results, variant: VariantResults) -> bool:
    """Tell whether images of a prompt, all or within a class, are clearly more alike than the original's."""
    return any(row.is_worse for row in variety_rows(results, variant))


def _aimed(results: Results, variant: VariantResults) -> list[str]:
    variants = results.variants if variant is results.original else (variant,)
    aimed = {name for one in variants for name in one.aimed}
    return [name for name, target in results.targets.items() if name in aimed and len(target.attributes) == 1]


def _classes_shown(results: Results, variant: VariantResults, name: str, target: TargetClasses) -> list[VarietyRow]:
    found, before = (results.figures(one, name) for one in (variant, results.original))
    if (shown := found.effective_classes) is None:
        return []
    moved = found.change and found.change.effective_classes
    change = None
    if moved and before.effective_classes:
        was = before.effective_classes.value
        change = PairedChange(moved.value, moved.low, moved.high, before=was, after=shown.value)
    what = f"number of {name} classes{where_open(results, name)}"
    model = "a fair model" if target.is_uniform else "a model at the target"
    return [VarietyRow(what, shown, change, len(target.classes), shown.floor, model)]
