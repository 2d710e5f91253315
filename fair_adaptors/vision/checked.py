"""Whether a classifier gives what it says that it knows: logits [N, K] of every attribute, which are finite."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from fair_adaptors.errors import ConfigError

from .seeing import see
from .types import Classifier, Logits

if TYPE_CHECKING:
    from torch import Tensor


def check_logits(classifier: Classifier, logits: Logits, counts: "Tensor", *, every: bool = True) -> None:
    """Check what a classifier made of N images.

    Args:
        logits: what it returned.
        counts: the images whose logits have to be finite, bool [N].
        every: whether one that is not is an error; otherwise only if none of them is.

    Raises:
        ConfigError: an attribute is missing, has another number of classes, or is not finite.
    """
    from torch import Tensor

    number = len(counts)
    found = dict(logits) if isinstance(logits, Mapping) else {}
    shapes = {name: tuple(each.shape) if isinstance(each, Tensor) else None for name, each in found.items()}
    wanted = {name: (number, len(classes)) for name, classes in classifier.classes.items()}
    if any(shapes.get(name) != shape for name, shape in wanted.items()):
        said = ", ".join(f"{name} {shapes[name] or type(found[name]).__name__}" for name in found)
        raise ConfigError(
            f"the classifier {classifier.name} was shown {number} images and returned"
            f" {said or f'no tensor by attribute but {type(logits).__name__}'}. Its logits must be tensors by"
            f" attribute: {', '.join(f'{name} {shape}' for name, shape in wanted.items())}"
        )
    for name in wanted:
        finite = found[name].isfinite().all(1)
        finite = finite[counts.to(finite.device)]
        if len(finite) and not (finite.all() if every else finite.any()):
            raise ConfigError(
                f"the classifier {classifier.name} returned NaN or infinite logits of {name} for"
                f" {len(finite) - int(finite.sum())} of {len(finite)} images. They must be finite numbers"
            )


def checked(classifier: Classifier) -> "Callable[..., Logits]":
    """Return ``see`` of a classifier: images, and boxes where there are any → logits. It checks the first batch.

    Raises:
        ConfigError: when they are called, see ``check_logits``.
    """
    is_first = True

    def logits(images: "Tensor", boxes: "Tensor | None" = None) -> Logits:
        nonlocal is_first
        found = see(classifier, images, boxes)
        if is_first:
            check_logits(classifier, found, images.detach().isfinite().flatten(1).all(1), every=False)
            is_first = False
        return found

    return logits
