"""SANA: the denoiser of a linear transformer, with a Gemma 2 that reads an instruction before the prompt."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from fair_adaptors.families.sana import SANA
from fair_adaptors.families.table import default_of

from .denoiser import Conditions, Usual, decode_with, device_of

LENGTH = 300
"""Tokens of a prompt, by the pipeline's default."""


class Sana(Usual):
    """SANA. Only the prompt is behind the instruction, the unconditional branch is not."""

    predicts_flow: ClassVar[bool] = True

    @property
    def scale(self) -> int:
        """That of the autoencoder, whose blocks double the sides."""
        return 2 ** (len(self.autoencoder.config.encoder_block_out_channels) - 1)

    @property
    def latent_dtype(self) -> torch.dtype:
        """Float32, whatever the network has."""
        return torch.float32

    def encode(self, prompt: str | None) -> Conditions:
        """Return the embeddings [1, 300, D], and which of them are not padding [1, 300]."""
        name = SANA.readings[0].instruction
        settings: Any = {name: None if prompt is None else default_of(self.pipe, name)}
        device = device_of(self.pipe.text_encoder)
        embeds, mask, _, _ = self.pipe.encode_prompt(prompt or "", False, device=device, **settings)
        return embeds.to(self.model.dtype), mask

    def predict(self, scaled_input: Tensor, timestep: Tensor, conditions: Conditions, guidance_scale: float) -> Tensor:
        """Call the transformer; without a mask, with all tokens of the embeddings."""
        embeds, *masks = conditions
        return self.model(
            scaled_input.to(self.model.dtype),
            embeds,
            timestep.expand(len(scaled_input)) * self.model.config.timestep_scale,
            encoder_attention_mask=masks[0] if masks else None,
            return_dict=False,
        )[0].float()

    def decode(self, latents: Tensor) -> Tensor:
        """Decode with the autoencoder."""
        return decode_with(self.pipe.vae, latents)

    def condition_shapes(self, length: int) -> tuple[tuple[int, ...], ...]:
        """Return the shape of the embeddings; then there is no mask."""
        return ((LENGTH, self.model.config.caption_channels),)
