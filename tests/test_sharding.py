"""A base that is split over processes: what is refused, what is counted, and how often its blocks are called."""

import dataclasses
from pathlib import Path

import pytest
import torch
from fair_adaptors.training.engine.batches import batch_at
from fair_adaptors.training.engine.processes import World
from fair_adaptors.training.engine.reference_images import ReferenceImages
from fair_adaptors.training.engine.sampling import initial_noise
from fair_adaptors.training.memory import memory, skeleton
from fair_adaptors.training.plan import make_plan
from fair_adaptors.training.recipes import get_recipe
from fair_adaptors.training.sharding import GATHERED, check_shares, gathered_bytes

from fair_adaptors.errors import ConfigError
from tests.tiny import tiny_pipeline
from tests.tiny_training import CONFIG, tiny_setup

SPLIT = dataclasses.replace(CONFIG, shard_base=True, images_per_prompt=24, validation_images=24)


def test_equal_shares_are_let_pass() -> None:
    check_shares(SPLIT, 4, pictures=32)
    check_shares(dataclasses.replace(SPLIT, named_images=1), 4)
    check_shares(dataclasses.replace(CONFIG, images_per_prompt=5), 2)


@pytest.mark.parametrize(
    ("settings", "processes", "said"),
    [
        ({}, 1, "there is one: start more"),
        ({}, 5, r"processes do not divide images_per_prompt \(24\) and validation_images \(24\) and pictures \(32\)"),
        ({}, 3, r"3 processes do not divide pictures \(32\)"),
        ({"named_images": 8}, 2, "named_images is 8, and a process has 12 images"),
        ({"compile": True}, 2, "neither with compile nor with soft tokens"),
        ({"parts": ("tokens",)}, 2, "neither with compile nor with soft tokens"),
    ],
)
def test_where_processes_would_wait_for_each_other_is_refused(
    settings: dict[str, object], processes: int, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        check_shares(dataclasses.replace(SPLIT, **settings), processes, pictures=32)  # type: ignore[arg-type]


def test_the_dry_run_counts_a_process_s_part_of_the_base_and_the_blocks_that_are_gathered(base: str) -> None:
    config = dataclasses.replace(SPLIT, base=base)
    whole, four = (memory(config, skeleton(base), 8, 2, processes=n).kept for n in (1, 4))
    autoencoder, unet = (
        sum(p.numel() for p in model.parameters()) * 4 / 1e6 for model in (skeleton(base).vae, skeleton(base).unet)
    )
    assert four["base"] == pytest.approx((whole["base"] - autoencoder) / 4 + autoencoder)
    assert four["blocks of the base, gathered"] == pytest.approx(gathered_bytes(skeleton(base).unet) / 1e6) != unet
    assert not any("gathered" in what for what in memory(CONFIG, skeleton(base), 8, 2).kept)
    with pytest.raises(ConfigError, match="there is one"):
        make_plan(get_recipe("sandbox-gender", {"shard_base": "true"}))


def test_inner_blocks_are_gathered_alone() -> None:
    """The tiny U-Net's largest block is a residual one; three at a time, beside what is in no block."""
    unet = tiny_pipeline().unet
    parameters = dict(unet.named_parameters())
    inside = ("resnets", "transformer_blocks", "up_blocks")
    outside = sum(p.numel() for name, p in parameters.items() if not any(word in name for word in inside))
    residual = max(
        sum(p.numel() for p in module.parameters())
        for name, module in unet.named_modules()
        if name.rpartition(".")[0].endswith("resnets")
    )
    assert gathered_bytes(unet) == 4 * (outside + GATHERED * residual)


def test_where_one_process_lacks_originals_all_make_theirs_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OneLacks(World):
        def any(self, flag: bool, device: torch.device | str = "cpu") -> bool:
            return True

    place, config = tiny_setup(), dataclasses.replace(CONFIG, originals_pool=1, images_per_prompt=2, shard_base=True)
    batch, drawn = batch_at(config, place.prompts, 0, 0), []
    noise = initial_noise(place.pipe, batch.seeds)
    make = ReferenceImages._make
    monkeypatch.setattr(ReferenceImages, "_make", lambda self, *given: drawn.append(1) or make(self, *given))
    for split, world, times in ((True, World(), 1), (True, World(), 1), (True, OneLacks(), 2), (False, OneLacks(), 2)):
        ReferenceImages(tmp_path).of(place, dataclasses.replace(config, shard_base=split), batch, world, noise)
        assert len(drawn) == times
