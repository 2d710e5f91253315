"""How much the choice of steps disturbs a gradient: K of T steps, shared by all images or each image's own.

One batch of the sandbox: the gradient of the loss at the latents, then the part of every step and image in the
gradient of the text encoder's LoRAs, each exact. Any choice of steps is a weighted sum of these parts, so thousands of
choices cost nothing, and the disturbance is the mean of ‖g − ḡ‖² / ‖ḡ‖², with ḡ from all steps. Beside it stands
the same between batches of other noises: what no choice of steps can take away.
"""

import argparse

import torch
from fair_adaptors.training.engine import lora
from fair_adaptors.training.engine.gradients import accumulate_gradients, choose_steps, step_weights
from fair_adaptors.training.engine.objective import observe
from fair_adaptors.training.engine.sampling import Trajectory, encode_prompts, initial_noise, sample
from fair_adaptors.training.engine.schedule import scheduler_for
from fair_adaptors.training.engine.targets import assign_targets
from fair_adaptors.training.recipes import get_recipe
from fair_adaptors.training.setup import Setup, load_setup
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks._report import report
from fair_adaptors.sandbox.pipeline import GUIDANCE

PROMPT = "A photo of the face of a hospital nurse, a person"


def drawn(setup: Setup, prompt: str, images: int, num_steps: int, seed: int) -> tuple[Tensor, Trajectory, Tensor]:
    """Draw images of a prompt: noises, how they were sampled, and the gradient of gender's loss at their latents."""
    pipe = setup.pipe
    noise = initial_noise(pipe, range(seed * images, (seed + 1) * images))
    with torch.no_grad():
        conditions = encode_prompts(pipe, [prompt], guidance_scale=GUIDANCE)
    run = sample(pipe, conditions, noise, num_steps=num_steps, guidance_scale=GUIDANCE)
    seen = observe(setup, run.latents)
    wanted = assign_targets({"gender": seen.logits["gender"].detach().softmax(1)}, {"gender": (0.5, 0.5)})["gender"]
    each = torch.where(wanted.keep, cross_entropy(seen.logits["gender"], wanted.labels, reduction="none"), 0.0)
    (v,) = torch.autograd.grad(each.sum(), seen.latents)
    return noise, run, v


def parts(setup: Setup, images: int, num_steps: int, seed: int) -> Tensor:
    """Return what each step of each image adds to the gradient of P parameters, [T, N, P]; their sum is the whole."""
    pipe = setup.pipe
    parameters = list(lora.attach(pipe, ["text_encoder"], rank=8).values())
    _, run, v = drawn(setup, PROMPT, images, num_steps, seed)
    weights = step_weights(scheduler_for(pipe, num_steps))
    found = []
    for step, image in torch.cartesian_prod(torch.arange(num_steps), torch.arange(images)).tolist():
        one = Trajectory(run.timesteps, run.scaled_inputs[:, [image]], run.latents[[image]])
        given = {"guidance_scale": GUIDANCE, "weights": weights / num_steps, "steps": [step]}  # no factor T/1
        accumulate_gradients(pipe, one, v[[image]], [PROMPT], **given)
        found.append(torch.cat([parameter.grad.flatten() for parameter in parameters]))
        for parameter in parameters:
            parameter.grad = None
    lora.detach(pipe, ["text_encoder"])
    return torch.stack(found).view(num_steps, images, -1)


def shared(num_steps: int, count: int, images: int, generator: torch.Generator) -> Tensor:
    """Choose K different steps at random, the same for every image, [K, N]."""
    return torch.randperm(num_steps, generator=generator)[:count, None].expand(-1, images)


def apart(num_steps: int, count: int, images: int, generator: torch.Generator) -> Tensor:
    """Choose a step from each K-th part of the run for each image, with nothing to spread the images, [K, N]."""
    places = torch.rand(images, generator=generator)
    return ((torch.arange(count)[:, None] + places) * (num_steps / count)).long()


def own(num_steps: int, count: int, images: int, generator: torch.Generator) -> Tensor:
    """Choose as training does, [K, N]."""
    return choose_steps(num_steps, count, images, generator=generator)


WAYS = {"shared": shared, "each image's own": apart, "own and spread": own}


def disturbance(every: Tensor, way: str, count: int, trials: int) -> float:
    """Return the mean of ‖g − ḡ‖² / ‖ḡ‖² over random choices, of parts [T, N, P]."""
    num_steps, images, _ = every.shape
    generator, whole = torch.Generator().manual_seed(0), every.sum((0, 1))
    used = torch.zeros(trials, num_steps, images)
    for weights in used:
        chosen = WAYS[way](num_steps, count, images, generator)
        weights.scatter_add_(0, chosen, torch.full(chosen.shape, num_steps / count))
    flat = every.flatten(0, 1).double()
    gram = (used.flatten(1).double() - 1) @ (flat @ flat.T)  # ‖Σ (w − 1) part‖² without the parameters' length
    return float(((gram * (used.flatten(1) - 1)).sum(1) / whole.double().square().sum()).mean())


def main() -> None:
    """Print a row for each K."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="T")
    parser.add_argument("--images", type=int, default=24, help="N")
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--name", default="steps", help="name of the JSON file")
    arguments = parser.parse_args()
    setup = load_setup(get_recipe("sandbox-gender"))
    batches = [parts(setup, arguments.images, arguments.steps, seed) for seed in range(arguments.batches)]
    wholes = torch.stack([each.sum((0, 1)) for each in batches])
    noises = float(wholes.var(0).sum() / wholes.mean(0).square().sum())
    rows = [
        {"K": count}
        | {
            way: round(sum(disturbance(e, way, count, arguments.trials) for e in batches) / len(batches), 4)
            for way in WAYS
        }
        for count in (1, 2, 3, 5, 10)
    ]
    report(arguments.name, rows, steps=arguments.steps, images=arguments.images, other_noises=round(noises, 3))


if __name__ == "__main__":
    main()
