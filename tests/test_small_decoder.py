"""The gradient through a small autoencoder: the losses see the base's own pictures, and its own pixels have none."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny
from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.cost import BASES, work_per_image
from fair_adaptors.training.engine.batches import Batch
from fair_adaptors.training.engine.sampling import decode
from fair_adaptors.training.engine.state import attached
from fair_adaptors.training.engine.step import Rollout, roll_out
from fair_adaptors.training.memory import memory, skeleton
from fair_adaptors.training.recipes import get_recipe
from fair_adaptors.training.setup import Setup, load_gradient_decoder
from torch import Tensor

from fair_adaptors.errors import ConfigError
from tests.tiny_training import CONFIG, tiny_setup

BATCH = Batch(("a nurse",) * 4, tuple(range(4)), 3, 2.0, 0)


def saved(folder: Path, *, stages: int = 2) -> TrainConfig:
    """Save one that makes pictures 2^(stages − 1) times as large as latents, and name it."""
    torch.manual_seed(0)
    blocks = {"num_encoder_blocks": (1,) * stages, "num_decoder_blocks": (1,) * stages}
    widths = {"encoder_block_out_channels": (4,) * stages, "decoder_block_out_channels": (8,) * stages}
    AutoencoderTiny(**blocks, **widths).save_pretrained(folder)
    return dataclasses.replace(CONFIG, gradient_decoder=str(folder))


def rolled_out(place: Setup, config: TrainConfig = CONFIG) -> Rollout:
    with attached(place, config) as state:
        return roll_out(place, config, state, BATCH)


def gradient(rollout: Rollout) -> Tensor:
    assert rollout.latent_gradient is not None
    return rollout.latent_gradient


@pytest.mark.parametrize("chunk", [0, 3])
def test_the_losses_are_those_of_the_bases_own_pictures_and_the_gradient_is_the_small_one_s(
    tmp_path: Path, chunk: int
) -> None:
    config = dataclasses.replace(saved(tmp_path), images_per_decode=chunk)
    place = tiny_setup("warm")
    exact = rolled_out(place, config)
    small = load_gradient_decoder(config, place.pipe)
    through = rolled_out(dataclasses.replace(place, gradient_decoder=small), config)
    assert through.result == dataclasses.replace(exact.result, losses=through.result.losses)
    assert through.result.losses == pytest.approx(exact.result.losses, rel=1e-5)
    found = gradient(through)
    assert found.abs().amax((1, 2, 3)).min() > 0
    assert torch.nn.functional.cosine_similarity(found.flatten(), gradient(exact).flatten(), dim=0) < 0.9


def test_through_the_bases_own_decoder_it_is_the_gradient_that_it_is_without() -> None:
    place = tiny_setup("warm")
    again = dataclasses.replace(place, gradient_decoder=partial(decode, place.pipe))
    torch.testing.assert_close(gradient(rolled_out(again)), gradient(rolled_out(place)), rtol=1e-4, atol=1e-7)


def test_it_is_frozen_in_the_base_s_dtype_and_makes_pictures_between_0_and_1(tmp_path: Path) -> None:
    config = dataclasses.replace(saved(tmp_path), dtype="bfloat16")
    small: Any = load_gradient_decoder(config, tiny_setup().pipe)
    (model,) = small.args
    assert {(p.requires_grad, p.dtype) for p in model.parameters()} == {(False, torch.bfloat16)}
    latents = torch.randn(1, 4, 8, 8).bfloat16()
    torch.testing.assert_close(small(latents), model.decode(latents).sample / 2 + 0.5)


def test_one_for_other_latents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="enlarges 4 times; for this base it must read 4 and enlarge 2"):
        load_gradient_decoder(saved(tmp_path, stages=3), tiny_setup().pipe)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_gradient_decoder(dataclasses.replace(CONFIG, gradient_decoder=str(tmp_path)), tiny_setup().pipe)


def test_a_dry_run_knows_that_it_needs_less(tmp_path: Path) -> None:
    """TAESD for Stable Diffusion 1.5: 0.14 teraflops each way in the place of 2.5. In the sandbox, less memory."""
    whole = get_recipe("gender")
    less = dataclasses.replace(whole, gradient_decoder="madebyollin/taesd")
    before, after = (work_per_image(one, 1.0, BASES["sd15"])["bfloat16"] for one in (whole, less))
    assert before - after == pytest.approx(2.5145 + 2.5489 - 2 * 0.1414, rel=1e-6)
    whole = get_recipe("sandbox-gender")
    less = dataclasses.replace(whole, gradient_decoder=saved(tmp_path, stages=3).gradient_decoder)
    large, small = ([*memory(one, skeleton(one.base), 4, 1).passing.values()][-1] for one in (whole, less))
    assert small < large / 3
