"""The sampler as functions of a Stable Diffusion pipeline: encode, predict noise, sample, decode.

``sample`` does exactly what ``pipe(...)`` does with its text conditioning, guidance and scheduler, and keeps the
latents that went into each call of the U-Net: all that the gradient needs (see ``gradients``).
"""

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from fair_adaptors.tokens import inserted


@dataclass(frozen=True)
class Trajectory:
    """One run of the sampler for N images in T steps, without gradient.

    Attributes:
        timesteps: the scheduler's timesteps [T].
        inputs: latents that entered each step, before the scheduler's input scaling, [T, N, C, h, w].
        scaled_inputs: what the U-Net saw, [T, N, C, h, w].
        latents: the final latents z₀ [N, C, h, w].
    """

    timesteps: Tensor
    inputs: Tensor
    scaled_inputs: Tensor
    latents: Tensor


def encode_prompt(
    pipe: StableDiffusionPipeline, prompt: str, *, guidance_scale: float, tokens: Tensor | None = None
) -> Tensor:
    """Encode a prompt as ``pipe`` does, padded to the model's length. Gradients reach the text encoder and the tokens.

    Args:
        tokens: soft tokens [n, D] before the prompt; the unconditional branch does not get them.

    Returns:
        Embeddings [1, L, D], or [2, L, D] with guidance: unconditional first.
    """
    with nullcontext() if tokens is None else inserted(pipe.text_encoder, tokens):
        conditional = _encode(pipe, prompt)
    return torch.cat([_encode(pipe, ""), conditional]) if guidance_scale > 1 else conditional


def _encode(pipe: StableDiffusionPipeline, text: str) -> Tensor:
    tokens = pipe.tokenizer(
        text, padding="max_length", max_length=pipe.tokenizer.model_max_length, truncation=True, return_tensors="pt"
    )
    device = next(pipe.text_encoder.parameters()).device
    uses_mask = getattr(pipe.text_encoder.config, "use_attention_mask", None)
    mask = tokens.attention_mask.to(device) if uses_mask else None
    return pipe.text_encoder(tokens.input_ids.to(device), attention_mask=mask)[0].to(pipe.unet.dtype)


def initial_noise(pipe: StableDiffusionPipeline, seeds: Sequence[int]) -> Tensor:
    """Draw standard normal noise [N, C, h, w], one CPU generator per seed, so that a batch's split changes nothing."""
    size = pipe.unet.config.sample_size
    shape = (pipe.unet.config.in_channels, size, size)
    rows = [torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32) for seed in seeds]
    return torch.stack(rows).to(pipe.unet.device, pipe.unet.dtype)


def predict_noise(
    pipe: StableDiffusionPipeline, scaled_input: Tensor, timestep: Tensor, embeds: Tensor, *, guidance_scale: float
) -> Tensor:
    """Predict the guided noise, ε_∅ + g (ε_c − ε_∅).

    Args:
        scaled_input: U-Net input [M, C, h, w].
        timestep: one timestep, or one per row [M].
        embeds: from ``encode_prompt``, [1 or 2, L, D]; shared by all rows.
        guidance_scale: g; 1 and below mean no guidance, as in ``pipe``.
    """
    count = len(scaled_input)
    if guidance_scale <= 1:
        return pipe.unet(scaled_input, timestep, embeds.expand(count, -1, -1), return_dict=False)[0]
    both = embeds.repeat_interleave(count, 0)
    if timestep.ndim:
        timestep = torch.cat([timestep] * 2)
    noise = pipe.unet(torch.cat([scaled_input] * 2), timestep, both, return_dict=False)[0]
    unconditional, conditional = noise.chunk(2)
    return unconditional + guidance_scale * (conditional - unconditional)


@torch.no_grad()
def sample(
    pipe: StableDiffusionPipeline, embeds: Tensor, noise: Tensor, *, num_steps: int, guidance_scale: float
) -> Trajectory:
    """Run the pipeline's sampler without gradient and keep what went into each step.

    Args:
        embeds: from ``encode_prompt`` with the same guidance.
        noise: standard normal latents [N, C, h, w].
        num_steps: T. Schedulers that make more calls than steps are followed as they are.
        guidance_scale: classifier-free guidance g.
    """
    scheduler = copy.deepcopy(pipe.scheduler)
    scheduler.set_timesteps(num_steps, device=noise.device)
    latents = noise * scheduler.init_noise_sigma
    inputs, scaled_inputs = [], []
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, timestep)
        predicted = predict_noise(pipe, scaled, timestep, embeds, guidance_scale=guidance_scale)
        inputs.append(latents)
        scaled_inputs.append(scaled)
        latents = scheduler.step(predicted, timestep, latents, return_dict=False)[0]
    return Trajectory(scheduler.timesteps, torch.stack(inputs), torch.stack(scaled_inputs), latents)


def decode(pipe: StableDiffusionPipeline, latents: Tensor) -> Tensor:
    """Decode latents [N, C, h, w] to images [N, 3, H, W]; differentiable.

    Values in [0, 1] up to the overshoot that ``pipe`` cuts off at the end. It is not cut off here: a saturated pixel
    would have no gradient.
    """
    return pipe.vae.decode(latents / pipe.vae.config.scaling_factor, return_dict=False)[0] / 2 + 0.5
