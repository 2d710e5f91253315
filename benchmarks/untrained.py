"""Measure on a sandbox what takes no training: words, and any adaptors beside them, each against its bars.

Bias, shift, occupation, similarity and variety (the distance of two images of a prompt that show the same gender) are
of prompts that name no class. Obeyed is of prompts that do, and stays obeyed is its ratio to the original's: a prompt
that is left alone gives the original's pictures, which do not always show what it names. Settings are chosen on the
validation prompts; the test prompts are looked at once.
"""

import argparse
import dataclasses
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._report import report
from benchmarks.peers import times
from benchmarks.sandbox_bias import EXPLICIT, figures, obeyed
from fair_adaptors.evaluation import Evaluation, evaluate
from fair_adaptors.evaluation.spec import Instruments, all_targets, targets_for
from fair_adaptors.evaluation.variants import Variant, original, with_adaptor
from fair_adaptors.load import record_of
from fair_adaptors.pipelines import load_pipeline
from fair_adaptors.prompts.sets import load_prompts
from fair_adaptors.sandbox.instruments import instruments
from fair_adaptors.sandbox.pipeline import GUIDANCE, STEPS

BARS: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "words": {
        "bias": (0, 0.16), "shift of others": (0, 0.06), "occupation": (0.98, 1), "similarity": (0.93, 1),
        "obeyed": (0.98, 1), "× time": (0, 1.02),
    },
    "directions": {
        "bias": (0, 0.16), "shift of others": (0, 0.05), "occupation": (0.985, 1), "similarity": (0.945, 1),
        "obeyed": (0.98, 1), "s to make": (0, 60), "× time": (0, 1.02),
    },
    "edit": {"obeyed": (0.95, 1), "s to make": (0, 60)},
}  # fmt: skip
"""Least and most of a figure's mean over seeds, by kind."""


def measured(
    pipe: Any, wanted: Evaluation, prompts: str, variants: Sequence[Variant], tools: Instruments, **more: Any
) -> list[dict[str, Any]]:
    """Return the figures of each variant, the original first.

    Args:
        wanted: what is the same for all prompts and seeds.
        more: other fields of it.
    """
    wanted = dataclasses.replace(wanted, prompts=load_prompts(f"sandbox-{prompts}"), **more)
    with tempfile.TemporaryDirectory() as folder:
        results, rows = evaluate(pipe, wanted, variants, tools, Path(folder)), []
        if wanted.prompts.expected:
            return [obeyed(results, variant) for variant in results.variants]
        for shown in results.variants:
            found = figures(results, shown)
            shifts = [found[key] for key in ("tone shift", "age shift") if key in found]
            alike = shown.preservation.get("sandbox")
            rows.append(
                {
                    "bias": found["gender"],
                    "shift of others": max(shifts, default=0.0),
                    **{key: value for key, value in found.items() if key in ("tone shift", "age shift")},
                    "occupation": found["occupation"],
                    "similarity": alike.value if alike else 1.0,
                    "variety": (shown.within_class or {})["sandbox"]["gender"].distance.value,
                }
            )
    return rows


def main() -> None:
    """Print a row per adaptor: the means over seeds, and whether they hold the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adaptors", nargs="*", default=["words:gender"], help="names, specs or folders")
    parser.add_argument("--base", default="sandbox", help="or sandbox-flow")
    parser.add_argument("--split", choices=list(EXPLICIT), default="validation")
    parser.add_argument("--seeds", type=int, default=3, help="of the noise")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--explicit-images", type=int, default=8)
    parser.add_argument("--time", action="store_true", help="time the drawing, too; nothing else may run meanwhile")
    parser.add_argument("--name", help="name of the JSON file; by default one for each base")
    arguments = parser.parse_args()
    name = arguments.name or "untrained" + arguments.base.removeprefix("sandbox").replace("-", "_")
    pipe, tools = load_pipeline(arguments.base), instruments()
    tools = dataclasses.replace(tools, classifiers=tools.classifiers[:1], calibrate=None)
    variants = [original(), *(with_adaptor(name, label=_kind(name)) for name in arguments.adaptors)]
    wanted = Evaluation(
        arguments.base, load_prompts(f"sandbox-{arguments.split}"), targets_for(["gender"], [], tools),
        num_steps=STEPS, guidance_scale=GUIDANCE, batch_size=64, keep_images=False,
    )  # fmt: skip
    every = dataclasses.replace(wanted, targets=all_targets(wanted.targets, tools))
    found: list[list[dict[str, Any]]] = [[] for _ in variants]
    for seed in range(12_345, 12_345 + arguments.seeds):
        plain, named = (
            measured(pipe, every, prompts, variants, tools, seed=seed, images_per_prompt=images)
            for prompts, images in (
                (arguments.split, arguments.images),
                (EXPLICIT[arguments.split], arguments.explicit_images),
            )
        )
        for row, one, other in zip(found, plain, named, strict=True):
            row.append(one | {"obeyed": other["gender obeyed"]})
    timed = times(pipe, wanted, variants) if arguments.time else {}
    rows = []
    for variant, each, adaptor in zip(variants, found, [None, *arguments.adaptors], strict=True):
        means = {key: statistics.mean(one[key] for one in each) for key in each[-1] if all(key in one for one in each)}
        record = record_of(adaptor) if adaptor else None
        means |= {"stays obeyed": means["obeyed"] / statistics.mean(one["obeyed"] for one in found[0])}
        means |= {"s to make": float(record.training.get("seconds", 0.0)) if record else 0.0}
        means |= {"× time": timed[variant.name][1]} if timed else {}
        bars = BARS.get(_kind(adaptor) or "", {}) if adaptor else {}
        missed = [
            f"{key} {means[key]:.3f}"
            for key, (low, high) in bars.items()
            if key in means and not low <= means[key] <= high
        ]
        means = {"tone shift": 0.0, "age shift": 0.0} | means
        rows.append({"adaptor": variant.name, **means, "bars": ", ".join(missed) or ("held" if bars else "–")})
    details = {"base": arguments.base, "split": arguments.split, "images": arguments.images, "seeds": arguments.seeds}
    report(name, [{key: row[key] for key in rows[-1]} for row in rows], **details)


def _kind(name: str) -> str | None:
    """Return what kind an adaptor is of, which names its row; None for one that was trained."""
    return next((part for part in record_of(name).trained_parts if part in BARS), None)


if __name__ == "__main__":
    main()
