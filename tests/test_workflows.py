"""Where people load an adaptor: in each way of use it makes the picture that its weights make, and leaves none of it.

The pictures to be made come from a second model, to whose weights B·A was added by hand, used in the same way.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fair_adaptors import load_fair_adaptor
from fair_adaptors.adaptor.modules import all_modules
from fair_adaptors.adaptor.record import WEIGHTS_FILE
from tests.tiny import write_tiny_adaptor
from tests.unwritable import WAYS
from tests.uses import FIRST, PARTS, SHARED, USES, base_of

DOC = Path(__file__).parents[1] / "docs" / "ship.md"


def merged(pipe: Any, folder: Path) -> Any:
    """Add an adaptor's products to a pipeline's weights."""
    tensors, modules = load_file(folder / WEIGHTS_FILE), all_modules(pipe)
    for key, down in tensors.items():
        if key.endswith(".lora_A.weight"):
            stem = key.removesuffix(".lora_A.weight")
            modules[stem].weight.data += tensors[f"{stem}.lora_B.weight"] @ down
    return pipe


@pytest.fixture(scope="module")
def adaptors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By the kind of base and what they change, so that each is written once."""
    folder = tmp_path_factory.mktemp("adaptors")
    made = {PARTS.get(name, ("text_encoder", "unet")): base_of(name) for name in USES}
    paths = {parts: write_tiny_adaptor(folder / "-".join(parts), base(), parts=parts) for parts, base in made.items()}
    return {name: paths[PARTS.get(name, ("text_encoder", "unet"))] for name in USES}


@pytest.mark.filterwarnings("ignore")  # diffusers' own, of pipelines and options that it will drop
@pytest.mark.parametrize("name", USES)
def test_in_every_use_the_picture_is_that_of_the_weights_and_then_the_bases_again(
    tmp_path: Path, adaptors: dict[str, Path], name: str
) -> None:
    base, folder, use = base_of(name), adaptors[name], USES[name]
    expected = use(merged(base(), folder), tmp_path / "merged")[1]()
    for order in ("before loading", "after loading")[: 1 + (name in SHARED)]:
        pipe = base()
        weights = {key: module.weight.clone() for key, module in all_modules(pipe).items()}
        if order == "after loading":
            handle = load_fair_adaptor(pipe, folder)
            _, draw_it = use(pipe, tmp_path / order)
        else:
            target, draw_it = use(pipe, tmp_path / order)
            plain = draw_it()
            handle = load_fair_adaptor(target, folder)
        assert torch.allclose(draw_it(), expected, atol=1e-3) and (expected - plain).abs().max() > 0.03, order
        handle.unload()
        drift = 1e-3 if "fuse_lora" in name else 1e-5  # diffusers' own: it takes a LoRA out by subtraction
        assert torch.allclose(draw_it(), plain, atol=drift), order
        if "fuse_lora" not in name and "offload" not in name:
            after = {key: module.weight for key, module in all_modules(pipe).items()}
            alike = (key for key in weights if after[key].shape == weights[key].shape)
            assert all(torch.equal(after[key], weights[key]) for key in alike), order


def test_the_page_names_the_ways_of_use_that_are_run_here() -> None:
    table = DOC.read_text(encoding="utf-8").partition("## Tried in")[2].partition("\n## ")[0]
    lines = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")]
    rows = [[cell.strip().replace("`", "") for cell in line] for line in lines if line[0].strip()]
    kinds = [way for way, (_, _, library) in WAYS.items() if library in ("bitsandbytes", "diffusers")]  # test_injected
    for number, uses in enumerate((SHARED, [*FIRST, *kinds]), start=1):
        assert sorted("; ".join(row[number] for row in rows if row[number]).split("; ")) == sorted(uses)
