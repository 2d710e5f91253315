"""From what was seen to numbers: makes the results of an evaluation from its records."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fair_adaptors.adaptor.record import RESULTS_SCHEMA, library_versions
from fair_adaptors.adaptor.results import (
    Agreement,
    Erasure,
    Estimate,
    Results,
    TargetClasses,
    VariantResults,
    WithinClass,
)
from fair_adaptors.adaptor.results_file import from_json, to_json
from fair_adaptors.adaptor.results_settings import Settings
from fair_adaptors.files import public_name
from fair_adaptors.vision.types import Classifier

from . import beside, metrics, variety
from .estimates import count_classes, estimate_pooled, estimate_rate, estimate_values
from .figures import UNTOLD, figures
from .spec import Evaluation, Instruments, Target, known_targets
from .store import Array, Record
from .variants import Variant


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
        settings=Settings(**{**settings, "base": public_name(settings["base"])}),
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
        expected=evaluation.prompts.expected,
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
            target.name: figures(
                target,
                record,
                original=original,
                classifier=classifier.name,
                leaves_open=np.array(evaluation.prompts.leaves_open(target.attributes)),
            )
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
        diversity={name: variety.diversity(values) for name, values in record.features.items()},
        aimed=tuple(target.name for target in evaluation.targets if set(target.attributes) <= set(variant.aimed)),
        flips=tuple(beside.flips(_paired(evaluation, instruments, record, original))) if compared else (),
        erasures=_erasures(evaluation, instruments, variant, (record, original)) if compared else (),
        kept_prompts=None if record.right is None else tuple(map(_rate_of_prompt, record.right)),
        text_prompts={name: tuple(_cosine(row[None]) for row in values) for name, values in record.text.items()},
        obeyed=obeyed if evaluation.prompts.expected else None,
        diversity_change=(
            {name: variety.diversity_change(original.features[name], values) for name, values in likeness.items()}
            if compared
            else None
        ),
        within_class=_within_class(evaluation, instruments, record, original),
    )


Paired = dict[str, tuple[Array, Array, int]]


def _paired(evaluation: Evaluation, instruments: Instruments, record: Record, original: Record) -> Paired:
    """Return of each attribute the classes before and after, and K, as the first classifier that knows it says.

    Images of a prompt that names a class of it count for nothing, like those without a face: their class is K.
    """
    found: Paired = {}
    for target in evaluation.targets:
        if len(target.attributes) == 1:
            name = _first_that_knows(target, instruments).name
            leaves_open, number = np.array(evaluation.prompts.leaves_open(target.attributes)), len(target.shares)
            before, after = (
                np.where(leaves_open[:, None], one.classes(name, target.attributes), number)
                for one in (original, record)
            )
            found[target.name] = before, after, number
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
    return estimate_rate(right[None]) if np.isfinite(right).all() else UNTOLD


def _kept_change(record: Record, original: Record) -> Estimate | None:
    """Return by how much the share of images in which the right thing stayed differs from the original's."""
    if record is original or record.right is None or original.right is None or _kept(record) is None:
        return None
    return estimate_values(record.right.astype(float) - original.right, bounds=(-1.0, 1.0))


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

            found = estimate_pooled(cells, kappa, bounds=(-1.0, 1.0))
            yield Agreement((one.name, other.name), target.name, found)


def _within_class(
    evaluation: Evaluation, instruments: Instruments, record: Record, original: Record
) -> dict[str, dict[str, WithinClass]]:
    """Return by encoder, and for every attribute as the first classifier that knows it sees it, the variety within."""
    seen = {
        target.name: (_first_that_knows(target, instruments).name, target)
        for target in evaluation.targets
        if len(target.attributes) == 1
    }
    return {
        encoder: {
            name: variety.within_class(
                (original.features[encoder], original.classes(classifier, target.attributes)),
                (features, record.classes(classifier, target.attributes)),
                len(target.shares),
                compared=record is not original,
            )
            for name, (classifier, target) in seen.items()
        }
        for encoder, features in record.features.items()
    }


def _cosine(values: Array) -> Estimate:
    return estimate_values(values, bounds=(-1.0, 1.0))


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
