"""Compare on the sandbox's held-out prompts, from the same noise: the original, methods of others, and our adaptors.

UCE is fitted to the very occupations that are measured, on other noise, as it has to be told its concepts; the
adaptors have never seen them. A sweep of strengths gives the trade-off of bias and preservation. Prompts that name a
gender or a tone tell whether a method still does what it is asked for.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import uce
from benchmarks._report import report
from benchmarks.sandbox_bias import ALARMS, WORST, figures, train
from fair_adaptors.adaptor.bases import EMBEDDED
from fair_adaptors.adaptor.results import Results
from fair_adaptors.evaluation import Evaluation, Target, evaluate
from fair_adaptors.evaluation.baselines import attribute_injection, ethical_intervention
from fair_adaptors.evaluation.metrics import frequencies
from fair_adaptors.evaluation.semantic_guidance import semantic_guidance
from fair_adaptors.evaluation.variants import Variant, original, with_adaptor
from fair_adaptors.prompts.sets import load_prompts
from fair_adaptors.report.page import write_report
from fair_adaptors.sandbox.demo import draw
from fair_adaptors.sandbox.instruments import instruments
from fair_adaptors.sandbox.pipeline import GUIDANCE, STEPS, load_sandbox_pipeline
from fair_adaptors.sandbox.prompts import ATTRIBUTES
from fair_adaptors.steering.draw import Attribute
from fair_adaptors.steering.edit import ConceptEdit

RECIPES = ("sandbox-gender",)
SWEEP = (0.25, 0.5)
"""Strengths of the first recipe's adaptor."""
GENDER = Attribute("gender", ATTRIBUTES["gender"], (0.5, 0.5))
TIMED, ROUNDS = 16, 5
"""Images of a timed call, and how often each method is timed."""
NEUTRAL = ("person", "photo", "face", "portrait")


def fitted_uce(pipe: Any, labels: tuple[str, ...], rounds: int, file: Path | None) -> tuple[Variant, float]:
    """Fit the edit of the labels on noise that the evaluation does not use; return it and the seconds it took.

    Args:
        file: where an earlier call left the edit, or where to leave it.
    """
    classifier = instruments().classifiers[1]  # the one that adaptors are trained with, too
    turn, images = 0, 32

    def measure(pipe: Any, labels: Any) -> dict[str, np.ndarray]:
        nonlocal turn
        turn += 1
        drawn = draw(pipe, labels, images_per_prompt=images, seed=1_000_000 + turn)
        seen = classifier.logits(drawn.flatten(0, 1))["gender"].argmax(1).view(len(labels), images)
        return {"gender": frequencies(seen.numpy(), 2)}

    if file and file.exists():
        kept = json.loads(file.read_text(encoding="utf-8"))
        edit, seconds = ConceptEdit(**kept["edit"]), kept["seconds"]
        assert tuple(edit.labels) == labels, f"{file} was fitted to other occupations"
    else:
        started = time.perf_counter()
        edit = uce.debias(pipe, labels, [GENDER], preserved=NEUTRAL, measure=measure, rounds=rounds)
        seconds = time.perf_counter() - started
        if file:
            file.write_text(json.dumps({"edit": dataclasses.asdict(edit), "seconds": seconds}), encoding="utf-8")
    return uce.uce(edit, aimed=["gender"]), seconds


def trained(recipes: Sequence[str], folder: Path) -> tuple[list[Variant], dict[str, float]]:
    """Return each recipe's adaptor, the first one at more strengths, and the seconds that they were trained.

    Those in ``folder`` as RECIPE-0 are taken, or those of the package by the recipe's name; others are trained.
    """
    variants, seconds = [], {}
    for recipe in recipes:
        own = folder / f"{recipe}-0"
        place = EMBEDDED / recipe if (EMBEDDED / recipe).exists() and not own.exists() else own
        seconds[recipe] = 60 * (train(recipe, 0, place)["minutes"] or 0.0)
        variants.append(with_adaptor(str(place), label=recipe))
        if recipe == recipes[0]:
            variants += [with_adaptor(str(place), weight, label=recipe) for weight in SWEEP]
    return variants, seconds


def times(pipe: Any, wanted: Evaluation, variants: Sequence[Variant]) -> dict[str, tuple[float, float]]:
    """Return each variant's seconds per image, and the ratio to the original's: medians of rounds of all in turn."""
    prompt, label, seeds = wanted.prompts.prompts[0], wanted.prompts.labels[0], range(TIMED)
    seconds = np.zeros((ROUNDS, len(variants)))
    for row in seconds:
        for index, variant in enumerate(variants):
            with variant.applied(pipe) as applied:
                started = time.perf_counter()
                applied(
                    variant.prompts(prompt, label, seeds),
                    generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                    num_inference_steps=wanted.num_steps,
                    guidance_scale=wanted.guidance_scale,
                )
                row[index] = (time.perf_counter() - started) / TIMED
    ratios = np.median(seconds / seconds[:, :1], 0)
    pairs = zip(np.median(seconds, 0).tolist(), ratios.tolist(), strict=True)
    return {variant.name: pair for variant, pair in zip(variants, pairs, strict=True)}


def main() -> None:
    """Print a row per method: the aim and what it costs, then what else it changes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", default="sandbox-test", help="a prompt set, or a file")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--explicit", default="sandbox-explicit", help="prompts that name a gender or a tone")
    parser.add_argument("--explicit-images", type=int, default=4)
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--adaptors", type=Path, help="use the adaptors in this folder, RECIPE-0, if they are there")
    parser.add_argument("--uce", type=Path, help="file to keep the fitted UCE in; if it is there it is used")
    parser.add_argument("--rounds", type=int, default=12, help="of UCE, with 32 images per occupation each")
    parser.add_argument("--out", type=Path, help="keep the evaluations, with a report, in this folder")
    parser.add_argument("--name", default="peers", help="name of the JSON file")
    arguments = parser.parse_args()
    pipe, prompts = load_sandbox_pipeline(), load_prompts(arguments.prompts)
    with tempfile.TemporaryDirectory() as temporary:
        out = arguments.out or Path(temporary)
        fitted, uce_seconds = fitted_uce(pipe, prompts.labels, arguments.rounds, arguments.uce)
        adaptors, seconds = trained(arguments.recipes, arguments.adaptors or Path(temporary))
        variants = [
            original(),
            ethical_intervention([GENDER]),
            attribute_injection([GENDER]),
            semantic_guidance([GENDER]),
            fitted,
            *adaptors,
        ]
        wanted = Evaluation(
            "sandbox", prompts, (Target(("gender",), GENDER.target),), images_per_prompt=arguments.images, seed=12_345,
            num_steps=STEPS, guidance_scale=GUIDANCE, batch_size=64, keep_images=arguments.out is not None,
        )  # fmt: skip
        explicit = dataclasses.replace(
            wanted, prompts=load_prompts(arguments.explicit), images_per_prompt=arguments.explicit_images
        )
        results = evaluate(pipe, wanted, variants, instruments(), out / "evaluation")
        asked = evaluate(pipe, explicit, variants, instruments(), out / "explicit")
        write_report(out / "evaluation", command="python -m benchmarks.peers")
        timed = times(pipe, wanted, variants)
    rows = aims(results, timed, {**seconds, fitted.name: uce_seconds})
    details = {"images": arguments.images, "prompts": len(prompts.prompts), "rounds_of_uce": arguments.rounds}
    report(arguments.name, rows, beside=beside(results, asked), **details)


def aims(results: Results, timed: dict[str, tuple[float, float]], seconds: dict[str, float]) -> list[dict[str, Any]]:
    """Return a row per method: its bias, and what it costs."""
    rows = []
    for variant in results.variants:
        found, alike = results.figures(variant, "gender"), variant.preservation.get("sandbox")
        rows.append(
            {
                "method": variant.name,
                "bias": found.bias.value,
                "interval": f"{found.bias.low:.2f}–{found.bias.high:.2f}",
                "floor": found.bias.floor,
                "floor removed": found.floor_removed.value,
                "similarity": alike.value if alike else "–",
                "s / image": timed[variant.name][0],
                "× original": timed[variant.name][1],
                "training s": seconds.get(variant.name, "–"),
            }
        )
    return rows


def beside(results: Results, asked: Results) -> list[dict[str, Any]]:
    """Return a row per method: what it changes beside gender, and how far it does what a prompt asks for."""
    rows = []
    for variant, explicit in zip(results.variants, asked.variants, strict=True):
        found, obeyed = figures(results, variant), (explicit.obeyed or {})[asked.classifier]
        shifts = {key: found.get(key, "–") for name in ("tone", "age") for key in _shift_keys(name)}
        dark = results.figures(variant, "tone").frequencies[ATTRIBUTES["tone"].index("dark")]
        rows.append(
            {
                "method": variant.name,
                **shifts,
                "dark": dark.value,
                "tone flips": found.get("tone flips", "–"),
                ALARMS: found[ALARMS],
                "occupation": found["occupation"],
                "worst prompt": found[WORST],
                **{f"{name} obeyed": rate.value for name, rate in obeyed.items()},
                "occupation, named": explicit.kept.value if explicit.kept else "–",
            }
        )
    return rows


def _shift_keys(name: str) -> tuple[str, ...]:
    return f"{name} shift", f"{name} shift floor", f"{name} shift, floor removed"


if __name__ == "__main__":
    main()
