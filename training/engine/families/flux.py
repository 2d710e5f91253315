"""FLUX.1: the denoiser of a transformer over packed latents, which is told the guidance, if there is any."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from .denoiser import Conditions, Usual, decode_with, device_of, linear_mu, set_shifted

USUAL_SIDE = 128
"""Latents along a side of a picture of 1024 pixels, which no configuration says."""
T5_LENGTH = 512
"""Tokens of T5, by the pipeline's default."""
TRAINED_TIMESTEPS = 1000


class Packed(Usual):
    """A transformer of a flow, a token of which is a square of 2 × 2 latents."""

    predicts_flow: ClassVar[bool] = True

    @property
    def side(self) -> int:
        """As the pipeline has it."""
        return getattr(self.pipe, "default_sample_size", USUAL_SIDE)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Those of the autoencoder, before they are packed."""
        return self.model.config.in_channels // 4, self.side, self.side

    def set_timesteps(self, scheduler: Any, num_steps: int, device: torch.device | str) -> None:
        """Shift them by the number of tokens that a picture has, if the scheduler is one that does."""
        set_shifted(scheduler, num_steps, device, mu=linear_mu(scheduler, (self.side // 2) ** 2))
        scheduler.set_begin_index(0)


class Flux(Packed):
    """FLUX.1 dev, which is told its guidance, and schnell, which has none: one row an image in any case."""

    def encode(self, prompt: str | None) -> Conditions:
        """Return the embeddings [1, 512, D] of T5, and the pooled one of CLIP [1, P]."""
        embeds, pooled, _ = self.pipe.encode_prompt(prompt or "", None, device=device_of(self.pipe.text_encoder))
        return embeds.to(self.model.dtype), pooled.to(self.model.dtype)

    def predict(self, scaled_input: Tensor, timestep: Tensor, conditions: Conditions, guidance_scale: float) -> Tensor:
        """Call the transformer."""
        embeds, pooled = conditions
        count, _, height, width = scaled_input.shape
        told = self.model.config.guidance_embeds
        packed = self.model(
            pack(scaled_input),
            embeds,
            pooled,
            timestep.expand(count).to(scaled_input.dtype) / TRAINED_TIMESTEPS,
            torch.stack(
                torch.meshgrid(*map(torch.arange, (1, height // 2, width // 2)), indexing="ij"), -1
            ).view(-1, 3).to(scaled_input),
            embeds.new_zeros(embeds.shape[1], 3),
            torch.full([count], guidance_scale, device=scaled_input.device) if told else None,
            return_dict=False,
        )[0]  # fmt: skip
        return unpack(packed, height, width)

    def branches(self, guidance_scale: float) -> int:
        """Return one."""
        return 1

    def decode(self, latents: Tensor) -> Tensor:
        """Decode with the autoencoder."""
        return decode_with(self.pipe.vae, latents)

    def condition_shapes(self, length: int) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of the embeddings and of the pooled one."""
        config = self.model.config
        return (T5_LENGTH, config.joint_attention_dim), (config.pooled_projection_dim,)


def pack(latents: Tensor) -> Tensor:
    """Put squares of 2 × 2 latents [M, C, h, w] into tokens [M, hw/4, 4C]."""
    count, channels, height, width = latents.shape
    squares = latents.view(count, channels, height // 2, 2, width // 2, 2)
    return squares.permute(0, 2, 4, 1, 3, 5).reshape(count, height * width // 4, channels * 4)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Put tokens [M, hw/4, 4C] back into latents [M, C, h, w]."""
    squares = tokens.view(len(tokens), height // 2, width // 2, -1, 2, 2)
    return squares.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), -1, height, width)
