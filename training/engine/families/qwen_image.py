"""Qwen-Image: the denoiser of a transformer over packed latents, whose guidance keeps the length of each token."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from fair_adaptors.families.qwen_image import QWEN_IMAGE

from .denoiser import Conditions, device_of
from .flux import TRAINED_TIMESTEPS, Packed, pack, unpack

LENGTH = 512
"""Most tokens of a prompt, by the pipeline's default."""


class QwenImage(Packed):
    """Qwen-Image, whose autoencoder is one of videos."""

    affine_guidance: ClassVar[bool] = False

    @property
    def scale(self) -> int:
        """That of the autoencoder, which has no blocks to count."""
        return 2 ** len(self.autoencoder.config.temperal_downsample)

    def encode(self, prompt: str | None) -> Conditions:
        """Return the embeddings, padded with zeros [1, 512, D], and which of them the prompt has [1, 512]."""
        text = QWEN_IMAGE.negative_prompt if prompt is None else prompt
        device = device_of(self.pipe.text_encoder)
        embeds, _ = self.pipe.encode_prompt(text, device=device, max_sequence_length=LENGTH)
        length = embeds.shape[1]
        padded = torch.nn.functional.pad(embeds.to(self.model.dtype), (0, 0, 0, LENGTH - length))
        return padded, torch.arange(LENGTH, device=device)[None] < length

    def predict(self, scaled_input: Tensor, timestep: Tensor, conditions: Conditions, guidance_scale: float) -> Tensor:
        """Call the transformer; without a mask, with all tokens of the embeddings."""
        embeds, *masks = conditions
        count, _, height, width = scaled_input.shape
        packed = self.model(
            pack(scaled_input),
            embeds,
            masks[0] if masks else None,
            timestep.expand(count).to(scaled_input.dtype) / TRAINED_TIMESTEPS,
            [[(1, height // 2, width // 2)]] * count,
            return_dict=False,
        )[0]
        return unpack(packed, height, width)

    def guide(self, unconditional: Any, conditional: Any, guidance_scale: float) -> Any:
        """Return v = v_∅ + g (v_c − v_∅) with each token as long as that of v_c: v ‖v_c‖ / ‖v‖."""
        guided = super().guide(unconditional, conditional, guidance_scale)
        long, wanted = (pack(each).norm(dim=-1, keepdim=True) for each in (guided, conditional))
        return unpack(pack(guided) * (wanted / long), *guided.shape[2:])

    def decode(self, latents: Tensor) -> Tensor:
        """Decode with the autoencoder, as a video of one picture.

        Its own ``decode`` would cut the overshoot off, where there is no gradient then.
        """
        vae, config = self.pipe.vae, self.pipe.vae.config
        mean, std = (latents.new_tensor(row).view(-1, 1, 1) for row in (config.latents_mean, config.latents_std))
        frames = (latents * std + mean).to(vae.dtype).unsqueeze(2)
        return vae.decoder(vae.post_quant_conv(frames)).squeeze(2) / 2 + 0.5

    def condition_shapes(self, length: int) -> tuple[tuple[int, ...], ...]:
        """Return the shape of the embeddings of the longest prompt; then there is no mask."""
        return ((LENGTH, self.model.config.joint_attention_dim),)
