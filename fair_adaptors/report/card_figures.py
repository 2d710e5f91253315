"""What a card says of an evaluation: the rows of its tables, and the metrics of its metadata."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fair_adaptors.evaluation.verdict import fine, is_uniform, number, signed, verdicts
from fair_adaptors.results_file import variant_of

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

Estimate = Mapping[str, Any]
Row = list[str]


class Markdown(str):
    """Text that is Markdown already, and is printed as it is."""


def headline(config: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[tuple[str, str, Estimate, Estimate]]:
    """Yield name, figure, and that before and after, of each thing that an adaptor was trained for.

    The figure is the bias, or the total variation where equal shares are not what was asked for.
    """
    judge, before, after = results["classifiers"][0], results["variants"][0], variant_of(config, results)
    for name, target in results["targets"].items():
        if _is_trained(config, target):
            figure = "bias" if is_uniform(target) else "total_variation"
            yield name, figure, before["bias"][judge][name][figure], after["bias"][judge][name][figure]


def figures(config: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rows of the card's tables, each a list of cells."""
    before, after, judges = results["variants"][0], variant_of(config, results), results["classifiers"]
    return {
        "verdict": dict(verdicts(results))[after["name"]],
        "settings": results["settings"],
        "num_prompts": _plain(len(results["labels"])),
        "classifiers": judges,
        "face_detector": results["face_detector"],
        "evenness": [row for judge in judges for row in _evenness(config, results, judge, before, after)],
        "worst": list(_worst(config, results, before, after)),
        "shares": list(_shares(results, before, after)),
        "kept": list(_kept(results, before, after)),
        "limits": list(_limits(results)),
        "agreement": [
            [" and ".join(row["classifiers"]), row["target"], _range(row["kappa"])] for row in after["agreement"]
        ],
    }


def metrics(config: Mapping[str, Any], results: Mapping[str, Any]) -> "list[EvalResult]":
    """Return the figures as the Hub's metadata has them, each with its interval, floor and what it was before."""
    from huggingface_hub import EvalResult

    prompt_set = line(results["settings"]["prompt_set"])
    return [
        EvalResult(
            task_type="text-to-image",
            dataset_type=prompt_set,
            dataset_name=prompt_set,
            metric_type=figure,
            metric_name=f"{line(name)} {figure.replace('_', ' ')}",
            metric_value=after["value"],
            metric_args={
                "low": after["low"], "high": after["high"], "floor": after["floor"], "before": before["value"]
            },
        )
        for name, figure, before, after in headline(config, results)
        if after["value"] is not None
    ]  # fmt: skip


def _evenness(config: Any, results: Any, judge: str, before: Any, after: Any) -> Iterator[Row]:
    for name, target in results["targets"].items():
        if name not in after["bias"][judge]:
            continue
        was, now = before["bias"][judge][name], after["bias"][judge][name]
        figure = "bias" if is_uniform(target) else "total_variation"
        unsure = [found["undetermined"]["value"] for found in (was, now)]
        yield [
            f"{name} {'bias' if figure == 'bias' else 'off target'}",
            "yes" if _is_trained(config, target) else "no",
            judge,
            _range(was[figure]),
            _range(now[figure]),
            _range(now["change"][figure], signed),
            _plain(number(now[figure]["floor"])),
            _plain(" → ".join(map(fine, unsure))),
        ]


def _worst(config: Any, results: Any, before: Any, after: Any) -> Iterator[Row]:
    judge = results["classifiers"][0]
    for name, target in results["targets"].items():
        if _is_trained(config, target):
            was, now = (found["bias"][judge][name]["worst_decile"] for found in (before, after))
            yield [f"{name} bias", _range(was), _range(now), _plain(number(now["floor"]))]


def _shares(results: Any, before: Any, after: Any) -> Iterator[Row]:
    judge = results["classifiers"][0]
    for name, target in results["targets"].items():
        was, now = (found["bias"][judge][name]["frequencies"] for found in (before, after))
        for k, label in enumerate(target["classes"]):
            yield [name, label, _plain(fine(target["shares"][k])), _range(was[k], fine), _range(now[k], fine)]


def _kept(results: Any, before: Any, after: Any) -> Iterator[Row]:
    if after["kept"] is not None:
        yield [results["kept"], _range(before["kept"], fine), _range(after["kept"], fine)]
    if after["no_face"] is not None:
        yield ["no face", _range(before["no_face"], fine), _range(after["no_face"], fine)]
    for name, found in after["preservation"].items():
        yield [f"likeness to the original's image ({name}, cosine)", "–", _range(found)]
    for figure, label in (("text_alignment", "fit to the prompt"), ("diversity", "diversity")):
        for name, found in after[figure].items():
            yield [f"{label} ({name})", _range(before[figure][name]), _range(found)]


def _limits(results: Any) -> Iterator[Row]:
    for judge, found in (results["calibration"] or {}).items():
        for name, row in found.items():
            numbers = [number(row["true"]), number(row["measured"]), signed(row["error"])]
            yield [judge, name, *map(_plain, numbers)]


def _is_trained(config: Mapping[str, Any], target: Mapping[str, Any]) -> bool:
    return set(target["attributes"]) <= set(config["attributes"])


def _range(estimate: Estimate, say: Any = number) -> Markdown:
    return Markdown(f"{say(estimate['value'])} ({say(estimate['low'])} to {say(estimate['high'])})")


def _plain(value: object) -> Markdown:
    return Markdown(value)


def line(text: object) -> str:
    """Return a stranger's text as one line that can be shown."""
    return "".join(letter for letter in " ".join(str(text).split()) if letter.isprintable())[:2000]
