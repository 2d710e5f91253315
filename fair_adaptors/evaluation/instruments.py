"""What images are measured with: classifiers of people's attributes, encoders of images, and what should stay."""

import hashlib
import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Logits = Mapping[str, "Tensor"]


class HasAttributes(Protocol):
    """Something about attributes, such as a target."""

    @property
    def attributes(self) -> tuple[str, ...]:
        """Their names."""
        ...


T = TypeVar("T", bound=HasAttributes)


@dataclass(frozen=True)
class Classifier:
    """Sees what people look like to it: classes of attributes, not who they are.

    Attributes:
        name: what tables call it.
        identity: a word that changes with its weights.
        classes: names of the classes of each attribute, in index order.
        judge: images [N, 3, H, W] in [0, 1] → logits of each attribute, [N, K].
    """

    name: str
    identity: str
    classes: Mapping[str, tuple[str, ...]]
    judge: "Callable[[Tensor], Logits]"


@dataclass(frozen=True)
class Encoder:
    """Tells how alike images are, and how well they fit their prompt.

    Attributes:
        name: what tables call it.
        identity: a word that changes with its weights.
        encode: images [N, 3, H, W] in [0, 1] → unit features [N, D].
        encode_text: prompts → unit features [N, D] in the same space; None if it knows no text.
    """

    name: str
    identity: str
    encode: "Callable[[Tensor], Tensor]"
    encode_text: "Callable[[Sequence[str]], Tensor] | None" = None


@dataclass(frozen=True)
class FaceDetector:
    """Finds the largest face of each image.

    Attributes:
        name: what the method's description calls it.
        identity: a word that changes with its weights.
        find: images [N, 3, H, W] in [0, 1] → boxes [N, 4] as (left, top, right, bottom) in pixels, and whether a face
            was found [N].
    """

    name: str
    identity: str
    find: "Callable[[Tensor], tuple[Tensor, Tensor]]"


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
        calibrate: labels of prompts → by classifier and attribute, the ``true`` bias of images whose truth is known,
            the ``measured`` one, and the ``error``; None where no truth is known.
    """

    classifiers: tuple[Classifier, ...]
    encoders: tuple[Encoder, ...] = ()
    faces: FaceDetector | None = None
    kept: Kept | None = None
    calibrate: Callable[[Sequence[str]], dict[str, Any]] | None = None

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
        parts += [str(sorted(judge.classes.items())) for judge in self.classifiers]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def known_targets(targets: Sequence[T], judge: Classifier) -> list[T]:
    """Return the targets all of whose ``attributes`` a classifier knows."""
    return [target for target in targets if set(target.attributes) <= set(judge.classes)]


def accelerator() -> str:
    """Return the device of this process: the GPU that torchrun gave it, the only one, or the CPU."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def load_object(spec: str) -> object:
    """Import ``module:object``, an instrument of the user's own.

    Raises:
        ConfigError: not of that form, or it cannot be imported.
    """
    module, colon, name = spec.partition(":")
    if not colon or not module or not name:
        raise ConfigError(f"{spec!r} names no instrument; write MODULE:OBJECT, or see `fair-adaptors evaluate --help`")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{spec}: {error}. Is its folder on PYTHONPATH?") from error


def load_classifier(spec: str) -> Classifier:
    """Load a classifier.

    Args:
        spec: ``sandbox:evaluation``, ``sandbox:training``, ``clip:SOURCE`` for zero-shot CLIP, ``transformers:SOURCE``
            for an image classifier, with a folder or Hub id, or ``MODULE:OBJECT`` that is a ``Classifier``.

    Raises:
        ConfigError: no such classifier.
    """
    kind, _, source = spec.partition(":")
    if kind in ("clip", "transformers") and source:
        from . import vision

        return vision.clip_classifier(source) if kind == "clip" else vision.image_classifier(source)
    if spec.startswith("sandbox:"):
        from ..sandbox.instruments import classifier

        return classifier(spec.removeprefix("sandbox:"))
    found = load_object(spec)
    if not isinstance(found, Classifier):
        raise ConfigError(f"{spec} is no fair_adaptors.evaluation.instruments.Classifier")
    return found


def load_encoder(spec: str) -> Encoder:
    """Load an encoder: ``sandbox``, ``clip:SOURCE``, ``dinov2:SOURCE``, or ``MODULE:OBJECT`` that is an ``Encoder``.

    Raises:
        ConfigError: no such encoder.
    """
    kind, _, source = spec.partition(":")
    if kind in ("clip", "dinov2") and source:
        from . import vision

        return vision.clip_encoder(source) if kind == "clip" else vision.dino_encoder(source)
    if spec == "sandbox":
        from ..sandbox.instruments import encoder

        return encoder()
    found = load_object(spec)
    if not isinstance(found, Encoder):
        raise ConfigError(f"{spec} is no fair_adaptors.evaluation.instruments.Encoder")
    return found
