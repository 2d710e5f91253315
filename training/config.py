"""What a training run is made of: one frozen dataclass, no defaults hidden elsewhere."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from fair_adaptors.adaptor.record import is_text
from fair_adaptors.errors import ConfigError, did_you_mean
from fair_adaptors.vision.pretrained import TRAINING_ENCODERS

PARTS = ("text_encoder", "text_encoder_2", "unet", "tokens")
"""What can be trained: LoRAs on the text encoders and the U-Net, and soft tokens before the prompt."""

Share = tuple[str, float]


@dataclass(frozen=True)
class Attribute:
    """An attribute to make fair: its classes in index order, the target shares, and what may change with its class."""

    name: str
    classes: tuple[str, ...]
    target: tuple[float, ...]
    factor1: float = 0.2
    factor2: float = 0.2


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        name: name of the adaptor.
        base: base model: ``sandbox``, a pipeline folder or a Hub id; ORG/NAME@COMMIT is one version of it.
        attributes: what to make fair, jointly.
        classifier: what the classes are judged by while training, as ``fair-adaptors evaluate --classifier`` has it.
        judge: another one, for validation and for the numbers at the end.
        encoders: what tells how much of the original image is kept, as ``--encoder`` has it.
        faces: the detector of faces, as ``--faces`` has it; empty where the whole image is the face.
        face_encoder: what tells whose face it is, see ``load_face_encoder``; empty for no face loss.
        face_bank: file of real faces, for those whose class must change; empty to let these go without a face loss.
        parts: what is trained, of ``PARTS``.
        rank: rank of the LoRAs.
        alpha: scale of the LoRAs is alpha / rank; 0 means alpha = rank.
        dropout: of the LoRAs' inputs, in the gradient pass only; with it the number of processes changes the result.
        target_modules: names of the linear layers that get a LoRA; none for those of the paper.
        num_tokens: how many soft tokens.
        prompt_sets: names of prompt sets, or text files with a prompt per line, with their shares.
        validation_set: the prompts to validate on, likewise.
        iterations: optimiser steps.
        prompts_per_step: prompts whose gradients make one optimiser step.
        images_per_prompt: N, images of one prompt; split over the processes.
        num_steps: T, sampling steps.
        max_steps: if more than ``num_steps``, T is drawn anew for each prompt from ``num_steps`` to this.
        gradient_steps: K, how many of the T steps, chosen at random, take part in the gradient; 0 for all.
        images_per_call: rows of one U-Net call of the gradient pass, see ``gradients``; 0 for a step at a time.
        images_per_decode: images that are decoded and classified at once with gradient; 0 for all.
        step_weights: ``uniform`` (A := 1), ``published`` or ``exact``, see ``gradients``.
        guidance_scale: classifier-free guidance.
        unguided: iterations at the start that do without guidance: half the cost, and gentler where guidance drives a
            bias to its extreme.
        originals_pool: if more than 0, each prompt has this many sets of noises, which come again in turn; the
            original model's images of them are kept on disk in the run's folder.
        optimizer: ``adamw``, or ``adamw8bit`` of bitsandbytes.
        learning_rate: AdamW's, reached after ``warmup`` steps.
        schedule: what it does then: ``constant``, or falls to zero by a half ``cosine`` or ``linear``ly.
        weight_decay: AdamW's.
        max_grad_norm: the gradient is clipped to this norm; ``inf`` for not.
        ema: decay of the average of the weights, warmed up; the average is what is kept in the end.
        dtype: of the base. The adaptor, its gradients and the losses are float32 whatever it is.
        tf32: lets GPUs multiply float32 matrices in TF32.
        activation_checkpointing: recompute the blocks of U-Net and autoencoder in the backward pass: less memory, more
            time.
        compile: compile the U-Net with torch.compile; the first call takes minutes.
        threshold: least confidence C of a target.
        num_draws: draws for targets without closed form.
        preservation: weight of the preservation loss, λ₁.
        face_weight: weight of the face loss.
        face_confidence: how sure the classifier must be of the original's class for its face to be kept.
        max_skipped: the run stops when more iterations than this in a row had a gradient that was not finite.
        sample_every: iterations between pictures of the progress; 0 for none.
        save_every: iterations between checkpoints; 0 for none but when the run is stopped.
        checkpoints_total_limit: how many checkpoints are kept, beside the best; 0 for all.
        validate_every: iterations between measurements on the validation prompts; 0 for none.
        validation_images: images per validation prompt.
        least_kept: the run has collapsed when on the validation prompts the mean cosine of its images to the original
            model's, over all encoders, is below this. It then ends with the best adaptor so far.
        most_unclear: likewise when the share of images that show no clear face has risen by more than this.
        stop_below: the run ends when on the validation prompts the upper end of the averaged weights' bias interval
            is below this, for every attribute; 0 for never.
        keep: which weights become the adaptor: the ``last``, or those of the ``best`` validation.
        trackers: of ``tensorboard`` and ``wandb``.
        seed: seed of everything.
    """

    name: str
    base: str
    attributes: tuple[Attribute, ...]
    classifier: str = "clip:openai/clip-vit-large-patch14"
    judge: str = "clip:laion/CLIP-ViT-L-14-laion2B-s32B-b82K"
    encoders: tuple[str, ...] = TRAINING_ENCODERS
    faces: str = "yunet"
    face_encoder: str = ""
    face_bank: str = ""
    parts: tuple[str, ...] = ("text_encoder",)
    rank: int = 50
    alpha: int = 0
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ()
    num_tokens: int = 5
    prompt_sets: tuple[Share, ...] = (("occupations-train", 1.0),)
    validation_set: str = "occupations-validation"
    iterations: int = 10_000
    prompts_per_step: int = 1
    images_per_prompt: int = 24
    num_steps: int = 20
    max_steps: int = 0
    gradient_steps: int = 0
    images_per_call: int = 0
    images_per_decode: int = 0
    step_weights: Literal["uniform", "published", "exact"] = "uniform"
    guidance_scale: float = 7.5
    unguided: int = 0
    originals_pool: int = 0
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    learning_rate: float = 5e-5
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup: int = 5
    weight_decay: float = 1e-2
    max_grad_norm: float = 1.0
    ema: float = 0.996
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    tf32: bool = False
    activation_checkpointing: bool = False
    compile: bool = False
    threshold: float = 0.8
    num_draws: int = 100
    preservation: float = 8.0
    face_weight: float = 0.0
    face_confidence: float = 0.9
    max_skipped: int = 10
    sample_every: int = 0
    save_every: int = 0
    checkpoints_total_limit: int = 3
    validate_every: int = 0
    validation_images: int = 32
    least_kept: float = 0.3
    most_unclear: float = 0.1
    stop_below: float = 0.0
    keep: Literal["last", "best"] = "last"
    trackers: tuple[str, ...] = ("tensorboard",)
    seed: int = 0

    def __post_init__(self) -> None:
        numbers = [(f.name, getattr(self, f.name)) for f in dataclasses.fields(self) if f.type is float]
        if wrong := [name for name, x in numbers if not math.isfinite(x) and (name, x) != ("max_grad_norm", math.inf)]:
            raise ConfigError(f"{wrong[0]} must be a finite number")
        for field, bound in _LEAST.items():
            if not getattr(self, field) >= bound:
                raise ConfigError(f"{field} is {getattr(self, field)}; it must be at least {bound}")
        if self.gradient_steps > self.num_steps:
            raise ConfigError(f"gradient_steps ({self.gradient_steps}) is more than num_steps ({self.num_steps})")
        if not is_text(self.name):
            raise ConfigError(f"name is {self.name!r}; it must be a line of text")
        if self.seed > 2**32:
            raise ConfigError(f"seed is {self.seed}; it must be at most {2**32}")
        if len(set(self.parts)) < len(self.parts):
            raise ConfigError(f"parts names a part twice: {', '.join(self.parts)}")
        if self.face_weight and not (self.face_encoder and self.faces):
            raise ConfigError("face_weight needs a face_encoder, and faces to find them with")
        if not 0 <= self.threshold <= 1 or not 0 <= self.ema < 1 or not 0 <= self.dropout < 1:
            raise ConfigError("threshold must lie in [0, 1], ema and dropout in [0, 1)")
        for positive in ("learning_rate", "max_grad_norm"):
            if not getattr(self, positive) > 0:
                raise ConfigError(f"{positive} must be positive")
        if not self.attributes:
            raise ConfigError("no attribute is to be made fair; give at least one target")
        if len({attribute.name for attribute in self.attributes}) < len(self.attributes):
            raise ConfigError("an attribute is given twice")
        if not self.parts or set(self.parts) - set(PARTS):
            raise ConfigError(f"parts is {self.parts}; choose from {', '.join(PARTS)}")
        if unknown := set(self.trackers) - {"tensorboard", "wandb"}:
            raise ConfigError(f"trackers has {', '.join(sorted(unknown))}; choose from tensorboard and wandb")
        if not self.prompt_sets or not all(0 < share < math.inf for _, share in self.prompt_sets):
            raise ConfigError("prompt_sets needs at least one set, with shares above 0, such as train:1")
        if not self.validate_every and (self.stop_below or self.keep == "best"):
            raise ConfigError("stop_below and keep=best need validate_every: nothing would be measured")
        for setting in dataclasses.fields(self):
            if get_origin(setting.type) is Literal and getattr(self, setting.name) not in get_args(setting.type):
                raise ConfigError(f"{setting.name} is {getattr(self, setting.name)!r}; choose {_words(setting.type)}")

    @property
    def digest(self) -> str:
        """Hash of all settings that a resumed run must share with the run it goes on with."""
        settings = {key: value for key, value in dataclasses.asdict(self).items() if key not in MAY_DIFFER}
        if self.schedule == "constant":  # then a run can be made longer
            del settings["iterations"]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


MAY_DIFFER = (
    "sample_every", "save_every", "checkpoints_total_limit", "validate_every", "validation_images", "stop_below",
    "least_kept", "most_unclear",
    "keep", "trackers", "max_skipped", "judge", "validation_set",
)  # fmt: skip
"""Settings that do not change how the weights move."""

_LEAST: dict[str, float] = {
    "rank": 1, "alpha": 0, "num_tokens": 1, "iterations": 1, "prompts_per_step": 1, "images_per_prompt": 2,
    "num_steps": 1, "max_steps": 0, "gradient_steps": 0, "images_per_call": 0, "images_per_decode": 0,
    "guidance_scale": 0, "unguided": 0, "originals_pool": 0, "warmup": 0, "weight_decay": 0, "num_draws": 1,
    "preservation": 0, "face_weight": 0, "face_confidence": 0, "max_skipped": 0, "sample_every": 0, "save_every": 0,
    "checkpoints_total_limit": 0, "validate_every": 0, "validation_images": 1,
    "least_kept": -1, "most_unclear": 0, "stop_below": 0, "seed": 0,
}  # fmt: skip


def override(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """Return a configuration with fields replaced by values as text, or as a YAML file has them.

    Raises:
        ConfigError: no such field (with a suggestion), or a value that does not fit it.
    """
    fields = {field.name: field.type for field in dataclasses.fields(config) if field.name != "attributes"}
    changes = {}
    for name, value in values.items():
        if name not in fields:
            raise ConfigError(
                f"there is no setting {name!r}.{did_you_mean(str(name), fields)} Settings: {', '.join(fields)}."
            )
        try:
            changes[name] = _parse(fields[name], _as_text(value))
        except (ValueError, OverflowError) as error:
            raise ConfigError(f"{name}: {value!r} is not {_words(fields[name])}") from error
    return dataclasses.replace(config, **changes)


def from_dict(values: Mapping[str, Any]) -> TrainConfig:
    """Return the configuration that ``dataclasses.asdict`` made ``values`` of, also after a way through JSON.

    Raises:
        ConfigError: of another version of this package.
    """
    try:
        attributes = tuple(Attribute(**{k: _tuple(v) for k, v in row.items()}) for row in values["attributes"])
        return TrainConfig(**{**{k: _tuple(v) for k, v in values.items()}, "attributes": attributes})
    except (TypeError, KeyError) as error:
        raise ConfigError(f"the settings are not those of this version of fair-adaptors: {error}") from error


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list | tuple) else value


def read_config_file(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings.

    Raises:
        ConfigError: absent, no YAML, or no mapping.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--config {path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"--config {path} holds no settings; write lines such as iterations: 500")
    return values


def as_yaml(config: TrainConfig) -> str:
    """Write the settings as a file for ``read_config_file``, the targets as comments."""
    import yaml

    values = {
        key: value for key, value in dataclasses.asdict(config).items() if key not in ("attributes", "name", "base")
    }
    values["prompt_sets"] = dict(config.prompt_sets)
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
    targets = [f"# --target {a.name}={','.join(f'{share:g}' for share in a.target)}\n" for a in config.attributes]
    return f"# {config.name} on {config.base}\n{''.join(targets)}{yaml.safe_dump(plain, sort_keys=False)}".rstrip()


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{key}:{share}" for key, share in value.items())
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value)


def _parse(kind: Any, text: str) -> Any:
    if kind is bool:
        return {"true": True, "yes": True, "on": True, "1": True}.get(text.lower()) or _false(text)
    if kind in (int, float):
        return kind(text)
    if get_origin(kind) is tuple:
        parts = tuple(part.strip() for part in text.split(",") if part.strip())
        return tuple(map(_share, parts)) if get_args(kind)[0] == Share else parts
    if get_origin(kind) is Literal and text not in get_args(kind):
        raise ValueError(text)
    return text


def _false(text: str) -> bool:
    if text.lower() not in ("false", "no", "off", "0"):
        raise ValueError(text)
    return False


def _share(text: str) -> Share:
    name, colon, share = text.rpartition(":")
    return (name, float(share)) if colon else (text, 1.0)


def _words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "a list such as a,b")
