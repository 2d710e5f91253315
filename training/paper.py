"""What the published adaptors were trained with (paper §1–4), where we deviate from it, and why."""

import math
from collections.abc import Iterator
from typing import Any

from fair_adaptors.adaptor.bases import STABLE_DIFFUSION_1_5, STABLE_DIFFUSION_XL, find_base, plugin_of
from fair_adaptors.hub.client import split_revision
from fair_adaptors.vision.pretrained import TRAINING_ENCODERS

from .config import TrainConfig

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
    "guidance_scale": 7.5,
    "unguided": 0,
    "optimizer": "adamw",
    "learning_rate": 5e-5,
    "schedule": "constant",
    "warmup": 0,
    "weight_decay": 1e-2,
    "max_grad_norm": math.inf,
    "ema": 0.996,
    "dtype": "float16",
    "threshold": 0.8,
    "num_draws": 100,
    "preserve_unassigned": "reduced",
    "keep_attributes": (),
    "encoders": TRAINING_ENCODERS,
    "faces": "insightface",
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
    "race": _JOINT | {"iterations": 12_000, "preservation": 6.0},  # its face_confidence is not known
    "gender-race": _JOINT,
    "gender-race-age": _JOINT | {"images_per_prompt": 40, "face_confidence": 0.75},
    "gender-race-many-concepts": _JOINT | {"images_per_prompt": 40},
}
"""Each of them."""

MANY_CONCEPTS = (("occupations-train", 1.0), ("styles", 1.0), ("descriptors", 1.0), ("sports", 1.0))

OURS: dict[str, tuple[Any, str]] = {
    "step_weights": ("uniform", "the paper's A := 1; the published code's weights are an artefact of its solver"),
    "gradient_steps": (
        5,
        "a quarter of the steps, other ones for each image, estimates the same gradient at half the cost",
    ),
    "dtype": ("bfloat16", "as large as float16, and no gradient vanishes or overflows in it"),
    "max_grad_norm": (1.0, "one bad batch cannot throw the run off"),
    "warmup": (5, "AdamW's first steps are as large as its later ones, while its averages are still empty"),
    "keep_attributes": (
        ("others",),
        "an adaptor for one attribute can change others that nobody looks at; theirs were not kept from that",
    ),
    "preserve_unassigned": ("full", "an image that has no target should stay as the original model draws it"),
    "faces": ("yunet", "insightface's weights are for non-commercial research only"),
}
"""Settings that our recipes have otherwise, and why."""

OURS_FOR_XL: dict[str, tuple[Any, str]] = {
    "parts": (("text_encoder", "text_encoder_2"), "this base has two text encoders"),
    "guidance_scale": (5.0, "its pipeline's default, and so what most of its pictures are made with"),
}
"""Those for Stable Diffusion XL, beside these."""


def deviations(config: TrainConfig) -> list[str]:
    """Say where a configuration for people differs from what the published adaptors were trained with, and why."""
    if plugin_of(config.base):  # not of people
        return []
    ours = OURS | (OURS_FOR_XL if split_revision(config.base)[0] == STABLE_DIFFUSION_XL else {})
    lines = []
    for setting, published in published_settings(config).items():
        value = getattr(config, setting)
        if value != published:
            chosen, reason = ours.get(setting, (None, ""))
            why = f": {reason}" if value == chosen else ""
            lines.append(f"{setting} is {_said(value)}, and was {_said(published)}{why}")
    return [*lines, *_beside_settings(config)]


def published_settings(config: TrainConfig) -> dict[str, Any]:
    """Return what the published adaptor with a configuration's attributes and prompts was trained with."""
    row = "-".join(attribute.name for attribute in config.attributes)
    if config.prompt_sets == MANY_CONCEPTS:
        row += "-many-concepts"
    return PAPER | TABLE.get(row, {})


def _beside_settings(config: TrainConfig) -> Iterator[str]:
    """Say what differs that no setting can make as it was."""
    base = split_revision(config.base)[0]
    if (found := find_base(base)) is None or STABLE_DIFFUSION_1_5 not in found.names:
        yield f"base is {base}, and was {STABLE_DIFFUSION_1_5}: the paper has adaptors for no other"
    if not config.classifier.startswith("mobilenet:"):
        yield (
            f"classifier is {config.classifier}, and was a MobileNetV3 of the authors' own: that is not on the"
            " Hub. Whoever has it, or one of train-classifier, can name it: classifier=mobilenet:FILE"
        )
    if config.face_weight and not config.face_bank:
        yield (
            "face_bank is empty, and was of CelebA's or FairFace's faces: their pictures are not ours to pass on. Make"
            " one with `fair-adaptors face-bank`; without it a face whose class must change has no face loss"
        )
    if any(attribute.name == "age" for attribute in config.attributes):
        yield (
            "the cost of a target of age is the paper's formula: its code weighs the probability of young twice where"
            " the target is old, against what the paper says"
        )
    yield "the prompts to train on are lists of our own: the authors' are not public as text"
    yield "prompts are padded, and were not: every stock pipeline pads"
    yield (
        f"validation samples in {config.num_steps} steps, and did in 25: it only compares the adaptor with itself on"
        " the way; the numbers that count are an evaluation's, which takes 30 as theirs did"
    )


def _said(value: Any) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, tuple) else str(value)
