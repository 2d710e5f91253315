"""How sure a figure is: 95 % intervals over prompts and images, alone and between two models on the same noise.

Every figure is a mean over prompts of a statistic of the prompt's counts. Counts [P, M] are the images of each prompt
that fell into each of M cells: classes, or pairs of classes where two models are compared image by image.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fair_adaptors.adaptor.results import Estimate

from .metrics import bias, noise_floor, total_variation, total_variation_floor, undetermined_rate

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Of counts [..., M], a value each [...]."""

RESAMPLES = 2000
FEW = 8
"""Images of fewer prompts than these may well be all alike by chance."""
UNSEEN = 0.5
"""Weight, in prompts, of one that the prompts do not show; Jeffreys' for a share."""
QUANTILE = 1.959964
"""The normal distribution's, at 97.5 %."""


@dataclass(frozen=True)
class BiasEstimate:
    """A bias figure and all that is needed to read it.

    Attributes:
        value: mean over prompts of ``bias``, or of the total variation from an uneven target; 0 at the target.
        low: lower end of the 95 % interval, see ``estimate_mean``.
        high: upper end.
        floor: what a model with the target's shares is expected to score with as many images, see ``noise_floor``.
        num_prompts: P.
        images_per_prompt: n.
        undetermined: see ``undetermined_rate``. Such images are counted in ``value``.
    """

    value: float
    low: float
    high: float
    floor: float
    num_prompts: int
    images_per_prompt: int
    undetermined: float


def estimate_mean(
    counts: ArrayLike,
    statistic: Statistic,
    *,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    extra: ArrayLike | None = None,
    num_resamples: int = RESAMPLES,
    generator: np.random.Generator | None = None,
) -> Estimate:
    """Estimate the mean over prompts of a statistic of their counts, with a 95 % bootstrap interval.

    It is an interval for what the same measurement would give on average, with other prompts of the kind and other
    images, *at the same n*: a bias has to be read against the noise floor, which it contains when the model is fair.

    Drawing images again within a prompt pushes |freq(i) − freq(j)| up, the more the nearer it is to 0, and counts the
    images' noise twice, as the prompts' values already hold it. So here prompts are drawn with their images, which
    does neither; the deviations from drawing images again, centred, are added with weight 1/√P. That makes the
    variance right where prompts do not differ, and leaves an interval over the images alone for a single prompt. The
    bootstrap of few prompts is too narrow; the part between prompts is widened to a t interval's width.

    Prompts that are all one-sided, say, do not show how much prompts differ, and no t interval can. So the interval
    is also that of a Bayesian bootstrap (Rubin 1981) in which half a prompt has images like ``extra``, where that one
    is wider. What comes of it is simulated in ``benchmarks/coverage.py``: it covers as often as it says or more, the
    more the fewer and the more unequal the prompts are.

    Args:
        counts: images in each cell, [P, M]. Prompts where the statistic is NaN, such as those without an image that
            counts, are left out.
        statistic: of counts [..., M], a value each.
        bounds: the least and the largest value there can be.
        extra: how images that were not drawn fall into the cells, [M]: half a prompt has such images, and each of few
            prompts gets one before its images are drawn again. None for every cell alike.
        num_resamples: bootstrap samples.
        generator: their source; None for one that starts anew, so that no figure depends on what else is estimated.

    Returns:
        NaN in all three where no prompt has a value; an infinite value without an interval where one has that.
    """
    number = np.asarray(counts, dtype=np.int64)
    values = statistic(number.astype(np.float64))
    if np.isinf(values).any():
        return Estimate(math.inf, math.nan, math.nan)
    told = np.isfinite(values) & (number.sum(1) > 0)
    number, values = number[told], values[told]
    num_prompts = len(number)
    if not num_prompts:
        return Estimate(math.nan, math.nan, math.nan)
    total = number.sum(1)
    generator = generator or np.random.default_rng(0)
    drawn = generator.integers(num_prompts, size=(num_resamples, num_prompts))
    # Few prompts whose images are all alike are not certain to stay so.
    more = np.full(number.shape[1], 1 / number.shape[1]) if extra is None else np.asarray(extra)
    weighed = number + (more if num_prompts < FEW else 0.0)
    shares = weighed / weighed.sum(1, keepdims=True)
    again = statistic(generator.multinomial(total[drawn], shares[drawn]).astype(np.float64))
    again = np.where(np.isfinite(again), again, values[drawn])
    count = np.bincount(drawn.ravel(), minlength=num_prompts)
    mean_again = np.bincount(drawn.ravel(), again.ravel(), minlength=num_prompts) / np.maximum(count, 1)
    of_images = ((again - mean_again[drawn]) / math.sqrt(num_prompts)).mean(1)
    found = _around(values, drawn, of_images, bounds)
    chance = generator.multinomial(round(total.mean()), more / more.sum(), size=num_resamples)
    unseen = float(statistic(chance.astype(np.float64)).mean())
    if num_prompts < 2 or not math.isfinite(unseen):
        return found
    weights = generator.dirichlet([*[1.0] * num_prompts, UNSEEN], size=num_resamples)
    low, high = np.quantile(weights @ [*values, unseen] + of_images, [0.025, 0.975])
    return Estimate(
        found.value, min(found.low, max(bounds[0], float(low))), max(found.high, min(bounds[1], float(high)))
    )


def estimate_values(
    values: ArrayLike,
    *,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    num_resamples: int = RESAMPLES,
    images_weight: float = 1.0,
    generator: np.random.Generator | None = None,
) -> Estimate:
    """Estimate the mean over prompts of a mean over images of values [P, n], such as similarities; NaN is left out.

    As ``estimate_mean``, with normal deviations in the place of images drawn again.

    Args:
        images_weight: factor of the images' standard error: 2 for means over pairs of images, where a value is an
            image's mean over its pairs.
    """
    array = np.asarray(values, dtype=np.float64)
    seen = np.isfinite(array)
    array, seen = array[seen.any(1)], seen[seen.any(1)]
    num_prompts = len(array)
    if not num_prompts:
        return Estimate(math.nan, math.nan, math.nan)
    number = seen.sum(1)
    means = np.where(seen, array, 0).sum(1) / number
    spread = np.where(seen, (array - means[:, None]) ** 2, 0).sum(1) / np.maximum(number - 1, 1)
    errors = images_weight * np.sqrt(spread / number)
    generator = generator or np.random.default_rng(0)
    drawn = generator.integers(num_prompts, size=(num_resamples, num_prompts))
    deviations = generator.standard_normal((num_resamples, num_prompts)) * errors[drawn] / math.sqrt(num_prompts)
    return _around(means, drawn, deviations.mean(1), bounds)


def estimate_pooled(
    counts: ArrayLike,
    statistic: Statistic,
    *,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    num_resamples: int = RESAMPLES,
    generator: np.random.Generator | None = None,
) -> Estimate:
    """Estimate a statistic of all prompts at once, such as the worst ones' mean, by drawing prompts and images again.

    The bootstrap's values are centred, as drawing images again pushes what is the largest up; that counts the images'
    noise twice, so that the interval is rather too wide than too narrow.

    Args:
        counts: images in each cell, [P, M].
        statistic: of counts [..., P, M], a value each.
        bounds: the least and the largest value there can be.
    """
    number = np.asarray(counts, dtype=np.int64)
    number = number[number.sum(1) > 0]
    if not len(number):
        return Estimate(math.nan, math.nan, math.nan)
    value = float(statistic(number.astype(np.float64)))
    total = number.sum(1)
    shares = (number + 1 / number.shape[1]) / (total + 1)[:, None]
    generator = generator or np.random.default_rng(0)
    drawn = generator.integers(len(number), size=(num_resamples, len(number)))
    again = statistic(generator.multinomial(total[drawn], shares[drawn]).astype(np.float64))
    again = again[np.isfinite(again)]
    if not len(again) or not math.isfinite(value):
        return Estimate(value, math.nan, math.nan)
    low, high = value + np.quantile(again - again.mean(), [0.025, 0.975]) * _few_prompts(len(number))
    return Estimate(value, max(bounds[0], float(low)), min(bounds[1], float(high)))


def _around(
    values: NDArray[np.float64], drawn: NDArray[np.int64], of_images: NDArray[np.float64], bounds: tuple[float, float]
) -> Estimate:
    between = (values[drawn] - values.mean()).mean(1) * _few_prompts(len(values))
    low, high = values.mean() + np.quantile(between + of_images, _levels(values))
    return Estimate(float(values.mean()), max(bounds[0], float(low)), min(bounds[1], float(high)))


def _levels(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the bootstrap's quantiles that are the ends of a 95 % interval, moved where the values are skewed.

    BCa (Efron 1987), for a mean: acceleration and bias correction are both a sixth of the mean's skewness.
    """
    deviations = values - values.mean()
    squares = float((deviations**2).sum())
    skewness = float((deviations**3).sum()) / (6 * squares**1.5) if squares else 0.0
    ends = (skewness + (skewness + z) / (1 - skewness * (skewness + z)) for z in (-QUANTILE, QUANTILE))
    low, high = map(NormalDist().cdf, ends)
    return low, high


def estimate_bias(probabilities: ArrayLike, *, target: Sequence[float] | None = None) -> BiasEstimate:
    """Estimate the bias of an attribute from class probabilities [P, n, K]; every image counts as its likeliest class.

    Args:
        probabilities: a classifier's, of every image; NaN for one without a face, which is not counted.
        target: the shares of the K classes. If they are not equal, the figure is the total variation from them.
    """
    probs = np.asarray(probabilities)
    num_prompts, num_images, num_classes = probs.shape
    statistic: Statistic = bias
    most, floor = 2 / num_classes, noise_floor(num_images, num_classes)
    if target is not None and len(set(target)) > 1:
        statistic = partial(total_variation, target=target)
        most, floor = 1.0, total_variation_floor(num_images, target)
    classes = np.where(np.isnan(probs).any(-1), num_classes, probs.argmax(-1))
    found = estimate_mean(
        count_classes(classes, num_classes), statistic, generator=np.random.default_rng(0), bounds=(0.0, most)
    )
    return BiasEstimate(found.value, found.low, found.high, floor, num_prompts, num_images, undetermined_rate(probs))


def count_classes(classes: ArrayLike, num_classes: int) -> NDArray[np.int64]:
    """Count the images of each class, [P, K], from class indices [P, n]; an index of K or more is not counted."""
    return (np.asarray(classes)[..., None] == np.arange(num_classes)).sum(-2)


def estimate_rate(hits: ArrayLike) -> Estimate:
    """Estimate a share from outcomes [P, n]: Wilson's 95 % interval, with prompts as clusters.

    Images of one prompt are alike. The interval is the wider one of two: of independent images, with the normal
    quantile z, and of independent prompts, with Student's t times the square root of what their shares vary more than
    independent images would make them. With both in Wilson's formula it covers too often rather than too rarely where
    prompts are few and do not differ. Something rare that only a few prompts show is the exception: prompts that
    happen not to show it say nothing of it.
    """
    outcomes = np.asarray(hits, dtype=np.float64)
    num_prompts, num_images = outcomes.shape
    share = float(outcomes.mean())
    independent = share * (1 - share) / num_images
    between = float(outcomes.mean(1).var(ddof=1)) if num_prompts > 1 else 0.0
    clustering = between / independent if independent else 0.0
    z = max(QUANTILE, _t_quantile(num_prompts - 1) * math.sqrt(clustering) if num_prompts > 1 else 0.0)
    centre = (share + z**2 / (2 * outcomes.size)) / (1 + z**2 / outcomes.size)
    half = z * math.sqrt(share * (1 - share) / outcomes.size + (z / (2 * outcomes.size)) ** 2)
    half /= 1 + z**2 / outcomes.size
    return Estimate(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def _few_prompts(num_prompts: int) -> float:
    """Return by how much a bootstrap over P values is narrower than a t interval of their mean."""
    if num_prompts < 2:
        return 1.0
    return _t_quantile(num_prompts - 1) / QUANTILE * math.sqrt(num_prompts / (num_prompts - 1))


def _t_quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t, by its expansion (Abramowitz & Stegun 26.7.5)."""
    if freedom <= 2:
        return (12.7062, 4.3027)[freedom - 1]  # too few for the expansion
    z, n = QUANTILE, freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )
