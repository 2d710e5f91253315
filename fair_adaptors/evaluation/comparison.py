"""Two evaluations side by side: which figures both have, whether they can be compared, and whether they differ."""

from collections.abc import Iterator
from dataclasses import dataclass

from fair_adaptors.adaptor.results import Estimate, Results, VariantResults, headline
from fair_adaptors.errors import ConfigError

from .harm import not_aimed_at, shift_of
from .wording import number

SAME = ("prompts", "images_per_prompt", "num_steps", "guidance_scale")
"""Settings in which two evaluations have to agree: each moves a bias, or its noise floor."""


@dataclass(frozen=True)
class Row:
    """A figure of both evaluations, as text, and whether their intervals lie apart."""

    variant: str
    figure: str
    first: str
    second: str
    said: str


def compare(first: Results, second: Results, *, names: tuple[str, str]) -> list[Row]:
    """Return the figures that both evaluations have of variants with the same name.

    Args:
        names: what errors call the two.

    Raises:
        ConfigError: they have other prompts, settings, classifiers or targets, or no variant in common.
    """
    differ = [name for name in SAME if getattr(first.settings, name) != getattr(second.settings, name)]
    differ += ["classifier"] if first.classifier != second.classifier else []
    shared = [name for name in first.targets if first.targets[name] == second.targets.get(name)]
    if differ or not shared:
        what = ", ".join(name.replace("_", " ") for name in differ) or "targets"
        raise ConfigError(
            f"{names[0]} and {names[1]} cannot be compared: they differ in {what}. Evaluate both with the same"
        )
    others = {variant.name: variant for variant in second.variants}
    pairs = [(variant, others[variant.name]) for variant in first.variants if variant.name in others]
    return [row for pair in pairs for name in shared for row in _rows(first, second, pair, name)]


def _rows(first: Results, second: Results, pair: tuple[VariantResults, VariantResults], name: str) -> Iterator[Row]:
    target = first.targets[name]
    both = [
        headline(results.figures(variant, name), target)
        for results, variant in zip((first, second), pair, strict=True)
    ]
    yield _row(pair[0].name, f"{name} {'bias' if target.is_uniform else 'distance from target'}", *both)
    if all(name in not_aimed_at(results, one) for results, one in zip((first, second), pair, strict=True)):
        shifts = [shift_of(results, one, name) for results, one in zip((first, second), pair, strict=True)]
        if shifts[0] and shifts[1]:
            yield _row(pair[0].name, f"{name} shift", shifts[0], shifts[1])


def _row(variant: str, figure: str, first: Estimate, second: Estimate) -> Row:
    apart = first.high < second.low or second.high < first.low
    return Row(variant, figure, _said(first), _said(second), "yes" if apart else "")


def _said(found: Estimate) -> str:
    return f"{number(found.value)} ({number(found.low)}–{number(found.high)})"
