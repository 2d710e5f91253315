"""A training run on tiny models: its configuration, and what it loads."""

import torch
from fair_adaptors.training.config import Attribute, TrainConfig
from fair_adaptors.training.setup import Setup
from torch import Tensor

from fair_adaptors.vision.checked import checked
from fair_adaptors.vision.types import Classifier
from tests.tiny import tiny_pipeline

CONFIG = TrainConfig(
    name="tiny",
    base="tiny",
    attributes=(Attribute("bright", ("dark", "bright"), (0.5, 0.5)),),
    rank=2,
    prompt_sets=(("train", 1.0),),
    iterations=3,
    images_per_prompt=8,
    num_steps=3,
    guidance_scale=2.0,
    learning_rate=1e-2,
)


def brightness(images: Tensor) -> dict[str, Tensor]:
    """Logits of whether an image is brighter than most, and whether it is warmer: redder than it is blue."""
    bright = 40 * (images.mean((1, 2, 3)) - 0.45)
    warm = 40 * ((images[:, 0] - images[:, 2]).mean((1, 2)) + 0.07)
    return {"bright": torch.stack([-bright, bright], 1), "warm": torch.stack([-warm, warm], 1)}


def tiny_setup(*kept: str) -> Setup:
    """What a run loads; ``kept`` must stay as the original model shows it."""
    prompts = ("a nurse", "a guard")
    encoder = {"flat": lambda images: torch.nn.functional.normalize(images.flatten(1), dim=1)}
    beside = {"warm": ("cold", "warm")}
    sees = checked(Classifier("tiny", "tiny", {"bright": ("dark", "bright"), **beside}, brightness))
    return Setup(
        tiny_pipeline(), {"train": prompts}, prompts, sees, sees, encoder, kept_attributes=kept, beside=beside
    )
