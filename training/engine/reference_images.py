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
from .batches import Batch
from .denoisers import denoiser_for
from .sampling import encode_prompt, sample


@dataclass(frozen=True)
class ReferenceImages:
    """Final latents of the original model, by (prompt, seeds, steps, guidance), in a folder; None keeps nothing.

    The folder belongs to one base: the files do not say which.
    """

    folder: Path | None = None

    @torch.no_grad()
    def latents(
        self, pipe: Any, batch: Batch, seeds: Sequence[int], noise: Tensor, *, images_per_call: int | None = None
    ) -> Tensor:
        """Return z₀ [n, C, h, w] of ``noise``, which is that of ``seeds``, without any adaptor.

        A file that cannot be read is made again, and one that cannot be written is done without.
        """
        path = None if self.folder is None else self.folder / f"{_key(pipe, batch, seeds)}.safetensors"
        if path is not None and (found := _read(path, noise)) is not None:
            return found
        with lora.switched_off(pipe):
            embeds = encode_prompt(pipe, batch.prompt, guidance_scale=batch.guidance_scale)
            run = sample(
                pipe,
                embeds,
                noise,
                num_steps=batch.num_steps,
                guidance_scale=batch.guidance_scale,
                images_per_call=images_per_call,
            )
        if path is not None:
            _write(path, run.latents)
        return run.latents


def _key(pipe: Any, batch: Batch, seeds: Sequence[int]) -> str:
    scheduler = type(pipe.scheduler).__name__, sorted(pipe.scheduler.config.items())
    parts = (
        batch.prompt,
        list(seeds),
        batch.num_steps,
        batch.guidance_scale,
        str(denoiser_for(pipe).model.dtype),
        scheduler,
    )
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:40]


def _read(path: Path, like: Tensor) -> Tensor | None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(path).get("latents")
    except (OSError, SafetensorError):
        return None
    return found.to(like) if found is not None and found.shape == like.shape else None


def _write(path: Path, latents: Tensor) -> None:
    from safetensors.torch import save

    aside = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(save({"latents": latents.cpu().contiguous()}))
        os.replace(aside, path)
    except OSError:
        aside.unlink(missing_ok=True)
