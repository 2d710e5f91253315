"""The table of denoisers, one per pipeline family (``families``), and which one a pipeline has.

Nothing else in the engine knows the family. Conditions are tensors with a row per branch of guidance; the engine
repeats the rows per image and takes gradients through them, and does not know what they are.
"""

from collections.abc import Callable
from typing import Any

from fair_adaptors.training.engine.families.denoiser import Denoiser
from fair_adaptors.training.engine.families.flux import Flux
from fair_adaptors.training.engine.families.flux2 import Flux2Klein
from fair_adaptors.training.engine.families.qwen_image import QwenImage
from fair_adaptors.training.engine.families.sana import Sana
from fair_adaptors.training.engine.families.sd import StableDiffusion, StableDiffusionXL
from fair_adaptors.training.engine.families.sd3 import StableDiffusion3
from fair_adaptors.training.engine.families.z_image import ZImage

from fair_adaptors.errors import ConfigError
from fair_adaptors.families.table import FAMILIES, family_of, find_family

DENOISERS: dict[str, Callable[[Any], Denoiser]] = {
    "sd": StableDiffusion,
    "sdxl": StableDiffusionXL,
    "sd3": StableDiffusion3,
    "flux": Flux,
    "flux2": Flux2Klein,
    "z-image": ZImage,
    "qwen-image": QwenImage,
    "sana": Sana,
}
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
