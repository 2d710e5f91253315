"""Recipes: a row for each adaptor that holds only what differs from the defaults of ``TrainConfig``."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fair_adaptors.errors import ConfigError, did_you_mean
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
        "sandbox-gender-both", ["gender"], parts=("text_encoder", "unet"), learning_rate=3e-3, **SHORT
    ),
    "sandbox-gender-tokens": lambda: _sandbox(
        "sandbox-gender-tokens", ["gender"], parts=("tokens",), learning_rate=6e-2, preservation=15.0
    ),
    "sandbox-age": lambda: _sandbox("sandbox-age", ["age"], shares={"age": (0.75, 0.25)}, **SHORT),
}


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
