"""What a recipe trains on and against: the base, its prompts, classifiers and encoders."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from fair_adaptors.errors import ConfigError, did_you_mean
from fair_adaptors.formats import fingerprint

from .config import Attribute, TrainConfig


@dataclass(frozen=True)
class Setting:
    """What a recipe trains on and against.

    Attributes:
        pipe: the base.
        prompts: sets of training prompts, by name.
        validation_prompts: prompts to validate on.
        classifier: frozen; images [N, 3, H, W] in [0, 1] to logits [N, K] of each attribute.
        judge: another classifier, for validation and for the numbers at the end.
        encoders: frozen; images to unit features, for preservation.
        has_face: images to bool [N]; only images with a face take part. None takes the whole image for one.
    """

    pipe: StableDiffusionPipeline
    prompts: Mapping[str, tuple[str, ...]]
    validation_prompts: tuple[str, ...]
    classifier: Callable[[Tensor], Mapping[str, Tensor]]
    judge: Callable[[Tensor], Mapping[str, Tensor]]
    encoders: Mapping[str, Callable[[Tensor], Tensor]]
    has_face: Callable[[Tensor], Tensor] | None = field(default=None)

    @property
    def fingerprint(self) -> str:
        """A word that changes with the base's weights and with the training prompts."""
        prompts = json.dumps(sorted(self.prompts.items()))
        return hashlib.sha256(f"{fingerprint(self.pipe.components)}\n{prompts}".encode()).hexdigest()[:32]


def known_attributes(base: str) -> dict[str, Attribute]:
    """Return the attributes that a base's classifiers know, with even targets and the factors that suit them.

    Raises:
        ConfigError: a base that no classifiers are known for.
    """
    _check_known(base)
    from fair_adaptors.sandbox.prompts import ATTRIBUTES

    return {
        name: Attribute(name, classes, (1 / len(classes),) * len(classes), factor1=0.8, factor2=0.8)
        for name, classes in ATTRIBUTES.items()
    }


def load_setting(config: TrainConfig, device: torch.device | str = "cpu") -> Setting:
    """Load the models and prompts of a run.

    Raises:
        ConfigError: a base that no setting is known for, or prompts that are not there.
    """
    _check_known(config.base)
    from fair_adaptors.sandbox.classifiers import load_classifier, load_encoder
    from fair_adaptors.sandbox.pipeline import load_sandbox_pipeline
    from fair_adaptors.sandbox.prompts import prompts

    if config.tf32:
        torch.set_float32_matmul_precision("high")
    pipe = load_sandbox_pipeline().to(device)
    if config.dtype != "float32":
        pipe.to(dtype=getattr(torch, config.dtype))
    if config.activation_checkpointing:
        pipe.unet.enable_gradient_checkpointing()
    if config.compile:
        pipe.unet.compile()
    return Setting(
        pipe,
        prompt_sets(config),
        prompts("validation"),
        load_classifier("training").to(device),
        load_classifier("evaluation").to(device),
        {"portraits": load_encoder().to(device)},
    )


def prompt_sets(config: TrainConfig) -> dict[str, tuple[str, ...]]:
    """Return the prompts of each of the configuration's sets: known ones of the base, or text files.

    Raises:
        ConfigError: a set that is not known and no file, or a file without prompts.
    """
    from fair_adaptors.sandbox.prompts import AGES, TEMPLATE, occupations, prompts

    known = {
        "train": prompts("train"),
        "bare": tuple(f"a {occupation}" for occupation in occupations("train")),
        "aged": tuple(TEMPLATE.format(f"{age} {occupation}") for occupation in occupations("train") for age in AGES),
    }
    return {name: known[name] if name in known else _prompt_file(name, known) for name, _ in config.prompt_sets}


def _prompt_file(name: str, known: Mapping[str, object]) -> tuple[str, ...]:
    path = Path(name).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"prompt_sets: there is no set or file {name!r}.{did_you_mean(name, known)} Sets: {', '.join(known)}"
        )
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"prompt_sets: {path} cannot be read as text: {error}") from error
    if not any(lines):
        raise ConfigError(f"prompt_sets: {path} has no prompts; write one per line")
    return tuple(line for line in lines if line)


def _check_known(base: str) -> None:
    if base != "sandbox":
        raise ConfigError(f"no prompts and classifiers are known for base {base!r}; only 'sandbox' has them yet")
