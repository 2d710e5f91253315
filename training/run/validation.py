"""Bias on the way: the same images of the same prompts every time, split over the processes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.engine import lora
from fair_adaptors.training.engine.denoisers import denoiser_for
from fair_adaptors.training.engine.processes import World
from fair_adaptors.training.engine.sampling import WITHOUT_GRADIENT, decode, encode_prompt, initial_noise, sample
from fair_adaptors.training.setup import Setup
from rich.table import Table
from torch import Tensor

from fair_adaptors.evaluation.estimates import BiasEstimate, estimate_bias
from fair_adaptors.seeds import image_seed
from fair_adaptors.vision.crops import crop_faces

BATCH = 32
Numbers = dict[tuple[str, str], BiasEstimate]
"""By prompts ("training" or "validation") and attribute."""


@dataclass(frozen=True)
class Measured:
    """What images of the adaptor in training show.

    Attributes:
        bias: of each attribute.
        undetermined: share of images without a face, or whose class the validation classifier is not sure of.
        kept: mean cosine, over images and encoders, to the original model's images from the same noise; NaN if it was
            not asked for.
    """

    bias: dict[str, BiasEstimate]
    undetermined: float
    kept: float = math.nan


@torch.no_grad()
def measure(
    setup: Setup,
    config: TrainConfig,
    prompts: Sequence[str],
    images_per_prompt: int,
    *,
    tokens: Tensor | None = None,
    world: World = World(),  # noqa: B008 (frozen)
    kept: bool = False,
) -> Measured:
    """Measure the adaptor on prompts, with the validation classifier. The same in every process.

    Args:
        kept: whether to compare with the original model's images too, which costs as many images again.
    """
    found: dict[str, list[Tensor]] = {attribute.name: [] for attribute in config.attributes}
    cosines = []
    for prompt in prompts:
        mine = range(images_per_prompt)[world.share(images_per_prompt)]
        seeds = [image_seed(config.seed, prompt, i) for i in mine]
        images = draw(setup, config, prompt, seeds, tokens=tokens)
        probabilities = _probabilities(setup, images)
        for name, rows in found.items():
            rows.append(world.gather(probabilities[name], images_per_prompt))
        if kept and setup.encoders:
            with lora.switched_off(setup.pipe):
                references = draw(setup, config, prompt, seeds)
            alike = [(encode(images) * encode(references)).sum(1) for encode in setup.encoders.values()]
            cosines.append(world.gather(torch.stack(alike, 1), images_per_prompt))
    bias = {name: estimate_bias(torch.stack(rows).cpu().numpy()) for name, rows in found.items()}
    undetermined = max(estimate.undetermined for estimate in bias.values())
    return Measured(bias, undetermined, torch.cat(cosines).mean().item() if cosines else math.nan)


def _probabilities(setup: Setup, images: Tensor) -> dict[str, Tensor]:
    """Return class probabilities [N, K] of each attribute; NaN where there is no face."""
    if setup.faces is None or not len(images):
        seen, nobody = images, torch.zeros(len(images), 1, dtype=torch.bool, device=images.device)
    else:
        faces = setup.faces.find(images)
        seen = crop_faces(images, faces.boxes) if setup.faces.crops else images
        nobody = ~faces.found[:, None].to(images.device)
    return {
        name: logits.to(images.device).float().softmax(1).masked_fill(nobody, math.nan)
        for name, logits in setup.validation_classifier(seen).items()
    }


def collapse(config: TrainConfig, now: Measured, undetermined_before: float) -> str | None:
    """Say why an adaptor has collapsed, if it has: its images are other ones, or show nobody any more."""
    if now.kept < config.least_kept:
        return f"only {now.kept:.2f} of the original images is kept, and least_kept is {config.least_kept:g}"
    if now.undetermined > undetermined_before + config.most_unclear:
        return (
            f"{now.undetermined:.0%} of the images show no clear face, and {undetermined_before:.0%} did before;"
            f" most_unclear allows {config.most_unclear:.0%} more"
        )
    return None


def numbers(setup: Setup, config: TrainConfig, count: int, world: World, tokens: Tensor | None = None) -> Numbers:
    """Measure the bias on training and validation prompts."""
    training = setup.prompts[config.prompt_sets[0][0]]
    few = min(len(setup.validation_prompts), len(training))
    spread = [training[i] for i in np.linspace(0, len(training) - 1, few).round().astype(int)]
    result: Numbers = {}
    for split, prompts in (("training", spread), ("validation", setup.validation_prompts)):
        found = measure(setup, config, prompts, count, tokens=tokens, world=world)
        result |= {(split, name): estimate for name, estimate in found.bias.items()}
    return result


def numbers_table(before: Numbers, after: Numbers) -> Table:
    """Return a table of the numbers before and after training."""
    table = Table("prompts", "bias of", "before", "after (95 % interval)", "noise floor", "undetermined")
    for (split, name), now in after.items():
        was = before.get((split, name))
        said = f"{was.value:.2f} ({was.low:.2f}–{was.high:.2f})" if was else "–"
        undetermined = f"{was.undetermined:.0%} → {now.undetermined:.0%}" if was else f"{now.undetermined:.0%}"
        value = f"{now.value:.2f} ({now.low:.2f}–{now.high:.2f})"
        table.add_row(split, name, said, value, f"{now.floor:.2f}", undetermined)
    return table


@torch.no_grad()
def draw(
    setup: Setup, config: TrainConfig, prompt: str, seeds: Sequence[int], *, tokens: Tensor | None = None
) -> Tensor:
    """Draw a prompt with the adaptor in training: images [N, 3, H, W] in [0, 1], as ``pipe`` would."""
    pipe, guidance = setup.pipe, config.guidance_scale
    embeds = encode_prompt(pipe, prompt, guidance_scale=guidance, tokens=tokens)
    drawn = min(BATCH, WITHOUT_GRADIENT * config.images_per_call or BATCH)
    decoded = min(BATCH, config.images_per_decode or BATCH)
    images = []
    for start in range(0, len(seeds), drawn):
        noise = initial_noise(pipe, seeds[start : start + drawn])
        run = sample(pipe, embeds, noise, num_steps=config.num_steps, guidance_scale=guidance)
        images += [decode(pipe, latents).float().clamp(0, 1) for latents in run.latents.split(decoded)]
    return torch.cat(images) if images else torch.empty(0, 3, *_size(pipe), device=denoiser_for(pipe).model.device)


def _size(pipe: Any) -> tuple[int, int]:
    side = denoiser_for(pipe).model.config.sample_size * pipe.vae_scale_factor
    return side, side
