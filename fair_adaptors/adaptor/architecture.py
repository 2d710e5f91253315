"""The shapes of base models, known without their weights: the real classes, built on torch's meta device."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fair_adaptors.errors import ConfigError, did_you_mean

from .bases import BASES, BaseModel, by_short_name, imported
from .modules import PARTS, linear_modules, shape_signature


@dataclass(frozen=True)
class Architecture:
    """A base model's modules without weights.

    Attributes:
        name: as it was asked for.
        base_model: what an adaptor's record calls it.
        pipe: its text encoders and U-Net, without memory for weights; stands in for a pipeline where shapes count.
        autoencoder: configuration of its autoencoder; None if its folder has none.
    """

    name: str
    base_model: str
    pipe: Any
    autoencoder: Mapping[str, Any] | None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the weight shapes of the linear and convolution modules under their names in the file format."""
        modules = {name: module for part in PARTS for name, module in linear_modules(self.pipe, part).items()}
        return {name: tuple(module.weight.shape) for name, module in modules.items()}


def load_architecture(base: str) -> Architecture:
    """Return the architecture of a base.

    Args:
        base: a short name of the table of bases, or a pipeline's folder, of which only configurations are read.

    Raises:
        ConfigError: nothing goes by that name, or the folder is no Stable Diffusion pipeline.
    """
    if known := by_short_name(base):
        return _read(base, imported(known.plugin.folder)(), known.names[0]) if known.plugin else _build(known)
    if Path(base).is_dir():
        return _read(base, Path(base), _origin(Path(base)))
    names = [base.short_name for base in BASES]
    raise ConfigError(
        f"--base {base}: no base of that name, and no folder.{did_you_mean(base, names)} Give {', '.join(names)} or a"
        " pipeline's folder"
    )


def kind_of(signature: Mapping[str, str]) -> str | None:
    """Return which of the published bases has this shape signature, by its U-Net; None if none has."""
    for base in BASES:
        if base.configurations and shape_signature(_build(base).pipe)["unet"] == signature.get("unet"):
            return base.short_name
    return None


def _build(base: BaseModel) -> Architecture:
    import torch
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    found = base.configurations
    with torch.device("meta"):
        pipe = SimpleNamespace(
            text_encoder=CLIPTextModel(CLIPTextConfig(**found["text_encoder"])),
            text_encoder_2=(
                CLIPTextModelWithProjection(CLIPTextConfig(**found["text_encoder_2"]))
                if "text_encoder_2" in found
                else None
            ),
            unet=UNet2DConditionModel(**found["unet"]),
        )
    return Architecture(base.short_name, base.names[0], pipe, found["vae"])


def _read(name: str, folder: Path, base_model: str) -> Architecture:
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
    path = folder / "vae" / "config.json"
    autoencoder = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    return Architecture(name, base_model, pipe, autoencoder)


def _origin(folder: Path) -> str:
    """Return the Hub id that a saved pipeline came from, if it says so; else the folder's name, not where it lies."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        origin = str(index.get("_name_or_path") or "")
    except (OSError, ValueError, AttributeError):
        origin = ""
    is_hub_id = origin.count("/") == 1 and not origin.startswith((".", "/", "~"))
    return origin if is_hub_id else folder.resolve().name
