"""What the numbers of an evaluation follow from, and how far its classifiers are off: parts of ``Results``."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Calibration:
    """A classifier on images whose truth is known; ``confusion`` has a row per true class."""

    classes: tuple[str, ...]
    true: float
    measured: float
    error: float
    confusion: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Settings:
    """All that images and numbers follow from, but the variants."""

    format: str
    base: str
    base_fingerprint: str
    prompt_set: str
    prompts: tuple[str, ...]
    labels: tuple[str, ...]
    images_per_prompt: int
    seed: int
    num_steps: int
    guidance_scale: float
    batch_size: int
    keep_images: bool
    scheduler: str
    scheduler_config: str
    instruments: str
    versions: Mapping[str, str]
