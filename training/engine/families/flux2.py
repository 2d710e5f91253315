"""FLUX.2 klein: the denoiser of a transformer over normalised patches of latents; a Qwen3 reads the prompt."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from .denoiser import Conditions, Usual, device_of, set_shifted
from .flux import TRAINED_TIMESTEPS, USUAL_SIDE

LENGTH = 512
"""Tokens of a prompt, by the pipeline's default."""


class Flux2Klein(Usual):
    """FLUX.2 klein, the base with guidance and the distilled form without.

    Its latents are squares of 2 × 2 latents of the autoencoder, with mean and variance as its batch norm has them.
    """

    predicts_flow: ClassVar[bool] = True

    @property
    def scale(self) -> int:
        """Twice that of the autoencoder."""
        return 2 * super().scale

    @property
    def side(self) -> int:
        """Half of what the pipeline has of the autoencoder's."""
        return getattr(self.pipe, "default_sample_size", USUAL_SIDE) // 2

    def set_timesteps(self, scheduler: Any, num_steps: int, device: torch.device | str) -> None:
        """Shift them by the numbers of tokens and of steps, if the scheduler is one that does."""
        from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

        set_shifted(scheduler, num_steps, device, mu=compute_empirical_mu(self.side**2, num_steps))
        scheduler.set_begin_index(0)

    def encode(self, prompt: str | None) -> Conditions:
        """Return the embeddings [1, 512, D]."""
        embeds, _ = self.pipe.encode_prompt(prompt or "", device=device_of(self.pipe.text_encoder))
        return (embeds.to(self.model.dtype),)

    def predict(self, scaled_input: Tensor, timestep: Tensor, conditions: Conditions, guidance_scale: float) -> Tensor:
        """Call the transformer."""
        (embeds,) = conditions
        count, _, height, width = scaled_input.shape
        tokens = self.model(
            scaled_input.flatten(2).transpose(1, 2),
            embeds,
            timestep.expand(count).to(scaled_input.dtype) / TRAINED_TIMESTEPS,
            _places(1, height, width, 1, like=embeds).expand(count, -1, -1),
            _places(1, 1, 1, embeds.shape[1], like=embeds).expand(count, -1, -1),
            None,
            return_dict=False,
        )[0]
        return tokens.transpose(1, 2).unflatten(2, (height, width))

    def branches(self, guidance_scale: float) -> int:
        """Return one for the distilled form."""
        config = getattr(self.pipe, "config", {})  # what stands in for a pipeline has none
        return 1 if config.get("is_distilled") else super().branches(guidance_scale)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode with the autoencoder."""
        vae, norm = self.pipe.vae, self.pipe.vae.bn
        spread = (norm.running_var + vae.config.batch_norm_eps).sqrt()
        mean, spread = (row.view(1, -1, 1, 1).to(latents) for row in (norm.running_mean, spread))
        latents = latents * spread + mean
        count, channels, height, width = latents.shape
        squares = latents.reshape(count, channels // 4, 2, 2, height, width).permute(0, 1, 4, 2, 5, 3)
        latents = squares.reshape(count, channels // 4, 2 * height, 2 * width)
        return vae.decode(latents.to(vae.dtype), return_dict=False)[0] / 2 + 0.5

    def condition_shapes(self, length: int) -> tuple[tuple[int, ...], ...]:
        """Return the shape of the embeddings."""
        return ((LENGTH, self.model.config.joint_attention_dim),)


def _places(*sizes: int, like: Tensor) -> Tensor:
    """Return the places of tokens in time, height, width and text, int64 [1, L, 4]."""
    return torch.cartesian_prod(*(torch.arange(size, device=like.device) for size in sizes))[None]
