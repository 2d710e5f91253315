"""Recipes: a row for each adaptor that holds only what differs from its family's common settings."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fair_adaptors.adaptor.bases import (
    FLUX_1_DEV,
    FLUX_2_KLEIN,
    SANDBOX,
    SANDBOX_FLOW,
    STABLE_DIFFUSION_1_5,
    STABLE_DIFFUSION_2_1,
    STABLE_DIFFUSION_3_5_MEDIUM,
    STABLE_DIFFUSION_XL,
    Z_IMAGE_TURBO,
    defaults_of,
    find_base,
)
from fair_adaptors.errors import ConfigError, did_you_mean

from .config import Attribute, TrainConfig
from .ours import Reasoned, drawn, ours_for
from .paper import MANY_CONCEPTS, NAMED_IMAGES, PAPER, TABLE, as_published, obeying
from .settings import is_true, override
from .setup import known_attributes


def _aims(
    base: str, attributes: Sequence[str], shares: Mapping[str, tuple[float, ...]] | None
) -> tuple[Attribute, ...]:
    """Return the attributes to make fair, with the shares that are wanted in place of equal ones."""
    known = known_attributes(base)
    return tuple(
        dataclasses.replace(known[attribute], target=(shares or {}).get(attribute, known[attribute].target))
        for attribute in attributes
    )


def _sandbox(
    name: str,
    attributes: Sequence[str],
    shares: Mapping[str, tuple[float, ...]] | None = None,
    *,
    base: str = SANDBOX,
    **settings: Any,
) -> TrainConfig:
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
        "guidance_scale": defaults_of(base).guidance_scale,
        "unguided": 100,
        "learning_rate": 6e-3,
        "schedule": "cosine",
        "ema": 0.95,
        "threshold": 0.6,
        "preservation": 40.0,
        "sample_every": 40,
        "save_every": 40,
    }
    return TrainConfig(name, base, _aims(base, attributes, shares), **(common | settings))


def _people(
    name: str,
    attributes: Sequence[str],
    shares: Mapping[str, tuple[float, ...]] | None = None,
    *,
    base: str = STABLE_DIFFUSION_1_5,
    **settings: Any,
) -> TrainConfig:
    common: dict[str, Any] = {
        "prompt_sets": obeying((("occupations-train", 1.0),), attributes),
        "named_images": NAMED_IMAGES,
        "face_encoder": "auraface",
        "images_per_call": 2,
        "images_per_decode": 1,
        "sample_minutes": 60.0,
        "save_minutes": 10.0,
        "validate_minutes": 30.0,
        "validation_images": 24,
        "keep": "best",
    }
    ours = _values(ours_for(base, settings))
    return TrainConfig(name, base, _aims(base, attributes, shares), **(PAPER | common | settings | ours))


def _values(ours: Reasoned) -> dict[str, Any]:
    return {setting: value for setting, (value, _) in ours.items()}


def _gender_race(name: str, base: str, **settings: Any) -> tuple[str, Callable[[], TrainConfig]]:
    """Return a row of the recipes for a base that is larger than the paper's."""
    settings = TABLE["gender-race"] | {"activation_checkpointing": True} | settings
    return name, lambda: _people(name, ["gender", "race"], base=base, **settings)


PAPERS = "paper"
"""What stands for all settings of the published adaptors."""
SHORT: dict[str, Any] = {"iterations": 100, "unguided": 62}
NAMED: dict[str, Any] = {
    "classifier": "sandbox:training+sandbox:blends",
    "named_images": 1,
    "originals_pool": 2,
    "gradient_steps": 2,
    "learning_rate": 3.5e-3,
}
"""What the shipped adaptors of the sandbox have in common, with prompts that name a class."""
SANDBOX_GENDER: dict[str, Any] = {
    **NAMED,
    "prompt_sets": (("train", 4.0), ("named-gender", 1.0)),
    "preservation": 24.0,
    "keep_weight": 2.0,
    "strength": 1.2,
}

RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "sandbox-gender": lambda: _sandbox(
        "sandbox-gender", ["gender"], parts=("text_encoder", "unet"), iterations=300, unguided=175, **SANDBOX_GENDER
    ),
    "sandbox-flow-gender": lambda: _sandbox(
        "sandbox-flow-gender",
        ["gender"],
        base=SANDBOX_FLOW,
        parts=("text_encoder", "text_encoder_2"),
        prompts_per_step=4,  # with fewer images of each: more of the prompts are learned, for as much work
        images_per_prompt=12,
        num_steps=4,
        iterations=400,
        unguided=230,
        **{**SANDBOX_GENDER, "prompt_sets": (("train", 1.0), ("named-gender", 1.0))},
    ),
    "sandbox-gender-tone": lambda: _sandbox(
        "sandbox-gender-tone",
        ["gender", "tone"],
        parts=("text_encoder", "unet"),
        prompt_sets=(("train", 8.0), ("named-gender", 1.0), ("named", 0.5)),
        images_per_prompt=32,
        images_per_call=96,
        preservation=28.0,
        keep_weight=1.5,
        iterations=340,
        unguided=200,
        strength=1.1,
        **NAMED,
    ),
    "sandbox-gender-unet": lambda: _sandbox(
        "sandbox-gender-unet", ["gender"], parts=("unet",), learning_rate=3e-3, preservation=20.0, **SHORT
    ),
    "sandbox-gender-text": lambda: _sandbox("sandbox-gender-text", ["gender"]),
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
    "gender": lambda: _people("gender", ["gender"], **TABLE["gender"]),
    "gender-unet": lambda: _people("gender-unet", ["gender"], parts=("unet",), **TABLE["gender"]),
    "gender-both": lambda: _people("gender-both", ["gender"], parts=("text_encoder", "unet"), **TABLE["gender"]),
    "gender-tokens": lambda: _people("gender-tokens", ["gender"], parts=("tokens",), num_tokens=5, **TABLE["gender"]),
    "race": lambda: _people("race", ["race"], **TABLE["race"]),
    "gender-race": lambda: _people("gender-race", ["gender", "race"], **TABLE["gender-race"]),
    "gender-race-age": lambda: _people(
        "gender-race-age", ["gender", "race", "age"], {"age": (0.75, 0.25)}, **TABLE["gender-race-age"]
    ),
    "gender-race-many-concepts": lambda: _people(
        "gender-race-many-concepts",
        ["gender", "race"],
        prompt_sets=obeying(MANY_CONCEPTS, ["gender", "race"]),
        **TABLE["gender-race-many-concepts"],
    ),
    "sd21-gender-race": lambda: _people(
        "sd21-gender-race", ["gender", "race"], base=STABLE_DIFFUSION_2_1, **TABLE["gender-race"]
    ),
    **dict(
        [
            _gender_race("sdxl-gender-race", STABLE_DIFFUSION_XL),
            _gender_race("sd35-gender-race", STABLE_DIFFUSION_3_5_MEDIUM),
            _gender_race("flux-gender-race", FLUX_1_DEV, images_per_call=1),
            _gender_race("klein-gender-race", FLUX_2_KLEIN, images_per_call=1),
            _gender_race("z-image-gender-race", Z_IMAGE_TURBO),
        ]
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


def get_recipe(
    name: str, overrides: Mapping[str, Any] | None = None, targets: Sequence[tuple[str, tuple[float, ...]]] = ()
) -> TrainConfig:
    """Return a recipe, with settings replaced. Another base is drawn from in its own way, see ``ours.drawn``.

    Args:
        overrides: settings as text or from a YAML file, see ``with_settings``.
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
    wanted = overrides or {}
    base = find_base(str(wanted.get("base", config.base)).partition("@")[0])
    if base is not None and not base.plugin and config.base not in base.names:
        config = dataclasses.replace(config, **_values(drawn(base.names[0])))
    return with_settings(config, wanted)


def with_settings(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """Return a configuration with settings replaced; ``paper`` stands for all of the published adaptor's.

    Args:
        values: settings as text or from a YAML file. With ``paper`` true, what else is there goes before the paper's.

    Raises:
        ConfigError: as ``override`` and ``as_published``.
    """
    others = {name: value for name, value in values.items() if name != PAPERS}
    if PAPERS in values and is_true(PAPERS, values[PAPERS]):
        config = as_published(config)
    return override(config, others)


def _aimed(known: Mapping[str, Attribute], name: str, target: tuple[float, ...]) -> Attribute:
    if name not in known:
        raise ConfigError(
            f"no classifier knows the attribute {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}"
        )
    classes = known[name].classes
    if len(target) != len(classes):
        raise ConfigError(
            f"{name} needs {len(classes)} shares, one for each of {', '.join(classes)}; its target has {len(target)}"
        )
    return dataclasses.replace(known[name], target=target)
