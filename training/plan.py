"""What a run will do and need, before it does it: the dry run."""

import dataclasses
import importlib.util
from typing import Any

import torch
from torch import Tensor

from .config import TrainConfig
from .setting import Setting


@dataclasses.dataclass(frozen=True)
class Plan:
    """Counts of one iteration, and an estimate of the memory.

    Attributes:
        images: images per iteration, over all processes.
        unet_rows: rows that go through the U-Net per iteration without gradient, and with.
        iterations: how many.
        megabytes: of one process, by what needs them.
        missing: what has to be there and is not.
    """

    images: int
    unet_rows: tuple[float, float]
    iterations: int
    megabytes: dict[str, float]
    missing: tuple[str, ...]


def make_plan(config: TrainConfig, setting: Setting, num_processes: int = 1) -> Plan:
    """Plan a run. Nothing is computed: the memory of a U-Net call and of decoding is counted on torch's meta device.

    The models of ``setting`` are moved to it and are of no use afterwards.
    """
    steps = (config.num_steps + max(config.num_steps, config.max_steps)) / 2
    branches = 2 if config.guidance_scale > 1 else 1
    images = config.prompts_per_step * config.images_per_prompt
    guided = 1 - config.unguided / config.iterations if config.unguided < config.iterations else 0.0
    rows = images * (1 + (branches - 1) * guided)
    passes = 1 if config.originals_pool else 2  # a pool's originals are made once
    local = -(-config.images_per_prompt // num_processes)
    return Plan(
        images,
        (rows * steps * passes, rows * (config.gradient_steps or steps)),
        config.iterations,
        memory(config, setting, local, branches),
        _missing(config),
    )


def memory(config: TrainConfig, setting: Setting, images: int, branches: int) -> dict[str, float]:
    """Estimate the memory of one process in megabytes, by what needs it.

    Activations are the bytes that autograd saves, so the peak of the allocator is above the larger of the two.
    """
    pipe = setting.pipe
    base = sum(p.numel() * p.element_size() for m in (pipe.unet, pipe.vae, pipe.text_encoder) for p in m.parameters())
    latents = images * pipe.unet.config.in_channels * pipe.unet.config.sample_size**2 * 4
    steps = max(config.num_steps, config.max_steps)
    trained = _trained_values(config, pipe)
    pipe.unet.to("meta").requires_grad_(True)
    pipe.vae.to("meta")
    rows = branches * (config.images_per_call or images)
    decoded = min(images, config.images_per_decode or images)
    dtype = pipe.unet.dtype
    size, channels = pipe.unet.config.sample_size, pipe.unet.config.in_channels
    embeds = torch.empty(rows, pipe.tokenizer.model_max_length, pipe.unet.config.cross_attention_dim, device="meta")
    latent_rows = torch.empty(rows, channels, size, size, device="meta", dtype=dtype)
    timesteps = torch.empty(rows, device="meta")
    leaf = torch.empty(decoded, channels, size, size, device="meta", dtype=dtype, requires_grad=True)
    return {
        "base": base / 1e6,
        "adaptor, gradient, optimiser and average (float32)": trained * 4 * 5 / 1e6,
        "latents of the sampler's steps": 2 * latents * steps / 1e6,
        f"activations of a U-Net call of {rows} rows": _saved(
            pipe.unet, lambda: pipe.unet(latent_rows, timesteps, embeds.to(dtype).requires_grad_(True)).sample
        ),
        f"activations of decoding {decoded} images": _saved(pipe.vae, lambda: pipe.vae.decode(leaf).sample),
    }


def _trained_values(config: TrainConfig, pipe: Any) -> int:
    from . import lora

    try:
        parameters = lora.attach(
            pipe,
            config.parts,
            rank=config.rank,
            target_modules=config.target_modules,
            num_tokens=config.num_tokens,
        )
        return sum(parameter.numel() for parameter in parameters.values())
    finally:
        lora.detach(pipe, config.parts)


def _saved(model: Any, call: Any) -> float:
    """Return the megabytes that autograd saves for the backward pass of ``call``, the model's parameters left out."""
    seen: dict[int, int] = {}
    parameters = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            seen[storage._cdata] = storage.nbytes()
            kept.append(tensor)  # alive, or another storage could get its number
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.enable_grad():
        call()
    return sum(seen.values()) / 1e6


def _missing(config: TrainConfig) -> tuple[str, ...]:
    problems = []
    if "wandb" in config.trackers and importlib.util.find_spec("wandb") is None:
        problems.append("wandb (pip install wandb)")
    if config.optimizer == "adamw8bit" and importlib.util.find_spec("bitsandbytes") is None:
        problems.append("bitsandbytes (pip install bitsandbytes)")
    if "tensorboard" in config.trackers and importlib.util.find_spec("tensorboard") is None:
        problems.append("tensorboard (pip install 'fair-adaptors[train]')")
    if config.dtype != "float32" and not torch.accelerator.is_available():
        problems.append(f"an accelerator: {config.dtype} is slow on a CPU")
    return tuple(problems)
