"""Families of a flow whose weights cannot be written: adaptors go beside them; and what others read of an export."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from peft import PeftModel
from torch import Tensor, nn

from fair_adaptors import load_fair_adaptor
from fair_adaptors.adaptor.folder import read_adaptor
from fair_adaptors.adaptor.modules import all_modules
from fair_adaptors.convert import export
from fair_adaptors.families.table import family_named
from tests.tiny import write_tiny_adaptor
from tests.tiny_flow import FLOW_FAMILIES, draw
from tests.unwritable import WAYS, to_disk

DISK = "group offloading to disk"
HERE = [*(way for way, (_, _, library) in WAYS.items() if find_spec(library)), DISK]


@pytest.fixture(params=FLOW_FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pipe(name: str) -> Any:
    return FLOW_FAMILIES[name]()


@pytest.fixture
def adaptors(tmp_path: Path, name: str, pipe: Any) -> list[Path]:
    parts = tuple(family_named(name).parts)
    return [write_tiny_adaptor(tmp_path / str(seed), pipe, parts=parts, seed=seed) for seed in (1, 2)]


def returned(pipe: Any) -> dict[str, Tensor]:
    """What every linear layer that can have a LoRA returns of the same rows."""
    layers = {name: layer for name, layer in all_modules(pipe).items() if isinstance(layer, nn.Linear)}
    return {name: layer(rows_for(layer)).float() for name, layer in layers.items()}


def rows_for(layer: nn.Linear) -> Tensor:
    return torch.randn(4, layer.in_features, generator=torch.Generator().manual_seed(layer.in_features))


@pytest.mark.parametrize("way", HERE)
@torch.no_grad()
def test_two_adaptors_are_beside_weights_that_cannot_be_written(
    pipe: Any, adaptors: list[Path], tmp_path: Path, way: str
) -> None:
    to_disk(pipe, tmp_path) if way == DISK else WAYS[way][0](pipe)
    before, plain = returned(pipe), draw(pipe)
    handles = [load_fair_adaptor(pipe, folder) for folder in adaptors]
    after, picture = returned(pipe), draw(pipe)
    read = [read_adaptor(folder).tensors for folder in adaptors]
    stems = {key.removesuffix(".lora_A.weight") for key in read[0] if key.endswith(".lora_A.weight")}
    assert {name for name, rows in after.items() if not torch.equal(rows, before[name])} == stems
    layers = all_modules(pipe)
    for stem in stems:
        given = rows_for(layers[stem])
        wanted = sum(given @ one[f"{stem}.lora_A.weight"].T @ one[f"{stem}.lora_B.weight"].T for one in read)
        torch.testing.assert_close(after[stem] - before[stem], wanted, rtol=1e-3, atol=1e-5)
    assert (picture - plain).norm() > 1e-3 * plain.norm()
    for handle in handles:
        handle.unload()
    assert torch.equal(draw(pipe), plain)


def test_diffusers_reads_a_merged_pipeline_to_the_same_picture(
    pipe: Any, adaptors: list[Path], tmp_path: Path
) -> None:
    plain = draw(pipe)
    with load_fair_adaptor(pipe, adaptors[0]):
        expected = draw(pipe)
    merged = DiffusionPipeline.from_pretrained(export(adaptors[0], tmp_path / "merged", format="merged", pipe=pipe))
    merged.set_progress_bar_config(disable=True)
    torch.testing.assert_close(draw(merged), expected, rtol=0, atol=1e-5)
    assert torch.equal(draw(pipe), plain) and (expected - plain).norm() > 1e-3 * plain.norm()


def test_peft_reads_its_folders_to_the_same_picture(
    name: str, pipe: Any, adaptors: list[Path], tmp_path: Path
) -> None:
    with load_fair_adaptor(pipe, adaptors[0]):
        expected = draw(pipe)
    folder = export(adaptors[0], tmp_path / "peft", format="peft")
    for part in family_named(name).parts:
        setattr(pipe, part, PeftModel.from_pretrained(getattr(pipe, part), folder / part).merge_and_unload())
    torch.testing.assert_close(draw(pipe), expected, rtol=0, atol=1e-5)
