"""From what was seen to numbers: makes the results of an evaluation from its records."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from fair_adaptors.adaptor.record import RESULTS_SCHEMA, library_versions
from fair_adaptors.adaptor.results import (
    Agreement,
    Change,
    ClassShare,
    Erasure,
    Estimate,
    Figures,
    FlooredEstimate,
    PromptFigures,
    Results,
    Settings,
    TargetClasses,
    VariantResults,
)
from fair_adaptors.adaptor.results_file import from_json, to_json
from fair_adaptors.vision.types import Classifier

from . import beside, metrics
from .estimates import count_classes, estimate_mean, estimate_pooled, estimate_rate, estimate_values
from .spec import Evaluation, Instruments, Target, known_targets
from .store import Array, Record
from .variants import Variant

FAIR_DRAWS = 4000
"""Fair models drawn for the floor of the worst prompts, which has no closed form."""


def summarise(
    evaluation: Evaluation,
    variants: Sequence[Variant],
    instruments: Instruments,
    records: Mapping[str, Record],
    settings: Mapping[str, Any],
) -> Results:
    """Return the results: a function of the arguments, the same on every machine, as the file will hold them."""
    first = records[variants[0].name]
    measured = Results(
        schema=RESULTS_SCHEMA,
        settings=Settings(**settings),
        prompt_source=evaluation.prompts.source,
        labels=evaluation.prompts.labels,
        versions=library_versions(),
        classifiers=tuple(one.name for one in instruments.classifiers),
        encoders=tuple(one.name for one in instruments.encoders),
        face_detector=instruments.faces.name if instruments.faces else None,
        kept=instruments.kept.name if instruments.kept else None,
        calibration=instruments.calibrate(evaluation.prompts.labels) if instruments.calibrate else None,
        targets={
            target.name: TargetClasses(
                target.attributes,
                class_names(target, _first_that_knows(target, instruments).classes),
                target.shares,
                target.declared,
            )
            for target in evaluation.targets
        },
        variants=tuple(
            _of_variant(evaluation, instruments, variant, records[variant.name], first) for variant in variants
        ),
    )
    return from_json(to_json(measured))


def class_names(target: Target, classes: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the names of a target's classes; of several attributes, of their combinations."""
    return tuple(" ".join(names) for names in itertools.product(*(classes[name] for name in target.attributes)))


def _first_that_knows(target: Target, instruments: Instruments) -> Classifier:
    return next(one for one in instruments.classifiers if known_targets([target], one))


def _of_variant(
    evaluation: Evaluation, instruments: Instruments, variant: Variant, record: Record, original: Record
) -> VariantResults:
    bias = {
        classifier.name: {
            target.name: _figures(target, classifier.name, record, original)
            for target in known_targets(evaluation.targets, classifier)
        }
        for classifier in instruments.classifiers
    }
    obeyed = {one.name: _obeyed(evaluation, one.classes, one.name, record) for one in instruments.classifiers}
    compared = record is not original
    likeness = record.features if compared else {}
    return VariantResults(
        name=variant.name,
        summary=variant.summary,
        identity=variant.identity,
        adaptor=variant.adaptor,
        weight=variant.weight,
        no_face=estimate_rate(~record.found) if instruments.faces or not record.found.all() else None,
        kept=_kept(record),
        kept_change=_kept_change(record, original),
        bias=bias,
        agreement=tuple(_agreement(evaluation, instruments, record)),
        preservation={name: _cosine((values * original.features[name]).sum(-1)) for name, values in likeness.items()},
        text_alignment={name: _cosine(values) for name, values in record.text.items()},
        diversity={name: diversity(values) for name, values in record.features.items()},
        aimed=tuple(target.name for target in evaluation.targets if set(target.attributes) <= set(variant.aimed)),
        flips=tuple(beside.flips(_paired(evaluation, instruments, record, original))) if compared else (),
        erasures=_erasures(evaluation, instruments, variant, (record, original)) if compared else (),
        kept_prompts=None if record.right is None else tuple(map(_rate_of_prompt, record.right)),
        text_prompts={name: tuple(_cosine(row[None]) for row in values) for name, values in record.text.items()},
        obeyed=obeyed if evaluation.prompts.expected else None,
    )


def _figures(target: Target, classifier: str, record: Record, original: Record) -> Figures:
    """Return every figure of one target, as one classifier sees it."""
    number, aim = len(target.shares), np.array(target.shares)
    classes = record.classes(classifier, target.attributes)
    counts = count_classes(classes, number)
    valid = counts.sum(1)
    valid = valid[valid > 0]

    def mean(statistic: Callable[[Array], Array], bounds: tuple[float, float]) -> Estimate:
        return estimate_mean(counts, statistic, generator=_generator(), bounds=bounds)

    def floored(found: Estimate, of: Callable[[int], float]) -> FlooredEstimate:
        floor = metrics.mean_floor(of, valid) if len(valid) else math.nan
        return FlooredEstimate(found.value, found.low, found.high, floor)

    def share(k: int) -> ClassShare:
        found = mean(partial(_share, k), (0.0, 1.0))
        return ClassShare(found.value, found.low, found.high, target=float(aim[k]))

    squared = mean(metrics.squared_bias, (-1.0, 2 / number))
    worst = estimate_pooled(counts, _worst_bias, generator=_generator(), bounds=(0.0, 2 / number))
    return Figures(
        bias=floored(mean(metrics.bias, (0.0, 2 / number)), lambda n: metrics.noise_floor(n, number)),
        squared_bias=squared,
        floor_removed=Estimate(*(metrics.signed_root(value) for value in (squared.value, squared.low, squared.high))),
        total_variation=floored(
            mean(lambda seen: metrics.total_variation(seen, aim), (0.0, 1.0)),
            lambda n: metrics.total_variation_floor(n, aim),
        ),
        divergence=floored(
            mean(lambda seen: metrics.divergence(seen, aim), (0.0, math.inf)),
            lambda n: metrics.divergence_floor(n, aim),
        ),
        frequencies=tuple(share(k) for k in range(number)),
        worst_decile=FlooredEstimate(worst.value, worst.low, worst.high, _worst_floor(valid, number)),
        undetermined=estimate_rate(record.undetermined(classifier, target.attributes, metrics.CONFIDENCE)),
        prompts=tuple(_of_prompt(tuple(row), target.shares) for row in counts.tolist()),
        change=(
            None if record is original else _changes(original.classes(classifier, target.attributes), classes, aim)
        ),
    )


@lru_cache(maxsize=4096)
def _of_prompt(counts: tuple[int, ...], shares: tuple[float, ...]) -> PromptFigures:
    """Return what is told of one prompt. Many have the same counts, so each is reckoned once."""
    number, total = len(shares), sum(counts)

    def estimate(statistic: Callable[[Array], Array], most: float) -> Estimate:
        return estimate_mean([counts], statistic, generator=_generator(), bounds=(0.0, most))

    return PromptFigures(
        images=total,
        bias=estimate(metrics.bias, 2 / number),
        total_variation=estimate(lambda seen: metrics.total_variation(seen, shares), 1.0),
        frequencies=tuple(count / max(1, total) for count in counts),
    )


def _changes(before: Array, after: Array, aim: Array) -> Change:
    """Return after minus before, from the pairs of images that share their noise and have a face in both.

    Where fewer images have a face the noise floor is higher: figures of unlike numbers of images would seem to change.
    """
    number = len(aim)
    both = (before < number) & (after < number)
    before, after = (np.where(both, classes, number) for classes in (before, after))
    cells = count_classes(before * (number + 1) + after, (number + 1) ** 2)
    pairs = beside.pairs_of(before, after, number)

    def change(statistic: Callable[[Array], Array], most: float) -> Estimate:
        def difference(seen: Array) -> Array:
            table = seen.reshape(*seen.shape[:-1], number + 1, number + 1)
            return statistic(table.sum(-2)[..., :number]) - statistic(table.sum(-1)[..., :number])

        same = np.eye(number + 1).ravel() / number
        same[-1] = 0.0
        return estimate_mean(cells, difference, generator=_generator(), bounds=(-most, most), extra=same)

    return Change(
        bias=change(metrics.bias, 2 / number),
        total_variation=change(lambda seen: metrics.total_variation(seen, aim), 1.0),
        same_class=float((before == after)[both].mean()) if both.any() else math.nan,
        shift=beside.shift(pairs),
        classes=beside.class_changes(pairs),
        prompts=beside.prompt_changes(pairs),
    )


Paired = dict[str, tuple[Array, Array, int]]


def _paired(evaluation: Evaluation, instruments: Instruments, record: Record, original: Record) -> Paired:
    """Return of each attribute the classes before and after, and K, as the first classifier that knows it says."""
    found: Paired = {}
    for target in evaluation.targets:
        if len(target.attributes) == 1:
            name = _first_that_knows(target, instruments).name
            before, after = (one.classes(name, target.attributes) for one in (original, record))
            found[target.name] = before, after, len(target.shares)
    return found


def _erasures(
    evaluation: Evaluation, instruments: Instruments, variant: Variant, records: tuple[Record, Record]
) -> tuple[Erasure, ...]:
    single = {target.name: target for target in evaluation.targets if len(target.attributes) == 1}
    pairs = {name: beside.pairs_of(*seen) for name, seen in _paired(evaluation, instruments, *records).items()}
    names = {name: _first_that_knows(single[name], instruments).classes[name] for name in pairs}
    return beside.erasures(pairs, names, {name: single[name].shares for name in single if name in variant.aimed})


def _rate_of_prompt(right: Array) -> Estimate:
    """Return in what share of a prompt's images the right thing stayed; NaN where its label says nothing of it."""
    return estimate_rate(right[None]) if np.isfinite(right).all() else Estimate(math.nan, math.nan, math.nan)


def _kept_change(record: Record, original: Record) -> Estimate | None:
    """Return by how much the share of images in which the right thing stayed differs from the original's."""
    if record is original or record.right is None or original.right is None or _kept(record) is None:
        return None
    return estimate_values(record.right.astype(float) - original.right, generator=_generator(), bounds=(-1.0, 1.0))


def _kept(record: Record) -> Estimate | None:
    """Return in what share of images the right thing stayed, over the prompts whose label says what is right."""
    told = None if record.right is None else record.right[np.isfinite(record.right).all(1)]
    return None if told is None or not len(told) else estimate_rate(told)


def _agreement(evaluation: Evaluation, instruments: Instruments, record: Record) -> Iterator[Agreement]:
    """Return Cohen's κ of every two classifiers, over the images in which there is a face."""
    for one, other in itertools.combinations(instruments.classifiers, 2):
        for target in known_targets(known_targets(evaluation.targets, one), other):
            number = len(target.shares)
            pair = [record.classes(classifier.name, target.attributes) for classifier in (one, other)]
            cells = count_classes(np.where(record.found, pair[0] * number + pair[1], number**2), number**2)

            def kappa(seen: Array, number: int = number) -> Array:
                pooled = seen.sum(-2)
                return metrics.cohens_kappa(pooled.reshape(*pooled.shape[:-1], number, number))

            found = estimate_pooled(cells, kappa, generator=_generator(), bounds=(-1.0, 1.0))
            yield Agreement((one.name, other.name), target.name, found)


def diversity(features: Array) -> Estimate:
    """Return the mean distance 1 − cos of two images of a prompt, from unit features [P, n, D]: 0 if all are alike."""
    count = features.shape[1]
    if count < 2:
        return Estimate(math.nan, math.nan, math.nan)
    alike = (np.einsum("pid,pd->pi", features, features.sum(1)) - (features**2).sum(-1)) / (count - 1)
    return estimate_values(1 - alike, generator=_generator(), images_weight=2.0, bounds=(0.0, 2.0))


def _cosine(values: Array) -> Estimate:
    return estimate_values(values, generator=_generator(), bounds=(-1.0, 1.0))


def _obeyed(
    evaluation: Evaluation, classes: Mapping[str, Sequence[str]], classifier: str, record: Record
) -> dict[str, Estimate]:
    """Return in what share of images the attribute that a prompt names is seen; an image without a face is not."""
    rates = {}
    for attribute, names in classes.items():
        rows = [index for index, wanted in enumerate(evaluation.prompts.expected) if attribute in wanted]
        if rows:
            wanted = [list(names).index(evaluation.prompts.expected[index][attribute]) for index in rows]
            seen = record.classes(classifier, [attribute])[rows]
            rates[attribute] = estimate_rate(seen == np.array(wanted)[:, None])
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


def _generator() -> np.random.Generator:
    """Return the bootstrap's source: the same for every figure, so that one does not depend on what is beside it."""
    return np.random.default_rng(0)
