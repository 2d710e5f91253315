"""How much memory a training takes, estimated from a base's shapes: nothing is computed, and no weights are needed."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from fair_adaptors.training.engine.sampling import WITHOUT_GRADIENT
from torch import Tensor

from fair_adaptors.adaptor.architecture import load_architecture
from fair_adaptors.adaptor.bases import by_short_name, find_base
from fair_adaptors.adaptor.modules import linear_modules
from fair_adaptors.adaptor.tokens import token_encoder
from fair_adaptors.families.table import family_of
from fair_adaptors.hub.client import split_revision
from fair_adaptors.vision.catalog import is_folder

from .config import TrainConfig
from .engine import lora
from .engine.denoisers import denoiser_of
from .engine.families.denoiser import decode_with
from .meta_memory import peak_megabytes
from .setup import checkpoint_activations, part_dtype
from .sharding import gathered_bytes, sharded_parts

TOKENS_LENGTH = 77


@dataclasses.dataclass(frozen=True)
class Memory:
    """Megabytes of one process, by what needs them; classifiers and encoders are not counted.

    Attributes:
        kept: what is there all the time.
        passing: the most that each kind of work takes while it goes on, one at a time.
    """

    kept: Mapping[str, float]
    passing: Mapping[str, float]

    @property
    def total(self) -> float:
        """What is needed at the worst moment."""
        return sum(self.kept.values()) + max(self.passing.values())


def skeleton(base: str) -> Any:
    """Return a base's modules without memory for weights; None for one of the Hub whose shapes are not known here.

    Args:
        base: as in a configuration, or a short name of the table of bases.
    """
    place, _ = split_revision(base)
    known = find_base(place) or by_short_name(place)
    if known is None and not Path(place).is_dir():
        return None
    found = load_architecture(known.short_name if known else place)
    return SimpleNamespace(**vars(found.pipe), **found.readers, **{found.family.autoencoder[0]: found.autoencoder})


def memory(config: TrainConfig, base: Any, images: int, branches: int, *, processes: int = 1) -> Memory:
    """Estimate the memory of one process: what tensors take, without what an allocator wastes.

    Args:
        base: from ``skeleton``; of no use afterwards.
        images: of this process.
        branches: of guidance.
        processes: how many there are, for a base that is split.
    """
    modules = {
        name: module.to(part_dtype(config, base, name)) for name, module in vars(base).items() if module is not None
    }
    denoiser = denoiser_of(base)
    network, autoencoder = denoiser.model, denoiser.autoencoder
    split = sharded_parts(base) if config.shard_base else ()
    weights = sum(
        p.numel() * p.element_size() / (processes if name in split else 1)
        for name, module in modules.items()
        for p in module.parameters()
    )
    latents = math.prod(denoiser.latent_shape)
    pixels = 3 * math.prod(side * denoiser.scale for side in denoiser.latent_shape[1:])
    kept = {
        "base": weights / 1e6,
        **({"blocks of the base, gathered": max(gathered_bytes(modules[p]) for p in split) / 1e6} if split else {}),
        "adaptor, gradient, optimiser and average (float32)": trained_values(config, base) * 4 * 5 / 1e6,
        "latents of the sampler's steps": images * latents * 4 * max(config.num_steps, config.max_steps) / 1e6,
        "pictures, and the original model's (float32)": 2 * images * pixels * 4 / 1e6,
    }
    lora.attach(
        SimpleNamespace(**modules, components=modules),
        config.parts,
        rank=config.rank,
        target_modules=config.target_modules,
        num_tokens=config.num_tokens,
    )
    if config.activation_checkpointing:
        checkpoint_activations(network, autoencoder)
    return Memory(kept, dict(_passing(config, base, images, branches)))


def _passing(config: TrainConfig, base: Any, images: int, branches: int) -> Iterator[tuple[str, float]]:
    """Yield the kinds of work with the megabytes that each takes."""
    denoiser = denoiser_of(base)
    network, autoencoder = denoiser.model, denoiser.autoencoder
    shape = denoiser.latent_shape
    there = [parameter for model in (network, autoencoder) for parameter in model.parameters()]

    def empty(*sizes: int) -> Tensor:
        return torch.empty(*sizes, device="meta", dtype=network.dtype)

    def denoise(rows: int) -> Tensor:
        conditions = [empty(rows, *sizes) for sizes in denoiser.condition_shapes(TOKENS_LENGTH)]
        conditions[0].requires_grad_(set(config.parts) != {family_of(base).network})
        return denoiser.predict(empty(rows, *shape), empty(rows), tuple(conditions), config.guidance_scale)

    def decode(count: int) -> Tensor:
        return denoiser.decode(empty(count, *shape).requires_grad_(True))

    small = _small_decoder(config, shape[0])

    def decode_small(count: int) -> Tensor:
        return decode_with(small, empty(count, *shape).requires_grad_(True))

    steps = config.gradient_steps or max(config.num_steps, config.max_steps)
    call, chunk = config.images_per_call, config.images_per_decode
    plain_rows = branches * min(images, WITHOUT_GRADIENT * call or images)
    rows = (branches if config.unconditional_gradient else 1) * min(images * steps, call or images)
    decoded = min(images, chunk or images)
    with torch.no_grad():
        yield f"a call of the network with {plain_rows} rows", peak_megabytes(lambda: denoise(plain_rows), there)
    yield f"a call of the network with {rows} rows, with gradient", peak_megabytes(_both_ways(denoise, rows), there)
    with torch.no_grad():
        yield f"decoding {decoded} images, in validation", peak_megabytes(lambda: decode(decoded), there)
    again, there = (decode_small, [*there, *small.parameters()]) if small else (decode, there)
    yield f"decoding {decoded} images, with gradient", peak_megabytes(_both_ways(again, decoded), there)


def _small_decoder(config: TrainConfig, channels: int) -> Any:
    """Return the ``gradient_decoder`` without memory for weights, one of the Hub with TAESD's shape; None without.

    Args:
        channels: of the latents.
    """
    if not config.gradient_decoder:
        return None
    from diffusers import AutoencoderTiny

    here = is_folder(config.gradient_decoder)
    place = split_revision(config.gradient_decoder)[0]
    shape = AutoencoderTiny.load_config(place) if here else {"latent_channels": channels}
    with torch.device("meta"):
        return AutoencoderTiny.from_config(shape).to(getattr(torch, config.dtype)).requires_grad_(False)


def _both_ways(run: Callable[[int], Tensor], count: int) -> Callable[[], None]:
    def call() -> None:
        with torch.enable_grad():
            output = run(count)
            output.backward(torch.empty_like(output))

    return call


def trained_values(config: TrainConfig, base: Any) -> int:
    """Count the numbers that are trained: rank · (inputs + outputs) of each layer with a LoRA, and the soft tokens."""
    count = 0
    for part, row in family_of(base).parts.items():
        names = tuple(config.target_modules or row.target_modules)
        for name, module in linear_modules(base, part).items():
            if part in config.parts and any(name.endswith(f".{end}") for end in names):
                outputs, inputs, *kernel = module.weight.shape
                count += config.rank * (inputs * math.prod(kernel) + outputs)
    if "tokens" in config.parts:
        count += config.num_tokens * token_encoder(base).config.hidden_size
    return count
