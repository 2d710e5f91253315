"""Which prompt comes when, with which noises: functions of seed and position, so that there is no state to lose.

Any process, of any number of them, in a first or a resumed run, finds the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from fair_adaptors.training.config import TrainConfig

from fair_adaptors.seeds import derived_seed


@dataclass(frozen=True)
class Batch:
    """The images of one prompt in one iteration.

    Attributes:
        prompt: the prompt.
        seeds: one per image, over all processes [N].
        num_steps: T.
        guidance_scale: classifier-free guidance.
        draws: seed of the targets' draws and of the choice of steps.
    """

    prompt: str
    seeds: tuple[int, ...]
    num_steps: int
    guidance_scale: float
    draws: int


def batch_at(config: TrainConfig, prompt_sets: Mapping[str, Sequence[str]], iteration: int, number: int) -> Batch:
    """Return the batch of one of an iteration's ``prompts_per_step`` prompts."""
    position = iteration * config.prompts_per_step + number
    sets = tuple((tuple(prompt_sets[name]), share) for name, share in config.prompt_sets)
    length = len(_epoch(sets, config.seed, 0))
    epoch, place = divmod(position, length)
    prompt = _epoch(sets, config.seed, epoch)[place]
    where: tuple[object, int] = (iteration, number)
    if config.originals_pool:
        where = (prompt, epoch % config.originals_pool)
    seeds = tuple(derived_seed("noise", config.seed, *where, index) for index in range(config.images_per_prompt))
    spread = max(0, config.max_steps - config.num_steps) + 1
    return Batch(
        prompt,
        seeds,
        config.num_steps + derived_seed("steps", config.seed, *where) % spread,
        1.0 if iteration < config.unguided else config.guidance_scale,
        derived_seed("draws", config.seed, iteration, number),
    )


@lru_cache(maxsize=4)
def _epoch(sets: tuple[tuple[tuple[str, ...], float], ...], seed: int, epoch: int) -> tuple[str, ...]:
    """Return the prompts of an epoch in order: every prompt at least once, each set with its share of the places."""
    total = sum(share for _, share in sets)
    length = max(round(len(prompts) * total / share) for prompts, share in sets)
    generator = torch.Generator().manual_seed(derived_seed("epoch", seed, epoch))
    chosen: list[str] = []
    for prompts, share in sets:
        order = torch.randperm(len(prompts), generator=generator).tolist()
        places = max(len(prompts), round(length * share / total))
        chosen += [prompts[order[i % len(prompts)]] for i in range(places)]
    return tuple(chosen[i] for i in torch.randperm(len(chosen), generator=generator).tolist())
