"""Which prompt comes when, with which noises: functions of seed and position, so that there is no state to lose.

Any process, of any number of them, in a first or a resumed run, finds the same.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from fair_adaptors.training.config import TrainConfig
from torch import Tensor

from fair_adaptors.seeds import derived_seed


@dataclass(frozen=True)
class Batch:
    """N images that are made, classified and judged together: of one prompt, or of several that name a class.

    Attributes:
        prompts: the prompt of each image, over all processes [N]; images of one prompt stand together.
        seeds: the seed of each image's noise [N].
        num_steps: T.
        guidance_scale: classifier-free guidance; 0 for none.
        draws: seed of the targets' draws and of the choice of steps.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    num_steps: int
    guidance_scale: float
    draws: int


def by_prompt(prompts: Sequence[str]) -> list[tuple[str, Tensor]]:
    """Return the different prompts of images, each with the images that have it, int64 [n]."""
    return [
        (prompt, torch.tensor([number for number, one in enumerate(prompts) if one == prompt]))
        for prompt in dict.fromkeys(prompts)
    ]


def batch_at(
    config: TrainConfig,
    prompt_sets: Mapping[str, Sequence[str]],
    iteration: int,
    number: int,
    *,
    named: Container[str] = (),
) -> Batch:
    """Return one of an iteration's ``prompts_per_step`` batches.

    Args:
        named: prompts that name a class of what is made fair. A set of nothing else gives batches of
            ``named_images`` images of each of several prompts.
    """
    position = iteration * config.prompts_per_step + number
    each = config.named_images or config.images_per_prompt
    sets = tuple(
        (prompts, share, config.images_per_prompt // each if all(one in named for one in prompts) else 1)
        for prompts, share in ((tuple(prompt_sets[name]), share) for name, share in config.prompt_sets)
    )
    epoch, place = divmod(position, len(_epoch(sets, config.seed, 0)))
    turns = _epoch(sets, config.seed, epoch)[place]
    size, images = config.images_per_prompt, config.images_per_prompt // len(turns)
    noises: list[tuple[object, int, int]] = [(iteration, number, first) for first in range(0, size, images)]
    if config.originals_pool:  # each time that a prompt comes, it takes the next of its sets of N noises, in turn
        firsts = [(prompt, turn * images % (config.originals_pool * size)) for prompt, turn in turns]
        noises = [(prompt, *divmod(first, size)) for prompt, first in firsts]
    spread = max(0, config.max_steps - config.num_steps) + 1
    return Batch(
        tuple(prompt for prompt, _ in turns for _ in range(images)),
        tuple(
            derived_seed("noise", config.seed, origin, turn, first + index)
            for origin, turn, first in noises
            for index in range(images)
        ),
        config.num_steps + derived_seed("steps", config.seed, *noises[0][:2]) % spread,
        0.0 if iteration < config.unguided else config.guidance_scale,
        derived_seed("draws", config.seed, iteration, number),
    )


_Sets = tuple[tuple[tuple[str, ...], float, int], ...]
"""Prompt sets: the prompts, the share of the batches, and how many prompts make one."""


@lru_cache(maxsize=4)
def _epoch(sets: _Sets, seed: int, epoch: int) -> tuple[tuple[tuple[str, int], ...], ...]:
    """Return the batches of an epoch in order: of each the prompts, and a number that says how often each came before.

    Every prompt comes at least once, and each set has its share of the batches.
    """
    total = sum(share for _, share, _ in sets)
    least = [-(-len(prompts) // together) for prompts, _, together in sets]
    length = max(round(count * total / share) for count, (_, share, _) in zip(least, sets, strict=True))
    generator = torch.Generator().manual_seed(derived_seed("epoch", seed, epoch))
    chosen: list[tuple[tuple[str, int], ...]] = []
    for count, (prompts, share, together) in zip(least, sets, strict=True):
        order = torch.randperm(len(prompts), generator=generator).tolist()
        places = max(count, round(length * share / total)) * together
        before = epoch * -(-places // len(prompts))
        turns = [(prompts[order[i % len(prompts)]], before + i // len(prompts)) for i in range(places)]
        chosen += [tuple(turns[i : i + together]) for i in range(0, len(turns), together)]
    return tuple(chosen[i] for i in torch.randperm(len(chosen), generator=generator).tolist())
