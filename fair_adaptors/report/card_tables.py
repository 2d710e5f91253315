"""What a card says of an evaluation: the rows of its tables, and the metrics of its metadata."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fair_adaptors.adaptor.record import AdaptorRecord
from fair_adaptors.adaptor.results import Estimate, FlooredEstimate, Results, TargetClasses, VariantResults, headline
from fair_adaptors.adaptor.results_file import to_json, variant_of
from fair_adaptors.evaluation.harm import not_aimed_at, shift_of
from fair_adaptors.evaluation.obeyed import never_open, obeyed_rates, where_open
from fair_adaptors.evaluation.variety_words import variety_rows
from fair_adaptors.evaluation.verdict import smallest_share, verdicts
from fair_adaptors.evaluation.wording import fine, number, signed

from . import card_beside
from .markdown import Row, line, plain, span

if TYPE_CHECKING:
    from huggingface_hub import EvalResult


def trained_figures(
    record: AdaptorRecord, results: Results
) -> Iterator[tuple[str, TargetClasses, FlooredEstimate, FlooredEstimate]]:
    """Yield name, target, and the headline figure before and after, of each thing that an adaptor was trained for.

    What every prompt names has none, and is left out.
    """
    after = variant_of(record, results)
    for name, target in results.targets.items():
        if _is_trained(record, target) and not never_open(results, name):
            was, now = (results.figures(variant, name) for variant in (results.original, after))
            yield name, target, headline(was, target), headline(now, target)


def figures(record: AdaptorRecord, results: Results) -> dict[str, Any]:
    """Return the rows of the card's tables, each a list of cells."""
    before, after = results.original, variant_of(record, results)
    return {
        "said": next(said for said in verdicts(results) if said.name == after.name),
        "settings": results.settings,
        "num_prompts": plain(len(results.labels)),
        "classifiers": results.classifiers,
        "face_detector": results.face_detector,
        "evenness": [
            row for classifier in results.classifiers for row in _evenness(record, results, classifier, before, after)
        ],
        "worst": list(_worst(record, results, before, after)),
        "shifts": list(card_beside.shifts(results, after)),
        "obeyed": list(card_beside.obeyed(results, after)),
        "shares": list(card_beside.shares(results, after)),
        "erasures": list(card_beside.erasures(results, after)),
        "flips": list(card_beside.flips(after)),
        "prompts": card_beside.prompts(results, after),
        "kept": list(_kept(results, before, after)),
        "variety": [
            [
                row.what,
                *map(plain, map(row.write, (row.change.before, row.change.after))),
                span(row.change, row.write_change),
                plain(number(row.fair)),
            ]
            for row in variety_rows(results, after)
            if row.change
        ],
        "kept_prompts": card_beside.kept(results, after),
        "limits": list(_limits(results)),
        "agreement": [[" and ".join(row.classifiers), row.target, span(row.kappa)] for row in after.agreement],
    }


def metrics(record: AdaptorRecord, results: Results) -> "list[EvalResult]":
    """Return the figures as the Hub's metadata has them, each with its interval and floor.

    Of what an adaptor is aimed at that is the headline figure, and what it was before; of everything else the shift
    from the original; and of what prompts name, how often it is shown, which has no floor.
    """
    from huggingface_hub import EvalResult

    prompt_set, after = line(results.settings.prompt_set), variant_of(record, results)

    def metric(kind: str, name: str, found: Estimate, **more: float) -> EvalResult:
        return EvalResult(
            task_type="text-to-image",
            dataset_type=prompt_set,
            dataset_name=prompt_set,
            metric_type=kind,
            metric_name=f"{line(name)} {kind.replace('_', ' ')}",
            metric_value=found.value,
            metric_args=to_json({"low": found.low, "high": found.high, **more}),
        )

    found = [
        metric("bias" if target.is_uniform else "total_variation", name, now, floor=now.floor, before=before.value)
        for name, target, before, now in trained_figures(record, results)
        if not math.isnan(now.value)
    ]
    shifts = {name: shift_of(results, after, name) for name in not_aimed_at(results, after)}
    found += [metric("shift", name, shift, floor=shift.floor) for name, shift in shifts.items() if shift]
    was = obeyed_rates(results, results.original)
    return found + [
        metric("obeyed", name, rate, before=was[name].value) for name, rate in obeyed_rates(results, after).items()
    ]


def _evenness(
    record: AdaptorRecord, results: Results, classifier: str, before: VariantResults, after: VariantResults
) -> Iterator[Row]:
    for name, now in after.bias[classifier].items():
        was, target = before.bias[classifier][name], results.targets[name]
        if never_open(results, name):
            continue
        yield [
            f"{name} {'bias' if target.is_uniform else 'off target'}{where_open(results, name)}",
            "yes" if name in after.aimed else "no",
            classifier,
            span(headline(was, target)),
            span(headline(now, target)),
            span(headline(now.change, target) if now.change and name in after.aimed else None, signed),
            plain(number(headline(now, target).floor)),
            " → ".join(smallest_share(found, target) for found in (was, now)),
            plain(" → ".join(fine(found.undetermined.value) for found in (was, now))),
        ]


def _worst(record: AdaptorRecord, results: Results, before: VariantResults, after: VariantResults) -> Iterator[Row]:
    for name, target in results.targets.items():
        if _is_trained(record, target) and not never_open(results, name):
            was, now = (results.figures(variant, name).worst_decile for variant in (before, after))
            yield [f"{name} bias", span(was), span(now), plain(number(now.floor))]


def _kept(results: Results, before: VariantResults, after: VariantResults) -> Iterator[Row]:
    if results.kept is not None and after.kept is not None:
        yield [results.kept, span(before.kept, fine), span(after.kept, fine)]
    if after.no_face is not None:
        yield ["no face", span(before.no_face, fine), span(after.no_face, fine)]
    for name, found in after.preservation.items():
        yield [f"likeness to the original's image ({name}, cosine)", "–", span(found)]
    for label, was, now in (
        ("fit to the prompt", before.text_alignment, after.text_alignment),
        ("diversity", before.diversity, after.diversity if after.diversity_change is None else {}),
    ):
        for name, found in now.items():
            yield [f"{label} ({name})", span(was[name]), span(found)]


def _limits(results: Results) -> Iterator[Row]:
    for classifier, found in (results.calibration or {}).items():
        for name, row in found.items():
            numbers = [number(row.true), number(row.measured), signed(row.error)]
            yield [classifier, name, *map(plain, numbers)]


def _is_trained(record: AdaptorRecord, target: TargetClasses) -> bool:
    return set(target.attributes) <= set(record.attributes)
