"""Bias on the way: the same images of the same prompts every time, split over the processes."""

from collections.abc import Sequence

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from fair_adaptors.evaluation.estimates import BiasEstimate, estimate_bias
from fair_adaptors.evaluation.run import image_seed

from .config import TrainConfig
from .distributed import World
from .sampling import decode, encode_prompt, initial_noise, sample
from .setting import Setting

BATCH = 32
Numbers = dict[tuple[str, str], BiasEstimate]
"""By prompts ("training" or "validation") and attribute."""


@torch.no_grad()
def measure(
    setting: Setting,
    config: TrainConfig,
    prompts: Sequence[str],
    images_per_prompt: int,
    *,
    tokens: Tensor | None = None,
    world: World = World(),  # noqa: B008 (frozen)
) -> dict[str, BiasEstimate]:
    """Estimate each attribute's bias on prompts, with the classifier that judges. The same in every process."""
    found: dict[str, list[Tensor]] = {attribute.name: [] for attribute in config.attributes}
    for prompt in prompts:
        mine = range(images_per_prompt)[world.share(images_per_prompt)]
        images = draw(setting, config, prompt, [image_seed(config.seed, prompt, i) for i in mine], tokens=tokens)
        logits = setting.judge(images)
        for name, rows in found.items():
            rows.append(world.gather(logits[name].float().softmax(1), images_per_prompt))
    return {name: estimate_bias(torch.stack(rows).cpu().numpy()) for name, rows in found.items()}


def numbers(setting: Setting, config: TrainConfig, count: int, world: World, tokens: Tensor | None = None) -> Numbers:
    """Measure the bias on training and validation prompts."""
    training = setting.prompts[config.prompt_sets[0][0]]
    few = min(len(setting.validation_prompts), len(training))
    spread = [training[i] for i in np.linspace(0, len(training) - 1, few).round().astype(int)]
    result: Numbers = {}
    for split, prompts in (("training", spread), ("validation", setting.validation_prompts)):
        found = measure(setting, config, prompts, count, tokens=tokens, world=world)
        result |= {(split, name): estimate for name, estimate in found.items()}
    return result


def numbers_table(before: Numbers, after: Numbers) -> Table:
    """Return a table of the numbers before and after training."""
    table = Table("prompts", "bias of", "before", "after (95 % interval)", "noise floor", "undetermined")
    for (split, name), now in after.items():
        was = before.get((split, name))
        said = f"{was.value:.2f} ({was.low:.2f}–{was.high:.2f})" if was else "–"
        unsure = f"{was.undetermined:.0%} → {now.undetermined:.0%}" if was else f"{now.undetermined:.0%}"
        value = f"{now.value:.2f} ({now.low:.2f}–{now.high:.2f})"
        table.add_row(split, name, said, value, f"{now.floor:.2f}", unsure)
    return table


@torch.no_grad()
def draw(
    setting: Setting, config: TrainConfig, prompt: str, seeds: Sequence[int], *, tokens: Tensor | None = None
) -> Tensor:
    """Draw a prompt with the adaptor in training: images [N, 3, H, W] in [0, 1], as ``pipe`` would."""
    pipe, guidance = setting.pipe, config.guidance_scale
    embeds = encode_prompt(pipe, prompt, guidance_scale=guidance, tokens=tokens)
    images = []
    for start in range(0, len(seeds), BATCH):
        noise = initial_noise(pipe, seeds[start : start + BATCH])
        run = sample(pipe, embeds, noise, num_steps=config.num_steps, guidance_scale=guidance)
        images.append(decode(pipe, run.latents).float().clamp(0, 1))
    return torch.cat(images) if images else torch.empty(0, 3, *_size(pipe), device=pipe.unet.device)


def _size(pipe: object) -> tuple[int, int]:
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor  # type: ignore[attr-defined]
    return side, side
