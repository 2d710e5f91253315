"""What an evaluation shows, in sentences that claim no more than its intervals do."""

import math
from dataclasses import dataclass

from fair_adaptors.adaptor.results import (
    Estimate,
    Figures,
    FlooredEstimate,
    Results,
    TargetClasses,
    VariantResults,
    headline,
)

from .harm import (
    WORST,
    class_clauses,
    erased,
    erasure_clause,
    fit_clause,
    fit_losses,
    harms,
    judgement,
    kept_clause,
    lost_prompts,
    not_aimed_at,
    shift_clause,
)
from .obeyed import disobeyed_attributes, never_open, obeyed_clause, where_open
from .spec import Target
from .variety_words import is_more_alike, variety_sentence
from .wording import direction, fine, listed, number, percent, sentence, signed

SMALL = 0.05
"""A share of images that are undetermined up to this is not worth a sentence."""
NAMED = 4
"""Targets that get a clause of their own; more are grouped by what happened to them."""
ENOUGH = 48
"""Images in all from which on a figure is compared with its noise floor."""
ONE_IMAGE = "One image per prompt says nothing of shares: draw several."


@dataclass(frozen=True)
class Verdict:
    """What is said of a variant, in sentences; one that there is no need for is empty.

    Attributes:
        name: the variant.
        aim: how far it is from what it was made for; of the original, from every target.
        beside: what else it changed, and for whom; empty for the original.
        variety: how much images of one prompt differ, and how many classes they show.
        notes: images that do not count, or are doubtful.
        aim_harms: whether what ``aim`` tells of is a harm to somebody, see ``harm.harms``.
        beside_harms: the same of ``beside``.
        variety_harms: whether images are clearly more alike than the original's.
    """

    name: str
    aim: str
    beside: str
    variety: str
    notes: str
    aim_harms: bool
    beside_harms: bool
    variety_harms: bool

    @property
    def text(self) -> str:
        """Return all of it."""
        return " ".join(said for said in (self.aim, self.beside, self.variety, self.notes) if said)


def verdicts(results: Results) -> list[Verdict]:
    """Return what is to be said of each variant, the original first.

    A figure "falls" or "rises" only where the interval of its paired change excludes 0. Where a target is not uniform,
    the figure is the total variation: a bias is 0 at equal shares, which nobody asked for. Of what a variant is not
    aimed at, only the distance from the original is told: it has nothing to improve there. Where prompts name a class,
    how often it is shown is told in the place of a bias.
    """
    found = []
    for variant in results.variants:
        in_aim = {harm.attribute in variant.aimed for harm in harms(results, variant)}
        found.append(
            Verdict(
                variant.name,
                _aim(results, variant),
                "" if variant is results.original else _beside(results, variant),
                variety_sentence(results, variant),
                _notes(results, variant),
                aim_harms=True in in_aim,
                beside_harms=False in in_aim,
                variety_harms=is_more_alike(results, variant),
            )
        )
    return found


def smallest_share(figures: Figures, target: TargetClasses) -> str:
    """Name the class that is seen least, with its share."""
    shares = [found.value for found in figures.frequencies]
    if any(math.isnan(share) for share in shares):
        return "–"
    least = min(range(len(shares)), key=shares.__getitem__)
    return f"{target.classes[least]} {percent(shares[least])}"


def without_face(results: Results, variant: VariantResults) -> list[str]:
    """Return the labels of the prompts of which no image shows a face."""
    rows = results.figures(variant, next(iter(results.targets))).prompts
    return [label for label, row in zip(results.labels, rows, strict=True) if not row.images]


def figure_name(name: str, target: TargetClasses) -> str:
    """Return what the headline figure of a target is called."""
    return f"{name} bias" if target.is_uniform else f"distance of {name} from its target"


def largest(target: TargetClasses | Target) -> float:
    """Return the most that the headline figure of a target can be: all images are of one class, the rarest wanted."""
    return 2 / len(target.shares) if target.is_uniform else 1 - min(target.shares)


def _aim(results: Results, variant: VariantResults) -> str:
    """Say how far the variant is from what it is aimed at; the original from everything."""
    if results.settings.images_per_prompt == 1:
        return ONE_IMAGE
    aimed = list(results.targets) if variant is results.original else variant.aimed
    found = []
    for name in aimed:
        if never_open(results, name):  # told by how often what is named is shown
            continue
        target = results.targets[name]
        before, now = (results.figures(one, name) for one in (results.original, variant))
        shown, was = headline(now, target), headline(before, target)
        change = None if now.change is None else headline(now.change, target)
        images = sum(now.prompts[prompt].images for prompt in results.open_prompts(name))
        least = smallest_share(now, target)
        what = figure_name(name, target) + where_open(results, name)
        found.append(_Figure(name, what, target, shown, was, change, images, least))
    clauses = [figure.clause() for figure in found]
    if len(found) > NAMED:
        grouped: dict[str, list[str]] = {}
        for figure in found:
            grouped.setdefault(figure.group(), []).append(figure.short())
        clauses = [f"{what} for {listed(names)}" for what, names in grouped.items()]
    always = [name for name in aimed if never_open(results, name)]
    disobeyed = [name for name in disobeyed_attributes(results, variant) if name in aimed and name not in always]
    gone = [erasure_clause(results, rows) for rows in erased(variant) if rows[0].target in variant.aimed]
    gone += [obeyed_clause(results, variant, disobeyed)] if disobeyed else []
    obeyed = [name for name in aimed if name not in (*always, *disobeyed)]
    clauses = [obeyed_clause(results, variant, always), *clauses, *(f"but {clause}" for clause in gone)]
    clauses = [clause for clause in (*clauses, obeyed_clause(results, variant, obeyed)) if clause]
    return sentence(clauses) if clauses else "It is aimed at nothing that is measured here."


@dataclass(frozen=True)
class _Figure:
    """The headline figure of one target: its bias, or its total variation where the target is not uniform."""

    name: str
    what: str
    target: TargetClasses
    now: FlooredEstimate
    before: FlooredEstimate
    change: Estimate | None
    images: int
    least: str

    def clause(self) -> str:
        """Say what the figure is, or how it moved, and how far it is from the noise floor."""
        what, value, floor = self.what, number(self.now.value), self.floor()
        if math.isnan(self.now.value):
            return f"{what} could not be measured: no image counts"
        floor += f" (smallest share: {self.least})"
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
            return f"from too few images to compare with the noise floor of {number(fair)}"
        if low > fair:
            return f"above the noise floor of {number(fair)}"
        if high < fair:
            return f"below the noise floor of {number(fair)}: more even than chance would make it"
        return f"not distinguishable from the noise floor of {number(fair)}"

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


def _beside(results: Results, variant: VariantResults) -> str:
    """Say what changed that the variant is not aimed at, and for whom: who is erased first, then the clear changes."""
    others = not_aimed_at(results, variant)
    clauses = [erasure_clause(results, rows) for rows in erased(variant) if rows[0].target in others]
    disobeyed = [name for name in disobeyed_attributes(results, variant) if name in others]
    clauses += [obeyed_clause(results, variant, disobeyed)] if disobeyed else []
    clauses += class_clauses(results, variant)
    quiet: list[str] = []
    if obeyed := obeyed_clause(results, variant, [name for name in others if name not in disobeyed]):
        quiet.append(obeyed)
    if shifts := shift_clause(results, variant, others):
        (clauses if any(judgement(results, variant, name) for name in others) else quiet).append(shifts)
    if kept := kept_clause(results, variant):
        lost = direction(variant.kept_change) != "no clear change" or lost_prompts(results, variant)
        (clauses if lost else quiet).append(kept)
    elif encoder := next(iter(variant.text_alignment), None):  # nothing else tells what should stay
        fell = fit_losses(results, variant, encoder)
        (clauses if fell else quiet).append(fit_clause(results, variant, encoder))
    if clauses:
        return f"Side effects: {'; '.join([*clauses, *quiet])}."
    return f"No clear side effects: {'; '.join(quiet)}." if quiet else "Nothing else was measured."


def _notes(results: Results, variant: VariantResults) -> str:
    """Say how many images the figures leave out or are undetermined; of the original also what should stay."""
    clauses = []
    if variant is results.original and (kept := kept_clause(results, variant)):
        clauses.append(kept)
    if variant.no_face is not None and variant.no_face.value > 0:
        clauses.append(f"{fine(variant.no_face.value)} of the images show no face and do not count")
    if empty := without_face(results, variant):
        clauses.append(f"no image of {listed(empty, WORST)} shows a face")
    shares = {name: results.figures(variant, name).undetermined.value for name in results.targets}
    many = [(name, fine(share)) for name, share in shares.items() if share > SMALL]
    if many:
        (name, share), *rest = many
        first = f"{name} is undetermined in {share} of the images"
        clauses.append(listed([first, *(f"{name} in {share}" for name, share in rest)]))
    return sentence(clauses) if clauses else ""


def _range(estimate: Estimate) -> str:
    return f"{number(estimate.low)}–{number(estimate.high)}"
