"""Bounds that the results of an evaluation have to keep, for whoever runs it in CI: read from words, and checked."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fair_adaptors.adaptor.results import Results, VariantResults, headline
from fair_adaptors.errors import ConfigError, did_you_mean

from .harm import harms
from .obeyed import never_open
from .spec import Evaluation
from .variants import Variant
from .verdict import figure_name, largest


@dataclass(frozen=True)
class Bounds:
    """What the results have to keep.

    Attributes:
        most: by the target's name, the most that its headline figure may be.
        no_harm: whether a harm beside the aim counts as a failure, too.
    """

    most: Mapping[str, float]
    no_harm: bool = False


NO_BOUNDS = Bounds({})


def read_bounds(
    fail_above: Sequence[str], evaluation: Evaluation, *, variants: Sequence[Variant], fail_on_harm: bool = False
) -> Bounds:
    """Read bounds from words.

    Args:
        fail_above: texts such as ``gender=0.3`` or ``gender × tone=0.1``.
        evaluation: what is counted, in which prompts.
        variants: what is compared with the original.
        fail_on_harm: whether a harm beside the aim counts as a failure, too.

    Raises:
        ConfigError: an unknown or repeated name, no number, a bound that is negative or that no figure can exceed, a
            figure that there is none of because every prompt names the class, or no variant that could do harm.
    """
    if fail_on_harm and not variants:
        raise ConfigError("`fail_on_harm` compares with the original model: name an `adaptor` or a `baseline` as well")
    known = {target.name: target for target in evaluation.targets}
    most: dict[str, float] = {}
    for text in fail_above:
        name, _, bound = (part.strip() for part in text.rpartition("="))
        if not name:
            raise ConfigError(f"`fail_above` {text!r}: write it as NAME=NUMBER such as gender=0.3")
        if name not in known:
            raise ConfigError(
                f"`fail_above` {text!r}: nothing called {name!r} is measured.{did_you_mean(name, known)} Measured:"
                f" {', '.join(known)}"
            )
        if name in most:
            raise ConfigError(f"`fail_above` is given twice for {name}")
        if not any(evaluation.prompts.leaves_open(known[name].attributes)):
            raise ConfigError(
                f"`fail_above` {text!r}: every prompt names the {' or '.join(known[name].attributes)}, so there is no"
                " bias of it. `fail_on_harm` tells whether what prompts name is still shown; or take prompts that do"
                " not name it"
            )
        most[name] = _number(text, bound, largest(known[name]))
    return Bounds(most, fail_on_harm)


def failures(results: Results, bounds: Bounds) -> list[str]:
    """Return a sentence for each bound that does not hold: what was measured, its interval and the bound.

    The bounds are for every variant but the original; for the original if there is no other. A value above its bound
    is a failure also where its interval includes the bound, and so is a figure that could not be measured.
    """
    found = []
    for variant in results.variants[1:] or results.variants:
        wrong = [_too_high(results, variant, name, most) for name, most in bounds.most.items()]
        wrong += [harm.clause for harm in harms(results, variant)] if bounds.no_harm else []
        found += [f"{variant.name}: {said}" for said in wrong if said]
    return found


def _number(text: str, bound: str, most: float) -> float:
    try:
        number = float(bound)
    except ValueError:
        number = math.nan
    if not 0 <= number < most:
        raise ConfigError(
            f"`fail_above` {text!r}: the bound must be a number from 0 to less than {most:.3g}, which is the most that"
            " can be measured here"
        )
    return number


def _too_high(results: Results, variant: VariantResults, name: str, most: float) -> str:
    target = results.targets[name]
    found, what = headline(results.figures(variant, name), target), figure_name(name, target)
    if reason := never_open(results, name):
        return f"there is no {what}, because {reason}: nothing keeps the bound of {most:g}"
    if math.isnan(found.value):
        return f"{what} could not be measured, so nobody knows whether it keeps the bound of {most:g}"
    if found.value <= most:
        return ""
    measured = f"{what} is {found.value:.3f} (95 % interval {found.low:.3f} to {found.high:.3f})"
    unsure = "; the interval includes the bound, so it may be chance: more prompts or images would tell"
    return f"{measured}, above the bound of {most:g}{unsure if found.low <= most else ''}"
