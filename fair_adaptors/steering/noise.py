"""The noise that an image begins from, told before it is drawn: the number that its class is drawn by."""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Generator, Tensor

NUMBERS = 64
"""As many numbers of an image's noise tell it from others."""


def noise_keys(pipe: Any, arguments: Mapping[str, Any], count: int) -> list[int]:
    """Return a number for each image of a call, [N]: a function of the noise that it begins from.

    The noise is that of ``latents``; else it is looked up in copies of the generators, which stay as they are. Without
    any, it is that of torch's own generator for the pipeline's device, so ``torch.manual_seed`` gives the same again.
    One generator for several images gives each the noise that follows the one before, however they are batched.

    Args:
        arguments: of the call, by name.
        count: N, the images that it draws.
    """
    import torch

    latents = arguments.get("latents")
    if isinstance(latents, torch.Tensor) and len(latents) == count:
        return [_key(row) for row in latents.detach().flatten(1)]
    given = arguments.get("generator")
    generators: list[Any] = list(given) if isinstance(given, list | tuple) and given else [given]
    if len(generators) == count > 1:
        return [_key(_peek(one, 1, NUMBERS)[0]) for one in generators]
    size = _size(pipe, arguments) if count > 1 else NUMBERS
    return [_key(row) for row in _peek(generators[0] or _own_generator(pipe), count, size)]


def _key(row: "Tensor") -> int:
    data = row[:NUMBERS].float().cpu().numpy().tobytes()
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big") >> 1


def _peek(generator: "Generator", count: int, size: int) -> "Tensor":
    """Return what a generator would draw next, [count, size], and leave it as it is."""
    import torch

    copy = torch.Generator(device=generator.device)
    copy.set_state(generator.get_state())
    return torch.randn((count, size), generator=copy, device=copy.device)


def _own_generator(pipe: Any) -> "Generator":
    """Return the generator that noise comes from if a call names none."""
    import torch

    device = torch.device(getattr(pipe, "_execution_device", "cpu"))
    backend = getattr(torch, device.type, None)
    generators = getattr(backend, "default_generators", ())
    index = device.index or 0
    return generators[index] if index < len(generators) else torch.default_generator


def _size(pipe: Any, arguments: Mapping[str, Any]) -> int:
    """Return how many numbers the noise of an image has, by what pipelines say of themselves."""
    network = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    configs = [getattr(part, "config", {}) for part in (getattr(pipe, "vae", None), network)]
    vae, own = ({} if config is None else config for config in configs)
    channels = vae.get("latent_channels") or vae.get("z_dim") or own.get("in_channels") or 4
    scale = getattr(pipe, "vae_scale_factor", None) or 8
    sides = getattr(pipe, "default_sample_size", None) or own.get("sample_size") or 1024 // scale
    sides = sides if isinstance(sides, list | tuple) else (sides, sides)
    height, width = (
        arguments[name] // scale if arguments.get(name) else side
        for name, side in zip(("height", "width"), sides[-2:], strict=True)
    )
    return max(NUMBERS, channels * height * width)
