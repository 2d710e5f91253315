"""What the losses know of the original model's images: seen anew, or kept on disk where the noises come again."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.setup import Setup
from torch import Tensor

from . import lora
from .batches import Batch, by_prompt
from .denoisers import denoiser_for
from .objective import OriginalImages, describe, observe_each
from .processes import World
from .sampling import WITHOUT_GRADIENT, encode_prompts, sample


@dataclass(frozen=True)
class ReferenceImages:
    """What the losses know of the original model's images, by (prompt, seeds, steps, guidance), in a folder.

    Args:
        folder: of one run, for the files do not say which base, classifier and encoders they are of; None keeps
            nothing.
    """

    folder: Path | None = None

    @torch.no_grad()
    def of(self, setup: Setup, config: TrainConfig, batch: Batch, world: World, noise: Tensor) -> OriginalImages:
        """Return what is known of this process's images, made of ``noise`` [n, C, h, w] without any adaptor.

        A file that cannot be read, or does not hold what the run needs, is made again, and one that cannot be written
        is done without.
        """
        mine = world.share(len(batch.seeds))
        prompts, seeds = batch.prompts[mine], batch.seeds[mine]
        groups = [images for _, images in by_prompt(prompts)]
        paths = [self._path(setup.pipe, batch, prompts[g[0]], [seeds[i] for i in g]) for g in groups]
        known = [
            None if path is None else _read(path, setup, len(group), noise.device)
            for path, group in zip(paths, groups, strict=True)
        ]
        if config.shard_base and world.any(None in known, noise.device):  # then all call the base equally often
            known = [None] * len(groups)
        missing = [group for group, each in zip(groups, known, strict=True) if each is None]
        if missing:
            every = torch.cat(missing)
            made = self._make(setup, config, batch, [prompts[i] for i in every], noise[every.to(noise.device)])
            parts = iter(torch.arange(len(every)).split([len(group) for group in missing]))
            for number, path in enumerate(paths):
                if known[number] is None:
                    found = known[number] = made.select(next(parts))
                    _write(path, found)
        tensors = [each.tensors() for each in known if each is not None]
        together = {name: torch.cat([each[name] for each in tensors]) for name in tensors[0]}
        return OriginalImages.of(together).select(torch.cat(groups).argsort())

    def _make(
        self, setup: Setup, config: TrainConfig, batch: Batch, prompts: Sequence[str], noise: Tensor
    ) -> OriginalImages:
        with lora.switched_off(setup.pipe):
            embeds = encode_prompts(setup.pipe, prompts, guidance_scale=batch.guidance_scale)
            run = sample(
                setup.pipe,
                embeds,
                noise,
                num_steps=batch.num_steps,
                guidance_scale=batch.guidance_scale,
                images_per_call=WITHOUT_GRADIENT * config.images_per_call or None,
            )
        return describe(setup, observe_each(setup, run.latents.split(config.images_per_decode or len(noise))))

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


def _read(path: Path, setup: Setup, count: int, device: torch.device) -> OriginalImages | None:
    """Read what is known of ``count`` images; None unless it is all that the run needs, of as many."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
        known = OriginalImages.of({name: rows.to(device) for name, rows in tensors.items()})
    except (OSError, SafetensorError, KeyError, TypeError):  # damaged, or of another version
        return None
    whole = (
        known.logits
        and set(known.features) == set(setup.encoders)
        and (known.faces is not None) == (setup.faces is not None)
        and (known.face_features is not None) == (setup.face_encoder is not None and setup.faces is not None)
        and all(rows.ndim and len(rows) == count for rows in tensors.values())
    )
    return known if whole else None


def _write(path: Path | None, known: OriginalImages) -> None:
    from safetensors.torch import save

    if path is None:
        return
    aside = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(save({name: rows.cpu().contiguous() for name, rows in known.tensors().items()}))
        os.replace(aside, path)
    except OSError:
        aside.unlink(missing_ok=True)
