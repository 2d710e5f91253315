"""What classifiers make of images: of the face in each, cut out with the margin that a classifier was made for."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .types import Classifier, Logits

if TYPE_CHECKING:
    from torch import Tensor


def see(classifier: Classifier, images: "Tensor", boxes: "Tensor | None") -> Logits:
    """Return a classifier's logits of each attribute, [N, K].

    Args:
        images: [N, 3, H, W] in [0, 1].
        boxes: of the faces, as in ``Faces``; None where the whole image is the face.
    """
    if boxes is None:
        return classifier.logits(images)
    from .crops import crop_faces

    every = classifier.parts or (classifier,)
    crops = {margin: crop_faces(images, boxes, margin=margin) for margin in {one.margin for one in every}}
    if not classifier.parts:
        return classifier.logits(crops[classifier.margin])
    return merged(classifier.parts, lambda one: one.logits(crops[one.margin]))


def merged(parts: Sequence[Classifier], look: Callable[[Classifier], Logits]) -> Logits:
    """Return the logits of several classifiers.

    Of an attribute that several know in the same classes, the logarithm of their mean probability; a classifier that
    names the classes otherwise than the first one is not asked about it.
    """
    classes: dict[str, tuple[str, ...] | None] = {}
    found: dict[str, list[Tensor]] = {}
    for one in parts:
        for name, logits in look(one).items():
            if classes.setdefault(name, one.classes.get(name)) == one.classes.get(name):
                found.setdefault(name, []).append(logits)
    return {name: rows[0] if len(rows) == 1 else _mean(rows) for name, rows in found.items()}


def _mean(logits: Sequence["Tensor"]) -> "Tensor":
    import torch

    device = logits[0].device  # each classifier may be on one of its own
    every = torch.stack([rows.to(device).float().log_softmax(1) for rows in logits])
    return every.logsumexp(0) - math.log(len(logits))
