"""Checkpoints in the layout of the paper's authors (paper.md §7), as the tests of convert write and read them."""

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fair_adaptors import InvalidAdaptorError
from fair_adaptors.adaptor.folder import read_adaptor
from fair_adaptors.adaptor.registry import AdaptorInfo, list_adaptors
from fair_adaptors.convert import convert

State = dict[str, Tensor]
TEXT, UNET, TOKENS = "text_encoder_lora_EMA.pth", "unet_lora_EMA.pth", "prefix_embedding_EMA.pth"


def text_checkpoint(*, layers: int = 2, width: int = 32, inner: int = 64, rank: int = 3, seed: int = 0) -> State:
    """The authors' text encoder file, by what is known of it (paper.md §7)."""
    make = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(layers):
        for name in (
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.out_proj",
            "mlp.fc1",
            "mlp.fc2",
        ):
            into, out = {"mlp.fc1": (width, inner), "mlp.fc2": (inner, width)}.get(name, (width, width))
            start = f"text_model.encoder.layers.{layer}.{name}.lora_linear_layer"
            tensors[f"{start}.down.weight"] = torch.randn(rank, into, generator=make) * 0.2
            tensors[f"{start}.up.weight"] = torch.randn(out, rank, generator=make) * 0.2
    return tensors


def unet_checkpoint(attentions: dict[str, int], *, width: int = 32, rank: int = 3, seed: int = 1) -> State:
    """The authors' U-Net file: ``attentions`` are the blocks and their widths."""
    make = torch.Generator().manual_seed(seed)
    tensors = {}
    for block, inside in attentions.items():
        for attention in ("attn1", "attn2"):
            for layer in ("to_q", "to_k", "to_v", "to_out"):
                into = width if attention == "attn2" and layer in ("to_k", "to_v") else inside
                start = f"{block}.transformer_blocks.0.{attention}.processor.{layer}_lora"
                tensors[f"{start}.down.weight"] = torch.randn(rank, into, generator=make) * 0.2
                tensors[f"{start}.up.weight"] = torch.randn(inside, rank, generator=make) * 0.2
    return tensors


TINY_UNET = {
    "down_blocks.0.attentions.0": 32,
    "mid_block.attentions.0": 64,
    "up_blocks.1.attentions.0": 32,
    "up_blocks.1.attentions.1": 32,
}
SD15_UNET = {
    **{f"down_blocks.{i}.attentions.{j}": 320 * 2**i for i in range(3) for j in range(2)},
    **{f"up_blocks.{i}.attentions.{j}": 1280 // 2 ** (i - 1) for i in range(1, 4) for j in range(3)},
    "mid_block.attentions.0": 1280,
}


def token_checkpoint(*, count: int = 5, width: int = 32, length: int = 16) -> State:
    rows = torch.randn(count + 1, width)
    rows[0] = 0
    return {
        "position_ids": torch.arange(length)[None],
        "position_embedding.weight": torch.randn(length, width),
        "token_embedding.weight": rows,
    }


def changes(tensors: State) -> State:
    """up @ down of each pair, by the authors' names without their ends."""
    return {
        key.removesuffix("down.weight"): tensors[key.replace("down.weight", "up.weight")] @ down
        for key, down in tensors.items()
        if key.endswith("down.weight")
    }


def our_name(key: str) -> str:
    if ".lora_linear_layer." in key:
        return "text_encoder." + key.removesuffix(".lora_linear_layer.")
    name = "unet." + key.replace(".processor.", ".").removesuffix("_lora.")
    return name + ".0" if name.endswith("to_out") else name


def converted_changes(folder: Path) -> State:
    tensors = read_adaptor(folder).tensors
    return {
        key.removesuffix(".lora_A.weight"): tensors[key.replace("lora_A", "lora_B")].float().flatten(1)
        @ tensors[key].float().flatten(1)
        for key in tensors
        if "lora_A" in key
    }


def largest_difference(ours: State, theirs: State) -> float:
    assert ours.keys() == theirs.keys()
    return max(float((ours[key] - theirs[key]).abs().max()) for key in ours)


def saved(path: Path, tensors: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, path)
    return path


def as_bytes(tensors: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(tensors, stream)
    return stream.getvalue()


def zipped(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def converted(source: Path, out: Path, base: str) -> Path:
    return convert(source, out, base=base, attributes=["gender"])


def refused(source: Path, folder: Path, message: str, base: str) -> None:
    before = sorted(folder.rglob("*"))
    with pytest.raises(InvalidAdaptorError, match=message):
        converted(source, folder / "out", base)
    assert sorted(folder.rglob("*")) == before


class Hostile:
    """A pickle that would make a file if it were run."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


PUBLISHED = [info for info in list_adaptors() if info.checkpoint]
"""The rows of what the authors published."""
FILES = {"text_encoder": "text_encoder_lora", "unet": "unet_lora", "tokens": "prefix_embedding"}


def published_weights(part: str, seed: int) -> State:
    """The authors' file of a part, by the seed of its values."""
    if part == "tokens":
        torch.manual_seed(seed)
        return token_checkpoint()
    return text_checkpoint(seed=seed) if part == "text_encoder" else unet_checkpoint(TINY_UNET, seed=seed)


def members(info: AdaptorInfo) -> dict[str, bytes]:
    """The files of a run in the authors' layout: of each part the weights, and their moving average."""
    assert info.checkpoint is not None
    seed = PUBLISHED.index(info)
    return {
        f"{info.checkpoint.member}/{FILES[part]}{end}.pth": as_bytes(published_weights(part, seed + i))
        for part in info.trained_parts
        for i, end in enumerate(("", "_EMA"), start=10)
    }


def packed(path: Path, name: str) -> Path:
    """An archive of the authors with all of its runs, for a tiny base."""
    rows = [info for info in PUBLISHED if info.checkpoint and info.checkpoint.archive == name]
    return zipped(path / name, {member: data for info in rows for member, data in members(info).items()})
