"""What the script of an evaluation's report draws, small: numbers by column, prompt by prompt, in thousandths."""

import math
from functools import lru_cache
from typing import Any

from fair_adaptors.adaptor.results import Estimate, Figures, Results, TargetClasses, VariantResults, headline
from fair_adaptors.evaluation.harm import class_judgement
from fair_adaptors.evaluation.metrics import noise_floor, total_variation_floor
from fair_adaptors.evaluation.verdict import figure_name, largest

Triple = tuple[float | None, ...]
"""Value, low and high."""
_MARKS = {"better": "+", "worse": "-", "": " "}


def page_data(results: Results) -> dict[str, Any]:
    """Return, by classifier, target and variant, each prompt's headline figure: bias, or total variation.

    A target has what each prompt names of it, an empty text for nothing, and how many name nothing.
    """
    variants, targets = results.variants, results.targets
    return {
        "prompts": list(zip(results.labels, results.settings.prompts, strict=True)),
        "variants": [[variant.name, variant.adaptor, variant.weight] for variant in variants],
        "classifiers": results.classifiers,
        "encoders": results.encoders,
        "targets": [
            {
                "name": name,
                "classes": target.classes,
                "figure": figure_name(name, target),
                "most": largest(target),
                "aimed": [name in variant.aimed for variant in variants],
                "named": [results.named(name, p) for p in range(len(results.labels))] if results.expected else [],
                "open": len(results.open_prompts(name)),
            }
            for name, target in targets.items()
        ],
        "similarity": [[_triple(variant.preservation.get(name)) for variant in variants] for name in results.encoders],
        "rows": [
            [
                [_rows(variant.bias[classifier].get(name), target) for variant in variants]
                for name, target in targets.items()
            ]
            for classifier in results.classifiers
        ],
        "changes": [
            [[_changes(results, variant, name, classifier) for variant in variants[1:]] for name in targets]
            for classifier in results.classifiers
        ],
    }


def _changes(results: Results, variant: VariantResults, name: str, classifier: str) -> dict[str, Any] | None:
    """Return the change of each class's share, over all prompts and then in each, row by row and class by class.

    Shares and changes are in percent. What is better is marked +, what is worse -, see ``class_judgement``.
    """
    if (found := variant.bias[classifier].get(name)) is None or (change := found.change) is None:
        return None
    rows = [(None, change.classes), *enumerate(change.prompts)]
    every = [one for _, row in rows for one in row]
    return {
        "b": [_hundredth(one.before) for one in every],
        "a": [_hundredth(one.after) for one in every],
        "l": [_hundredth(one.low) for one in every],
        "h": [_hundredth(one.high) for one in every],
        "marks": "".join(
            _MARKS[class_judgement(results, variant, name, k, prompt=prompt, classifier=classifier)]
            for prompt, row in rows
            for k in range(len(row))
        ),
        "shift": [_finite(value) for value in (change.shift.value, change.shift.low, change.shift.high)],
        "floor": _finite(change.shift.floor),
    }


def _rows(figures: Figures | None, target: TargetClasses) -> dict[str, Any] | None:
    """Return one variant's prompts by column, and mean, floor and change; None where the classifier cannot tell."""
    if figures is None:
        return None
    mean, change = headline(figures, target), figures.change
    rows = [headline(row, target) for row in figures.prompts]
    counts = [row.images for row in figures.prompts]
    return {
        "v": [_thousandth(row.value) for row in rows],
        "l": [_thousandth(row.low) for row in rows],
        "h": [_thousandth(row.high) for row in rows],
        "n": counts[0] if len(set(counts)) == 1 else counts,
        "p": [round(100 * share) for row in figures.prompts for share in row.frequencies],
        "floors": {count: _thousandth(_floor(count, target)) for count in set(counts) if count},
        "mean": _triple(mean),
        "floor": _finite(mean.floor),
        "change": _triple(headline(change, target)) if change else None,
        "same": _finite(change.same_class) if change else None,
    }


@lru_cache(maxsize=4096)
def _floor(images: int, target: TargetClasses) -> float:
    if target.is_uniform:
        return noise_floor(images, len(target.shares))
    return total_variation_floor(images, target.shares)


def _triple(found: Estimate | None) -> Triple | None:
    if found is None or math.isnan(found.value):
        return None
    return _finite(found.value), _finite(found.low), _finite(found.high)


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value


def _hundredth(value: float) -> int | None:
    """Round as ``wording.percent`` does, so that 1 of 8 is 13 everywhere on the page."""
    return None if math.isnan(value) else round(100 * (value + math.copysign(1e-9, value)))


def _thousandth(value: float) -> int | None:
    return None if math.isnan(value) else round(1000 * value)
