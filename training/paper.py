"""What the published adaptors were trained with (paper §1–4), where we deviate from it, and why."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from fair_adaptors.adaptor.bases import STABLE_DIFFUSION_1_5, defaults_of, find_base, plugin_of
from fair_adaptors.errors import ConfigError
from fair_adaptors.hub.client import split_revision
from fair_adaptors.hub.parts import KIND
from fair_adaptors.vision.authors import classifiers_for_tests
from fair_adaptors.vision.authors_faces import RECOGNISER
from fair_adaptors.vision.pretrained import TRAINING_ENCODERS

from .config import TrainConfig
from .ours import ours_for

DETECTOR = "insightface"
PAPER: dict[str, Any] = {
    "rank": 50,
    "alpha": 0,
    "dropout": 0.0,
    "target_modules": (),
    "num_tokens": 5,
    "prompts_per_step": 1,
    "num_steps": 19,
    "max_steps": 23,
    "gradient_steps": 0,
    "step_weights": "published",
    "gradient_decoder": "",
    "guidance_scale": 7.5,
    "unconditional_gradient": True,
    "unguided": 0,
    "optimizer": "adamw",
    "learning_rate": 5e-5,
    "schedule": "constant",
    "warmup": 0,
    "updates_per_rollout": 1,
    "weight_decay": 1e-2,
    "max_grad_norm": math.inf,
    "ema": 0.996,
    "dtype": "float16",
    "tf32": True,
    "channels_last": False,
    "compile": False,
    "threshold": 0.8,
    "num_draws": 100,
    "stop_below": 0.0,
    "originals_pool": 0,
    "preserve_unassigned": "reduced",
    "keep_attributes": (),
    "encoders": TRAINING_ENCODERS,
    "faces": DETECTOR,
}
"""All of them."""

_GENDER: dict[str, Any] = {
    "images_per_prompt": 24,
    "iterations": 10_000,
    "preservation": 8.0,
    "face_weight": 1.0,
    "face_confidence": 0.9,
}
_JOINT = _GENDER | {
    "images_per_prompt": 32,
    "iterations": 15_000,
    "face_weight": 0.1,
    "face_confidence": 0.8,
    "parts": ("text_encoder",),
}
TABLE: dict[str, dict[str, Any]] = {
    "gender": _GENDER,  # it exists with each kind of parts
    "race": _JOINT | {"iterations": 12_000, "preservation": 6.0, "face_confidence": 0.9},
    "gender-race": _JOINT,
    "gender-race-age": _JOINT | {"images_per_prompt": 40, "face_confidence": 0.75},
    "gender-race-many-concepts": _JOINT | {"images_per_prompt": 40},
}
"""Each of them."""

MANY_CONCEPTS = (("occupations-train", 1.0), ("styles", 1.0), ("descriptors", 1.0), ("sports", 1.0))
_THEIR_CONCEPTS = tuple((f"{KIND}:{name}", 1.0) for name in ("occupations", "styles", "descriptors", "sports"))
_MANY = "-many-concepts"


def authors_parts(row: str) -> dict[str, Any]:
    """Return the settings that name the authors' own parts, for a row of the table."""
    attributes = row.removesuffix(_MANY).split("-")
    many = row.endswith(_MANY)
    return {
        "classifier": f"{KIND}:{'gender-race' if row == 'race' else '-'.join(attributes)}",
        "judge": classifiers_for_tests(attributes),
        "face_encoder": f"{KIND}:{RECOGNISER}",
        "face_bank": f"{KIND}:celeba" if row == "gender" else f"{KIND}:fairface",
        "prompt_sets": _THEIR_CONCEPTS if many else _THEIR_CONCEPTS[:1],
        "validation_set": f"{KIND}:occupations-validation",
    }


def as_published(config: TrainConfig) -> TrainConfig:
    """Return a configuration with every setting as the published adaptor was trained, and with the authors' parts.

    What is trained, where it is saved and how often it is validated stay.

    Raises:
        ConfigError: the paper has no adaptor for these attributes and this base.
    """
    row = _row(config)
    if row not in TABLE or _other_base(config):
        names = " and ".join(attribute.name for attribute in config.attributes)
        raise ConfigError(f"paper: the paper has no adaptor for {names} on {config.base}. Recipes: {', '.join(TABLE)}")
    return dataclasses.replace(config, **(PAPER | TABLE[row] | authors_parts(row)))


NAMED = "occupations-named-"
NAMED_IMAGES = 8


def obeying(concepts: tuple[tuple[str, float], ...], attributes: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Return prompt sets with as many prompts again, by a quarter, that name a class of what is made fair."""
    share = sum(share for _, share in concepts) / 4 / len(attributes)
    return (*concepts, *((f"{NAMED}{attribute}", share) for attribute in attributes))


def deviations(config: TrainConfig) -> list[str]:
    """Say where a configuration for people differs from what the published adaptors were trained with, and why."""
    if plugin_of(config.base):  # not of people
        return []
    theirs = published_settings(config)
    ours = ours_for(split_revision(config.base)[0], theirs)
    lines = []
    for setting, published in theirs.items():
        value = getattr(config, setting)
        if value != published:
            chosen, reason = ours.get(setting, (None, ""))
            why = f": {reason}" if value == chosen else ""
            lines.append(f"{setting} is {_said(value)}, and was {_said(published)}{why}")
    return [*lines, *_beside_settings(config)]


def published_settings(config: TrainConfig) -> dict[str, Any]:
    """Return what the published adaptor with a configuration's attributes and prompts was trained with."""
    return PAPER | TABLE.get(_row(config), {})


def _row(config: TrainConfig) -> str:
    concepts = tuple(each for each in config.prompt_sets if not each[0].startswith(NAMED))
    many = concepts in (MANY_CONCEPTS, _THEIR_CONCEPTS)
    return "-".join(attribute.name for attribute in config.attributes) + (_MANY if many else "")


def _other_base(config: TrainConfig) -> str | None:
    """Return a configuration's base if it is another than the paper's."""
    base = split_revision(config.base)[0]
    found = find_base(base)
    return None if found is not None and STABLE_DIFFUSION_1_5 in found.names else base


def _beside_settings(config: TrainConfig) -> Iterator[str]:
    """Say what differs that no setting can make as it was, or that a setting names parts of."""
    if base := _other_base(config):
        yield f"base is {base}, and was {STABLE_DIFFUSION_1_5}: the paper has adaptors for no other"
    if config.dtype != "float32" and any(part == "tokens" or part.startswith("text_") for part in config.parts):
        yield "trained text encoders compute in float32, and did in float16, where the first updates are rounding"
    yield from _parts(config)
    yield from _targets(config)
    yield from _images(config)
    yield "prompts are padded, and were not: every stock pipeline pads"
    yield (
        "the solver ends without noise, and ended at the least noise that the model knows: today's diffusers does so"
        " by default, and so do the pictures that people draw"
    )
    yield "the average's first update keeps a tenth of the start, and kept nothing of it"
    usual = defaults_of(split_revision(config.base)[0]).num_steps
    theirs = "30 as theirs did" if usual == 30 else f"the {usual} that are usual for the base, and took 30"
    yield (
        f"validation samples in {config.num_steps} steps, and did in 25: it only compares the adaptor with itself on"
        f" the way; the numbers that count are an evaluation's, which takes {theirs}"
    )


def _parts(config: TrainConfig) -> Iterator[str]:
    theirs = authors_parts(_row(config) if _row(config) in TABLE else "gender-race")
    if not config.classifier.startswith((f"{KIND}:", "mobilenet:")):
        yield (
            f"classifier is {config.classifier}, and was a MobileNetV3 of the authors' own, which is in their"
            f" data.zip: classifier={theirs['classifier']} takes it"
        )
    if config.face_weight and not config.face_encoder.startswith(f"{KIND}:"):
        yield (
            f"face_encoder is {config.face_encoder}, and was SphereFace-R of opensphere, which is in the authors'"
            f" data.zip: face_encoder={theirs['face_encoder']} takes it"
        )
    if config.face_weight and not config.face_bank:
        yield (
            "face_bank is empty, and was of CelebA's or FairFace's faces: without it a face whose class must change"
            f" has no face loss. face_bank={theirs['face_bank']} takes the authors', with their face_encoder;"
            " `fair-adaptors face-bank` makes one"
        )
    if any(name.startswith(NAMED) for name, _ in config.prompt_sets):
        yield (
            "prompts to train on include some that name a class, whose images are to show it: without them an adaptor"
            ' makes "a female nurse" even too'
        )
    if not all(name.startswith(f"{KIND}:") for name, _ in config.prompt_sets):
        yield "prompts to train on are lists of our own: prompt_sets=authors:occupations takes the authors'"
    elif config.prompt_sets == _THEIR_CONCEPTS:
        yield "prompt_sets are drawn from alike, and were repeated 1, 6, 20 and 4 times to come near to that"
    if config.faces == DETECTOR:
        yield f"faces that {DETECTOR} does not find were looked for by dlib, and are not"


def _targets(config: TrainConfig) -> Iterator[str]:
    if any(attribute.name == "age" for attribute in config.attributes):
        yield (
            "the cost of a target of age is the paper's formula: its code weighs the probability of young twice where"
            " the target is old, against what the paper says"
        )
    if [attribute.name for attribute in config.attributes] == ["race"]:
        yield f"targets are of {config.num_draws} draws, and were of all counts that make up 95 % of the probability"
    elif len(config.attributes) > 1:
        yield f"targets are of {config.num_draws} draws in all, and were of 100 on each GPU"
    if config.face_weight and config.face_bank:
        yield (
            "a face that must change is compared with the nearest real one of its target class, and was with the"
            " nearest of any class; only where the target is unsure any class will do, as there"
        )


def _images(config: TrainConfig) -> Iterator[str]:
    yield (
        "images are not clamped before the losses, and were: pixels beyond white and black had no gradient, and have"
        " one"
    )
    yield (
        "images are resized with antialiasing, bicubic for the encoders and bilinear for faces, and were bilinearly"
        " without: what the models were made for"
    )
    yield "classifier, encoders and face encoder compute in float32, and did in float16"
    yield "an image whose original shows no face has no face region, and had a wrong one: a fault of the code"


def _said(value: Any) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, tuple) else str(value)
