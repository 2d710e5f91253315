"""What the builders of the sandbox's models share: their optimiser's steps, and what is told and written of them."""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor, nn
from transformers import CLIPTokenizer


def minimise(
    parameters: Iterable[nn.Parameter],
    steps: int,
    count: int,
    batch: int,
    rate: float,
    generator: torch.Generator,
    advance: Callable[[], None],
) -> Iterator[Tensor]:
    """Yield batches of indices; after the caller's backward, take an AdamW step (warm-up, cosine, clipping at 1)."""
    parameters = list(parameters)
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.99), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * min(1, step / steps)))
    )
    for _ in range(steps):
        yield torch.randint(count, (batch,), generator=generator)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        advance()


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Return ids of texts [N, 77]."""
    return tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids


def stage_of(progress: Progress, name: str, total: int) -> Callable[[], None]:
    """Begin a stage of so many steps on a progress bar, and return what tells of each step."""
    task = progress.add_task(name, total=total)
    return lambda: progress.advance(task)


def load_as_float32(config: Path) -> None:
    """Have transformers load a model in float32, as diffusers does untold; the file stays in half precision."""
    settings = {**json.loads(config.read_text(encoding="utf-8")), "dtype": "float32"}
    config.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
