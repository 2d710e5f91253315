"""Stable Diffusion 1.x and 2.x, and XL: the denoisers of pipelines with a U-Net."""

from typing import Any

import torch
from torch import Tensor

from .denoiser import Conditions, Usual, decode_with, device_of


class StableDiffusion(Usual):
    """Stable Diffusion 1.x and 2.x: one text encoder."""

    @property
    def model(self) -> Any:
        """The U-Net."""
        return self.pipe.unet

    def encode(self, prompt: str | None) -> Conditions:
        """Return the embeddings [1, L, D]."""
        embeds, _ = self.pipe.encode_prompt(prompt or "", device_of(self.pipe.text_encoder), 1, False)
        return (embeds.to(self.model.dtype),)

    def predict(self, scaled_input: Tensor, timestep: Tensor, conditions: Conditions, guidance_scale: float) -> Tensor:
        """Call the U-Net."""
        (embeds,) = conditions
        return self.model(scaled_input, timestep, embeds, return_dict=False)[0]

    def decode(self, latents: Tensor) -> Tensor:
        """Decode with the autoencoder."""
        return decode_with(self.pipe.vae, latents)

    def condition_shapes(self, length: int) -> tuple[tuple[int, ...], ...]:
        """Return the shape of the embeddings."""
        return ((length, self.model.config.cross_attention_dim),)


class StableDiffusionXL(Usual):
    """Stable Diffusion XL: two text encoders, a pooled embedding, and the size of the picture."""

    @property
    def model(self) -> Any:
        """The U-Net."""
        return self.pipe.unet

    def encode(self, prompt: str | None) -> Conditions:
        """Return the embeddings [1, L, D] of both encoders side by side, and the second one's pooled [1, P]."""
        embeds, _, pooled, _ = self.pipe.encode_prompt(
            prompt or "",
            device=device_of(self.pipe.text_encoder),
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        if prompt is None and self.pipe.config.force_zeros_for_empty_prompt:
            embeds, pooled = torch.zeros_like(embeds), torch.zeros_like(pooled)
        return embeds.to(self.model.dtype), pooled.to(self.model.dtype)

    def predict(self, scaled_input: Tensor, timestep: Tensor, conditions: Conditions, guidance_scale: float) -> Tensor:
        """Call the U-Net, as for a picture of its own size that was not cropped."""
        embeds, pooled = conditions
        height, width = (side * self.scale for side in scaled_input.shape[-2:])
        sizes = pooled.new_tensor([height, width, 0, 0, height, width]).expand(len(scaled_input), -1)
        added = {"text_embeds": pooled, "time_ids": sizes}
        return self.model(scaled_input, timestep, embeds, added_cond_kwargs=added, return_dict=False)[0]

    def decode(self, latents: Tensor) -> Tensor:
        """Decode with the autoencoder, in float32 where float16 would overflow."""
        vae = self.pipe.vae
        if vae.dtype == torch.float16 and vae.config.force_upcast:
            vae.float()
        return decode_with(vae, latents)

    def condition_shapes(self, length: int) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of the embeddings and of the pooled one."""
        return (length, self.model.config.cross_attention_dim), (self.pipe.text_encoder_2.config.projection_dim,)
