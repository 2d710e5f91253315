"""The sampler as functions of a pipeline: encode, predict, sample, decode.

``sample`` does exactly what ``pipe(...)`` does with its text conditioning, guidance and scheduler, and keeps the
latents that went into each call of the model: all that the gradient needs (see ``gradients``).
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fair_adaptors.adaptor.tokens import inserted, token_encoder

from .denoisers import denoiser_for
from .families.denoiser import Conditions
from .schedule import scaled, scheduler_for, start

WITHOUT_GRADIENT = 4
"""Images of a call without gradient for each of a call with it: nothing is kept for a backward pass."""


@dataclass(frozen=True)
class Trajectory:
    """One run of the sampler for N images in T steps, without gradient.

    Attributes:
        timesteps: the scheduler's timesteps [T].
        scaled_inputs: what the model saw, [T, N, C, h, w]: latents, scaled as the scheduler has it.
        latents: the final latents z₀ [N, C, h, w].
    """

    timesteps: Tensor
    scaled_inputs: Tensor
    latents: Tensor


def encode_prompts(
    pipe: Any, prompts: Sequence[str], *, guidance_scale: float, tokens: Tensor | None = None
) -> Conditions:
    """Encode prompts as ``pipe`` does, padded to the model's length. Gradients reach text encoders and tokens.

    Args:
        prompts: one for all images, or one for each of N; each of them is encoded once.
        tokens: soft tokens [n, D] before a prompt; the unconditional branch does not get them.

    Returns:
        Conditions of one row, or of N; with guidance one more, the first, for the unconditional branch.
    """
    denoiser = denoiser_for(pipe)
    different = list(dict.fromkeys(prompts))
    with nullcontext() if tokens is None else inserted(token_encoder(pipe), tokens):
        encoded = [denoiser.encode(prompt) for prompt in different]
    if len(different) > 1:
        encoded = [encoded[different.index(prompt)] for prompt in prompts]
    if denoiser.branches(guidance_scale) > 1:
        encoded = [denoiser.encode(None), *encoded]
    return tuple(torch.cat(rows) for rows in zip(*encoded, strict=True))


def initial_noise(pipe: Any, seeds: Sequence[int]) -> Tensor:
    """Draw standard normal noise [N, C, h, w], one CPU generator per seed, so that a batch's split changes nothing."""
    denoiser = denoiser_for(pipe)
    rows = [
        torch.randn(denoiser.latent_shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
        for seed in seeds
    ]
    return torch.stack(rows).to(denoiser.model.device, denoiser.latent_dtype)


def predict(
    pipe: Any,
    scaled_input: Tensor,
    timestep: Tensor,
    conditions: Conditions,
    *,
    guidance_scale: float,
    images: Tensor | slice = slice(None),
    unconditional: bool = True,
) -> Tensor:
    """Return the guided output of the model, such as ε_∅ + g (ε_c − ε_∅), whatever it predicts.

    Args:
        scaled_input: the model's input [M, C, h, w].
        timestep: one timestep, or one per row [M].
        conditions: from ``encode_prompts``.
        guidance_scale: g; 1 and below mean no guidance, as in ``pipe``.
        images: which of the N images the rows are, [M], where these have prompts of their own.
        unconditional: whether the gradient goes through the unconditional branch too.
    """
    denoiser, count = denoiser_for(pipe), len(scaled_input)
    guided = denoiser.branches(guidance_scale) > 1
    own = tuple(rows[int(guided) :] for rows in conditions)
    own = tuple(rows.repeat_interleave(count, 0) if len(rows) == 1 else rows[images] for rows in own)
    if not guided:
        return denoiser.predict(scaled_input, timestep, own, guidance_scale)
    empty = tuple(rows[:1].repeat_interleave(count, 0) for rows in conditions)
    if unconditional:
        both = tuple(torch.cat(pair) for pair in zip(empty, own, strict=True))
        times = torch.cat([timestep] * 2) if timestep.ndim else timestep
        plain, said = denoiser.predict(torch.cat([scaled_input] * 2), times, both, guidance_scale).chunk(2)
    else:
        with torch.no_grad():
            plain = denoiser.predict(scaled_input, timestep, empty, guidance_scale)
        said = denoiser.predict(scaled_input, timestep, own, guidance_scale)
    return denoiser.guide(plain, said, guidance_scale)


@torch.no_grad()
def sample(
    pipe: Any,
    conditions: Conditions,
    noise: Tensor,
    *,
    num_steps: int,
    guidance_scale: float,
    images_per_call: int | None = None,
) -> Trajectory:
    """Run the pipeline's sampler without gradient and keep what went into each step.

    Args:
        conditions: from ``encode_prompts`` with the same guidance.
        noise: standard normal latents [N, C, h, w].
        num_steps: T. Schedulers that make more calls than steps are followed as they are.
        guidance_scale: classifier-free guidance g.
        images_per_call: images of one call of the model; None for all.
    """
    scheduler = scheduler_for(pipe, num_steps, device=noise.device)
    latents = start(scheduler, noise)
    scaled_inputs = []
    for timestep in scheduler.timesteps:
        seen = scaled(scheduler, latents, timestep)
        output = torch.cat(
            [
                predict(pipe, seen[call], timestep, conditions, guidance_scale=guidance_scale, images=call)
                for call in torch.arange(len(seen)).split(images_per_call or len(seen))
            ]
        )
        scaled_inputs.append(seen)
        latents = scheduler.step(output, timestep, latents, return_dict=False)[0]
    return Trajectory(scheduler.timesteps, torch.stack(scaled_inputs), latents)


def decode(pipe: Any, latents: Tensor) -> Tensor:
    """Decode latents [N, C, h, w] to images [N, 3, H, W]; differentiable.

    Values in [0, 1] up to the overshoot that ``pipe`` cuts off at the end. It is not cut off here: a saturated pixel
    would have no gradient.
    """
    return denoiser_for(pipe).decode(latents)
