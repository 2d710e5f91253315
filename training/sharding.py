"""Splits the frozen weights of a base over the processes of a run (FSDP2), where it does not fit one card.

Each process keeps a part of every weight of the network and the text encoders. A block's weights are gathered when it
is called, forward or backward, and let go of after. What is trained comes later, and is whole in every process.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fair_adaptors.errors import ConfigError
from fair_adaptors.families.table import family_of

from .config import TrainConfig

GATHERED = 3
"""Blocks that may be whole at one time: the one that is called, the next one, and a buffer to gather into."""


def sharded_parts(base: Any) -> tuple[str, ...]:
    """Return the parts of a base that are split: all that are large but the autoencoder, which is small."""
    family = family_of(base)
    return tuple(part for part in (family.network, *family.text_encoders) if getattr(base, part, None) is not None)


def blocks(model: Any) -> list[nn.Module]:
    """Return the blocks of a model that are gathered one at a time, inner ones first.

    They are those which its library does not split either. The model itself, which has the rest, is none of them.
    """
    names = set(model._no_split_modules or ())
    return [module for module in reversed(list(model.modules())) if type(module).__name__ in names]


def shard(model: Any, device: torch.device) -> None:
    """Split the weights of a model on the CPU over all processes, each part on its process's device."""
    from torch.distributed import get_world_size
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (get_world_size(),))
    for module in (*blocks(model), model):
        kind = type(module)
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
        module.__class__ = kind  # instead of one of another name: transformers looks up by it what a model can return


def whole(weight: Tensor) -> Tensor:
    """Return a weight, gathered if it is split: then all processes call this."""
    from torch.distributed.tensor import DTensor

    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def gathered_bytes(model: Any) -> int:
    """Return the bytes that are whole at one time: those of what is in no block, and of the largest blocks."""
    counted: set[nn.Parameter] = set()
    sizes = []
    for module in (*blocks(model), model):
        own = set(module.parameters()) - counted  # inner ones have theirs already
        counted |= own
        sizes.append(sum(parameter.numel() * parameter.element_size() for parameter in own))
    *inner, rest = sizes
    return rest + GATHERED * max(inner, default=0)


def check_shares(config: TrainConfig, processes: int, **counts: int) -> None:
    """Refuse to split a base where the processes would not call its blocks equally often: they would wait for ever.

    Args:
        counts: images that are drawn together beside those of training and validation, by what they are for.

    Raises:
        ConfigError: one process, shares of images or of prompts that are not equal, or what cannot be split.
    """
    if not config.shard_base:
        return
    if config.compile or "tokens" in config.parts:
        raise ConfigError("shard_base works neither with compile nor with soft tokens: leave out one or the other")
    if processes == 1:
        raise ConfigError("shard_base splits the base over several processes, and there is one: start more of them")
    counts = {"images_per_prompt": config.images_per_prompt, "validation_images": config.validation_images, **counts}
    uneven = [f"{name} ({count})" for name, count in counts.items() if count % processes]
    if uneven:
        raise ConfigError(
            f"with shard_base all processes need equal shares, and {processes} processes do not divide"
            f" {' and '.join(uneven)}"
        )
    share, each = config.images_per_prompt // processes, config.named_images or config.images_per_prompt
    if share % each and each % share:
        raise ConfigError(
            f"with shard_base all processes need equally many prompts: named_images is {each}, and a process has"
            f" {share} images. The one must divide the other"
        )
