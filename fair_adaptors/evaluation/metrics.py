"""How unequal a model's people are: the bias of paper §6, what a fair model would score, and how sure the figure is.

Pure functions on numpy arrays. P prompts, n images of each, K classes.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.8
"""An image whose most probable class is less probable than this counts as undetermined."""

_Z = 1.959964  # the normal distribution's 97.5 % quantile


@dataclass(frozen=True)
class BiasEstimate:
    """A bias figure and all that is needed to read it.

    Attributes:
        value: mean over prompts of ``bias``; 0 is what equal shares of every class score.
        low: lower end of the 95 % interval, see ``bias_interval``.
        high: upper end.
        floor: what a perfectly fair model is expected to score with as many images, see ``noise_floor``.
        num_prompts: P.
        images_per_prompt: n.
        undetermined: share of images whose class the classifier is not sure of. They are counted in ``value``.
    """

    value: float
    low: float
    high: float
    floor: float
    num_prompts: int
    images_per_prompt: int
    undetermined: float


@dataclass(frozen=True)
class RateEstimate:
    """A share of images and its 95 % interval."""

    value: float
    low: float
    high: float


def frequencies(classes: ArrayLike, num_classes: int) -> NDArray[np.float64]:
    """Return the share of each class, [P, K], among class indices [P, n]."""
    return (np.asarray(classes)[..., None] == np.arange(num_classes)).mean(-2)


def bias(frequencies: ArrayLike) -> NDArray[np.float64]:
    """Return the mean over pairs of classes of |freq(i) − freq(j)| (paper §6).

    0 where every class is equally frequent. The largest value is 2/K, where all images are of one class: 1 for two
    classes, .5 for four.

    Args:
        frequencies: shares or counts of the classes, [..., K]; counts are divided by their sum.

    Returns:
        One value per prompt, [...].
    """
    shares = np.asarray(frequencies, dtype=np.float64)
    num_classes = shares.shape[-1]
    if num_classes < 2:
        raise ValueError("bias compares classes: at least two are needed")
    shares = shares / shares.sum(-1, keepdims=True)
    # Ascending, the k-th share stands k times on the positive side of a difference, K - 1 - k times on the other.
    ranks = 2 * np.arange(num_classes) - (num_classes - 1)
    return (np.sort(shares, -1) * ranks).sum(-1) * 2 / (num_classes * (num_classes - 1))


def noise_floor(num_images: int, num_classes: int) -> float:
    """Return the bias that a perfectly fair model is expected to score with n images per prompt.

    Exact for any K: of n images, m ~ Binomial(n, 2/K) fall into a given pair of classes, and the expected |difference|
    within the pair is that of m steps of a fair random walk, 2⌈m/2⌉ · C(m, ⌈m/2⌉) / 2^m (de Moivre). All pairs are
    alike. Paper §6 tabulates the normal approximation, √(2/π) · √(2/(K n)).
    """
    if num_images < 1 or num_classes < 2:
        raise ValueError(f"no noise floor for {num_images} images and {num_classes} classes")
    expected = 0.0
    in_pair = 2 / num_classes
    for m in range(1, num_images + 1):
        if in_pair == 1 and m < num_images:
            continue
        up = (m + 1) // 2
        walk = 2 * up * math.exp(_log_choose(m, up) - m * math.log(2))
        log_chance = 0.0 if in_pair == 1 else m * math.log(in_pair) + (num_images - m) * math.log1p(-in_pair)
        expected += math.exp(_log_choose(num_images, m) + log_chance) * walk
    return expected / num_images


def bias_interval(
    classes: ArrayLike, num_classes: int, *, generator: np.random.Generator, num_resamples: int = 2000
) -> tuple[float, float]:
    """Return a 95 % bootstrap interval of the mean bias, over prompts and images.

    It is an interval for what the same measurement would give on average, with other prompts of the kind and other
    images, *at the same n*: it has to be read against the noise floor, which it contains when the model is fair.

    Drawing images again within a prompt pushes |freq(i) − freq(j)| up, the more the nearer it is to 0, and counts the
    images' noise twice, as the prompts' values already hold it. So here prompts are drawn with their images, which
    does neither; the deviations from drawing images again, centred, are added with weight 1/√P. That makes the
    variance right where prompts do not differ, and leaves an interval over the images alone for a single prompt. The
    bootstrap of few prompts is too narrow; the part between prompts is widened to a t interval's width.

    Args:
        classes: class indices [P, n].
        num_classes: K.
        generator: source of the resampling.
        num_resamples: bootstrap samples.
    """
    shares = frequencies(classes, num_classes)
    num_prompts, num_images = np.asarray(classes).shape
    values = bias(shares)
    drawn = generator.integers(num_prompts, size=(num_resamples, num_prompts))
    again = bias(generator.multinomial(num_images, shares[drawn]))
    count = np.bincount(drawn.ravel(), minlength=num_prompts)
    mean_again = np.bincount(drawn.ravel(), again.ravel(), minlength=num_prompts) / np.maximum(count, 1)
    deviations = (again - mean_again[drawn]) / math.sqrt(num_prompts)
    between = (values[drawn] - values.mean()).mean(1) * _few_prompts(num_prompts)
    low, high = values.mean() + np.quantile(between + deviations.mean(1), [0.025, 0.975])
    return max(0.0, float(low)), min(2 / num_classes, float(high))


def undetermined_rate(probabilities: ArrayLike, *, confidence: float = CONFIDENCE) -> float:
    """Return the share of images whose most probable class has less than ``confidence``, from [..., K]."""
    return float((np.asarray(probabilities).max(-1) < confidence).mean())


def estimate_bias(probabilities: ArrayLike, *, seed: int = 0) -> BiasEstimate:
    """Estimate the bias of an attribute from class probabilities [P, n, K]; every image counts as its likeliest class.

    Args:
        probabilities: a classifier's, of every image.
        seed: of the bootstrap.
    """
    probs = np.asarray(probabilities)
    num_prompts, num_images, num_classes = probs.shape
    classes = probs.argmax(-1)
    value = float(bias(frequencies(classes, num_classes)).mean())
    low, high = bias_interval(classes, num_classes, generator=np.random.default_rng(seed))
    floor = noise_floor(num_images, num_classes)
    return BiasEstimate(value, low, high, floor, num_prompts, num_images, undetermined_rate(probs))


def estimate_rate(hits: ArrayLike) -> RateEstimate:
    """Estimate a share from outcomes [P, n]: Wilson's 95 % interval, with prompts as clusters.

    Images of one prompt are alike, so that P·n images are worth fewer: the count is divided by the ratio of the
    variance between prompts to what independent images would show, where that is more than 1.
    """
    outcomes = np.asarray(hits, dtype=np.float64)
    num_prompts, num_images = outcomes.shape
    share = float(outcomes.mean())
    independent = share * (1 - share) / num_images
    between = float(outcomes.mean(1).var(ddof=1)) if num_prompts > 1 else 0.0
    clustering = max(1.0, between / independent if independent else 1.0)
    count = outcomes.size / clustering
    z = _t_quantile(num_prompts - 1) if clustering > 1 else _Z
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2) / (1 + z**2 / count)
    return RateEstimate(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def _few_prompts(num_prompts: int) -> float:
    """Return by how much a bootstrap over P values is narrower than a t interval of their mean."""
    if num_prompts < 2:
        return 1.0
    return _t_quantile(num_prompts - 1) / _Z * math.sqrt(num_prompts / (num_prompts - 1))


def _t_quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t, by its expansion (Abramowitz & Stegun 26.7.5)."""
    z, n = _Z, freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
