"""What a card says of all that an adaptor changed beside its aim: the rows of its tables."""

from collections.abc import Iterator

from fair_adaptors.adaptor.results import Estimate, Results, VariantResults
from fair_adaptors.evaluation.harm import not_aimed_at, shift_of
from fair_adaptors.evaluation.obeyed import never_open, obeyed_rates
from fair_adaptors.evaluation.wording import direction, fine, number, signed

from .markdown import Row, plain, span

WORST = 5
"""Prompts that are named."""


def shifts(results: Results, after: VariantResults) -> Iterator[Row]:
    """Yield how far each attribute that was not aimed at moved from the original."""
    for name in not_aimed_at(results, after):
        if shift := shift_of(results, after, name):
            yield [name, span(shift), plain(number(shift.floor)), span(shift.floor_removed)]


def shares(results: Results, after: VariantResults) -> Iterator[Row]:
    """Yield how often each class was seen before and after, and the change of it from the same noise."""
    for name, target in results.targets.items():
        if never_open(results, name):
            continue
        was, now = (results.figures(variant, name) for variant in (results.original, after))
        aimed = name in after.aimed
        for k, label in enumerate(target.classes):
            before, found = was.frequencies[k], now.frequencies[k]
            change = span(now.change.classes[k] if now.change else None, signed)
            wanted = plain(fine(target.shares[k]) if target.declared else "–")
            yield [name, label, "yes" if aimed else "no", wanted, span(before, fine), span(found, fine), change]


def obeyed(results: Results, after: VariantResults) -> Iterator[Row]:
    """Yield how often the class that a prompt names is shown, before and after."""
    before = obeyed_rates(results, results.original)
    for name, rate in obeyed_rates(results, after).items():
        number = sum(bool(results.named(name, p)) for p in range(len(results.labels)))
        yield [name, plain(number), span(before[name], fine), span(rate, fine)]


def erasures(results: Results, after: VariantResults) -> Iterator[Row]:
    """Yield the classes that all but vanished, and where."""
    for one in after.erasures:
        where = plain("all prompts") if one.prompt is None else results.labels[one.prompt]
        yield [one.target, one.class_name, where, *_moved(one.change.before, one.change.after, one.change)]


def flips(after: VariantResults) -> Iterator[Row]:
    """Yield how often each attribute changes where another one did, and where it did not."""
    for one in after.flips:
        yield [one.attribute, one.beside, span(one.where_changed, fine), span(one.where_same, fine)]


def prompts(results: Results, after: VariantResults) -> list[Row]:
    """Return the prompts in which a class of what was not aimed at, nor named, changed most, beyond doubt."""
    found = []
    for name in not_aimed_at(results, after):
        change, classes = results.figures(after, name).change, results.targets[name].classes
        for p in results.open_prompts(name) if change else ():
            found += [
                (-abs(one.value), [results.labels[p], name, classes[k], *_moved(one.before, one.after, one)])
                for k, one in enumerate(change.prompts[p] if change else ())
                if direction(one) != "no clear change"
            ]
    return [row for _, row in sorted(found, key=lambda pair: pair[0])[:WORST]]


def kept(results: Results, after: VariantResults) -> list[Row]:
    """Return the prompts that lost most of what should stay."""
    both = zip(results.labels, results.original.kept_prompts or (), after.kept_prompts or (), strict=False)
    fell = [(now.value - was.value, [label, span(was, fine), span(now, fine)]) for label, was, now in both]
    return [row for _, row in sorted((one for one in fell if one[0] < 0), key=lambda pair: pair[0])[:WORST]]


def _moved(before: float, after: float, change: Estimate) -> Row:
    return [plain(fine(before)), plain(fine(after)), span(change, signed)]
