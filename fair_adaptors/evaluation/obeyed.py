"""Prompts that name a class: how often their images show it, and which prompts leave a target open, in words."""

from collections.abc import Sequence

from fair_adaptors.adaptor.results import Estimate, Results, TargetClasses, VariantResults

from .wording import fine


def obeyed_rates(results: Results, variant: VariantResults) -> dict[str, Estimate]:
    """Return how often what prompts name is shown, by attribute, as the first classifier that knows it sees it."""
    found: dict[str, Estimate] = {}
    for classifier in results.classifiers:
        found = {**(variant.obeyed or {}).get(classifier, {}), **found}
    return dict(sorted(found.items()))


def disobeyed_attributes(results: Results, variant: VariantResults) -> list[str]:
    """Return the attributes whose class, where prompts name one, is shown clearly less often than by the original.

    Clearly is where one interval lies wholly below the other: it asks for more than a paired change would.
    """
    both = zip(*(obeyed_rates(results, one).items() for one in (results.original, variant)), strict=True)
    return [name for (name, was), (_, now) in both if now.high < was.low]


def obeyed_clause(results: Results, variant: VariantResults, names: Sequence[str]) -> str:
    """Say of attributes in what share of images a class is shown where the prompt names it; empty where none does."""
    clauses = []
    for name, now in obeyed_rates(results, variant).items():
        if name in names:
            is_open = name not in results.targets or results.open_prompts(name)
            where = f"where the prompt names the {name}," if is_open else f"every prompt names the {name}, and"
            was = obeyed_rates(results, results.original)[name]
            before = "" if variant is results.original else f" ({fine(was.value)} before)"
            clauses.append(f"{where} {fine(now.value)} of the images show it{before}")
    return "; ".join(clauses)


def never_open(results: Results, name: str) -> str:
    """Say why a target has no bias, where every prompt names a class of it; empty where some prompt names none."""
    return "" if results.open_prompts(name) else f"every prompt names the {_attributes(results.targets[name])}"


def where_open(results: Results, name: str) -> str:
    """Say in which prompts a target's figures are counted, to follow a figure; empty where it is in all of them."""
    number = len(results.open_prompts(name))
    if number in (0, len(results.labels)):
        return ""
    prompts = "prompt that names" if number == 1 else f"{number} prompts that name"
    return f" in the {prompts} no {_attributes(results.targets[name])}"


def _attributes(target: TargetClasses) -> str:
    return " or ".join(target.attributes)
