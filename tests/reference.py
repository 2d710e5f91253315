"""The published form of the gradient: the sampler as one graph. For tests and benchmarks."""

from typing import Any

from fair_adaptors.training.engine.denoisers import denoiser_for
from fair_adaptors.training.engine.losses import scale_gradient
from fair_adaptors.training.engine.sampling import encode_prompts, predict
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
