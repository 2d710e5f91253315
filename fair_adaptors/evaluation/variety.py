"""How much the images of one prompt differ: all of them, and those that show the same class.

The distance of two images is 1 minus the cosine of an encoder's features. P prompts, n images of each, D features.
"""

import numpy as np

from fair_adaptors.adaptor.results import Estimate, PairedChange, WithinClass

from .estimates import estimate_values
from .store import Array

PAIRS = 2.0
"""An image's mean over its pairs has half the influence on the mean over all pairs: the factor of its error."""


def diversity(features: Array) -> Estimate:
    """Return the mean distance of two images of a prompt, from unit features [P, n, D]: 0 if all are alike."""
    return _estimate(_Spread(features, _one_class(features), 1), 2.0)


def diversity_change(before: Array, after: Array) -> PairedChange:
    """Return the change of ``diversity`` from images with the same noise, [P, n, D] each."""
    return _change(_Spread(before, _one_class(before), 1), _Spread(after, _one_class(after), 1))


def within_class(
    before: tuple[Array, Array], after: tuple[Array, Array], num_classes: int, *, compared: bool
) -> WithinClass:
    """Return the mean distance of two images of a prompt that show the same class.

    Of a prompt it is the mean over the classes of which it shows two images or more: a class that is shown more often
    than before does not weigh more. The change is over those that have two images both before and after.

    Args:
        before, after: unit features [P, n, D] and class indices [P, n]; K is an image without a face.
        num_classes: K.
        compared: whether there is a change; else ``after`` is the original.
    """
    now = _Spread(*after, num_classes)
    return WithinClass(_estimate(now, 2.0), _change(_Spread(*before, num_classes), now) if compared else None)


class _Spread:
    """Distances within each prompt and class.

    Attributes:
        of_class: mean distance of two images of the class, [P, K]; NaN of fewer than two.
        deviations: of each image's mean distance from the others of its class, divided by the number of images of the
            class, by class, [P, n, K]; 0 for the other classes.
    """

    def __init__(self, features: Array, classes: Array, num_classes: int):
        member = (classes[..., None] == np.arange(num_classes)).astype(np.float64)
        count = member.sum(1, keepdims=True)
        sums = np.einsum("pik,pid->pkd", member, features)
        alike = np.einsum("pid,pkd->pik", features, sums) - (features**2).sum(-1)[..., None]
        with np.errstate(invalid="ignore", divide="ignore"):
            of_image = np.where(count > 1, 1 - alike / (count - 1), np.nan)
            mean = np.where(count > 1, (member * of_image).sum(1, keepdims=True) / count, np.nan)
            found = member * (of_image - mean) / count
        self.of_class = mean[:, 0]
        self.deviations = np.where((member > 0) & (count > 1), found, 0.0)

    def values(self, told: Array) -> Array:
        """Return values [P, n] whose mean over images is the mean over classes, and whose spread is its error's.

        Args:
            told: the classes that count, booleans [P, K].
        """
        count = told.sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(told, self.of_class, 0.0).sum(1) / count
            moves = np.where(told[:, None], self.deviations, 0.0).sum(2) * self.deviations.shape[1] / count[:, None]
        return mean[:, None] + moves


def _one_class(features: Array) -> Array:
    return np.zeros(features.shape[:2], np.int64)


def _estimate(spread: _Spread, most: float) -> Estimate:
    return estimate_values(spread.values(np.isfinite(spread.of_class)), images_weight=PAIRS, bounds=(0.0, most))


def _change(before: _Spread, after: _Spread) -> PairedChange:
    told = np.isfinite(before.of_class) & np.isfinite(after.of_class)
    was, now = before.values(told), after.values(told)
    found = estimate_values(now - was, images_weight=PAIRS, bounds=(-2.0, 2.0))
    both = [float(values[told.any(1)].mean()) if told.any() else np.nan for values in (was, now)]
    # Of few prompts, of which some show few people of a class, the interval would be a little too narrow.
    count = int(told.any(1).sum())
    wider = (count / (count - 1)) ** 0.5 if count > 1 else 1.0
    low, high = (found.value + wider * (end - found.value) for end in (found.low, found.high))
    return PairedChange(found.value, max(-2.0, low), min(2.0, high), before=both[0], after=both[1])
