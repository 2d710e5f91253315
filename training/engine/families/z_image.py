"""Z-Image: the denoiser of a transformer that takes lists, with a Qwen3 that reads the prompt and float32 latents."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from .denoiser import Conditions, Number, Usual, decode_with, device_of, linear_mu, set_shifted
from .flux import TRAINED_TIMESTEPS, USUAL_SIDE

LENGTH = 512
"""Most tokens of a prompt, by the pipeline's default."""


class ZImage(Usual):
    """Z-Image and Z-Image-Turbo. What its transformer says is the negative of the velocity, at a time that goes up."""

    predicts_flow: ClassVar[bool] = True

    @property
    def side(self) -> int:
        """That of a picture of 1024 pixels, which no configuration says, unless the pipeline was given another."""
        return getattr(self.pipe, "default_sample_size", USUAL_SIDE)

    @property
    def latent_dtype(self) -> torch.dtype:
        """Float32, whatever the network has."""
        return torch.float32

    def set_timesteps(self, scheduler: Any, num_steps: int, device: torch.device | str) -> None:
        """Shift them by the number of tokens that a picture has, if the scheduler is one that does."""
        set_shifted(scheduler, num_steps, device, mu=linear_mu(scheduler, (self.side // 2) ** 2))
        scheduler.set_begin_index(0)

    def encode(self, prompt: str | None) -> Conditions:
        """Return the embeddings, padded with zeros [1, 512, D], and which of them the prompt has [1, 512]."""
        device = device_of(self.pipe.text_encoder)
        (rows,), _ = self.pipe.encode_prompt(prompt or "", device=device, do_classifier_free_guidance=False)
        padded = torch.nn.functional.pad(rows.to(self.model.dtype), (0, 0, 0, LENGTH - len(rows)))
        return padded[None], torch.arange(LENGTH, device=device)[None] < len(rows)

    def predict(self, scaled_input: Tensor, timestep: Tensor, conditions: Conditions, guidance_scale: float) -> Tensor:
        """Call the transformer with each image's own tokens; without a mask, with all."""
        embeds, *masks = conditions
        said = [row[mask] for row, mask in zip(embeds, masks[0], strict=True)] if masks else list(embeds)
        times = (TRAINED_TIMESTEPS - timestep.expand(len(scaled_input))) / TRAINED_TIMESTEPS
        images = list(scaled_input.to(self.model.dtype).unsqueeze(2))
        found = self.model(images, times, said, return_dict=False)[0]
        return -torch.stack([each.float() for each in found]).squeeze(2)

    def branches(self, guidance_scale: float) -> int:
        """Return two above a scale of 0."""
        return 1 + (guidance_scale > 0)

    def guide(self, unconditional: Number, conditional: Number, guidance_scale: float) -> Number:
        """Return v_c + g (v_c − v_∅)."""
        return conditional + guidance_scale * (conditional - unconditional)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode with the autoencoder."""
        return decode_with(self.pipe.vae, latents)

    def condition_shapes(self, length: int) -> tuple[tuple[int, ...], ...]:
        """Return the shape of the embeddings of the longest prompt; then there is no mask."""
        return ((LENGTH, self.model.config.cap_feat_dim),)
