"""Pretrained models of transformers: loaded and frozen, with what prepares their images, gradients included."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fair_adaptors.adaptor.modules import fingerprint
from fair_adaptors.devices import accelerator
from fair_adaptors.errors import ConfigError, first_line
from fair_adaptors.hub.client import bounded, split_revision
from fair_adaptors.hub.errors import is_offline, when_offline

from .preprocessing import load_preparation

if TYPE_CHECKING:
    from torch import Tensor


TRAINING_ENCODERS = (
    "clip:laion/CLIP-ViT-H-14-laion2B-s32B-b79K@1c2b8495b28150b8a4922ee1c8edee224c284c0c",
    "dinov2:facebook/dinov2-base@f9e44c814b77203eaa57a6bdbbd535f21ede1415",
)
"""What the paper keeps images by (§2): CLIP by the MIT licence, DINOv2 by Apache-2.0. It measures with larger ones."""


def loaded(kind: Any, source: str, **settings: Any) -> Any:
    """Load a model, frozen, on the accelerator if there is one, or a tokenizer."""
    import torch

    place, revision = split_revision(source)
    try:
        with bounded():
            found = kind.from_pretrained(place, revision=revision, **settings)
    except (OSError, ValueError) as error:
        if is_offline(error) and not Path(place).is_dir():
            raise ConfigError(f"{source} cannot be fetched: {when_offline()}") from error
        raise ConfigError(f"{source} cannot be loaded: {first_line(error)}") from error
    if isinstance(found, torch.nn.Module):
        found = found.float().eval().requires_grad_(False).to(accelerator())
    return found


def preparation(source: str, device: Any, *, whole: bool = False) -> "tuple[Callable[[Tensor], Tensor], str]":
    """Return what makes a model's input of images [N, 3, H, W] in [0, 1], and that in words."""
    place, revision = split_revision(source)
    return load_preparation(place, device, revision=revision, whole=whole)


def name(kind: str, source: str) -> str:
    """Return what tables call a model: a Hub id whole, of a folder its name."""
    return f"{kind}:{Path(source).name if Path(source).is_dir() else split_revision(source)[0]}"


def identity(model: Any, *words: str) -> str:
    """Return a word that changes with the weights and with what else decides what is seen."""
    return hashlib.sha256("\n".join([fingerprint({"model": model}), *words]).encode()).hexdigest()


def unit(features: "Tensor") -> "Tensor":
    from torch.nn.functional import normalize

    return normalize(features.float(), dim=-1)
