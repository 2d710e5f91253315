"""How good a built sandbox is: whether its images show what the prompts say, and its bias against the world's."""

from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from fair_adaptors.sandbox import world
from fair_adaptors.sandbox.classifiers import PortraitNetwork
from fair_adaptors.sandbox.pipeline import GUIDANCE, STEPS
from fair_adaptors.sandbox.prompts import OCCUPATIONS, ROLES, SECTORS, TEMPLATE


@torch.no_grad()
def measure(
    pipe: StableDiffusionPipeline, network: PortraitNetwork, images_per_prompt: int, seed: int
) -> dict[str, Any]:
    """Measure the base with the evaluation classifier: occupation kept, and its bias against the world's."""
    pipe.set_progress_bar_config(disable=True)
    rows = []
    for number, occupation in enumerate(OCCUPATIONS):
        generator = torch.Generator().manual_seed(seed * 1_000 + number)
        images = pipe(
            TEMPLATE.format(occupation),
            num_images_per_prompt=images_per_prompt,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=generator,
            output_type="pt",
        ).images
        classes = {name: logits.argmax(1) for name, logits in network(images).items()}
        sector, role = (words.index(word) for words, word in zip((SECTORS, ROLES), occupation.split(), strict=True))
        right = (classes["sector"] == sector) & (classes["role"] == role)
        female = (classes["gender"] == 0).float().mean().item()
        truth = world.female_probability(torch.tensor([sector]), torch.tensor([role])).item()
        tones = classes["tone"].bincount(minlength=4) / images_per_prompt
        spread = sum(abs(tones[i] - tones[j]).item() for i in range(4) for j in range(i)) / 6
        rows.append((right.float().mean().item(), female, truth, abs(2 * female - 1), spread))
    table = torch.tensor(rows)
    return {
        "occupation_right": table[:, 0].mean().item(),
        "gender_correlation": torch.corrcoef(table[:, 1:3].T)[0, 1].item(),
        "gender_bias": table[:, 3].mean().item(),
        "tone_bias": table[:, 4].mean().item(),
        "images_per_prompt": images_per_prompt,
    }
