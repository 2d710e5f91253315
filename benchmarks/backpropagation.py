"""Adjusted gradients against full backpropagation through the sampler, at several numbers of steps, for the same time.

The time is that of the processor, in one thread, so that a busy machine changes nothing.

Trains the sandbox's gender recipe on every second of its prompts and reports, on the validation prompts and with the
evaluation classifier, the bias that is left, the right occupations, and how many iterations there was time for.
"""

import argparse
import dataclasses
import json
import statistics
import time
from typing import Any

from benchmarks._report import RESULTS, report

METHODS = ("uniform", "published", "full backpropagation")
MEASURED = ("bias", "occupation", "iterations", "skipped")


def train(method: str, num_steps: int, seed: int, seconds: float) -> dict[str, float]:
    """Train for some seconds of the processor and measure."""
    import torch
    from fair_adaptors.training.engine import loop, step
    from fair_adaptors.training.engine.state import attached
    from fair_adaptors.training.recipes import get_recipe
    from fair_adaptors.training.run.validation import draw
    from fair_adaptors.training.setup import load_setup

    from fair_adaptors.evaluation.drawing import classify
    from fair_adaptors.evaluation.estimates import estimate_bias
    from fair_adaptors.sandbox.demo import occupation_right
    from fair_adaptors.sandbox.prompts import occupations

    kind = "published" if method == "published" else "uniform"
    changes = {"num_steps": num_steps, "gradient_steps": 0, "images_per_call": 0, "prompts_per_step": 1}
    config = get_recipe("sandbox-gender", {**changes, "seed": seed, "step_weights": kind, "unguided": 0})
    config = dataclasses.replace(config, iterations=10_000, schedule="constant", learning_rate=3e-3, ema=0.9)
    setup = load_setup(config)
    setup = dataclasses.replace(setup, prompts={"train": setup.prompts["train"][::2]})
    original = step.accumulate_gradients
    if method == "full backpropagation":
        step.accumulate_gradients = _full_backpropagation  # type: ignore[assignment]
    started = time.process_time()
    try:
        with attached(setup, config) as state:
            loop.fit(setup, config, state, on_step=lambda state, result: time.process_time() - started > seconds)
            done, skipped = state.iteration, state.skipped
            with state.average.applied():
                prompts = setup.validation_prompts
                images = torch.stack([draw(setup, config, p, [1000 * seed + i for i in range(32)]) for p in prompts])
    finally:
        step.accumulate_gradients = original
    seen = classify(images, setup.validation_classifier)
    right = occupation_right(seen, occupations("validation")).mean()
    value = estimate_bias(seen["gender"]).value
    return {"bias": value, "occupation": float(right), "iterations": done, "skipped": skipped}


def _full_backpropagation(
    pipe: Any, trajectory: Any, latent_gradient: Any, prompt: str, *, guidance_scale: float, **settings: Any
) -> None:
    """Take the loss's gradient through the whole sampler, whose first input is where the trajectory began."""
    import torch

    from tests.reference import whole_graph_gradients

    whole_graph_gradients(
        pipe,
        prompt,
        trajectory.scaled_inputs[0],  # the noise itself: the scheduler is DPM-Solver
        latent_gradient,
        num_steps=len(trajectory.timesteps),
        guidance_scale=guidance_scale,
        factors=torch.ones(len(trajectory.timesteps)),
        detached=False,
    )


def main() -> None:
    """Print a row per method and number of steps: means over seeds."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", nargs="+", type=int, default=[10, 20, 40])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=300)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs = earlier_runs(arguments.seconds)
    for num_steps in arguments.steps:
        for method in METHODS:
            for seed in arguments.seeds:
                which = {"steps": num_steps, "method": method, "seed": seed}
                if not any(which.items() <= run.items() for run in runs):
                    runs.append(which | train(method, num_steps, seed, arguments.seconds))
                    report("backpropagation", rows_of(runs), runs=runs, seconds=arguments.seconds)


def earlier_runs(seconds: float) -> list[dict[str, Any]]:
    """Return the runs of as many seconds that the JSON file has: an hour's work that was cut short goes on."""
    path = RESULTS / "backpropagation.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"seconds": None}
    return list(known["runs"]) if known["seconds"] == seconds else []


def rows_of(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the means over seeds of each method and number of steps."""
    rows = []
    for steps, method in dict.fromkeys((run["steps"], run["method"]) for run in runs):
        found = [run for run in runs if (run["steps"], run["method"]) == (steps, method)]
        means = {name: statistics.fmean(run[name] for run in found) for name in MEASURED}
        spread = ", ".join(f"{run['bias']:.2f}" for run in found)
        rows.append({"steps": steps, "method": method, **means, "bias of the seeds": spread})
    return rows


if __name__ == "__main__":
    main()
