"""What a variant changed beside its aim, and which of it does harm: found, ranked and put in words.

An attribute is aimed at by a variant that was made to change it. Whatever else can be seen is to stay as the original
shows it, so there the distance from the original counts: no change of it is an improvement.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fair_adaptors.adaptor.results import ClassChange, Erasure, Estimate, Results, Shift, VariantResults, headline
from fair_adaptors.attributes import people

from .obeyed import disobeyed_attributes, obeyed_clause, where_open
from .wording import direction, fine, listed, number, percent, sentence

Kind = Literal["erasure", "obeyed", "shift", "kept"]
Judgement = Literal["better", "worse", ""]

SHIFT_ALLOWED = 0.06
"""A shift of something that is not aimed at does harm where the interval of it, the floor removed, is above this."""
KEPT_LOSS = 0.01
"""What should stay is lost where the interval of its change is below less this."""
KEPT_LEAST = 0.85
"""A prompt has lost what should stay where its share was this or more, and its interval is below this now."""
VANISHED = 0.1
"""Who keeps no more than this part of their share all but vanishes."""
WORST = 3
"""Prompts that are named; the rest are counted."""
NAMED = 4
"""Classes and attributes that are named; the rest are counted."""


@dataclass(frozen=True)
class Harm:
    """Something that a variant does to people, or to what should stay, beside its aim.

    Attributes:
        kind: ``erasure`` of a class, a class that is named and no longer ``obeyed``, ``shift`` of an attribute that
            was not aimed at, or loss of what should be ``kept``.
        clause: what happened, in words that can follow others.
        attribute: to whom it happened; empty for what should be kept.
    """

    kind: Kind
    clause: str
    attribute: str = ""

    @property
    def sentence(self) -> str:
        """The clause as a sentence."""
        return sentence([self.clause])


def harms(results: Results, variant: VariantResults) -> list[Harm]:
    """Return what harm a variant does, the worst kind first; nothing for the original.

    These are every class that is erased (see ``beside.erasures``), in an aimed-at attribute too; every attribute of
    which a class that prompts name is shown clearly less often than by the original; every attribute not aimed at that
    shifts by clearly more than ``SHIFT_ALLOWED``; and what should stay, if clearly more than
    ``KEPT_LOSS`` of it is lost, or a prompt falls from at least ``KEPT_LEAST`` to clearly below.
    """
    found = [Harm("erasure", erasure_clause(results, rows), rows[0].target) for rows in erased(variant)]
    for name in disobeyed_attributes(results, variant):
        found.append(Harm("obeyed", obeyed_clause(results, variant, [name]), name))
    for name in not_aimed_at(results, variant):
        if (shift := shift_of(results, variant, name)) and shift.floor_removed.low > SHIFT_ALLOWED:
            found.append(Harm("shift", shift_clause(results, variant, [name]), name))
    if is_lost(variant.kept_change) or lost_prompts(results, variant):
        found.append(Harm("kept", kept_clause(results, variant)))
    return found


def not_aimed_at(results: Results, variant: VariantResults) -> list[str]:
    """Return the attributes that a variant was not made for; combinations of attributes are no further ones."""
    return [
        name for name, target in results.targets.items() if len(target.attributes) == 1 and name not in variant.aimed
    ]


def judgement(results: Results, variant: VariantResults, name: str, classifier: str | None = None) -> Judgement:
    """Say whether a target came nearer to the shares that were asked for, or farther away, beyond doubt.

    Where a variant is not aimed at it, or nobody asked for any shares, nothing is better: a shift is worse or nothing.

    Args:
        classifier: whose figures; None for the first one's that knows the target.
    """
    change = variant.bias[classifier or results.seen_by(name)][name].change
    if change is None:
        return ""
    if name in variant.aimed:
        moved = headline(change, results.targets[name])
        judged: Judgement = "better" if moved.high < 0 else "worse" if moved.low > 0 else ""
        return judged if results.targets[name].declared else ""
    return "worse" if name in not_aimed_at(results, variant) and change.shift.floor_removed.low > 0 else ""


def class_judgement(
    results: Results, variant: VariantResults, name: str, k: int, *, prompt: int | None = None, classifier: str = ""
) -> Judgement:
    """Say the same of the share of class ``k``, over all prompts or in one.

    It is worse where the class is erased, or clearly changed without being aimed at; where it was aimed at, a clear
    change is better if the share came nearer to the one that was asked for, and else worse. Of a prompt that names a
    class nothing is said: it is to show that one, and whether it does is told by ``obeyed``.
    """
    if prompt is not None and results.named(name, prompt):
        return ""
    seen_by, target = results.seen_by(name), results.targets[name]
    change = variant.bias[classifier or seen_by][name].change
    if change is None:
        return ""
    row = (change.classes if prompt is None else change.prompts[prompt])[k]
    if (moves := direction(row)) == "no clear change":
        return ""
    if moves == "falls" and classifier in ("", seen_by):  # who is erased falls clearly
        key = name, target.classes[k], prompt
        if any((one.target, one.class_name, one.prompt) == key for one in variant.erasures):
            return "worse"
    if name not in variant.aimed:
        return "worse" if name in not_aimed_at(results, variant) else ""
    nearer = abs(row.after - target.shares[k]) < abs(row.before - target.shares[k])
    return ("better" if nearer else "worse") if target.declared else ""


def erased(variant: VariantResults) -> list[list[Erasure]]:
    """Return the erasures by class, those over all prompts first, the largest fall first."""
    groups: dict[tuple[str, str], list[Erasure]] = {}
    for one in sorted(variant.erasures, key=lambda one: (one.prompt is not None, one.change.value)):
        groups.setdefault((one.target, one.class_name), []).append(one)
    return list(groups.values())


def erasure_clause(results: Results, rows: Sequence[Erasure]) -> str:
    """Say of one class's erasures who is shown how much less, over all prompts and in which."""
    who = people(results.targets[rows[0].target].attributes[0], rows[0].class_name)
    clauses = [f"{who} {_fall([one.change])} {_shares(one.change)}" for one in rows if one.prompt is None]
    if prompts := [(one.prompt, one.change) for one in rows if one.prompt is not None]:
        number = len(results.open_prompts(rows[0].target))
        where = f"in {len(prompts)} of {_counted(number, 'prompt')}"
        named = listed([f"{results.labels[p]} {_moved(change)}" for p, change in prompts], WORST)
        clauses.append(f"{where} {'they' if clauses else who} {_fall([change for _, change in prompts])} ({named})")
    return "; ".join(clauses)


def class_clauses(results: Results, variant: VariantResults) -> list[str]:
    """Say which classes of attributes not aimed at are shown more or less often, beyond doubt; not those erased.

    Of two classes the one that falls is enough.
    """
    over_all = {(one.target, one.class_name) for one in variant.erasures if one.prompt is None}
    found: list[tuple[float, str]] = []
    for name in not_aimed_at(results, variant):
        target, change = results.targets[name], results.figures(variant, name).change
        for label, row in zip(target.classes, change.classes if change else (), strict=bool(change)):
            moves = direction(row)
            if moves == "no clear change" or (name, label) in over_all or (len(target.classes) == 2 and row.low > 0):
                continue
            much = "less" if moves == "falls" else "more"
            who, where = people(target.attributes[0], label), where_open(results, name)
            found.append((row.value, f"{who} are shown {much} often {_shares(row)}{where}"))
    clauses = [clause for _, clause in sorted(found)]
    more = len(clauses) - NAMED
    return (
        clauses if more <= 0 else [*clauses[:NAMED], f"{_counted(more, 'other class', 'other classes')} changed too"]
    )


def shift_of(results: Results, variant: VariantResults, name: str) -> Shift | None:
    """Return how far a target moved from the original; None for the original, or where no image counts."""
    change = results.figures(variant, name).change
    return None if change is None or change.shift.value != change.shift.value else change.shift


def shift_clause(results: Results, variant: VariantResults, names: Sequence[str]) -> str:
    """Say how far attributes moved from the original, the farthest first, each beside what chance alone does."""
    shifts = {name: found for name in names if (found := shift_of(results, variant, name))}
    parts = [
        f"the {name} of {percent(shifts[name].value)}"
        + (
            f" ({percent(shifts[name].floor)})"
            if k
            else f" of the people shifts ({percent(shifts[name].floor)} by chance alone)"
        )
        for k, name in enumerate(sorted(shifts, key=lambda name: -shifts[name].value))
    ]
    where = " that does not name it," if any(where_open(results, name) for name in shifts) else ""
    return f"in the average prompt{where} {listed(parts, NAMED)}" if parts else ""


def is_lost(change: Estimate | None) -> bool:
    """Tell whether clearly more than ``KEPT_LOSS`` of what should stay is lost."""
    return change is not None and change.high < -KEPT_LOSS


def lost_prompts(results: Results, variant: VariantResults) -> list[int]:
    """Return the prompts that had what should stay and have lost it."""
    both = zip(results.original.kept_prompts or (), variant.kept_prompts or (), strict=True)
    return [p for p, (was, now) in enumerate(both) if was.value >= KEPT_LEAST > now.high]


def kept_clause(results: Results, variant: VariantResults) -> str:
    """Say how often what should stay is right, whether that clearly changed, and in which prompts it fell most."""
    now, before, change = variant.kept, results.original.kept, variant.kept_change
    if now is None or results.kept is None:
        return ""
    if change is None or before is None:
        return f"{results.kept} in {fine(now.value)} of the images"
    lost, moves = lost_prompts(results, variant), direction(change)
    numbers = f"{fine(before.value)} to {fine(now.value)} of the images"
    if moves == "falls":
        fell = _fell_most(results, variant, None)
        return f"{results.kept} falls from {numbers}" + (f", most of all for {fell}" if fell else "")
    said = (
        f"{results.kept} shows no clear change ({numbers})"
        if moves == "no clear change"
        else f"{results.kept} rises from {numbers}"
    )
    return f"{said}, but it falls for {_fell_most(results, variant, lost)}" if lost else said


def fit_losses(results: Results, variant: VariantResults, encoder: str) -> list[int]:
    """Return the prompts that images clearly fit less than the original's, those that lost most first.

    Clearly is where one interval lies wholly below the other: it asks for more than a paired change would.
    """
    both = list(zip(results.original.text_prompts[encoder], variant.text_prompts[encoder], strict=True))
    lost = [p for p, (was, now) in enumerate(both) if now.high < was.low]
    return sorted(lost, key=lambda p: both[p][1].value - both[p][0].value)


def fit_clause(results: Results, variant: VariantResults, encoder: str) -> str:
    """Say how well images fit their prompts as an encoder sees it, and which clearly fit less."""
    was, now = (one.text_prompts[encoder] for one in (results.original, variant))
    fell = [
        f"{results.labels[p]} ({number(was[p].value)} → {number(now[p].value)})"
        for p in fit_losses(results, variant, encoder)
    ]
    before, after = (number(one.text_alignment[encoder].value) for one in (results.original, variant))
    said = f"fit to the prompt goes from {before} to {after}"
    return f"{said}, and clearly falls for {listed(fell, WORST)}" if fell else said


def _fell_most(results: Results, variant: VariantResults, only: Sequence[int] | None) -> str:
    rows = list(zip(results.labels, results.original.kept_prompts or (), variant.kept_prompts or (), strict=False))
    chosen = [rows[p] for p in only] if only is not None else [row for row in rows if row[2].value < row[1].value]
    chosen.sort(key=lambda row: row[2].value - row[1].value)
    return listed([f"{label} ({percent(was.value)} → {percent(now.value)})" for label, was, now in chosen], WORST)


def _fall(changes: Sequence[ClassChange]) -> str:
    if all(change.after <= VANISHED * change.before for change in changes):
        return "all but vanish"
    return "are shown less than half as often as before"


def _shares(change: ClassChange) -> str:
    return f"({_moved(change)})"


def _moved(change: ClassChange) -> str:
    return f"{percent(change.before)} → {percent(change.after)}"


def _counted(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
