"""Bias on the way: the same images of the same prompts every time, split over the processes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fair_adaptors.evaluation.estimates import BiasEstimate, estimate_bias
from fair_adaptors.evaluation.run import image_seed

from .config import TrainConfig
from .distributed import World
from .sampling import decode, encode_prompt, initial_noise, sample
from .setting import Setting

BATCH = 32


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
