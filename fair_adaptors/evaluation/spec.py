"""What an evaluation is asked for, what it measures with, and how both are read from words."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fair_adaptors.adaptor.bases import defaults_of, imported, plugin_of
from fair_adaptors.adaptor.results_settings import Calibration
from fair_adaptors.errors import ConfigError, did_you_mean
from fair_adaptors.load import record_of
from fair_adaptors.prompts.sets import PromptSet
from fair_adaptors.steering.draw import parse_target
from fair_adaptors.vision.catalog import load_classifier, load_encoder
from fair_adaptors.vision.faces import load_face_detector
from fair_adaptors.vision.joint import shared_classifier
from fair_adaptors.vision.types import Classifier, Encoder, FaceDetector, Logits

from .metrics import images_needed, noise_floor

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Target:
    """An attribute to report, or several jointly, and the shares that would be fair.

    Attributes:
        attributes: names; more than one for their combinations.
        shares: of each class, or combination with the last attribute's classes changing fastest.
        declared: whether somebody asked for these shares; otherwise they are only what a bias is counted from.
    """

    attributes: tuple[str, ...]
    shares: tuple[float, ...]
    declared: bool = True

    @property
    def name(self) -> str:
        """What tables call it, such as ``gender`` or ``gender × tone``."""
        return " × ".join(self.attributes)

    @property
    def is_uniform(self) -> bool:
        """Whether the shares are equal, so that a bias of 0 is what it asks for."""
        return max(self.shares) - min(self.shares) < 1e-6


@dataclass(frozen=True)
class Evaluation:
    """What is asked for.

    Attributes:
        base: the base model's name, for the record.
        prompts: what is drawn.
        targets: what is counted, and what would be fair; every other attribute that a classifier knows is counted too.
        images_per_prompt: n.
        seed: every image's own seed is a function of it, the prompt and the image's number.
        num_steps: sampling steps.
        guidance_scale: classifier-free guidance.
        batch_size: images drawn at once.
        keep_images: leave the images as PNG files.
    """

    base: str
    prompts: PromptSet
    targets: tuple[Target, ...] = ()
    images_per_prompt: int = 60
    seed: int = 0
    num_steps: int = 30
    guidance_scale: float = 7.5
    batch_size: int = 8
    keep_images: bool = True

    def __post_init__(self) -> None:
        for name in ("images_per_prompt", "num_steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True)
class Kept:
    """Something that should stay in every image, such as the occupation's clothes.

    Attributes:
        name: such as "right occupation".
        right: (label of the prompt, logits of the first classifier) → 1 where it is right, 0 where not, [N]; NaN for a
            label that says nothing of it.
    """

    name: str
    right: "Callable[[str, Logits], np.ndarray]"


@dataclass(frozen=True)
class Instruments:
    """All that an evaluation measures with.

    Attributes:
        classifiers: the first one's figures are the headline; two or more show how far they agree.
        encoders: of images; none for no preservation and diversity figures.
        faces: the detector; None where the whole image is the face.
        kept: what should stay; None for nothing that can be told.
        calibrate: labels of prompts → by classifier and attribute, what it makes of images whose truth is known; None
            where no truth is known.
    """

    classifiers: tuple[Classifier, ...]
    encoders: tuple[Encoder, ...] = ()
    faces: FaceDetector | None = None
    kept: Kept | None = None
    calibrate: Callable[[Sequence[str]], Mapping[str, Mapping[str, Calibration]]] | None = None

    def __post_init__(self) -> None:
        if not self.classifiers:
            raise ConfigError("without a classifier nothing can be counted: name one")
        for kind in (self.classifiers, self.encoders):
            names = [one.name for one in kind]
            if len(set(names)) < len(names):
                raise ConfigError(f"two classifiers or encoders have the same name: {', '.join(names)}")

    @property
    def identity(self) -> str:
        """A word that changes with any of them."""
        every: list[Classifier | Encoder | FaceDetector] = [*self.classifiers, *self.encoders]
        every += [self.faces] if self.faces else []
        parts = [f"{one.name} {one.identity}" for one in every] + ([self.kept.name] if self.kept else [])
        parts += [str(sorted(classifier.classes.items())) for classifier in self.classifiers]
        if self.faces and self.faces.crops:
            parts += [str([part.margin for part in one.parts or (one,)]) for one in self.classifiers]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def known_targets(targets: Sequence[Target], classifier: Classifier) -> list[Target]:
    """Return the targets all of whose ``attributes`` a classifier knows."""
    return [target for target in targets if set(target.attributes) <= set(classifier.classes)]


def instruments_for(
    base: str, classifiers: Sequence[str], encoders: Sequence[str], faces: str | None = None
) -> Instruments:
    """Return the instruments that were named; where no classifier is, those that are usual for the base.

    Args:
        faces: the face detector; None for the base's usual one, and with a base's own instruments for none.

    Raises:
        ConfigError: only an encoder is named, or one cannot be loaded.
        MissingExtraError: one needs a package that is not installed.
    """
    plugin = plugin_of(base)
    if plugin and not classifiers and not encoders:
        own: Instruments = imported(plugin.instruments)()
        return replace(own, faces=load_face_detector(faces) if faces else None)
    if plugin and not classifiers:
        raise ConfigError(
            f"an `encoder` alone cannot count people: name a `classifier` as well, or leave out both to use those of"
            f" {base}"
        )
    usual = defaults_of(base)
    return Instruments(
        tuple(map(load_classifier, classifiers or usual.classifiers)),
        tuple(map(load_encoder, encoders)),
        load_face_detector(faces or usual.faces),
    )


def targets_for(wanted: Sequence[str], adaptors: Sequence[str], instruments: Instruments) -> tuple[Target, ...]:
    """Return what is to be counted.

    Args:
        wanted: texts such as ``gender`` for equal shares, or ``age=0.75,0.25``. If there are none: what the adaptors
            were trained for.

    Returns:
        A target for each attribute that was asked for, and for more than one their combinations, as if they were
        independent; then one for every other attribute that a classifier knows (``all_targets``).

    Raises:
        ConfigError: an attribute that the classifier does not know, or shares that do not fit.
    """
    known = instruments.classifiers[0].classes
    shares: dict[str, tuple[float, ...]] = {}
    for text in wanted:
        name, share = parse_target(text) if "=" in text else (text, None)
        if name not in known:
            raise ConfigError(f"no attribute {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}")
        if name in shares:
            raise ConfigError(f"the target of {name} is given twice")
        shares[name] = share or _equal(len(known[name]))
    if not wanted:
        shares = _of_adaptors(adaptors, known)
    found = [Target((name,), share) for name, share in shares.items()]
    if len(found) > 1:
        product = [1.0]
        for share in shares.values():
            product = [one * other for one in product for other in share]
        found.append(Target(tuple(shares), tuple(product)))
    return all_targets(found, instruments)


def all_targets(targets: Sequence[Target], instruments: Instruments) -> tuple[Target, ...]:
    """Return targets with one more for each attribute that a classifier knows and no target counts alone.

    Nobody asked for the shares of these: they are equal, and not ``declared``.
    """
    known: dict[str, int] = {}
    for classifier in instruments.classifiers:
        known = {name: len(classes) for name, classes in classifier.classes.items()} | known
    alone = {target.attributes for target in targets}
    others = [Target((name,), _equal(size), declared=False) for name, size in known.items() if (name,) not in alone]
    return (*targets, *others)


def shared_classifiers(adaptors: Sequence[str], instruments: Instruments) -> list[str]:
    """Return a warning for each adaptor that is measured with a classifier it was trained against."""
    lines = []
    for adaptor in adaptors:
        record = record_of(adaptor)
        trained_against = record.training.get("trained_against")
        for classifier in instruments.classifiers:
            if isinstance(trained_against, str) and (said := shared_classifier(trained_against, classifier)):
                lines.append(f"{record.name}: {said}")
    return lines


def plan(evaluation: Evaluation, num_variants: int, difference: float) -> list[str]:
    """Say, line by line, what an evaluation would take and what it could tell.

    Args:
        difference: of two mean biases, that is to be told.

    Raises:
        ConfigError: it is not between 0 and 1.
    """
    if not 0 < difference <= 1:
        raise ConfigError(f"the difference to plan for is {difference:g}; it must be between 0 and 1, such as 0.1")
    prompts, count = len(evaluation.prompts.prompts), evaluation.images_per_prompt
    lines = [
        f"{prompts} prompts × {count} images × {num_variants} variants = {prompts * count * num_variants:,} images",
        f"To tell a difference of {difference:g} between two mean biases of exactly these prompts (5 %, power 80 %):",
    ]
    for target in evaluation.targets:
        number, told = len(target.shares), sum(evaluation.prompts.leaves_open(target.attributes))
        if not told:
            lines.append(f"  {target.name}: none can be told, because every prompt names a class of it")
            continue
        needed = images_needed(difference, told, number)
        said = "enough" if count >= needed else "too few to be sure of it"
        where = "" if told == prompts else f" (in the {told} prompts that name no class of it)"
        lines.append(
            f"  {target.name}{where}: {needed} images per prompt; {count} are {said}. Noise floor at {count}:"
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
        for attribute, row in record_of(name).attributes.items():
            if attribute in known and set(row.classes) == set(known[attribute]):
                share = dict(zip(row.classes, row.target, strict=True))
                shares.setdefault(attribute, tuple(share[name] for name in known[attribute]))
    return shares


def _equal(number: int) -> tuple[float, ...]:
    return (1 / number,) * number
