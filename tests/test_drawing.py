"""Images of an evaluation: each follows from its own seed, and is seen as it is."""

import numpy as np
import torch

from fair_adaptors.evaluation.drawing import classify, generate
from fair_adaptors.seeds import image_seed
from tests.tiny import tiny_pipeline

PROMPTS = ["a nurse", "a guard"]
SETTINGS = {"seed": 3, "num_steps": 2, "guidance_scale": 2.0}


def test_an_image_is_the_same_in_any_batch_and_any_company() -> None:
    pipe = tiny_pipeline()
    whole = generate(pipe, PROMPTS, images_per_prompt=3, batch_size=6, **SETTINGS)  # type: ignore[arg-type]
    parts = generate(pipe, PROMPTS[1:], images_per_prompt=2, batch_size=1, **SETTINGS)  # type: ignore[arg-type]
    assert whole.shape == (2, 3, 3, 16, 16)
    assert torch.allclose(whole[1, :2], parts[0], atol=1e-5)


def test_seeds_depend_on_seed_prompt_and_index_alone() -> None:
    seeds = {image_seed(s, p, i) for s in range(3) for p in PROMPTS for i in range(5)}
    assert len(seeds) == 30 and all(0 <= seed < 2**63 for seed in seeds)


def test_classes_are_probabilities() -> None:
    images = torch.rand(2, 3, 3, 4, 4)
    found = classify(images, lambda batch: {"bright": torch.stack([batch.mean((1, 2, 3)), -batch.mean((1, 2, 3))], 1)})
    assert found["bright"].shape == (2, 3, 2)
    assert np.allclose(found["bright"].sum(-1), 1)
