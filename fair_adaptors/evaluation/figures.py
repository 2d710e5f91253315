"""Every figure of one target, as one classifier sees one variant: bias, distances from its shares, changes."""

import math
from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np

from fair_adaptors.adaptor.results import Change, ClassShare, Estimate, Figures, FlooredEstimate, PromptFigures

from . import beside, metrics
from .estimates import count_classes, estimate_mean, estimate_pooled, estimate_rate
from .spec import Target
from .store import Array, Record

FAIR_DRAWS = 4000
"""Fair models drawn for the floor of the worst prompts, which has no closed form."""
UNTOLD = Estimate(math.nan, math.nan, math.nan)


def figures(target: Target, record: Record, *, original: Record, classifier: str, leaves_open: Array) -> Figures:
    """Return every figure of a target, over the prompts that leave it open.

    Args:
        target: what is counted.
        record: of the variant.
        original: the record of the original model, which may be the same.
        classifier: whose classes count.
        leaves_open: which prompts name no class of the target, [P] booleans. The others are to show what they name, so
            they have no bias, and only their shares are told.
    """
    number, aim = len(target.shares), np.array(target.shares)
    classes = record.classes(classifier, target.attributes)
    every = count_classes(classes, number)
    counts = every[leaves_open]
    valid = counts.sum(1)
    valid = valid[valid > 0]

    def mean(statistic: Callable[[Array], Array], bounds: tuple[float, float]) -> Estimate:
        return estimate_mean(counts, statistic, bounds=bounds)

    def floored(found: Estimate, of: Callable[[int], float]) -> FlooredEstimate:
        floor = metrics.mean_floor(of, valid) if len(valid) else math.nan
        return FlooredEstimate(found.value, found.low, found.high, floor)

    def share(k: int) -> ClassShare:
        found = mean(partial(_share, k), (0.0, 1.0))
        return ClassShare(found.value, found.low, found.high, target=float(aim[k]))

    squared = mean(metrics.squared_bias, (-1.0, 2 / number))
    worst = estimate_pooled(counts, _worst_bias, bounds=(0.0, 2 / number))
    return Figures(
        bias=floored(mean(metrics.bias, (0.0, 2 / number)), lambda n: metrics.noise_floor(n, number)),
        squared_bias=squared,
        floor_removed=Estimate(*(metrics.signed_root(value) for value in (squared.value, squared.low, squared.high))),
        total_variation=floored(
            mean(lambda seen: metrics.total_variation(seen, aim), (0.0, 1.0)),
            lambda n: metrics.total_variation_floor(n, aim),
        ),
        divergence=floored(
            mean(lambda seen: metrics.divergence(seen, aim), (0.0, math.inf)),
            lambda n: metrics.divergence_floor(n, aim),
        ),
        frequencies=tuple(share(k) for k in range(number)),
        worst_decile=FlooredEstimate(worst.value, worst.low, worst.high, _worst_floor(valid, number)),
        undetermined=estimate_rate(record.undetermined(classifier, target.attributes, metrics.CONFIDENCE)),
        prompts=tuple(
            _of_prompt(tuple(row), target.shares if is_open else ())
            for row, is_open in zip(every.tolist(), leaves_open, strict=True)
        ),
        effective_classes=floored(
            mean(metrics.effective_classes, (1.0, number)), lambda n: metrics.effective_floor(n, target.shares)
        ),
        change=(
            None
            if record is original
            else _changes(original.classes(classifier, target.attributes), classes, aim, leaves_open)
        ),
    )


@lru_cache(maxsize=4096)
def _of_prompt(counts: tuple[int, ...], shares: tuple[float, ...]) -> PromptFigures:
    """Return what is told of one prompt. Many have the same counts, so each is reckoned once.

    Args:
        counts: images of each class, [K].
        shares: that are wanted, [K]; none for a prompt that names the class.
    """
    number, total = len(counts), sum(counts)

    def estimate(statistic: Callable[[Array], Array], most: float) -> Estimate:
        return estimate_mean([counts], statistic, bounds=(0.0, most)) if shares else UNTOLD

    return PromptFigures(
        images=total,
        bias=estimate(metrics.bias, 2 / number),
        total_variation=estimate(lambda seen: metrics.total_variation(seen, shares), 1.0),
        frequencies=tuple(count / max(1, total) for count in counts),
    )


def _changes(before: Array, after: Array, aim: Array, leaves_open: Array) -> Change:
    """Return after minus before, from the pairs of images that share their noise and have a face in both.

    Where fewer images have a face the noise floor is higher: figures of unlike numbers of images would seem to change.
    """
    number = len(aim)
    both = (before < number) & (after < number)
    before, after = (np.where(both, classes, number) for classes in (before, after))
    cells = count_classes(before * (number + 1) + after, (number + 1) ** 2)[leaves_open]
    pairs = beside.pairs_of(before, after, number)
    counted = both & leaves_open[:, None]

    def change(statistic: Callable[[Array], Array], most: float) -> Estimate:
        def difference(seen: Array) -> Array:
            table = seen.reshape(*seen.shape[:-1], number + 1, number + 1)
            return statistic(table.sum(-2)[..., :number]) - statistic(table.sum(-1)[..., :number])

        same = np.eye(number + 1).ravel() / number
        same[-1] = 0.0
        return estimate_mean(cells, difference, bounds=(-most, most), extra=same)

    return Change(
        bias=change(metrics.bias, 2 / number),
        total_variation=change(lambda seen: metrics.total_variation(seen, aim), 1.0),
        same_class=float((before == after)[counted].mean()) if counted.any() else math.nan,
        shift=beside.shift(pairs[leaves_open]),
        classes=beside.class_changes(pairs[leaves_open]),
        prompts=beside.prompt_changes(pairs),
        effective_classes=change(metrics.effective_classes, number - 1.0),
    )


def _share(k: int, counts: Array) -> Array:
    return metrics.normalise(counts)[..., k]


def _worst_bias(counts: Array) -> Array:
    return metrics.worst_decile(metrics.bias(counts))


def _worst_floor(valid: Array, number: int) -> float:
    """Return what the worst tenth of the prompts scores on average where every prompt is fair."""
    if not len(valid):
        return math.nan
    drawn = np.random.default_rng(0).multinomial(valid, [1 / number] * number, size=(FAIR_DRAWS, len(valid)))
    return float(_worst_bias(drawn).mean())
