"""What classifiers make of images: of the face in each, cut out with the margin that a classifier was made for."""

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
    """Return the logits of several classifiers; of an attribute that several know, the first one's."""
    found: dict[str, Tensor] = {}
    for one in parts:
        found |= {name: logits for name, logits in look(one).items() if name not in found}
    return found
