"""What the script of an evaluation's report draws, small: numbers by column, prompt by prompt, in thousandths."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from fair_adaptors.evaluation.metrics import noise_floor, total_variation_floor
from fair_adaptors.evaluation.verdict import Results, figure_name, figure_of, largest

Triple = tuple[float | None, float | None, float | None]
"""Value, low and high."""


def page_data(results: Results) -> dict[str, Any]:
    """Return, by classifier, target and variant, each prompt's headline figure: bias, or total variation."""
    variants, targets = results["variants"], results["targets"]
    return {
        "prompts": list(zip(results["labels"], results["settings"]["prompts"], strict=True)),
        "variants": [[variant["name"], variant["adaptor"], variant["weight"]] for variant in variants],
        "classifiers": results["classifiers"],
        "encoders": results["encoders"],
        "targets": [
            {"name": name, "classes": target["classes"], "figure": figure_name(name, target), "most": largest(target)}
            for name, target in targets.items()
        ],
        "kept": [[_triple(variant["preservation"].get(name)) for variant in variants] for name in results["encoders"]],
        "rows": [
            [
                [_rows(variant["bias"][judge].get(name), target) for variant in variants]
                for name, target in targets.items()
            ]
            for judge in results["classifiers"]
        ],
    }


def _rows(figures: Mapping[str, Any] | None, target: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return one variant's prompts by column, and mean, floor and change; None where the classifier cannot tell."""
    if figures is None:
        return None
    key, change, rows = figure_of(target), figures.get("change", {}), figures["prompts"]
    counts = [row["images"] for row in rows]
    return {
        "v": [_thousandth(row[key]["value"]) for row in rows],
        "l": [_thousandth(row[key]["low"]) for row in rows],
        "h": [_thousandth(row[key]["high"]) for row in rows],
        "n": counts[0] if len(set(counts)) == 1 else counts,
        "p": [round(100 * share) for row in rows for share in row["frequencies"]],
        "floors": {count: _thousandth(_floor(key, count, tuple(target["shares"]))) for count in set(counts) if count},
        "mean": _triple(figures[key]),
        "floor": figures[key]["floor"],
        "change": _triple(change.get(key)),
        "same": change.get("same_class"),
    }


@lru_cache(maxsize=4096)
def _floor(figure: str, images: int, shares: tuple[float, ...]) -> float:
    return noise_floor(images, len(shares)) if figure == "bias" else total_variation_floor(images, shares)


def _triple(found: Mapping[str, Any] | None) -> Triple | None:
    return None if found is None or found["value"] is None else (found["value"], found["low"], found["high"])


def _thousandth(value: float | None) -> int | None:
    return None if value is None else round(1000 * value)
