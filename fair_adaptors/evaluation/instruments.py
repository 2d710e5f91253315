"""What images are measured with: classifiers of people's attributes, encoders of images, and what should stay."""

import functools
import hashlib
import importlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..errors import ConfigError

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

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
class Faces:
    """The largest face of each of N images; where there is none a row holds zeros.

    Places count in pixels of the image, whose first pixel spans 0 to 1. They may lie beyond its border.

    Attributes:
        boxes: [N, 4] as (left, top, right, bottom).
        landmarks: [N, 5, 2] as (x, y): the eye on the image's left, the one on its right, the nose, the left and the
            right corner of the mouth.
        scores: how sure the detector is, in [0, 1], [N].
        found: whether there is a face, bool [N].
    """

    boxes: "Tensor"
    landmarks: "Tensor"
    scores: "Tensor"
    found: "Tensor"

    def select(self, index: "Tensor") -> "Faces":
        """Return those of some images, by indices or a mask."""
        return Faces(self.boxes[index], self.landmarks[index], self.scores[index], self.found[index])


@dataclass(frozen=True)
class FaceDetector:
    """Finds the largest face of each image.

    Attributes:
        name: what the method's description calls it.
        identity: a word that changes with its weights.
        find: images [N, 3, H, W] in [0, 1], on any device, of any float type → their faces, on the same device and
            without gradient.
        crops: whether classifiers are to see the face alone; not where the whole image is taken for one.
    """

    name: str
    identity: str
    find: "Callable[[Tensor], Faces]"
    crops: bool = True

    def find_later(self, images: "Tensor") -> "Future[Faces]":
        """Start looking, in a thread beside what goes on meanwhile, such as the GPU's work on the next images."""
        return _beside().submit(self.find, images.detach())


@functools.cache
def _beside() -> "ThreadPoolExecutor":
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(1, "faces")


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


def split_specs(spec: str) -> list[str]:
    """Return the parts of a classifier's name that ``+`` joins."""
    return re.split(r"\+(?=[\w.]+:)", spec)


def load_classifier(spec: str) -> Classifier:
    """Load a classifier.

    Args:
        spec: ``sandbox:evaluation``, ``sandbox:training``, ``clip:SOURCE`` for zero-shot CLIP, ``transformers:SOURCE``
            for an image classifier, with a folder or Hub id, ``mobilenet:SOURCE`` for a state dict as of the paper's
            authors, or ``MODULE:OBJECT`` that is a ``Classifier``; several with ``+`` between them for one that knows
            the attributes of all, of the first one that knows it.

    Raises:
        ConfigError: no such classifier.
    """
    if len(specs := split_specs(spec)) > 1:
        from .joint import join

        return join([load_classifier(one) for one in specs])
    kind, _, source = spec.partition(":")
    if kind == "mobilenet" and source:
        from .mobilenet_classifier import mobilenet_classifier

        return mobilenet_classifier(source)
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


def load_encoder(spec: str, *, whole: bool = False) -> Encoder:
    """Load an encoder.

    Args:
        spec: ``clip:SOURCE`` or ``dinov2:SOURCE``, with a folder or Hub id, ``sandbox``, ``sandbox:portraits`` for the
            one its adaptors are trained with, or ``MODULE:OBJECT`` that is an ``Encoder``.
        whole: let a published model see the whole image, as the paper's training does, not what its processor crops.

    Raises:
        ConfigError: no such encoder.
    """
    kind, _, source = spec.partition(":")
    if kind in ("clip", "dinov2") and source:
        from . import vision

        return vision.clip_encoder(source, whole=whole) if kind == "clip" else vision.dino_encoder(source, whole=whole)
    if spec in ("sandbox", "sandbox:portraits"):
        from ..sandbox.instruments import encoder, training_encoder

        return encoder() if spec == "sandbox" else training_encoder()
    found = load_object(spec)
    if not isinstance(found, Encoder):
        raise ConfigError(f"{spec} is no fair_adaptors.evaluation.instruments.Encoder")
    return found
