"""The original model's images of a batch: made anew, or kept on disk where the noises come again."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import lora
from .batches import Batch, by_prompt
from .denoisers import denoiser_for
from .sampling import encode_prompts, sample


@dataclass(frozen=True)
class ReferenceImages:
    """Final latents of the original model, by (prompt, seeds, steps, guidance), in a folder; None keeps nothing.

    The folder belongs to one base: the files do not say which.
    """

    folder: Path | None = None

    @torch.no_grad()
    def latents(
        self, pipe: Any, batch: Batch, mine: slice, noise: Tensor, *, images_per_call: int | None = None
    ) -> Tensor:
        """Return z₀ [n, C, h, w] of ``noise``, which is that of this process's images, without any adaptor.

        A file that cannot be read is made again, and one that cannot be written is done without.

        Args:
            mine: which images of the batch these are.
        """
        prompts, seeds = batch.prompts[mine], batch.seeds[mine]
        latents, missing = torch.empty_like(noise), []
        for images in (images.tolist() for _, images in by_prompt(prompts)):
            kept = _read(self._path(pipe, batch, prompts[images[0]], [seeds[i] for i in images]), noise[images])
            if kept is None:
                missing.append(images)
            else:
                latents[images] = kept
        if missing:
            every = sum(missing, [])
            with lora.switched_off(pipe):
                embeds = encode_prompts(pipe, [prompts[i] for i in every], guidance_scale=batch.guidance_scale)
                latents[every] = sample(
                    pipe,
                    embeds,
                    noise[every],
                    num_steps=batch.num_steps,
                    guidance_scale=batch.guidance_scale,
                    images_per_call=images_per_call,
                ).latents
        for images in missing:
            _write(self._path(pipe, batch, prompts[images[0]], [seeds[i] for i in images]), latents[images])
        return latents

    def _path(self, pipe: Any, batch: Batch, prompt: str, seeds: Sequence[int]) -> Path | None:
        """Return where images of one prompt are kept."""
        if self.folder is None:
            return None
        parts = (
            prompt,
            list(seeds),
            batch.num_steps,
            batch.guidance_scale,
            str(denoiser_for(pipe).model.dtype),
            (type(pipe.scheduler).__name__, sorted(pipe.scheduler.config.items())),
        )
        key = hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:40]
        return self.folder / f"{key}.safetensors"


def _read(path: Path | None, like: Tensor) -> Tensor | None:
    if path is None:
        return None
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(path).get("latents")
    except (OSError, SafetensorError):
        return None
    return found.to(like) if found is not None and found.shape == like.shape else None


def _write(path: Path | None, latents: Tensor) -> None:
    if path is None:
        return
    from safetensors.torch import save

    aside = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(save({"latents": latents.cpu().contiguous()}))
        os.replace(aside, path)
    except OSError:
        aside.unlink(missing_ok=True)
