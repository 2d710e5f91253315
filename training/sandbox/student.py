"""Distils a student of a sandbox that draws in few steps: ``python -m fair_adaptors.training.sandbox.student``.

The teacher is the sandbox itself, with guidance, in small steps without noise. Each step of the student learns to land
where several of the teacher's do, without guidance: progressive distillation (Salimans & Ho 2022) of a guided model
(Meng et al. 2023). So the student draws from a noise what its teacher draws from it. The folder holds its network, how
near it comes, and a picture of both. Some minutes on one core.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fair_adaptors.training.engine.denoisers import denoiser_for
from fair_adaptors.training.engine.families.denoiser import Conditions
from fair_adaptors.training.engine.sampling import decode, encode_prompts, initial_noise, predict, sample
from fair_adaptors.training.engine.schedule import is_flow, scheduler_for, signal_and_noise
from torch import Tensor

from fair_adaptors.prompts.sets import load_prompts
from fair_adaptors.report.grid import plain_grid
from fair_adaptors.sandbox.classifiers import load_classifier
from fair_adaptors.sandbox.flow import load_flow_sandbox
from fair_adaptors.sandbox.pipeline import GUIDANCE, load_sandbox_pipeline

from .building import minimise

TEACHERS: dict[str, Callable[[], Any]] = {"sandbox": load_sandbox_pipeline, "sandbox-flow": load_flow_sandbox}
STEPS, PARTS = 4, 4
"""Steps of a student, and how many of its teacher's make one of them."""
PROMPTS = ("sandbox-train", "sandbox-train", "sandbox-named")
HELD, SHOWN = 64, 8
"""Images that the student does not learn from, to compare with its teacher's, and how many of them are drawn."""


@dataclass(frozen=True)
class Levels:
    """Noise levels of T steps: xₜ = α·x₀ + σ·ε, and no noise at the end.

    Attributes:
        timesteps: what the model is told [T].
        signal: α at each of them and at the end [T + 1].
        noise: σ likewise.
        predicts: what the model's output is: ``epsilon``, ``v_prediction`` or ``flow_prediction``.
    """

    timesteps: Tensor
    signal: Tensor
    noise: Tensor
    predicts: str

    def step(self, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
        """Return a and b of steps between levels, x' = a·x + b·o with the model's output o, [M, 1, 1, 1] each."""
        alpha, sigma, after, left = self.signal[start], self.noise[start], self.signal[end], self.noise[end]
        of_output = left * alpha - after * sigma
        if self.predicts == "epsilon":
            of_input, of_output = after / alpha, of_output / alpha
        elif self.predicts == "v_prediction":
            of_input = after * alpha + left * sigma
        else:
            of_input = after + left
        return of_input.float().view(-1, 1, 1, 1), of_output.float().view(-1, 1, 1, 1)


def levels(pipe: Any, steps: int, parts: int) -> Levels:
    """Return the levels of as many steps as a student has, each split into parts: every ``parts``-th is the student's.

    The pipeline's scheduler is the student's.
    """
    scheduler = scheduler_for(pipe, steps)
    ends = torch.cat([scheduler.timesteps.double(), torch.zeros(1, dtype=torch.float64)])
    share = torch.arange(parts) / parts
    times = (ends[:-1, None] + (ends[1:] - ends[:-1])[:, None] * share).flatten()
    times = times.float() if is_flow(scheduler) else times.round().long()
    signal, noise = signal_and_noise(scheduler, times)
    predicts = "flow_prediction" if is_flow(scheduler) else scheduler.config.get("prediction_type", "epsilon")
    return Levels(times, torch.cat([signal, torch.ones(1)]), torch.cat([noise, torch.zeros(1)]), predicts)


@torch.no_grad()
def taught(
    pipe: Any, prompts: Sequence[str], noise: Tensor, at: Levels, *, guidance_scale: float, parts: int, batch: int = 32
) -> tuple[Tensor, Conditions]:
    """Return where the teacher's steps lead from noises [N, C, h, w], at each of the student's levels, [S + 1, N, …].

    The second are the conditions of each image, without those of the unconditional branch.
    """
    conditions = encode_prompts(pipe, prompts, guidance_scale=guidance_scale)
    ways = []
    for images in torch.arange(len(noise)).split(batch):
        x = noise[images]
        way = [x]
        for number, time in enumerate(at.timesteps):
            output = predict(pipe, x, time, conditions, guidance_scale=guidance_scale, images=images)
            of_input, of_output = at.step(torch.tensor([number]), torch.tensor([number + 1]))
            x = of_input * x + of_output * output
            if (number + 1) % parts == 0:
                way.append(x)
        ways.append(torch.stack(way))
    guided = denoiser_for(pipe).branches(guidance_scale) > 1
    return torch.cat(ways, 1), tuple(rows[int(guided) :] for rows in conditions)


def distil(
    pipe: Any,
    ways: Tensor,
    conditions: Conditions,
    at: Levels,
    *,
    parts: int,
    updates: int,
    batch: int,
    rate: float,
    generator: torch.Generator,
) -> list[float]:
    """Train the pipeline's network so that each of its steps lands where its teacher's ``parts`` steps did.

    Returns:
        The mean losses of each tenth of the updates.
    """
    network = denoiser_for(pipe).model.requires_grad_(True)
    steps, count = len(ways) - 1, ways.shape[1]
    losses: list[float] = []
    given = (updates, steps * count, batch, rate, generator, lambda: None)
    for index in minimise(network.parameters(), *given):
        step, image = index // count, index % count
        output = predict(
            pipe, ways[step, image], at.timesteps[step * parts], conditions, guidance_scale=0.0, images=image
        )
        of_input, of_output = at.step(step * parts, (step + 1) * parts)
        landed = of_input * ways[step, image] + of_output * output
        loss = (landed - ways[step + 1, image]).square().mean()
        loss.backward()
        losses.append(loss.item())
    network.eval().requires_grad_(False)
    return [each.mean().item() for each in torch.tensor(losses).chunk(10)]


def student_scheduler(pipe: Any) -> Any:
    """Return what a student draws with: of a flow the pipeline's own scheduler, else DDIM from all noise to none."""
    from diffusers import DDIMScheduler

    if is_flow(pipe.scheduler):
        return pipe.scheduler
    return DDIMScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True
    )


@torch.no_grad()
def compared(pipe: Any, prompts: Sequence[str], noise: Tensor, wanted: Tensor) -> tuple[dict[str, Any], Tensor]:
    """Return how near the student's images come to the teacher's of these latents, and both, [2, N, 3, H, W]."""
    conditions = encode_prompts(pipe, prompts, guidance_scale=0.0)
    run = sample(pipe, conditions, noise, num_steps=STEPS, guidance_scale=0.0)
    images = torch.stack([decode(pipe, each).clamp(0, 1) for each in (wanted, run.latents)])
    judge = load_classifier("evaluation")
    said = [{name: logits.argmax(1) for name, logits in judge(each).items() if logits.ndim == 2} for each in images]
    same = {name: (said[0][name] == said[1][name]).float().mean().item() for name in said[0]}
    return {"error": (run.latents - wanted).square().mean().item(), **same}, images


def main() -> None:
    """Distil one from the command line, save its network in half precision and say how near it comes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", choices=list(TEACHERS), default="sandbox", help="the teacher")
    parser.add_argument("--out", type=Path, help="folder to write to; build/student-BASE by default")
    parser.add_argument("--images", type=int, default=1_200, help="noises to learn from")
    parser.add_argument("--updates", type=int, default=700)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=7e-4)
    arguments = parser.parse_args()
    out = arguments.out or Path("build") / f"student-{arguments.base}"
    torch.manual_seed(0)
    generator, pipe = torch.Generator().manual_seed(0), TEACHERS[arguments.base]()
    pipe.scheduler = student_scheduler(pipe)
    known = [prompt for name in PROMPTS for prompt in load_prompts(name).prompts]
    chosen = torch.randint(len(known), (HELD + arguments.images,), generator=generator).tolist()
    prompts, noise = [known[i] for i in chosen], initial_noise(pipe, range(len(chosen)))
    at = levels(pipe, STEPS, PARTS)
    ways, conditions = taught(pipe, prompts, noise, at, guidance_scale=GUIDANCE, parts=PARTS)
    held = prompts[:HELD], noise[:HELD], ways[-1, :HELD]
    found: dict[str, Any] = {"before": compared(pipe, *held)[0]}
    seen = ways[:, HELD:], tuple(rows[HELD:] for rows in conditions)
    settings = {"updates": arguments.updates, "batch": arguments.batch, "rate": arguments.rate}
    found |= {"losses": distil(pipe, *seen, at, parts=PARTS, generator=generator, **settings)}
    network = denoiser_for(pipe).model
    network.half().save_pretrained(out)
    network.float()
    found["after"], images = compared(pipe, *held)
    rows = torch.cat([each[:SHOWN] for each in images])
    labels = ["teacher", "student"]
    plain_grid(rows, title=arguments.base, columns=SHOWN, tile=96, labels=labels).save(out / "pictures.png")
    (out / "student.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(*(f"{name}: {value}" for name, value in found.items()), sep="\n")


if __name__ == "__main__":
    main()
