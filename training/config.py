"""What a training run is made of: one frozen dataclass, no defaults hidden elsewhere."""

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from fair_adaptors.errors import ConfigError


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
        base: base model: ``sandbox``, a pipeline folder or a Hub id.
        attributes: what to make fair, jointly.
        parts: parts that get a LoRA, of ``text_encoder`` and ``unet``.
        rank: rank of the LoRA; its alpha is the same.
        iterations: optimiser steps.
        prompts_per_step: prompts whose gradients make one optimiser step.
        images_per_prompt: N, images of one prompt.
        num_steps: T, sampling steps.
        gradient_steps: K, how many of the T steps, chosen at random, take part in the gradient; 0 for all.
        images_per_call: rows of one U-Net call of the gradient pass, see ``gradients``; 0 for a step at a time.
        step_weights: ``uniform`` (A := 1), ``published`` or ``exact``, see ``gradients``.
        guidance_scale: classifier-free guidance.
        unguided: iterations at the start that do without guidance: half the cost, and gentler where guidance drives a
            bias to its extreme.
        learning_rate: AdamW's, after ``warmup`` steps; falls to zero by a half cosine.
        max_grad_norm: the gradient is clipped to this norm.
        ema: decay of the average of the weights that is kept in the end.
        threshold: least confidence C of a target.
        num_draws: draws for targets without closed form.
        preservation: weight of the preservation loss, λ₁.
        sample_every: iterations between pictures of the progress; 0 for none.
        seed: seed of everything.
    """

    name: str
    base: str
    attributes: tuple[Attribute, ...]
    parts: tuple[str, ...] = ("text_encoder",)
    rank: int = 50
    iterations: int = 10_000
    prompts_per_step: int = 1
    images_per_prompt: int = 24
    num_steps: int = 20
    gradient_steps: int = 0
    images_per_call: int = 0
    step_weights: Literal["uniform", "published", "exact"] = "uniform"
    guidance_scale: float = 7.5
    unguided: int = 0
    learning_rate: float = 5e-5
    warmup: int = 5
    max_grad_norm: float = 1.0
    ema: float = 0.996
    threshold: float = 0.8
    num_draws: int = 100
    preservation: float = 8.0
    sample_every: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"rank": 1, "iterations": 1, "prompts_per_step": 1, "images_per_prompt": 2, "num_steps": 1}
        least |= {
            "gradient_steps": 0,
            "images_per_call": 0,
            "num_draws": 1,
            "warmup": 0,
            "unguided": 0,
            "sample_every": 0,
            "seed": 0,
        }
        for field, bound in least.items():
            if getattr(self, field) < bound:
                raise ConfigError(f"{field} is {getattr(self, field)}; it must be at least {bound}")
        if self.gradient_steps > self.num_steps:
            raise ConfigError(f"gradient_steps ({self.gradient_steps}) is more than num_steps ({self.num_steps})")
        if not 0 <= self.threshold <= 1 or not 0 <= self.ema < 1:
            raise ConfigError("threshold must lie in [0, 1] and ema in [0, 1)")
        if not self.learning_rate > 0 or not self.max_grad_norm > 0 or self.preservation < 0:
            raise ConfigError("learning_rate and max_grad_norm must be positive, preservation not negative")
        if not self.parts or set(self.parts) - {"text_encoder", "unet"}:
            raise ConfigError(f"parts is {self.parts}; choose from text_encoder and unet")
        if self.step_weights not in ("uniform", "published", "exact"):
            raise ConfigError(f"step_weights is {self.step_weights!r}; choose uniform, published or exact")


def override(config: TrainConfig, values: dict[str, str]) -> TrainConfig:
    """Return a configuration with fields replaced by values typed as text, such as ``{"rank": "4"}``.

    Raises:
        ConfigError: no such field (with a suggestion), or a value that does not fit it.
    """
    fields = {field.name: field.type for field in dataclasses.fields(config) if field.name != "attributes"}
    changes = {}
    for name, text in values.items():
        if name not in fields:
            close = difflib.get_close_matches(name, fields, 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"there is no setting {name!r}.{hint} Settings: {', '.join(fields)}.")
        try:
            changes[name] = _parse(fields[name], text)
        except ValueError as error:
            raise ConfigError(f"{name}: {text!r} is not {_words(fields[name])}") from error
    return dataclasses.replace(config, **changes)


def _parse(kind: Any, text: str) -> Any:
    if kind in (int, float):
        return kind(text)
    if get_origin(kind) is tuple:
        return tuple(part.strip() for part in text.split(","))
    if get_origin(kind) is Literal and text not in get_args(kind):
        raise ValueError(text)
    return text


def _words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    return {int: "a whole number", float: "a number"}.get(kind, str(kind))
