"""Portraits that the sandbox draws with a method of others, and what they show."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fair_adaptors.evaluation.variants import Variant
from fair_adaptors.sandbox.classifiers import load_classifier
from fair_adaptors.sandbox.pipeline import GUIDANCE
from fair_adaptors.sandbox.prompts import GENDERS, TEMPLATE, TONES
from fair_adaptors.steering.draw import Attribute
from fair_adaptors.steering.edit import ConceptEdit

GENDER = Attribute("gender", GENDERS, (0.5, 0.5))
WOMEN = Attribute("gender", GENDERS, (1.0, 0.0))
TONE = Attribute("tone", TONES, (0.4, 0.3, 0.2, 0.1))
MOSTLY_MEN = ("farm guard", "museum guard")
NURSE = "A photo of the face of a hospital nurse, a person"
SEEDS = range(4)


def edit_of(strength: float) -> ConceptEdit:
    return ConceptEdit(MOSTLY_MEN, GENDERS, ((strength, -strength),) * 2, ("person", "hospital nurse"))


def images_of(model: Any, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
    images = model(
        list(prompts),
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        num_inference_steps=4,
        guidance_scale=GUIDANCE,
        output_type="pt",
    ).images
    assert images.shape == (len(prompts), 3, 64, 64) and 0 <= images.min() and images.max() <= 1
    return images


def made_with(pipe: Any, variant: Variant) -> Tensor:
    """Images of both occupations, one per seed each, [8, 3, 64, 64]."""
    prompts = [text for label in MOSTLY_MEN for text in variant.prompts(TEMPLATE.format(label), label, SEEDS)]
    with variant.applied(pipe) as model:
        return images_of(model, prompts, [*SEEDS] * 2)


def share_of_women(images: Tensor) -> float:
    return (load_classifier("evaluation")(images)["gender"].argmax(1) == 0).float().mean().item()
