"""Adaptors of a flow, in other formats and back: the names of each family, which independent readers know."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders import single_file_utils as originals
from safetensors.torch import load_file, save_file
from torch import Tensor

from fair_adaptors import load_fair_adaptor
from fair_adaptors.adaptor.folder import read_adaptor
from fair_adaptors.adaptor.modules import all_modules
from fair_adaptors.convert import convert, export
from fair_adaptors.convert.exporting import kohya_tensors
from fair_adaptors.convert.layouts import comfy_keys
from fair_adaptors.convert.stacked import original_layers
from fair_adaptors.errors import FairAdaptorError, InvalidAdaptorError
from fair_adaptors.families.table import family_named
from tests.tiny import write_tiny_adaptor
from tests.tiny_flow import FLOW_FAMILIES, draw, stems, tiny_sd3

READERS = {
    "sd3": originals.convert_sd3_transformer_checkpoint_to_diffusers,
    "flux": originals.convert_flux_transformer_checkpoint_to_diffusers,
    "flux2": originals.convert_flux2_transformer_checkpoint_to_diffusers,
    "z-image": originals.convert_z_image_transformer_checkpoint_to_diffusers,
    "sana": originals.convert_sana_transformer_to_diffusers,
}
"""What diffusers makes of a checkpoint in each family's original layout, where that has names of its own: it knows
nothing of ours."""
READ = {"kohya": ("flux2", "z-image", "qwen-image"), "ComfyUI": ("qwen-image",)}
"""Whose files diffusers reads too: of other families none, or those of the real widths only."""


class Whole(dict[str, Tensor]):
    """A checkpoint of zeros, but for what is in it."""

    def __missing__(self, key: str) -> Tensor:
        return torch.zeros(7 * 3072, 1)

    def pop(self, key: str, *default: Any) -> Tensor:
        return super().pop(key) if key in self else self[key]


@pytest.mark.parametrize("name", READERS)
def test_the_original_names_are_those_that_diffusers_reads(name: str) -> None:
    family, pipe = family_named(name), FLOW_FAMILIES[name]()
    part, start = family.parts["transformer"], "transformer."
    modules = {key.removeprefix(start): module for key, module in all_modules(pipe).items() if key.startswith(start)}
    linear = {key: module for key, module in modules.items() if isinstance(module, torch.nn.Linear)}
    known = {key for members in original_layers(part, linear).values() for key in members}
    times = 3072 // 16 if name == "flux" else 1  # the reader knows the real model's width only
    pairs = {
        key: (torch.randn(1 + i % 3, 3), torch.randn(linear[key].out_features * times, 1 + i % 3))
        for i, key in enumerate(sorted(known))
    }
    tensors = {f"{start}{key}.lora_A.weight": down for key, (down, _) in pairs.items()}
    tensors |= {f"{start}{key}.lora_B.weight": up for key, (_, up) in pairs.items()}
    named = kohya_tensors(tensors, family)
    checkpoint = Whole()
    for layer in original_layers(part, linear):
        stem = f"lora_unet_{layer.replace('.', '_')}"
        checkpoint[f"{layer}.weight"] = named.pop(f"{stem}.lora_up.weight") @ named.pop(f"{stem}.lora_down.weight")
    assert not named
    found = READERS[name](checkpoint)
    assert len(known) > 0.8 * len(linear)
    for key, (down, up) in pairs.items():
        assert torch.allclose(found[f"{key}.weight"], up @ down, atol=1e-5), key


@pytest.mark.parametrize("format", ["kohya", "ComfyUI", "peft", "diffusers"])
@pytest.mark.parametrize("name", FLOW_FAMILIES)
def test_a_format_and_back_is_the_same_change(tmp_path: Path, name: str, format: str) -> None:
    pipe = FLOW_FAMILIES[name]()
    adaptor = write_tiny_adaptor(tmp_path / "adaptor", pipe, parts=tuple(family_named(name).parts))
    pipe.save_pretrained(tmp_path / "base")
    first = read_adaptor(adaptor)
    if format == "ComfyUI":
        family, tensors = family_named(name), {}
        for stem in stems(first.tensors):
            for key, role in comfy_keys(stem, family)[:2]:
                tensors[key] = first.tensors[f"{stem}.{role}.weight"]
        save_file(tensors, tmp_path / "comfy.safetensors")
        folder = tmp_path / "comfy.safetensors"
    else:
        folder = export(adaptor, tmp_path / format, format=format)
    second = read_adaptor(convert(folder, tmp_path / "back", base=str(tmp_path / "base"), attributes=["gender"]))
    assert first.record.trained_parts == second.record.trained_parts and second.record.family == name
    assert first.tensors.keys() == second.tensors.keys()
    assert all(torch.equal(tensor, second.tensors[key]) for key, tensor in first.tensors.items())
    if name in READ.get(format, ()):
        with load_fair_adaptor(pipe, adaptor):
            ours = draw(pipe)
        pipe.load_lora_weights(folder)
        assert (draw(pipe) - ours).abs().max() < 1e-4


@pytest.mark.parametrize("name", READERS)
def test_layers_without_a_place_in_another_layout_are_named(name: str) -> None:
    stem = "transformer.siglip_embedder.1" if name == "z-image" else "transformer.norm_out.linear"
    tensors = {f"{stem}.lora_A.weight": torch.ones(1, 4), f"{stem}.lora_B.weight": torch.ones(4, 1)}
    with pytest.raises(FairAdaptorError, match=f"has no names for '{stem.removeprefix('transformer.')}'"):
        kohya_tensors(tensors, family_named(name))


def test_a_layer_that_two_keys_change_is_refused(tmp_path: Path) -> None:
    pipe = tiny_sd3()
    pipe.save_pretrained(tmp_path / "base")
    folder = export(write_tiny_adaptor(tmp_path / "a", pipe, parts=("transformer",)), tmp_path / "k", format="kohya")
    tensors = load_file(folder)
    for end, shape in (("down", (1, 16)), ("up", (16, 1))):
        tensors[f"lora_unet_transformer_blocks_0_attn_to_q.lora_{end}.weight"] = torch.ones(shape)
    save_file(tensors, tmp_path / "twice.safetensors")
    with pytest.raises(
        InvalidAdaptorError, match=r"two keys stand for 'transformer\.transformer_blocks\.0\.attn\.to_q'"
    ):
        convert(tmp_path / "twice.safetensors", tmp_path / "out", base=str(tmp_path / "base"), attributes=["gender"])
