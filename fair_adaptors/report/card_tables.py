"""What a card says of an evaluation: the rows of its tables, and the metrics of its metadata."""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from fair_adaptors.adaptor.record import AdaptorRecord
from fair_adaptors.adaptor.results import Estimate, FlooredEstimate, Results, TargetClasses, VariantResults, headline
from fair_adaptors.adaptor.results_file import to_json, variant_of
from fair_adaptors.evaluation.verdict import verdicts
from fair_adaptors.evaluation.wording import fine, number, signed

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

Row = list[str]


class Markdown(str):
    """Text that is Markdown already, and is printed as it is."""


def trained_figures(
    record: AdaptorRecord, results: Results
) -> Iterator[tuple[str, TargetClasses, FlooredEstimate, FlooredEstimate]]:
    """Yield name, target, and the headline figure before and after, of each thing that an adaptor was trained for."""
    after = variant_of(record, results)
    for name, target in results.targets.items():
        if _is_trained(record, target):
            was, now = (results.figures(variant, name) for variant in (results.original, after))
            yield name, target, headline(was, target), headline(now, target)


def figures(record: AdaptorRecord, results: Results) -> dict[str, Any]:
    """Return the rows of the card's tables, each a list of cells."""
    before, after = results.original, variant_of(record, results)
    return {
        "verdict": next(said.text for said in verdicts(results) if said.name == after.name),
        "settings": results.settings,
        "num_prompts": _plain(len(results.labels)),
        "classifiers": results.classifiers,
        "face_detector": results.face_detector,
        "evenness": [
            row for classifier in results.classifiers for row in _evenness(record, results, classifier, before, after)
        ],
        "worst": list(_worst(record, results, before, after)),
        "shares": list(_shares(results, before, after)),
        "kept": list(_kept(results, before, after)),
        "limits": list(_limits(results)),
        "agreement": [[" and ".join(row.classifiers), row.target, _range(row.kappa)] for row in after.agreement],
    }


def metrics(record: AdaptorRecord, results: Results) -> "list[EvalResult]":
    """Return the figures as the Hub's metadata has them, each with its interval, floor and what it was before."""
    from huggingface_hub import EvalResult

    prompt_set = line(results.settings.prompt_set)
    return [
        EvalResult(
            task_type="text-to-image",
            dataset_type=prompt_set,
            dataset_name=prompt_set,
            metric_type="bias" if target.is_uniform else "total_variation",
            metric_name=f"{line(name)} {'bias' if target.is_uniform else 'total variation'}",
            metric_value=after.value,
            metric_args=to_json({"low": after.low, "high": after.high, "floor": after.floor, "before": before.value}),
        )
        for name, target, before, after in trained_figures(record, results)
        if not math.isnan(after.value)
    ]


def _evenness(
    record: AdaptorRecord, results: Results, classifier: str, before: VariantResults, after: VariantResults
) -> Iterator[Row]:
    for name, now in after.bias[classifier].items():
        was, target = before.bias[classifier][name], results.targets[name]
        yield [
            f"{name} {'bias' if target.is_uniform else 'off target'}",
            "yes" if _is_trained(record, target) else "no",
            classifier,
            _range(headline(was, target)),
            _range(headline(now, target)),
            _range(headline(now.change, target) if now.change else None, signed),
            _plain(number(headline(now, target).floor)),
            _plain(" → ".join(fine(found.undetermined.value) for found in (was, now))),
        ]


def _worst(record: AdaptorRecord, results: Results, before: VariantResults, after: VariantResults) -> Iterator[Row]:
    for name, target in results.targets.items():
        if _is_trained(record, target):
            was, now = (results.figures(variant, name).worst_decile for variant in (before, after))
            yield [f"{name} bias", _range(was), _range(now), _plain(number(now.floor))]


def _shares(results: Results, before: VariantResults, after: VariantResults) -> Iterator[Row]:
    for name, target in results.targets.items():
        was, now = (results.figures(variant, name).frequencies for variant in (before, after))
        for k, label in enumerate(target.classes):
            yield [name, label, _plain(fine(target.shares[k])), _range(was[k], fine), _range(now[k], fine)]


def _kept(results: Results, before: VariantResults, after: VariantResults) -> Iterator[Row]:
    if results.kept is not None and after.kept is not None:
        yield [results.kept, _range(before.kept, fine), _range(after.kept, fine)]
    if after.no_face is not None:
        yield ["no face", _range(before.no_face, fine), _range(after.no_face, fine)]
    for name, found in after.preservation.items():
        yield [f"likeness to the original's image ({name}, cosine)", "–", _range(found)]
    for label, was, now in (
        ("fit to the prompt", before.text_alignment, after.text_alignment),
        ("diversity", before.diversity, after.diversity),
    ):
        for name, found in now.items():
            yield [f"{label} ({name})", _range(was[name]), _range(found)]


def _limits(results: Results) -> Iterator[Row]:
    for classifier, found in (results.calibration or {}).items():
        for name, row in found.items():
            numbers = [number(row.true), number(row.measured), signed(row.error)]
            yield [classifier, name, *map(_plain, numbers)]


def _is_trained(record: AdaptorRecord, target: TargetClasses) -> bool:
    return set(target.attributes) <= set(record.attributes)


def _range(found: Estimate | None, say: Callable[[float], str] = number) -> Markdown:
    return Markdown("–" if found is None else f"{say(found.value)} ({say(found.low)} to {say(found.high)})")


def _plain(value: object) -> Markdown:
    return Markdown(value)


def line(text: object) -> str:
    """Return a stranger's text as one line that can be shown."""
    return "".join(letter for letter in " ".join(str(text).split()) if letter.isprintable())[:2000]
