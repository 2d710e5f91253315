"""The published form of the gradient, the sampler as one graph; and ours beside it. For tests and benchmarks."""

from collections.abc import Iterable
from typing import Any

import torch
from fair_adaptors.training.engine import lora
from fair_adaptors.training.engine.denoisers import denoiser_for
from fair_adaptors.training.engine.gradients import accumulate_gradients, affine_coefficients, step_weights
from fair_adaptors.training.engine.losses import scale_gradient
from fair_adaptors.training.engine.sampling import encode_prompts, initial_noise, predict, sample
from fair_adaptors.training.engine.schedule import scaled, scheduler_for, start
from torch import Tensor


def whole_graph_gradients(
    pipe: Any,
    prompt: str,
    noise: Tensor,
    latent_gradient: Tensor,
    *,
    num_steps: int,
    guidance_scale: float,
    factors: Tensor,
    checkpointing: bool = True,
    detached: bool = True,
) -> None:
    """Add the gradient of ⟨latent_gradient, z₀⟩ to ``.grad``: sample with gradient, then go back through all of it.

    The U-Net's input is detached, each noise's gradient multiplied by ``factors`` [T]. Not ``detached``, with factors
    of one, it is full backpropagation through the sampler.

    Checkpointing is diffusers' own, of each block of the U-Net, as in the published code; it needs training mode.
    """
    if checkpointing:
        network = denoiser_for(pipe).model
        network.enable_gradient_checkpointing()
        network.train()
    scheduler = scheduler_for(pipe, num_steps)
    embeds = encode_prompts(pipe, [prompt], guidance_scale=guidance_scale)
    latents = start(scheduler, noise)
    for timestep, factor in zip(scheduler.timesteps, factors.tolist(), strict=True):
        seen = scaled(scheduler, latents.detach() if detached else latents, timestep)
        predicted = predict(pipe, seen, timestep, embeds, guidance_scale=guidance_scale)
        predicted = scale_gradient(predicted, factor)
        latents = scheduler.step(predicted, timestep, latents, return_dict=False)[0]
    latents.backward(latent_gradient)


def trained(pipe: Any, parts: Iterable[str]) -> list[torch.nn.Parameter]:
    """Attach LoRAs that are not at their start, where half of their gradient would be zero."""
    parameters = list(lora.attach(pipe, tuple(parts), rank=2).values())
    for parameter in parameters:
        torch.nn.init.normal_(parameter, std=0.1)
    return parameters


def taken(parameters: list[torch.nn.Parameter]) -> Tensor:
    """Return the gradients in one row, and take them away."""
    found = torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])
    for parameter in parameters:
        parameter.grad = None
    return found


def per_step(pipe: Any, noise: Tensor, v: Tensor, guidance_scale: float, weights: Tensor, **options: Any) -> None:
    """Add our gradient of ⟨v, z₀⟩ to ``.grad``: sample without gradient, then walk the steps."""
    with torch.no_grad():
        embeds = encode_prompts(pipe, ["a nurse"], guidance_scale=guidance_scale)
    run = sample(pipe, embeds, noise, num_steps=len(weights), guidance_scale=guidance_scale)
    accumulate_gradients(pipe, run, v, ["a nurse"], guidance_scale=guidance_scale, weights=weights, **options)


def agrees_with_the_whole_graph(
    pipe: Any, parts: Iterable[str], kind: Any, *, num_steps: int, guidance_scale: float
) -> bool:
    """Check our gradient by weights of a kind; tell whether it reached all that is trained."""
    parameters = trained(pipe, parts)
    noise = initial_noise(pipe, [0, 1])
    v = torch.randn(noise.shape, generator=torch.Generator().manual_seed(0))
    weights = step_weights(scheduler_for(pipe, num_steps), kind)
    per_step(pipe, noise, v, guidance_scale, weights)
    ours = taken(parameters)
    settings: dict[str, Any] = {"num_steps": num_steps, "guidance_scale": guidance_scale}
    factors = weights / affine_coefficients(scheduler_for(pipe, num_steps))
    whole_graph_gradients(pipe, "a nurse", noise, v, factors=factors, **settings)
    reference = taken(parameters)
    assert (ours - reference).norm() <= 1e-5 * reference.norm() > 0
    return len(ours) == sum(parameter.numel() for parameter in parameters)
