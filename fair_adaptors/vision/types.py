"""What sees pictures: classifiers of people's attributes, encoders of images, detectors of faces."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fair_adaptors.errors import ConfigError

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from torch import Tensor


Logits = Mapping[str, "Tensor"]

MARGIN = 0.5
"""A face is cut out this much wider than the longer side of its box: the published code's ``expand_coef``."""
FACE_MARGIN = "face_margin"
"""What a trained classifier's config.json calls another one."""
LANDMARKS = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
LANDMARKS_SIDE = 112
"""Where the landmarks of an aligned face of 112 × 112 pixels are, from the centre of the first pixel: ``arcface_dst``
of insightface's ``utils/face_align.py``, by which ArcFace (Deng et al. 2019) and most encoders since are trained."""


@dataclass(frozen=True)
class Classifier:
    """Sees what people look like to it: classes of attributes, not who they are.

    Attributes:
        name: what tables call it.
        identity: a word that changes with its weights.
        classes: names of the classes of each attribute, in index order.
        logits: images [N, 3, H, W] in [0, 1] → logits of each attribute, [N, K].
        margin: how much wider than the longer side of its box a face is cut out for it, as in what it was trained on.
        parts: the classifiers that it is joined of, each with a margin of its own; none if it is one.
    """

    name: str
    identity: str
    classes: Mapping[str, tuple[str, ...]]
    logits: "Callable[[Tensor], Logits]"
    margin: float = MARGIN
    parts: "tuple[Classifier, ...]" = ()


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


def margin_of(value: object, name: str) -> float:
    """Return a classifier's margin, as a word or a file says it.

    Args:
        name: of the classifier, for the error.

    Raises:
        ConfigError: it is not a number from -0.5 to 3.
    """
    try:
        margin = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        margin = math.nan
    if not -0.5 <= margin <= 3:
        raise ConfigError(f"the margin of {name} is {value!r}; it must be a number from -0.5 to 3")
    return margin
