"""The modules of a pipeline that adaptors change: their names in files, their shapes, and a fingerprint."""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


PARTS = ("text_encoder", "text_encoder_2", "unet")
"""Parts of a pipeline that a LoRA can be on; Stable Diffusion XL has two encoders. ``trained_parts`` of an adaptor may
also hold ``tokens``."""


def linear_modules(pipe: Any, part: str) -> "dict[str, nn.Linear | nn.Conv2d]":
    """Return the linear and convolution modules of a part of a pipeline under their names in the file.

    The names do not depend on ``torch.compile``, or on a peft adapter: of a module with one, it is the base layer. A
    pipeline without the part has none.
    """
    from torch import nn

    model = getattr(pipe, part, None)
    return {
        name_in_file(part, name): module
        for name, module in (model.named_modules() if model is not None else ())
        if isinstance(module, nn.Linear | nn.Conv2d) and ".lora_" not in name
    }


def name_in_file(part: str, module: str) -> str:
    """Return a module's name in our files, whatever the transformers version: a text encoder's has ``text_model.``."""
    plain = module.replace("_orig_mod.", "").replace(".base_layer", "")
    if part.startswith("text_encoder") and plain.startswith("encoder."):
        plain = f"text_model.{plain}"
    return f"{part}.{plain}"


def shape_signature(pipe: Any) -> dict[str, str]:
    """Return a hash of the names and shapes of all linear and convolution weights of each part that a base model has.

    It tells architectures apart, and does not change with dtype, device or an installed transformers version.
    """
    signature = {}
    for part in (part for part in PARTS if getattr(pipe, part, None) is not None):
        rows = sorted(f"{name}:{tuple(module.weight.shape)}" for name, module in linear_modules(pipe, part).items())
        signature[part] = hashlib.sha256("\n".join(rows).encode()).hexdigest()[:32]
    return signature


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Return a hash of some values of every weight of a pipeline's parts: another one for other weights or a dtype.

    Args:
        parts: by name; what is no module is left out.
    """
    import torch

    digest = hashlib.sha256()
    for part, module in sorted(parts.items()):
        if isinstance(module, torch.nn.Module):
            for name, value in sorted(module.state_dict().items()):
                flat = value.detach().flatten()
                some = flat[:: max(1, len(flat) // 64)].float().cpu().numpy().tobytes()
                digest.update(f"{part}.{name} {tuple(value.shape)} {value.dtype} {some.hex()}\n".encode())
    return digest.hexdigest()[:32]
