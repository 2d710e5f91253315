"""What a denoiser is: how a prompt becomes conditions, how the model is called and guided, and how to decode."""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

Conditions = tuple[Tensor, ...]
Number = TypeVar("Number", float, Tensor)


class Denoiser(Protocol):
    """A pipeline's model, as the engine sees it."""

    predicts_flow: ClassVar[bool]
    """Whether the model's output is the velocity ε − x₀ of a straight flow (rectified flow)."""
    affine_guidance: ClassVar[bool]
    """Whether the guided output is an affine function of each branch's."""

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

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of one image's latents, for a picture of the pipeline's usual size."""
        ...

    @property
    def latent_dtype(self) -> torch.dtype:
        """The dtype in which the pipeline keeps latents between the steps."""
        ...

    def set_timesteps(self, scheduler: Any, num_steps: int, device: torch.device | str) -> None:
        """Set a scheduler's timesteps for T steps as the pipeline does, for pictures of its usual size."""
        ...

    def encode(self, prompt: str | None) -> Conditions:
        """Encode a prompt as the pipeline does, padded to the model's length; None is the unconditional branch.

        One row each. Gradients reach the text encoders.
        """
        ...

    def predict(self, scaled_input: Tensor, timestep: Tensor, conditions: Conditions, guidance_scale: float) -> Tensor:
        """Return the model's output [M, C, h, w], whatever the scheduler takes it for, with conditions of M rows.

        Args:
            timestep: one, or one per row [M].
            guidance_scale: for a model that is told it; any other leaves it to ``guide``.
        """
        ...

    def branches(self, guidance_scale: float) -> int:
        """Return how many rows the model is called with for an image: two with classifier-free guidance."""
        ...

    def guide(self, unconditional: Number, conditional: Number, guidance_scale: float) -> Number:
        """Return the guided output of both branches."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents [N, C, h, w] to images [N, 3, H, W], in [0, 1] up to an overshoot."""
        ...

    def condition_shapes(self, length: int) -> tuple[tuple[int, ...], ...]:
        """Return the shape of a row of each condition, for prompts of ``length`` tokens."""
        ...


@dataclass(frozen=True)
class Usual:
    """What most pipelines have alike: a ``transformer``, an autoencoder, and two branches of guidance."""

    pipe: Any
    predicts_flow: ClassVar[bool] = False
    affine_guidance: ClassVar[bool] = True

    @property
    def model(self) -> Any:
        """The transformer."""
        return self.pipe.transformer

    @property
    def autoencoder(self) -> Any:
        """The autoencoder."""
        return self.pipe.vae

    @property
    def scale(self) -> int:
        """That of the autoencoder, whose blocks double the sides."""
        return 2 ** (len(self.autoencoder.config.block_out_channels) - 1)

    @property
    def side(self) -> int:
        """Latents along a side of a picture, as the network's configuration has it."""
        side: int = self.model.config.sample_size
        return side

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Square, of the channels that the network has."""
        return self.model.config.in_channels, self.side, self.side

    @property
    def latent_dtype(self) -> torch.dtype:
        """That of the network."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    def set_timesteps(self, scheduler: Any, num_steps: int, device: torch.device | str) -> None:
        """Leave it to the scheduler."""
        scheduler.set_timesteps(num_steps, device=device)

    def branches(self, guidance_scale: float) -> int:
        """Return two above a scale of 1."""
        return 1 + (guidance_scale > 1)

    def guide(self, unconditional: Number, conditional: Number, guidance_scale: float) -> Number:
        """Return ε_∅ + g (ε_c − ε_∅)."""
        return unconditional + guidance_scale * (conditional - unconditional)


def set_shifted(
    scheduler: Any, num_steps: int, device: torch.device | str, *, mu: float, even_sigmas: bool = True
) -> None:
    """Set a flow scheduler's timesteps, shifted by ``mu`` if it is one that shifts by the size of the picture.

    Args:
        even_sigmas: whether the noise levels before the shift are 1, (T − 1)/T, …, 1/T, and not the scheduler's own.
    """
    settings: dict[str, Any] = {"mu": mu} if scheduler.config.get("use_dynamic_shifting") else {}
    if even_sigmas and not scheduler.config.get("use_flow_sigmas"):
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / num_steps, num_steps), device=device, **settings)
    else:
        scheduler.set_timesteps(num_steps, device=device, **settings)


def linear_mu(scheduler: Any, tokens: int, most: float = 1.15) -> float:
    """Return the shift that a scheduler has for a picture of so many tokens: linear between two sizes (FLUX.1).

    Args:
        most: the shift of the larger size, for a scheduler that does not say.
    """
    config = scheduler.config
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", most)
    slope = (high - low) / (many - few)
    shift: float = tokens * slope + (low - slope * few)
    return shift


def device_of(module: torch.nn.Module) -> torch.device:
    """Return where a module's weights are."""
    return next(module.parameters()).device


def decode_with(vae: Any, latents: Tensor) -> Tensor:
    """Decode latents [N, C, h, w] with an autoencoder to images [N, 3, H, W], in [0, 1] up to an overshoot."""
    latents = latents.to(vae.dtype) / vae.config.scaling_factor
    if getattr(vae.config, "shift_factor", None):
        latents = latents + vae.config.shift_factor
    if getattr(vae.config, "latents_mean", None) is not None and getattr(vae.config, "latents_std", None) is not None:
        mean, std = (
            latents.new_tensor(row).view(1, -1, 1, 1) for row in (vae.config.latents_mean, vae.config.latents_std)
        )
        latents = latents * std + mean
    return vae.decode(latents, return_dict=False)[0] / 2 + 0.5
