"""What a run will do and need, before it does it: the dry run."""

import dataclasses
import importlib.util
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional

from fair_adaptors.bases import KNOWN, load_base
from fair_adaptors.errors import ConfigError
from fair_adaptors.formats import linear_modules

from . import lora
from .config import TrainConfig
from .downloads import Download, downloads
from .setting import prompt_sets

TOKENS_LENGTH = 77


@dataclasses.dataclass(frozen=True)
class Plan:
    """Counts of one iteration, an estimate of the memory, and what is fetched.

    Attributes:
        images: images per iteration, over all processes.
        unet_rows: rows that go through the U-Net per iteration without gradient, and with.
        iterations: how many.
        trained: numbers that are trained.
        megabytes: of one process, by what needs them; empty for a base whose shapes are not known here.
        downloads: what is fetched from the Hub.
        missing: what has to be there and is not.
    """

    images: int
    unet_rows: tuple[float, float]
    iterations: int
    trained: int
    megabytes: dict[str, float]
    downloads: tuple[Download, ...]
    missing: tuple[str, ...]


def make_plan(config: TrainConfig, num_processes: int = 1) -> Plan:
    """Plan a run. Nothing is computed and no weights are fetched.

    The memory of a U-Net call and of decoding is counted on torch's meta device.

    Raises:
        ConfigError: there are no such prompts.
    """
    prompt_sets(config)
    steps = (config.num_steps + max(config.num_steps, config.max_steps)) / 2
    branches = 2 if config.guidance_scale > 1 else 1
    images = config.prompts_per_step * config.images_per_prompt
    guided = 1 - config.unguided / config.iterations if config.unguided < config.iterations else 0.0
    rows = images * (1 + (branches - 1) * guided)
    passes = 1 if config.originals_pool else 2  # a pool's originals are made once
    local = -(-config.images_per_prompt // num_processes)
    base = skeleton(config.base)
    return Plan(
        images,
        (rows * steps * passes, rows * (config.gradient_steps or steps)),
        config.iterations,
        trained_values(config, base) if base else 0,
        memory(config, base, local, branches) if base else {},
        tuple(downloads(config)),
        _missing(config),
    )


def skeleton(base: str) -> Any:
    """Return a base's modules without memory for weights; None for one of the Hub whose shapes are not known here."""
    from diffusers import AutoencoderKL

    name = next((name for name, known in KNOWN.items() if known.base_model == base), base)
    try:
        found = load_base(name)
    except ConfigError:
        return None
    if found.folder is None:
        config: Mapping[str, Any] = {
            "block_out_channels": (128, 256, 512, 512),
            "layers_per_block": 2,
            "latent_channels": 4,
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
        }
    else:
        config = AutoencoderKL.load_config(str(found.folder / "vae"))
    with torch.device("meta"):
        return SimpleNamespace(**vars(found.pipe), vae=AutoencoderKL.from_config(config))


def memory(config: TrainConfig, base: Any, images: int, branches: int) -> dict[str, float]:
    """Estimate the memory of one process in megabytes, by what needs it; classifiers and encoders are not counted.

    Activations are the bytes that autograd saves, so the peak of the allocator is above the larger of the two.

    Args:
        base: from ``skeleton``; of no use afterwards.
        images: of this process.
    """
    dtype = getattr(torch, config.dtype)
    modules = [module.to(dtype) for module in vars(base).values() if module is not None]
    weights = sum(p.numel() * p.element_size() for module in modules for p in module.parameters())
    unet, vae = base.unet.requires_grad_(True), base.vae
    size, channels = unet.config.sample_size, unet.config.in_channels
    steps = max(config.num_steps, config.max_steps)
    rows = branches * min(images * (config.gradient_steps or steps), config.images_per_call or images)
    decoded = min(images, config.images_per_decode or images)

    def empty(*shape: int) -> Tensor:
        return torch.empty(*shape, device="meta", dtype=dtype)

    leaf = empty(decoded, channels, size, size).requires_grad_(True)
    embeds = empty(rows, TOKENS_LENGTH, unet.config.cross_attention_dim).requires_grad_(True)
    added = None
    if base.text_encoder_2 is not None:
        pooled = base.text_encoder_2.config.projection_dim
        added = {"text_embeds": empty(rows, pooled), "time_ids": empty(rows, 6)}
    if config.activation_checkpointing:
        unet.enable_gradient_checkpointing()
        vae.enable_gradient_checkpointing()
    call = lambda: unet(empty(rows, channels, size, size), empty(rows), embeds, added_cond_kwargs=added)  # noqa: E731
    return {
        "base": weights / 1e6,
        "adaptor, gradient, optimiser and average (float32)": trained_values(config, base) * 4 * 5 / 1e6,
        "latents of the sampler's steps": 2 * images * channels * size**2 * 4 * steps / 1e6,
        f"activations of a U-Net call of {rows} rows": _saved(unet, call),
        f"activations of decoding {decoded} images": _saved(vae, lambda: vae.decode(leaf).sample),
    }


def trained_values(config: TrainConfig, base: Any) -> int:
    """Count the numbers that are trained: rank · (inputs + outputs) of each layer with a LoRA, and the soft tokens."""
    count = 0
    for part, usual in lora.TARGET_MODULES.items():
        names = tuple(config.target_modules or usual)
        for name, module in linear_modules(base, part).items():
            if part in config.parts and any(name.endswith(f".{end}") for end in names):
                outputs, inputs, *kernel = module.weight.shape
                count += config.rank * (inputs * int(torch.tensor(kernel).prod()) + outputs)
    if "tokens" in config.parts:
        count += config.num_tokens * base.text_encoder.config.hidden_size
    return count


def _saved(model: Any, call: Any) -> float:
    """Return the megabytes that autograd saves for the backward pass of ``call``, the model's parameters left out.

    Attention is taken as fused, as it is on a GPU: on the meta device it would save its matrices.
    """
    seen: dict[int, int] = {}
    parameters = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            seen[storage._cdata] = storage.nbytes()
            kept.append(tensor)  # alive, or another storage could get its number
        return tensor

    with (
        patch.object(functional, "scaled_dot_product_attention", _fused_attention),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.enable_grad(),
    ):
        call()
    return sum(seen.values()) / 1e6


class _Attention(torch.autograd.Function):
    """Has the shapes of attention, and saves what the fused kernels save: queries, keys, values and the result."""

    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        result = query.new_empty(*query.shape[:-1], value.shape[-1])
        context.save_for_backward(query, key, value, result)
        return result

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.zeros_like(tensor) for tensor in context.saved_tensors[:3])


def _fused_attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **settings: Any) -> Tensor:
    return _Attention.apply(query, key, value)


def _missing(config: TrainConfig) -> tuple[str, ...]:
    problems = []
    if "wandb" in config.trackers and importlib.util.find_spec("wandb") is None:
        problems.append("wandb (pip install wandb)")
    if config.optimizer == "adamw8bit" and importlib.util.find_spec("bitsandbytes") is None:
        problems.append("bitsandbytes (pip install bitsandbytes)")
    if "tensorboard" in config.trackers and importlib.util.find_spec("tensorboard") is None:
        problems.append("tensorboard (pip install 'fair-adaptors[train]')")
    if config.faces and importlib.util.find_spec("cv2") is None:
        problems.append("opencv (pip install 'fair-adaptors[eval]')")
    if config.dtype != "float32" and not torch.accelerator.is_available():
        problems.append(f"an accelerator: {config.dtype} is slow on a CPU")
    return tuple(problems)
