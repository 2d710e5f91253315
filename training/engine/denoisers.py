"""One denoiser per pipeline family: how a prompt becomes conditions, how the model is called, how to decode.

Nothing else in the engine knows the family. Conditions are tensors with a row per branch of guidance; the engine
repeats the rows per image and takes gradients through them, and does not know what they are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fair_adaptors.errors import ConfigError
from fair_adaptors.families.table import FAMILIES, family_of, find_family

Conditions = tuple[Tensor, ...]


class Denoiser(Protocol):
    """A pipeline's model, as the engine sees it."""

    @property
    def model(self) -> Any:
        """The network that is called at every step."""
        ...

    @property
    def autoencoder(self) -> Any:
        """What makes pictures of latents."""
        ...

    @property
    def scale(self) -> int:
        """Pixels along a side of a picture for each latent along it."""
        ...

    def encode(self, prompt: str | None) -> Conditions:
        """Encode a prompt as the pipeline does, padded to the model's length; None is the unconditional branch.

        One row each. Gradients reach the text encoders.
        """
        ...

    def predict(self, scaled_input: Tensor, timestep: Tensor, conditions: Conditions) -> Tensor:
        """Return the model's output [M, C, h, w], whatever the scheduler takes it for, with conditions of M rows."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents [N, C, h, w] to images [N, 3, H, W], in [0, 1] up to an overshoot."""
        ...

    def condition_shapes(self, length: int) -> tuple[tuple[int, ...], ...]:
        """Return the shape of a row of each condition, for prompts of ``length`` tokens."""
        ...


@dataclass(frozen=True)
class _WithUNet:
    """What both families have: a U-Net, and an autoencoder whose blocks double the sides."""

    pipe: Any

    @property
    def model(self) -> Any:
        """The U-Net."""
        return self.pipe.unet

    @property
    def autoencoder(self) -> Any:
        """The autoencoder."""
        return self.pipe.vae

    @property
    def scale(self) -> int:
        """That of the autoencoder."""
        return 2 ** (len(self.pipe.vae.config.block_out_channels) - 1)


@dataclass(frozen=True)
class StableDiffusion(_WithUNet):
    """Stable Diffusion 1.x and 2.x: one text encoder."""

    def encode(self, prompt: str | None) -> Conditions:
        """Return the embeddings [1, L, D]."""
        embeds, _ = self.pipe.encode_prompt(prompt or "", _device(self.pipe.text_encoder), 1, False)
        return (embeds.to(self.model.dtype),)

    def predict(self, scaled_input: Tensor, timestep: Tensor, conditions: Conditions) -> Tensor:
        """Call the U-Net."""
        (embeds,) = conditions
        return self.model(scaled_input, timestep, embeds, return_dict=False)[0]

    def decode(self, latents: Tensor) -> Tensor:
        """Decode with the autoencoder."""
        return decode_with(self.pipe.vae, latents)

    def condition_shapes(self, length: int) -> tuple[tuple[int, ...], ...]:
        """Return the shape of the embeddings."""
        return ((length, self.model.config.cross_attention_dim),)


@dataclass(frozen=True)
class StableDiffusionXL(_WithUNet):
    """Stable Diffusion XL: two text encoders, a pooled embedding, and the size of the picture."""

    def encode(self, prompt: str | None) -> Conditions:
        """Return the embeddings [1, L, D] of both encoders side by side, and the second one's pooled [1, P]."""
        embeds, _, pooled, _ = self.pipe.encode_prompt(
            prompt or "",
            device=_device(self.pipe.text_encoder),
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        if prompt is None and self.pipe.config.force_zeros_for_empty_prompt:
            embeds, pooled = torch.zeros_like(embeds), torch.zeros_like(pooled)
        return embeds.to(self.model.dtype), pooled.to(self.model.dtype)

    def predict(self, scaled_input: Tensor, timestep: Tensor, conditions: Conditions) -> Tensor:
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


DENOISERS: dict[str, Callable[[Any], Denoiser]] = {"sd": StableDiffusion, "sdxl": StableDiffusionXL}
"""By the name of the family."""


def denoiser_for(pipe: Any) -> Denoiser:
    """Return the denoiser of a pipeline.

    Raises:
        ConfigError: no family of pipelines that is known.
    """
    family, classes = find_family(pipe), {kind.__name__ for kind in type(pipe).__mro__}
    if family is None or family.name not in DENOISERS or classes.isdisjoint(family.pipelines):
        known = [name for one in FAMILIES if one.name in DENOISERS for name in one.pipelines]
        raise ConfigError(f"{type(pipe).__name__} cannot be trained; {' and '.join(known)} can")
    return DENOISERS[family.name](pipe)


def denoiser_of(base: Any) -> Denoiser:
    """Return the denoiser of what stands in for a pipeline where shapes count, whatever its class."""
    return DENOISERS[family_of(base).name](base)


def _device(module: torch.nn.Module) -> torch.device:
    return next(module.parameters()).device


def decode_with(vae: Any, latents: Tensor) -> Tensor:
    """Decode latents [N, C, h, w] with an autoencoder to images [N, 3, H, W], in [0, 1] up to an overshoot."""
    latents = latents.to(vae.dtype) / vae.config.scaling_factor
    if getattr(vae.config, "latents_mean", None) is not None and getattr(vae.config, "latents_std", None) is not None:
        mean, std = (
            latents.new_tensor(row).view(1, -1, 1, 1) for row in (vae.config.latents_mean, vae.config.latents_std)
        )
        latents = latents * std + mean
    return vae.decode(latents, return_dict=False)[0] / 2 + 0.5
