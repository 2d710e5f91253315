"""From what a user asks for, in words, to an evaluation, its variants and its instruments."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from fair_adaptors.adaptor.bases import defaults_of, imported, plugin_of
from fair_adaptors.adaptor.record import read_config
from fair_adaptors.hub.resolve import resolve
from fair_adaptors.vision.catalog import load_classifier, load_encoder
from fair_adaptors.vision.faces import load_face_detector
from fair_adaptors.vision.joint import shared_classifier

from ..errors import ConfigError, did_you_mean
from .metrics import images_needed, noise_floor
from .spec import Evaluation, Instruments, Target
from .variants import Variant, with_adaptor

BASELINES = {
    "ethical-intervention": "A sentence behind the prompt asks for fairness (Bansal et al. 2022).",
    "attribute-injection": "A random class of each attribute is written into each image's prompt.",
    "semantic-guidance": "Each image is guided towards a random class (Fair Diffusion, Friedrich et al. 2023).",
}
"""Baselines that need no training. UCE has to be fitted first, see ``benchmarks/uce.py``."""

SPOKEN = {"WMELH": ("White", "Middle Eastern", "Latino")}
"""Classes whose names are not what people say, and what they are made of."""


def instruments_for(
    base: str, classifiers: Sequence[str], encoders: Sequence[str], faces: str | None = None
) -> Instruments:
    """Return the instruments that were named; for an embedded base its own unless some are.

    Args:
        faces: the face detector; None for the base's usual one, and with a base's own instruments for none.

    Raises:
        ConfigError: none is named for another base, or one cannot be loaded.
        MissingExtraError: one needs a package that is not installed.
    """
    plugin = plugin_of(base)
    if plugin and not classifiers and not encoders:
        own: Instruments = imported(plugin.instruments)()
        return dataclasses.replace(own, faces=load_face_detector(faces) if faces else None)
    if not classifiers:
        raise ConfigError(
            "name what sees the attributes, and better two: --classifier clip:laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
            " --classifier transformers:dima806/fairface_gender_image_detection, or folders in the place of these Hub"
            " ids, or MODULE:OBJECT of your own"
        )
    detector = load_face_detector(faces or defaults_of(base).faces)
    return Instruments(tuple(map(load_classifier, classifiers)), tuple(map(load_encoder, encoders)), detector)


def variants_for(adaptors: Sequence[str], weights: Sequence[float]) -> list[Variant]:
    """Return each adaptor at each weight; at its own if there are none.

    Raises:
        ConfigError: a weight is no number, or there is nothing to weigh.
    """
    if weights and not adaptors:
        raise ConfigError("--weight is the strength of an adaptor: name one with --adaptor")
    if any(not math.isfinite(weight) or abs(weight) >= 100 for weight in weights):
        raise ConfigError("--weight must be a finite number, usually between 0 and 1")
    if len(set(adaptors)) < len(adaptors):
        raise ConfigError(f"an adaptor is given twice to compare: {', '.join(adaptors)}")
    names = [read_config(resolve(adaptor))["name"] for adaptor in adaptors]
    # Several trainings of one recipe have one name; then they go by what was typed.
    labels = [adaptor if names.count(name) > 1 else name for name, adaptor in zip(names, adaptors, strict=True)]
    wanted: Sequence[float | None] = weights or [None]
    return [
        with_adaptor(adaptor, weight, label=label)
        for adaptor, label in zip(adaptors, labels, strict=True)
        for weight in wanted
    ]


def baselines_for(names: Sequence[str], targets: Sequence[Target], instruments: Instruments) -> list[Variant]:
    """Return baselines by name, for the attributes that are counted one by one.

    Raises:
        ConfigError: no such baseline.
    """
    from . import baselines

    classes = instruments.classifiers[0].classes
    single = [(target.attributes[0], target.shares) for target in targets if len(target.attributes) == 1]
    attributes = [baselines.Attribute(name, *_spoken(classes[name], shares)) for name, shares in single if names]
    made: list[Variant] = []
    for name in names:
        if name not in BASELINES:
            raise ConfigError(f"no baseline {name!r}.{did_you_mean(name, BASELINES)} Known: {', '.join(BASELINES)}")
        made.append(getattr(baselines, name.replace("-", "_"))(attributes))
    return made


def _spoken(classes: Sequence[str], shares: Sequence[float]) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Return classes as words for a prompt, with their shares: a class that no prompt would name is taken apart."""
    words = [
        (word, share / len(SPOKEN.get(name, (name,))))
        for name, share in zip(classes, shares, strict=True)
        for word in SPOKEN.get(name, (name,))
    ]
    return tuple(word for word, _ in words), tuple(share for _, share in words)


def shared_classifiers(adaptors: Sequence[str], instruments: Instruments) -> list[str]:
    """Return a warning for each adaptor that is measured with a classifier it was trained against."""
    lines = []
    for adaptor in adaptors:
        config = read_config(resolve(adaptor))
        trained_against = config["training"].get("trained_against")
        for classifier in instruments.classifiers:
            if isinstance(trained_against, str) and (said := shared_classifier(trained_against, classifier)):
                lines.append(f"{config['name']}: {said}")
    return lines


def targets_for(wanted: Sequence[str], adaptors: Sequence[str], instruments: Instruments) -> tuple[Target, ...]:
    """Return what is to be counted.

    Args:
        wanted: texts such as ``gender`` for equal shares, or ``age=0.75,0.25``. If there are none: what the adaptors
            were trained for, else all that the first classifier knows.

    Returns:
        A target for each attribute, and for more than one their combinations, as if they were independent.

    Raises:
        ConfigError: an attribute that the classifier does not know, or shares that do not fit.
    """
    known = instruments.classifiers[0].classes
    shares: dict[str, tuple[float, ...]] = {}
    for text in wanted:
        name, share = parse_target(text) if "=" in text else (text, None)
        if name not in known:
            raise ConfigError(f"no attribute {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}")
        shares[name] = share or _equal(len(known[name]))
    if not wanted:
        shares = _of_adaptors(adaptors, known) or {name: _equal(len(classes)) for name, classes in known.items()}
    single = [Target((name,), share) for name, share in shares.items()]
    if len(single) < 2 or not (wanted or adaptors):
        return tuple(single)
    product = [1.0]
    for share in shares.values():
        product = [one * other for one in product for other in share]
    return (*single, Target(tuple(shares), tuple(product)))


def parse_target(text: str) -> tuple[str, tuple[float, ...]]:
    """Read ``gender=0.5,0.5``.

    Raises:
        ConfigError: not of that form, or no distribution.
    """
    name, _, shares = text.partition("=")
    try:
        target = tuple(float(share) for share in shares.split(","))
    except ValueError as error:
        raise ConfigError(f"--target {text}: write it as NAME=SHARE,SHARE such as gender=0.5,0.5") from error
    if not name or not all(share >= 0 for share in target) or not math.isclose(sum(target), 1, abs_tol=1e-6):
        raise ConfigError(f"--target {text}: the shares must not be negative, and sum to 1")
    return name.strip(), target


def plan(evaluation: Evaluation, num_variants: int, difference: float) -> list[str]:
    """Say, line by line, what an evaluation would take and what it could tell.

    Args:
        difference: of two mean biases, that is to be told.

    Raises:
        ConfigError: it is not between 0 and 1.
    """
    if not 0 < difference <= 1:
        raise ConfigError(f"--plan {difference:g}: it is a difference of biases, between 0 and 1, such as 0.1")
    prompts, count = len(evaluation.prompts.prompts), evaluation.images_per_prompt
    lines = [
        f"{prompts} prompts × {count} images × {num_variants} variants = {prompts * count * num_variants:,} images",
        f"To tell a difference of {difference:g} between two mean biases of exactly these prompts (5 %, power 80 %):",
    ]
    for target in evaluation.targets:
        number = len(target.shares)
        needed = images_needed(difference, prompts, number)
        said = "enough" if count >= needed else "too few to be sure of it"
        lines.append(
            f"  {target.name}: {needed} images per prompt; {count} are {said}. Noise floor at {count}:"
            f" {noise_floor(count, number):.3f}"
        )
    lines.append(
        "That is for unrelated noise; before and after share theirs, which needs fewer. The intervals of an evaluation"
        " are also for other prompts of the kind: where prompts differ in how they change, only more prompts help."
    )
    return lines


def _of_adaptors(adaptors: Sequence[str], known: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[float, ...]]:
    """Return the targets that adaptors were trained for, the first one's where they differ."""
    shares: dict[str, tuple[float, ...]] = {}
    for name in adaptors:
        for attribute, row in read_config(resolve(name))["attributes"].items():
            if attribute in known and set(row["classes"]) == set(known[attribute]):
                share = dict(zip(row["classes"], row["target"], strict=True))
                shares.setdefault(attribute, tuple(share[name] for name in known[attribute]))
    return shares


def _equal(number: int) -> tuple[float, ...]:
    return (1 / number,) * number
