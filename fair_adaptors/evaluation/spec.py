"""What an evaluation is asked for, and what it measures with."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fair_adaptors.adaptor.results import Calibration
from fair_adaptors.errors import ConfigError
from fair_adaptors.prompts.sets import PromptSet
from fair_adaptors.vision.types import Classifier, Encoder, FaceDetector, Logits

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Target:
    """An attribute to report, or several jointly, and the shares that would be fair.

    Attributes:
        attributes: names; more than one for their combinations.
        shares: of each class, or combination with the last attribute's classes changing fastest.
    """

    attributes: tuple[str, ...]
    shares: tuple[float, ...]

    @property
    def name(self) -> str:
        """What tables call it, such as ``gender`` or ``gender × tone``."""
        return " × ".join(self.attributes)


@dataclass(frozen=True)
class Evaluation:
    """What is asked for.

    Attributes:
        base: the base model's name, for the record.
        prompts: what is drawn.
        targets: what is counted, and what would be fair.
        images_per_prompt: n.
        seed: every image's own seed is a function of it, the prompt and the image's number.
        num_steps: sampling steps.
        guidance_scale: classifier-free guidance.
        batch_size: images drawn at once.
        keep_images: leave the images as PNG files.
    """

    base: str
    prompts: PromptSet
    targets: tuple[Target, ...]
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
        if not self.targets:
            raise ConfigError("nothing to count: name an attribute")


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
            raise ConfigError("nothing to measure with: name a classifier")
        for kind in (self.classifiers, self.encoders):
            names = [one.name for one in kind]
            if len(set(names)) < len(names):
                raise ConfigError(f"two instruments have one name: {', '.join(names)}")

    @property
    def identity(self) -> str:
        """A word that changes with any of them."""
        every: list[Classifier | Encoder | FaceDetector] = [*self.classifiers, *self.encoders]
        every += [self.faces] if self.faces else []
        parts = [f"{one.name} {one.identity}" for one in every] + ([self.kept.name] if self.kept else [])
        parts += [str(sorted(classifier.classes.items())) for classifier in self.classifiers]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def known_targets(targets: Sequence[Target], classifier: Classifier) -> list[Target]:
    """Return the targets all of whose ``attributes`` a classifier knows."""
    return [target for target in targets if set(target.attributes) <= set(classifier.classes)]
