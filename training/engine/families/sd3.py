"""Stable Diffusion 3 and 3.5: the denoiser of a transformer that predicts a flow, with two CLIPs and perhaps T5."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from .denoiser import Conditions, Usual, decode_with, device_of, linear_mu, set_shifted

T5_LENGTH = 256
"""Tokens of T5, by the pipeline's default; without T5 there are as many zeros."""


class StableDiffusion3(Usual):
    """Stable Diffusion 3 and 3.5."""

    predicts_flow: ClassVar[bool] = True

    def set_timesteps(self, scheduler: Any, num_steps: int, device: torch.device | str) -> None:
        """Shift them by the number of tokens that a picture has, if the scheduler is one that does."""
        mu = linear_mu(scheduler, (self.side // self.model.config.patch_size) ** 2, 1.16)
        set_shifted(scheduler, num_steps, device, mu=mu, even_sigmas=False)

    def encode(self, prompt: str | None) -> Conditions:
        """Return the embeddings [1, 77 + 256, D] of the CLIPs and of T5, and those of the CLIPs pooled [1, P]."""
        embeds, _, pooled, _ = self.pipe.encode_prompt(
            prompt or "",
            None,
            None,
            device=device_of(self.pipe.text_encoder),
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        return embeds.to(self.model.dtype), pooled.to(self.model.dtype)

    def predict(self, scaled_input: Tensor, timestep: Tensor, conditions: Conditions, guidance_scale: float) -> Tensor:
        """Call the transformer."""
        embeds, pooled = conditions
        times = timestep.expand(len(scaled_input))
        return self.model(scaled_input, embeds, pooled, times, return_dict=False)[0]

    def decode(self, latents: Tensor) -> Tensor:
        """Decode with the autoencoder."""
        return decode_with(self.pipe.vae, latents)

    def condition_shapes(self, length: int) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of the embeddings and of the pooled ones."""
        config = self.model.config
        return (length + T5_LENGTH, config.joint_attention_dim), (config.pooled_projection_dim,)
