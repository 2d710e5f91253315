"""Compare on the sandbox's held-out prompts, from the same noise: the original, methods of others, and our adaptors.

UCE is fitted to the very occupations that are measured, on other noise, as it has to be told its concepts; the
adaptors have never seen them. A sweep of strengths gives the trade-off of bias and preservation.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

from benchmarks import uce
from benchmarks._report import report
from benchmarks.sandbox_bias import train
from fair_adaptors.adaptor.results import Results, VariantResults
from fair_adaptors.evaluation import baselines, evaluate
from fair_adaptors.evaluation.metrics import frequencies
from fair_adaptors.evaluation.spec import Evaluation, Target
from fair_adaptors.evaluation.variants import Variant, original, with_adaptor
from fair_adaptors.prompts.sets import load_prompts
from fair_adaptors.report.page import write_report
from fair_adaptors.sandbox.demo import draw
from fair_adaptors.sandbox.instruments import instruments
from fair_adaptors.sandbox.pipeline import GUIDANCE, STEPS, load_sandbox_pipeline

ADAPTORS = {
    "text encoder": "sandbox-gender",
    "U-Net": "sandbox-gender-unet",
    "both": "sandbox-gender-both",
    "soft tokens": "sandbox-gender-tokens",
}
SWEEP = (0.25, 0.5, 0.75, 1.25)
GENDER = baselines.Attribute("gender", ("female", "male"), (0.5, 0.5))
TIMED, ROUNDS = 16, 5
"""Images of a timed call, and how often each method is timed."""
NEUTRAL = ("person", "photo", "face", "portrait")


def fitted_uce(pipe: Any, labels: tuple[str, ...], images: int, rounds: int) -> Variant:
    """Fit the edit of the labels on noise that the evaluation does not use."""
    classifier = instruments().classifiers[1]  # the one that adaptors are trained with, too
    turn = 0

    def measure(pipe: Any, labels: Any) -> dict[str, np.ndarray]:
        nonlocal turn
        turn += 1
        drawn = draw(pipe, labels, images_per_prompt=images, seed=1_000_000 + turn)
        seen = classifier.logits(drawn.flatten(0, 1))["gender"].argmax(1).view(len(labels), images)
        return {"gender": frequencies(seen.numpy(), 2)}

    return uce.uce(uce.debias(pipe, labels, [GENDER], preserved=NEUTRAL, measure=measure, rounds=rounds))


def times(pipe: Any, wanted: Evaluation, variants: list[Variant]) -> dict[str, tuple[float, float]]:
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
    """Print a row per method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=12, help="of UCE, with 32 images per occupation each")
    parser.add_argument("--adaptors", type=Path, help="folder of trained adaptors, RECIPE-0; else they are trained")
    parser.add_argument("--out", type=Path, help="keep the evaluation, with its report, in this folder")
    arguments = parser.parse_args()
    pipe = load_sandbox_pipeline()
    prompts = load_prompts("sandbox-test")
    with tempfile.TemporaryDirectory() as temporary:
        out = arguments.out or Path(temporary) / "evaluation"
        seconds: dict[str, float | None] = {}
        started = time.perf_counter()
        variants = [
            original(),
            baselines.ethical_intervention([GENDER]),
            baselines.attribute_injection([GENDER]),
            baselines.semantic_guidance([GENDER]),
            fitted_uce(pipe, prompts.labels, 32, arguments.rounds),
        ]
        seconds[variants[-1].name] = time.perf_counter() - started
        for label, recipe in ADAPTORS.items():
            folder = (arguments.adaptors or Path(temporary)) / f"{recipe}-0"
            seconds[label] = 60 * (train(recipe, 0, folder)["minutes"] or 0.0)
            variants.append(with_adaptor(str(folder), label=label))
            if recipe == "sandbox-gender":
                variants += [with_adaptor(str(folder), weight, label=label) for weight in SWEEP]
        wanted = Evaluation(
            "sandbox", prompts, (Target(("gender",), (0.5, 0.5)),), images_per_prompt=arguments.images, seed=12_345,
            num_steps=STEPS, guidance_scale=GUIDANCE, batch_size=64,
        )  # fmt: skip
        results = evaluate(pipe, wanted, variants, instruments(), out)
        write_report(out, command="python benchmarks/peers.py")
        timed = times(pipe, wanted, variants)
        rows = [_row(variant, results, timed[variant.name], seconds) for variant in results.variants]
    report("peers", rows, images=arguments.images, prompts=len(prompts.prompts), rounds_of_uce=arguments.rounds)


def _row(
    variant: VariantResults, results: Results, timed: tuple[float, float], seconds: dict[str, float | None]
) -> dict[str, Any]:
    found = results.figures(variant, "gender")
    alike = variant.preservation.get("sandbox")
    return {
        "method": variant.name,
        "bias": found.bias.value,
        "interval": f"{found.bias.low:.2f}–{found.bias.high:.2f}",
        "floor": found.bias.floor,
        "floor removed": found.floor_removed.value,
        "occupation": variant.kept.value if variant.kept else "–",
        "similarity": alike.value if alike else "–",
        "s / image": timed[0],
        "× original": timed[1],
        "training s": seconds.get(variant.name) or "–",
    }


if __name__ == "__main__":
    main()
