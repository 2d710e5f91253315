"""Which weights can be written in place, and which may lie elsewhere in memory."""

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    Target = nn.Linear | nn.Conv2d


def obstacle(module: "Target") -> str | None:
    """Say why a module's weight cannot be changed in place; None if it can, unless it is ``on_disk``."""
    import torch

    weight = module.weight
    if weight.is_meta:
        return "is not in memory, as enable_sequential_cpu_offload leaves it (pipe.remove_all_hooks() brings it back)"
    if type(weight) is not torch.nn.Parameter or weight.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"is quantised, cast or sharded ({type(weight).__name__}, {weight.dtype})"
    return None


def on_disk(models: "Iterable[nn.Module]") -> "set[nn.Module]":
    """Return the modules of those models of which diffusers' group offloading keeps weights in files.

    What such a module has in memory is not read before it is read from there.
    """
    return {module for module, in_files in offloaded(models).items() if in_files}


def offloaded(models: "Iterable[nn.Module]") -> "dict[nn.Module, bool]":
    """Return the modules of those models that have diffusers' group offloading, and whether to files."""
    found: dict[nn.Module, bool] = {}
    for model in models:
        registries = [vars(module).get("_diffusers_hook") for module in model.modules()]
        hooks = [registry.get_hook("group_offloading") for registry in registries if registry is not None]
        if hooks := [hook for hook in hooks if hook is not None]:
            in_files = any(hook.group.offload_to_disk_path is not None for hook in hooks)
            found |= dict.fromkeys(model.modules(), in_files)
    return found


def may_replace(module: "Target", held: "Collection[nn.Module]") -> bool:
    """Tell whether a weight may lie elsewhere in memory: not if other processes or group offloading know the place."""
    weight = module.weight
    return weight.device.type == "cpu" and module not in held and not weight.is_shared()
