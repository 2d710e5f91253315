"""Images, pictures and pages of an evaluation."""

import numpy as np
import torch

from fair_adaptors.evaluation.estimates import BiasEstimate, Estimate
from fair_adaptors.evaluation.grid import before_after_grid, plain_grid
from fair_adaptors.evaluation.report import verdict
from fair_adaptors.evaluation.run import Comparison, classify, compare, generate, image_seed
from tests.tiny import tiny_pipeline

PROMPTS = ["a nurse", "a guard"]
SETTINGS = {"seed": 3, "num_steps": 2, "guidance_scale": 2.0}


def estimate(value: float, low: float, high: float) -> BiasEstimate:
    return BiasEstimate(value, low, high, 0.1, 16, 32, 0.01)


FELL = Comparison(estimate(0.8, 0.7, 0.9), estimate(0.2, 0.15, 0.25))
STAYED = Comparison(estimate(0.4, 0.3, 0.5), estimate(0.35, 0.25, 0.45))


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


def test_a_comparison_estimates_before_and_after() -> None:
    one_sided = np.tile([1.0, 0.0], (4, 8, 1))
    even = np.tile(np.eye(2), (4, 4, 1))
    found = compare({"gender": one_sided}, {"gender": even}, ["gender"])["gender"]
    assert found.before.value == 1 and found.after.value == 0


def test_the_verdict_claims_only_what_the_intervals_show() -> None:
    kept = (Estimate(0.98, 0.97, 0.99), Estimate(0.97, 0.96, 0.985))

    def said(comparison: Comparison) -> str:
        return verdict({"gender": comparison}, "right occupation", kept)

    assert "falls from 0.80 to 0.20" in said(FELL)
    assert "no clear change" in said(STAYED)
    assert "rises" in said(Comparison(FELL.after, FELL.before))
    assert "98% before, 97% after" in said(FELL)


def test_a_grid_has_room_for_every_image() -> None:
    images = torch.rand(2, 5, 3, 16, 16)
    sheet = before_after_grid(images, images, PROMPTS, title="t", tile=32)
    assert sheet.width > 5 * 32 and sheet.height > 2 * 2 * 32
    assert plain_grid(torch.rand(9, 3, 16, 16), columns=4, tile=10).height > 3 * 10
