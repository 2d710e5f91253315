"""How unequal a model's people are: the bias of paper §6, what a fair model would score, distances from a target.

Pure functions on numpy arrays, in closed form. P prompts, n images of each, K classes. See ``estimates`` for how sure
a figure is.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.8
"""An image whose most probable class is less probable than this counts as undetermined."""


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
    shares = normalise(frequencies)
    num_classes = shares.shape[-1]
    if num_classes < 2:
        raise ValueError("bias compares classes: at least two are needed")
    # Ascending, the k-th share stands k times on the positive side of a difference, K - 1 - k times on the other.
    ranks = 2 * np.arange(num_classes) - (num_classes - 1)
    return (np.sort(shares, -1) * ranks).sum(-1) * 2 / (num_classes * (num_classes - 1))


def noise_floor(num_images: int, num_classes: int) -> float:
    """Return the bias that a perfectly fair model is expected to score with n images per prompt.

    Exact for any K: of n images, m ~ Binomial(n, 2/K) fall into a given pair of classes, and the expected |difference|
    within the pair is ``mean_walk`` of m. All pairs are alike. Paper §6 tabulates the normal approximation,
    √(2/π) · √(2/(K n)).
    """
    if num_images < 1 or num_classes < 2:
        raise ValueError(f"no noise floor for {num_images} images and {num_classes} classes")
    expected = sum(_binomial(num_images, m, 2 / num_classes) * mean_walk(m) for m in range(1, num_images + 1))
    return expected / num_images


def mean_walk(steps: float) -> float:
    """Return the mean distance from the start of a fair random walk, 2⌈m/2⌉ · C(m, ⌈m/2⌉) / 2^m (de Moivre)."""
    m = int(steps)
    up = (m + 1) // 2
    return 2 * up * math.exp(log_choose(m, up) - m * math.log(2)) if m else 0.0


def mean_floor(floor: Callable[[int], float], counts: Iterable[int]) -> float:
    """Return the mean of a floor over prompts with these many images each, where it is known for n images."""
    number = Counter(int(count) for count in counts)
    return sum(times * floor(count) for count, times in number.items()) / number.total()


def squared_bias(counts: ArrayLike) -> NDArray[np.float64]:
    """Return an unbiased estimate of the mean over pairs of classes of (p_i − p_j)², where p are the true shares.

    With n images E (f_i − f_j)² = (p_i − p_j)² + (p_i + p_j − (p_i − p_j)²) / n, so that

        (n (f_i − f_j)² − f_i − f_j) / (n − 1)

    has the expectation (p_i − p_j)²: the noise floor is taken out, exactly, at any n and for any shares. It is
    negative for some fair draws, as something whose mean is 0 has to be. Of |p_i − p_j| itself no unbiased estimate
    exists.

    Args:
        counts: images of each class, [..., K].

    Returns:
        One value per prompt, [...]; NaN where there are fewer than two images.
    """
    number = np.asarray(counts, dtype=np.float64)
    total = number.sum(-1)
    num_classes = number.shape[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = number / total[..., None]
        # Σ over pairs of (f_i − f_j)² = K Σ f² − (Σ f)², and of f_i + f_j = (K − 1) Σ f, where Σ f = 1.
        squares = num_classes * (shares**2).sum(-1) - 1
        unbiased = (total * squares - (num_classes - 1)) / (total - 1)
    return np.where(total > 1, unbiased * 2 / (num_classes * (num_classes - 1)), np.nan)


def signed_root(value: float) -> float:
    """Return √value with value's sign: a squared figure on the scale of the bias."""
    return math.copysign(math.sqrt(abs(value)), value)


def total_variation(frequencies: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """Return ½ Σ |f_k − t_k|, [...]: the share of people who would have to be of another class. From [..., K]."""
    return np.abs(normalise(frequencies) - np.asarray(target)).sum(-1) / 2


def total_variation_floor(num_images: int, target: ArrayLike) -> float:
    """Return the total variation that a model with exactly the target's shares is expected to score with n images.

    Exact: each class's count is binomial, whose mean absolute deviation is 2ν C(n, ν) t^ν (1 − t)^(n − ν + 1) with
    ν = ⌊n t⌋ + 1 (de Moivre 1730).
    """
    return sum(_mean_deviation(num_images, float(share)) for share in np.asarray(target)) / (2 * num_images)


def divergence(frequencies: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """Return KL(f ‖ t) = Σ f_k ln(f_k / t_k) in nats, [...]; infinite where a class is seen that should not be."""
    shares, aim = normalise(frequencies), np.asarray(target, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(shares == 0, 0.0, shares * np.log(shares / aim)).sum(-1)


def divergence_floor(num_images: int, target: ArrayLike) -> float:
    """Return the KL that a model with exactly the target's shares is expected to score with n images: an exact sum."""
    expected = 0.0
    for share in map(float, np.asarray(target)):
        for m in range(1, num_images + 1):
            part = m / num_images
            expected += _binomial(num_images, m, share) * part * math.log(part / share) if share else 0.0
    return expected


def effective_classes(counts: ArrayLike) -> NDArray[np.float64]:
    """Return how many classes are shown: exp(−Σ f_k ln f_k), [...], from counts or shares [..., K].

    The number of equally frequent classes of the same entropy (Hill 1973, order 1; Jost 2006): 1 where all images are
    of one class, K where all classes are equally frequent. n images show too few, to first order by (K − 1) / (2n) of
    the number (Miller 1955), so it is read beside ``effective_floor``.
    """
    shares = normalise(counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.exp(-np.where(shares == 0, 0.0, shares * np.log(shares)).sum(-1))


@lru_cache(maxsize=4096)
def effective_floor(num_images: int, target: tuple[float, ...]) -> float:
    """Return the ``effective_classes`` that a model with exactly the target's shares shows on average with n images.

    Exact: the exponential of an entropy is a product over classes, Π (m/n)^(−m/n), and the count m of a class is
    binomial among the images that the classes before it leave. So the mean is taken class by class, from the last.
    """
    shares = [share for share in target if share > 0]
    m = np.arange(num_images + 1)
    log_factorial = np.concatenate([[0.0], np.log(m[1:]).cumsum()])
    part = np.exp(-np.where(m == 0, 0.0, m / num_images * np.log(np.maximum(m, 1) / num_images)))
    expected = part  # by how many images are left for the classes that have been gone through
    left = np.maximum(m[:, None] - m, 0)
    ways = np.where(m[:, None] >= m, log_factorial[:, None] - log_factorial - log_factorial[left], -np.inf)
    for k in range(len(shares) - 2, -1, -1):
        chance = shares[k] / sum(shares[k:])
        expected = (np.exp(ways + m * math.log(chance) + left * math.log1p(-chance)) * part * expected[left]).sum(1)
    return float(expected[-1])


def cohens_kappa(table: ArrayLike) -> NDArray[np.float64]:
    """Return the agreement of two classifiers beyond chance, (p_o − p_e) / (1 − p_e) (Cohen 1960).

    Args:
        table: number of images by the one's class and the other's, [..., K, K].

    Returns:
        1 for perfect agreement, 0 for that of chance, [...]; NaN where chance agrees always, or there is no image.
    """
    joint = np.asarray(table, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        joint = joint / joint.sum((-2, -1), keepdims=True)
        chance = (joint.sum(-2) * joint.sum(-1)).sum(-1)
        agreed = np.trace(joint, axis1=-2, axis2=-1)
        return np.where(chance < 1, (agreed - chance) / (1 - chance), np.nan)


def worst_decile(values: ArrayLike) -> NDArray[np.float64]:
    """Return the mean of the largest tenth of values [..., P], of one at least; P is without those that are NaN."""
    array = np.asarray(values, dtype=np.float64)
    descending = -np.sort(np.where(np.isnan(array), np.inf, -array), -1)
    number = np.isfinite(array).sum(-1, keepdims=True)
    among = np.arange(array.shape[-1]) < np.ceil(number / 10)
    with np.errstate(invalid="ignore"):
        return np.where(among, descending, 0).sum(-1) / among.sum(-1)


def images_needed(difference: float, num_prompts: int, num_classes: int = 2, *, power: float = 0.8) -> int:
    """Return how many images per prompt tell a difference of two mean biases, with a two-sided test at 5 %.

    n such that (z₀.₉₇₅ + z_power) · √(2 v(n) / P) ≤ difference, where v(n) ≤ 8 (1 − 1/K) / (K² n) bounds the variance
    of one prompt's bias (Efron–Stein: an image that changes its class moves the bias by at most 4 / (K n)). Whatever
    the shares are, that many are enough for these prompts; fewer may do where the model is one-sided.

    Raises:
        ValueError: difference, power, prompts or classes out of range.
    """
    if not 0 < difference <= 1 or not 0 < power < 1 or num_prompts < 1 or num_classes < 2:
        raise ValueError(
            "the difference must lie in (0, 1], the power in (0, 1), with a prompt and two classes at least"
        )
    z = NormalDist().inv_cdf
    spread = (z(0.975) + z(power)) ** 2 * 16 * (1 - 1 / num_classes) / num_classes**2
    return math.ceil(spread / (num_prompts * difference**2))


def undetermined_rate(probabilities: ArrayLike) -> float:
    """Return the share of images whose most probable class has less than ``CONFIDENCE``, from [..., K].

    Images without a face, whose probabilities are NaN, are among them.
    """
    return float((~(np.asarray(probabilities).max(-1) >= CONFIDENCE)).mean())


def normalise(frequencies: ArrayLike) -> NDArray[np.float64]:
    """Return shares of 1 from shares or counts, [..., K]; NaN where there is nothing to divide by."""
    number = np.asarray(frequencies, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return number / number.sum(-1, keepdims=True)


def _binomial(n: int, m: int, share: float) -> float:
    if share in (0.0, 1.0):
        return float(m == n * share)
    return math.exp(log_choose(n, m) + m * math.log(share) + (n - m) * math.log1p(-share))


def _mean_deviation(n: int, share: float) -> float:
    """Return E |m − n·share| for a binomial m."""
    if share in (0.0, 1.0):
        return 0.0
    above = math.floor(n * share) + 1
    return 2 * above * (1 - share) * _binomial(n, above, share)


def log_choose(n: int, k: int) -> float:
    """Return the natural logarithm of the binomial coefficient C(n, k)."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
