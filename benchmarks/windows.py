"""Which steps decide: the gradient of a part of the run alone, beside that of all steps, and from stored pairs.

Batches of the sandbox, each of one prompt. The gradient of gender's loss is taken at every step of the run that drew
the images; and, as Direct-Align does (SRPO, Shen et al. 2025), at inputs that are mixed anew, α·x₀ + σ·ε, of the final
latents and the noise that they were drawn from: no run has to be kept for these, or made again. The image of such a
pair is known, so the loss and its gradient at the latents are the same: only the model's input differs. Windows are
thirds of the run.
"""

import argparse
from typing import Any

import torch
from fair_adaptors.training.engine import lora
from fair_adaptors.training.engine.gradients import accumulate_gradients, step_weights
from fair_adaptors.training.engine.sampling import Trajectory
from fair_adaptors.training.engine.schedule import scaled, scheduler_for, signal_and_noise
from fair_adaptors.training.recipes import get_recipe
from fair_adaptors.training.setup import Setup, load_setup
from torch import Tensor

from benchmarks._report import report
from benchmarks.steps import drawn
from fair_adaptors.sandbox.pipeline import GUIDANCE
from fair_adaptors.sandbox.prompts import prompts

WINDOWS = ("early", "middle", "late")
RUN, PAIR = "the run's own", "mixed of image and noise"


def from_pairs(pipe: Any, noise: Tensor, run: Trajectory) -> Trajectory:
    """Return a run's steps with inputs mixed of its final latents and the noise that it began with."""
    scheduler = scheduler_for(pipe, len(run.timesteps))
    signal, sigma = (each.float().view(-1, 1, 1, 1, 1) for each in signal_and_noise(scheduler, run.timesteps))
    mixed = signal * run.latents + sigma * noise
    inputs = [scaled(scheduler, rows, time) for rows, time in zip(mixed, run.timesteps, strict=True)]
    return Trajectory(run.timesteps, torch.stack(inputs), run.latents)


def step_gradients(setup: Setup, run: Trajectory, v: Tensor, prompt: str, parameters: list[Tensor]) -> Tensor:
    """Return what each step adds to the gradient of P parameters, [T, P]; their sum is the whole."""
    count = len(run.timesteps)
    weights = step_weights(scheduler_for(setup.pipe, count)) / count  # no factor T/1
    found = []
    for step in range(count):
        accumulate_gradients(setup.pipe, run, v, [prompt], guidance_scale=GUIDANCE, weights=weights, steps=[step])
        found.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
        for parameter in parameters:
            parameter.grad = None
    return torch.stack(found)


def row(inputs: str, window: str, some: list[Tensor], whole: list[Tensor]) -> dict[str, float | str]:
    """Compare gradients of batches with those of all steps of the run."""
    lengths = [float(one.norm() / all_.norm()) for one, all_ in zip(some, whole, strict=True)]
    cosines = [
        float(torch.nn.functional.cosine_similarity(one, all_, dim=0)) for one, all_ in zip(some, whole, strict=True)
    ]
    return {
        "inputs": inputs,
        "steps": window,
        "length over that of all steps": round(sum(lengths) / len(lengths), 3),
        "cosine to it": round(sum(cosines) / len(cosines), 3),
        "least cosine": round(min(cosines), 3),
    }


def main() -> None:
    """Print a row for each window, of the run's own inputs and of mixed ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=21, help="T, three windows of as many steps each")
    parser.add_argument("--images", type=int, default=24, help="N")
    parser.add_argument("--batches", type=int, default=3, help="each of another training prompt")
    parser.add_argument("--parts", nargs="+", default=["text_encoder", "unet"], help="what has LoRAs")
    parser.add_argument("--name", default="windows", help="name of the JSON file")
    arguments = parser.parse_args()
    setup, every = load_setup(get_recipe("sandbox-gender")), prompts("train")
    torch.manual_seed(0)
    parameters: list[Tensor] = list(lora.attach(setup.pipe, arguments.parts, rank=8).values())
    found: dict[str, list[Tensor]] = {RUN: [], PAIR: []}
    for number in range(arguments.batches):
        prompt = every[number * len(every) // arguments.batches]
        noise, run, v = drawn(setup, prompt, arguments.images, arguments.steps, number)
        for inputs, way in ((RUN, run), (PAIR, from_pairs(setup.pipe, noise, run))):
            found[inputs].append(step_gradients(setup, way, v, prompt, parameters))
    whole = [each.sum(0) for each in found[RUN]]
    rows = []
    for inputs, batches in found.items():
        rows.append(row(inputs, "all", [each.sum(0) for each in batches], whole))
        for number, window in enumerate(WINDOWS):
            rows.append(row(inputs, window, [each.chunk(len(WINDOWS))[number].sum(0) for each in batches], whole))
    report(arguments.name, rows, settings=vars(arguments))


if __name__ == "__main__":
    main()
