"""From what was seen to numbers: the content of ``results.json`` (its schema is in docs/evaluation.md)."""

import csv
import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..formats import RESULTS_SCHEMA, library_versions
from . import metrics
from .estimates import (
    Estimate,
    count_classes,
    estimate_mean,
    estimate_pooled,
    estimate_rate,
    estimate_values,
)
from .instruments import Instruments, known_targets
from .records import Array, Record
from .variants import Variant

if TYPE_CHECKING:
    from .evaluate import Evaluation, Target

FAIR_DRAWS = 4000
"""Fair models drawn for the floor of the worst prompts, which has no closed form."""


def summarise(
    evaluation: "Evaluation",
    variants: Sequence[Variant],
    instruments: Instruments,
    records: Mapping[str, Record],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the content of ``results.json``: a function of its arguments, the same on every machine."""
    first = records[variants[0].name]
    judge = instruments.classifiers[0]
    return _plain(
        {
            "schema": RESULTS_SCHEMA,
            "settings": settings,
            "prompt_source": evaluation.prompts.source,
            "labels": list(evaluation.prompts.labels),
            "versions": library_versions(),
            "classifiers": [one.name for one in instruments.classifiers],
            "encoders": [one.name for one in instruments.encoders],
            "face_detector": instruments.faces.name if instruments.faces else None,
            "kept": instruments.kept.name if instruments.kept else None,
            "calibration": instruments.calibrate(evaluation.prompts.labels) if instruments.calibrate else None,
            "targets": {
                target.name: {
                    "attributes": list(target.attributes),
                    "classes": class_names(target, judge.classes),
                    "shares": list(target.shares),
                }
                for target in evaluation.targets
            },
            "variants": [
                {
                    "name": variant.name,
                    "summary": variant.summary,
                    "identity": variant.identity,
                    "adaptor": variant.adaptor,
                    "weight": variant.weight,
                    **_of_variant(evaluation, instruments, records[variant.name], first),
                }
                for variant in variants
            ],
        }
    )


def class_names(target: "Target", classes: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the names of a target's classes; of several attributes, of their combinations."""
    return [" ".join(names) for names in itertools.product(*(classes[name] for name in target.attributes))]


def _of_variant(
    evaluation: "Evaluation", instruments: Instruments, record: Record, original: Record
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "no_face": asdict(estimate_rate(~record.found)) if instruments.faces or not record.found.all() else None,
        "kept": _kept(record),
        "kept_change": _kept_change(record, original),
        "bias": {
            judge.name: {
                target.name: _figures(target, judge.name, record, original)
                for target in known_targets(evaluation.targets, judge)
            }
            for judge in instruments.classifiers
        },
        "agreement": _agreement(evaluation, instruments, record),
        "preservation": {
            name: _cosine((values * original.features[name]).sum(-1))
            for name, values in record.features.items()
            if record is not original
        },
        "text_alignment": {name: _cosine(values) for name, values in record.text.items()},
        "diversity": {name: asdict(diversity(values)) for name, values in record.features.items()},
    }
    if evaluation.prompts.expected:
        found["obeyed"] = {judge.name: _obeyed(evaluation, judge.classes, judge.name, record)
                           for judge in instruments.classifiers}  # fmt: skip
    return found


def _figures(target: "Target", judge: str, record: Record, original: Record) -> dict[str, Any]:
    """Return every figure of one target, as one classifier sees it."""
    number, aim = len(target.shares), np.array(target.shares)
    classes = record.classes(judge, target.attributes)
    counts = count_classes(classes, number)
    valid = counts.sum(1)
    valid = valid[valid > 0]

    def mean(statistic: Callable[[Array], Array], bounds: tuple[float, float]) -> Estimate:
        return estimate_mean(counts, statistic, generator=_generator(), bounds=bounds)

    def floor(of: Callable[[int], float]) -> float:
        return metrics.mean_floor(of, valid) if len(valid) else math.nan

    squared = mean(metrics.squared_bias, (-1.0, 2 / number))
    figures = {
        "bias": {
            **asdict(mean(metrics.bias, (0.0, 2 / number))), "floor": floor(lambda n: metrics.noise_floor(n, number))
        },
        "squared_bias": asdict(squared),
        "floor_removed": {key: metrics.signed_root(value) for key, value in asdict(squared).items()},
        "total_variation": {
            **asdict(mean(lambda seen: metrics.total_variation(seen, aim), (0.0, 1.0))),
            "floor": floor(lambda n: metrics.total_variation_floor(n, aim)),
        },
        "divergence": {
            **asdict(mean(lambda seen: metrics.divergence(seen, aim), (0.0, math.inf))),
            "floor": floor(lambda n: metrics.divergence_floor(n, aim)),
        },
        "frequencies": [
            {**asdict(mean(partial(_share, k), (0.0, 1.0))), "target": float(aim[k])} for k in range(number)
        ],
        "worst_decile": {
            **asdict(estimate_pooled(counts, _worst_bias, generator=_generator(), bounds=(0.0, 2 / number))),
            "floor": _worst_floor(valid, number),
        },
        "undetermined": asdict(estimate_rate(record.undetermined(judge, target.attributes, metrics.CONFIDENCE))),
        "prompts": [_of_prompt(tuple(row), target.shares) for row in counts.tolist()],
    }  # fmt: skip
    if record is not original:
        figures["change"] = _changes(original.classes(judge, target.attributes), classes, aim)
    return figures


@lru_cache(maxsize=4096)
def _of_prompt(counts: tuple[int, ...], shares: tuple[float, ...]) -> dict[str, Any]:
    """Return what is told of one prompt. Many have the same counts, so each is reckoned once."""
    number, total = len(shares), sum(counts)

    def estimate(statistic: Callable[[Array], Array], most: float) -> dict[str, float]:
        return asdict(estimate_mean([counts], statistic, generator=_generator(), bounds=(0.0, most)))

    return {
        "images": total,
        "bias": estimate(metrics.bias, 2 / number),
        "total_variation": estimate(lambda seen: metrics.total_variation(seen, shares), 1.0),
        "frequencies": [count / max(1, total) for count in counts],
    }


def _changes(before: Array, after: Array, aim: Array) -> dict[str, Any]:
    """Return after minus before, from the pairs of images that share their noise and have a face in both.

    Where fewer images have a face the noise floor is higher: figures of unlike numbers of images would seem to change.
    """
    number = len(aim)
    both = (before < number) & (after < number)
    before, after = (np.where(both, classes, number) for classes in (before, after))
    cells = count_classes(before * (number + 1) + after, (number + 1) ** 2)

    def change(statistic: Callable[[Array], Array], most: float) -> dict[str, float]:
        def difference(seen: Array) -> Array:
            table = seen.reshape(*seen.shape[:-1], number + 1, number + 1)
            return statistic(table.sum(-2)[..., :number]) - statistic(table.sum(-1)[..., :number])

        same = np.eye(number + 1).ravel() / number
        same[-1] = 0.0
        return asdict(estimate_mean(cells, difference, generator=_generator(), bounds=(-most, most), extra=same))

    return {
        "bias": change(metrics.bias, 2 / number),
        "total_variation": change(lambda seen: metrics.total_variation(seen, aim), 1.0),
        "same_class": float((before == after)[both].mean()) if both.any() else math.nan,
    }


def _kept_change(record: Record, original: Record) -> dict[str, float] | None:
    """Return by how much the share of images in which the right thing stayed differs from the original's."""
    if record is original or record.right is None or original.right is None or _kept(record) is None:
        return None
    return asdict(
        estimate_values(record.right.astype(float) - original.right, generator=_generator(), bounds=(-1.0, 1.0))
    )


def _kept(record: Record) -> dict[str, float] | None:
    """Return in what share of images the right thing stayed, over the prompts whose label says what is right."""
    told = None if record.right is None else record.right[np.isfinite(record.right).all(1)]
    return None if told is None or not len(told) else asdict(estimate_rate(told))


def _agreement(evaluation: "Evaluation", instruments: Instruments, record: Record) -> list[dict[str, Any]]:
    """Return Cohen's κ of every two classifiers, over the images in which there is a face."""
    rows = []
    for one, other in itertools.combinations(instruments.classifiers, 2):
        for target in known_targets(known_targets(evaluation.targets, one), other):
            number = len(target.shares)
            pair = [record.classes(judge.name, target.attributes) for judge in (one, other)]
            cells = count_classes(np.where(record.found, pair[0] * number + pair[1], number**2), number**2)

            def kappa(seen: Array, number: int = number) -> Array:
                pooled = seen.sum(-2)
                return metrics.cohens_kappa(pooled.reshape(*pooled.shape[:-1], number, number))

            found = estimate_pooled(cells, kappa, generator=_generator(), bounds=(-1.0, 1.0))
            rows.append({"classifiers": [one.name, other.name], "target": target.name, "kappa": asdict(found)})
    return rows


def diversity(features: Array) -> Estimate:
    """Return the mean distance 1 − cos of two images of a prompt, from unit features [P, n, D]: 0 if all are alike."""
    count = features.shape[1]
    if count < 2:
        return Estimate(math.nan, math.nan, math.nan)
    alike = (np.einsum("pid,pd->pi", features, features.sum(1)) - (features**2).sum(-1)) / (count - 1)
    return estimate_values(1 - alike, generator=_generator(), images_weight=2.0, bounds=(0.0, 2.0))


def _cosine(values: Array) -> dict[str, float]:
    return asdict(estimate_values(values, generator=_generator(), bounds=(-1.0, 1.0)))


def _obeyed(
    evaluation: "Evaluation", classes: Mapping[str, Sequence[str]], judge: str, record: Record
) -> dict[str, Any]:
    """Return in what share of images the attribute that a prompt names is seen; an image without a face is not."""
    rates = {}
    for attribute, names in classes.items():
        rows = [index for index, wanted in enumerate(evaluation.prompts.expected) if attribute in wanted]
        if rows:
            wanted = [list(names).index(evaluation.prompts.expected[index][attribute]) for index in rows]
            seen = record.classes(judge, [attribute])[rows]
            rates[attribute] = asdict(estimate_rate(seen == np.array(wanted)[:, None]))
    return rates


def _share(k: int, counts: Array) -> Array:
    return metrics.normalise(counts)[..., k]


def _worst_bias(counts: Array) -> Array:
    return metrics.worst_decile(metrics.bias(counts))


def _worst_floor(valid: Array, number: int) -> float:
    """Return what the worst tenth of the prompts scores on average where every prompt is fair."""
    if not len(valid):
        return math.nan
    drawn = _generator().multinomial(valid, [1 / number] * number, size=(FAIR_DRAWS, len(valid)))
    return float(_worst_bias(drawn).mean())


def write_csv(
    path: Path, evaluation: "Evaluation", variants: Sequence[Variant], records: Mapping[str, Record]
) -> None:
    """Write a row per image: what it was made of, what was seen, and how sure each classifier is."""
    from .folder import image_path

    first = records[variants[0].name]
    seen = [(judge, name) for judge, attributes in first.probabilities.items() for name in attributes]
    columns = ["variant", "prompt", "image", "label", "seed", "file", "face", "left", "top", "right", "bottom"]
    for judge, name in seen:
        number = first.probabilities[judge][name].shape[-1]
        columns += [f"{judge} {name}", *(f"{judge} {name} p{k}" for k in range(number))]
    columns += [f"{name} similarity" for name in first.features]
    aside = path.with_name(f".{path.name}")
    with aside.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        for variant in variants:
            record = records[variant.name]
            for p, i in np.ndindex(record.found.shape):
                file = image_path(variant, p, i) if evaluation.keep_images else ""
                row = [plain_cell(variant.name), p, i, plain_cell(evaluation.prompts.labels[p])]
                row += [record.seeds[p, i], file]
                row += [int(record.found[p, i]), *(f"{value:.1f}" for value in record.boxes[p, i])]
                for judge, name in seen:
                    probs = record.probabilities[judge][name][p, i]
                    row += [int(probs.argmax()), *(f"{value:.4f}" for value in probs)]
                alike = {name: values[p, i] @ first.features[name][p, i] for name, values in record.features.items()}
                row += [f"{cosine:.4f}" for cosine in alike.values()]
                writer.writerow(row)
    os.replace(aside, path)


def plain_cell(text: str) -> str:
    """Return text that a spreadsheet does not take for a formula: with an apostrophe in front where it would."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "'")) else text


def _generator() -> np.random.Generator:
    """Return the bootstrap's source: the same for every figure, so that one does not depend on what is beside it."""
    return np.random.default_rng(0)


def _plain(value: Any) -> Any:
    """Return what JSON can hold: six digits; None for what is not a finite number."""
    if isinstance(value, dict | Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return round(float(value), 6) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
