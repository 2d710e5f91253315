"""What a variant changed, image by image, against the original: shifts, flips, and classes that all but vanish.

Every figure comes from the pairs of images that share their noise and have a face in both. Pairs [P, K, K] count the
images of each prompt by their class before (rows) and after (columns).
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fair_adaptors.adaptor.results import ClassChange, Erasure, Estimate, Flips, Shift

from .estimates import QUANTILE, Statistic, estimate_mean, estimate_pooled
from .metrics import log_choose, mean_walk, signed_root

Pairs = NDArray[np.int64]
FALL = 0.5
"""A class is erased when less than this is left of its share."""
LEVEL = 0.05
"""The chance of any false alarm among all that a variant is looked at for."""


def pairs_of(before: NDArray[np.int64], after: NDArray[np.int64], num_classes: int) -> Pairs:
    """Count pairs of images, [P, K, K], from class indices [P, n]; an index of K is an image without a face."""
    both = (before < num_classes) & (after < num_classes)
    cells = np.where(both, before * num_classes + after, -1)
    return (cells[..., None] == np.arange(num_classes**2)).sum(1).reshape(-1, num_classes, num_classes)


def shift(pairs: Pairs) -> Shift:
    """Return how far an attribute moved: the mean over prompts of ½ Σ_k |d_k|, d_k the change of class k's share.

    The floor is exact: swapping before and after at random within pairs makes the change of class k the sum of m_k
    random signs over n, where m_k of the n pairs left or joined the class, and the mean distance of such a walk is
    known.
    """
    mean = _estimated(pairs, _variation, (0.0, 1.0))
    removed = shift_without_floor(pairs)
    return Shift(mean.value, mean.low, mean.high, _shift_floor(pairs), floor_removed=removed)


def _estimated(pairs: Pairs, statistic: Statistic, bounds: tuple[float, float]) -> Estimate:
    number = pairs.shape[-1]
    still = (np.eye(number) / number).ravel()
    return estimate_mean(_cells(pairs), statistic, bounds=bounds, extra=still)


def _cells(pairs: Pairs) -> Pairs:
    """Return the tables of P prompts, of which there may be none, as rows [P, K²]."""
    return pairs.reshape(-1, pairs.shape[-1] ** 2)


def shift_without_floor(pairs: Pairs) -> Estimate:
    """Return how far an attribute moved beyond what chance alone would show.

    It is the root (with its sign) of the mean over prompts of ½ Σ_k (n d_k² − m_k / n) / (n − 1), which is an unbiased
    estimate of half the sum of the squares of the true changes. Where images move from one class to one other class,
    its root is the total variation; where they move between several classes it is less, √(2 / K) of it at least. It is
    a root mean square over prompts, so it can be above the mean. Squares are skewed, which the bootstrap of few
    prompts does not see: the upper end of its interval is ``_most_of_squares``, where that is higher.
    """
    squared = _estimated(pairs, _squared_variation, (-1.0, 1.0))
    high = squared.high  # NaN where no prompt tells anything
    if not math.isnan(high):
        high = min(1.0, max(high, _most_of_squares(_cells(pairs).astype(np.float64))))
    return Estimate(*(signed_root(value) for value in (squared.value, squared.low, high)))


def _moves(cells: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return of cells [..., K²] n [..., 1], the changes d [..., K], and the pairs m that left or joined [..., K]."""
    number = math.isqrt(cells.shape[-1])
    tables = cells.reshape(*cells.shape[:-1], number, number)
    rows, columns = tables.sum(-1), tables.sum(-2)
    total = rows.sum(-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return total, (columns - rows) / total, rows + columns - 2 * np.diagonal(tables, axis1=-2, axis2=-1)


def _variation(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.abs(_moves(cells)[1]).sum(-1) / 2
    return found


def _squared_variation(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the unbiased estimate of ½ Σ_k of the squares of the true changes; NaN of less than two pairs."""
    total, change, moved = _moves(cells)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.float64] = ((total * change**2 - moved / total) / (total - 1)).sum(-1) / 2
    return found


def _most_of_squares(cells: NDArray[np.float64]) -> float:
    """Return the upper end of a 95 % interval for the mean of the squared changes, without the floor.

    With the floor it is a mean of squares, taken for a multiple of a χ² of ν = 2 mean² / variance degrees of freedom
    (Satterthwaite 1946): the end is the mean · ν / χ²(2.5 %, ν). The floor is subtracted afterwards.

    Args:
        cells: pairs of classes, [P, K²].
    """
    total, change, moved = (values[cells.sum(1) > 1] for values in _moves(cells))
    if len(total) < 2:
        return -math.inf
    squares = (total * change**2 / (total - 1)).sum(1) / 2
    floor = float((moved / total / (total - 1)).sum(1).mean()) / 2
    mean, variance = float(squares.mean()), float(squares.var(ddof=1)) / len(squares)
    freedom = 2 * mean**2 / variance if variance else math.inf
    return mean - floor if math.isinf(freedom) else mean * freedom / _low_chi_square(freedom) - floor


def _low_chi_square(freedom: float) -> float:
    """Return the 2.5 % quantile of χ², at most 8 % too low.

    It is the larger one of two that are never above it: by the first term of the distribution's series, good for few
    degrees of freedom, and by Wilson & Hilferty (1931).
    """
    series = 2 * math.exp(2 / freedom * (math.log(0.025) + math.lgamma(freedom / 2 + 1)))
    cube = 1 - 2 / (9 * freedom) - QUANTILE * math.sqrt(2 / (9 * freedom))
    return max(series, freedom * cube**3, 1e-300)


def _shift_floor(pairs: Pairs) -> float:
    told = pairs[pairs.sum((1, 2)) > 0]
    if not len(told):
        return math.nan
    total, _, moved = _moves(told.reshape(len(told), -1).astype(np.float64))
    return float((np.vectorize(mean_walk)(moved).sum(-1) / total[:, 0]).mean() / 2)


def class_changes(pairs: Pairs) -> tuple[ClassChange, ...]:
    """Return the change of each class's share, as a mean over prompts, [K].

    The interval is the wider one of two: of prompts drawn again (``estimate_mean``), and, around the same value, of
    all pairs taken for independent ones (``prompt_changes``). Where few images change, prompts that happen to change
    one way do not show how much chance there is in it.
    """
    return tuple(_class_change(pairs, k) for k in range(pairs.shape[-1]))


def _class_change(pairs: Pairs, k: int) -> ClassChange:
    total = pairs.sum((1, 2))
    left, joined = (counts[:, k] for counts in _left_and_joined(pairs))
    cells = np.stack([left, joined, total - left - joined], 1)
    mean = estimate_mean(cells, _change, bounds=(-1.0, 1.0))
    pooled = _pooled_change(pairs.sum(0), k)
    low = min(mean.low, max(-1.0, mean.value + pooled.low - pooled.value))
    high = max(mean.high, min(1.0, mean.value + pooled.high - pooled.value))
    before, after = (_mean_share(pairs.sum(axis)[total > 0], k) for axis in (2, 1))
    return ClassChange(mean.value, low, high, before=before, after=after)


def _change(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = (cells[..., 1] - cells[..., 0]) / cells.sum(-1)
    return found


def _mean_share(counts: NDArray[np.int64], k: int) -> float:
    return float((counts[:, k] / counts.sum(1)).mean()) if len(counts) else math.nan


def prompt_changes(pairs: Pairs) -> tuple[tuple[ClassChange, ...], ...]:
    """Return the change of each class's share in each prompt, [P][K], with the interval of Agresti & Min (2005).

    That is Wald's for the difference of paired shares, after half a pair is added to each of the four cells that tell
    who left, who joined, who stayed and who was never of the class.
    """
    return tuple(tuple(_pooled_change(table, k) for k in range(len(table))) for table in pairs)


def _pooled_change(table: NDArray[np.int64], k: int) -> ClassChange:
    total, stayed = int(table.sum()), int(table[k, k])
    left, joined = int(table[k].sum()) - stayed, int(table[:, k].sum()) - stayed
    if not total:
        return ClassChange(*[math.nan] * 5)
    change, more = (joined - left) / total, total + 2
    centre = (joined - left) / more
    half = QUANTILE * math.sqrt(left + joined + 1 - (joined - left) ** 2 / more) / more
    return ClassChange(
        change,
        max(-1.0, min(change, centre - half)),
        min(1.0, max(change, centre + half)),
        before=(stayed + left) / total,
        after=(stayed + joined) / total,
    )


def flips(classes: Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64], int]]) -> Iterator[Flips]:
    """Yield how often each attribute's class changed where another one's did, and where it did not.

    Only images whose class is known of both attributes count.

    Args:
        classes: of each attribute the class indices before and after, [P, n], and K, which stands for no class.
    """
    told = {name: (before < number) & (after < number) for name, (before, after, number) in classes.items()}
    changed = {name: before != after for name, (before, after, _) in classes.items()}
    for name, beside in itertools.permutations(classes, 2):
        both, changes = told[name] & told[beside], changed[name]
        moved = changed[beside]
        yield Flips(name, beside, _rate_where(changes, both & moved), _rate_where(changes, both & ~moved))


def _rate_where(hits: NDArray[np.bool_], counted: NDArray[np.bool_]) -> Estimate:
    """Return the share of the images that count, over all prompts."""
    cells = np.stack([(hits & counted).sum(1), (~hits & counted).sum(1)], 1)
    return estimate_pooled(cells, lambda seen: _share_of_first(seen.sum(-2)), bounds=(0.0, 1.0))


def _share_of_first(seen: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.float64] = seen[..., 0] / seen.sum(-1)
    return found


def erasures(
    attributes: Mapping[str, Pairs], names: Mapping[str, Sequence[str]], wanted: Mapping[str, Sequence[float]]
) -> tuple[Erasure, ...]:
    """Return the classes that all but vanished, over all prompts and in each prompt.

    A class is erased where less than half of its share is left and the interval of its change is below zero. Where a
    variant was made to change an attribute, half of what its target asks for is enough.

    Many classes and prompts are looked at, so the alarms are held family-wise: each needs a sign test below ``LEVEL``
    after Holm's correction (1979) for all of them. The test is exact: where images change their class without a
    direction, each of the pairs that left or joined a class did either with a chance of one half. Prompts without a
    pair are not looked at.

    Args:
        attributes: the pairs of each, [P, K, K].
        names: of each attribute's classes, [K].
        wanted: target shares [K] of the attributes that the variant was made for.
    """
    looked: list[tuple[str, int, int | None]] = []
    p_values = []
    for name, pairs in attributes.items():
        left, joined = _left_and_joined(pairs)
        prompts = np.flatnonzero(pairs.sum((1, 2))).tolist()
        for k, p in itertools.product(range(pairs.shape[-1]), (None, *prompts) if prompts else ()):
            looked.append((name, k, p))
            rows = slice(None) if p is None else p
            p_values.append(sign_test(int(left[rows, k].sum()), int(joined[rows, k].sum())))
    found = []
    for (name, k, p), p_value in zip(looked, holm(p_values), strict=True):
        if p_value < LEVEL:
            pairs = attributes[name]
            change = _class_change(pairs, k) if p is None else _pooled_change(pairs[p], k)
            least = min(change.before, wanted[name][k]) if name in wanted else change.before
            if change.high < 0 and change.after < FALL * least:
                found.append(Erasure(name, names[name][k], p, change, p_value))
    return tuple(found)


def _left_and_joined(pairs: Pairs) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    stayed = np.diagonal(pairs, axis1=1, axis2=2)
    return pairs.sum(2) - stayed, pairs.sum(1) - stayed


def sign_test(left: int, joined: int) -> float:
    """Return the chance that as many or more of the images that changed leave a class, if either way is as likely."""
    total = left + joined
    return math.fsum(math.exp(log_choose(total, m) - total * math.log(2)) for m in range(left, total + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values after Holm's correction (1979): the chance of any false alarm is that of the level."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, worst = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted
