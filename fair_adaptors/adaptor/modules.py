"""The modules of a pipeline that adaptors change: their names in files, their shapes, and a fingerprint."""

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fair_adaptors.families.family import Family
from fair_adaptors.families.table import find_family

if TYPE_CHECKING:
    from torch import Tensor, nn


def linear_modules(pipe: Any, part: str) -> "dict[str, nn.Linear | nn.Conv2d]":
    """Return the linear and convolution modules of a part of a pipeline under their names in the file.

    The names do not depend on ``torch.compile``, or on a peft adapter: of a module with one, it is the base layer. A
    pipeline without the part has none.
    """
    from torch import nn

    model, family = getattr(pipe, part, None), find_family(pipe)
    if family is None:
        return {}
    return {
        name_in_file(family, part, name): module
        for name, module in (model.named_modules() if model is not None else ())
        if isinstance(module, nn.Linear | nn.Conv2d) and ".lora_" not in name
    }


def all_modules(pipe: Any) -> "dict[str, nn.Linear | nn.Conv2d]":
    """Return the modules of ``linear_modules`` of all parts that a LoRA can be on."""
    family = find_family(pipe)
    parts = family.parts if family else ()
    return {name: module for part in parts for name, module in linear_modules(pipe, part).items()}


def name_in_file(family: Family, part: str, module: str) -> str:
    """Return a module's name in our files, whatever the version of its library: CLIP's has ``text_model.``."""
    plain = module.replace("_orig_mod.", "").replace(".base_layer", "")
    dropped, _, rest = family.parts[part].dropped_level.partition(".")
    return f"{part}.{dropped}.{plain}" if dropped and plain.startswith(rest) else f"{part}.{plain}"


def weight_shape(module: "nn.Linear | nn.Conv2d") -> tuple[int, ...]:
    """Return the shape of a module's weight, whatever way it is stored: a quantised one is packed."""
    from torch import nn

    if isinstance(module, nn.Conv2d):
        return (module.out_channels, module.in_channels // module.groups, *module.kernel_size)
    return (module.out_features, module.in_features)


def shape_signature(pipe: Any) -> dict[str, str]:
    """Return a hash of the names and shapes of all linear and convolution weights of each part that a base model has.

    It tells architectures apart, and does not change with dtype, device or an installed transformers version.
    """
    signature = {}
    family = find_family(pipe)
    for part in (part for part in family.parts if getattr(pipe, part, None) is not None) if family else ():
        rows = sorted(f"{name}:{weight_shape(module)}" for name, module in linear_modules(pipe, part).items())
        signature[part] = hashlib.sha256("\n".join(rows).encode()).hexdigest()[:32]
    return signature


def fingerprint(parts: Mapping[str, Any], whole: "Callable[[Tensor], Tensor]" = lambda value: value) -> str:
    """Return a hash of some values of every weight of a pipeline's parts: another one for other weights or a dtype.

    Args:
        parts: by name; what is not a module is left out.
        whole: makes a weight whole that is not, such as one that is split over processes.
    """
    import torch

    digest = hashlib.sha256()
    for part, module in sorted(parts.items()):
        if isinstance(module, torch.nn.Module):
            for name, value in sorted(module.state_dict().items()):
                flat = whole(value.detach()).flatten()
                some = flat[:: max(1, len(flat) // 64)].float().cpu().numpy().tobytes()
                digest.update(f"{part}.{name} {tuple(value.shape)} {value.dtype} {some.hex()}\n".encode())
    return digest.hexdigest()[:32]
