"""Facts about the intervals: they cover the truth as often as they say, alone and between two models."""

import math

import numpy as np
import pytest

from fair_adaptors.evaluation.estimates import (
    Statistic,
    count_classes,
    estimate_bias,
    estimate_mean,
    estimate_pooled,
    estimate_rate,
    estimate_values,
)
from fair_adaptors.evaluation.metrics import (
    bias,
    divergence,
    effective_classes,
    noise_floor,
    squared_bias,
    total_variation,
    total_variation_floor,
    undetermined_rate,
    worst_decile,
)
from tests.sizes import TRIALS

NUM_IMAGES = 32


@TRIALS
@pytest.mark.parametrize(
    ("num_prompts", "num_classes", "concentration"),
    [(16, 2, 1e6), (16, 2, 1.0), (16, 4, 1e6), (50, 2, 0.3), (50, 4, 2.0)],
)
@pytest.mark.parametrize(
    "statistic", [bias, squared_bias, effective_classes, lambda counts: total_variation(counts, 1 / counts.shape[-1])]
)
def test_the_interval_covers_what_the_measurement_gives_on_average(
    trials: int, num_prompts: int, num_classes: int, concentration: float, statistic: Statistic
) -> None:
    """Prompts whose true shares are Dirichlet: all fair (1e6), unequal, or almost all of one class."""
    rng = np.random.default_rng(8)

    def measure(count: int) -> np.ndarray:
        return rng.multinomial(NUM_IMAGES, rng.dirichlet(np.full(num_classes, concentration), size=count))

    expected = statistic(measure(40_000).astype(float)).mean()
    found = [estimate_mean(measure(num_prompts), statistic, generator=rng, num_resamples=400) for _ in range(trials)]
    covered = np.mean([estimate.low <= expected <= estimate.high for estimate in found])
    assert 0.92 <= covered <= 0.98
    if statistic is bias:
        assert 0.93 <= covered <= 0.97


@TRIALS
@pytest.mark.parametrize("num_prompts", [2, 3, 5, 8, 12])
@pytest.mark.parametrize(("num_classes", "concentration"), [(2, 1e6), (2, 1.0), (2, 0.1), (2, 0.03), (4, 0.3)])
def test_the_interval_of_few_prompts_does_not_miss(
    trials: int, num_prompts: int, num_classes: int, concentration: float
) -> None:
    """Also of prompts that are nearly one-sided (0.1, 0.03), where they happen to look alike; it may be too wide."""
    rng = np.random.default_rng(13)

    def measure(count: int) -> np.ndarray:
        return rng.multinomial(NUM_IMAGES, rng.dirichlet(np.full(num_classes, concentration), size=count))

    expected = bias(measure(40_000).astype(float)).mean()
    found = [
        estimate_mean(measure(num_prompts), bias, generator=rng, bounds=(0, 2 / num_classes), num_resamples=200)
        for _ in range(trials)
    ]
    assert np.mean([estimate.low <= expected <= estimate.high for estimate in found]) >= 0.93
    widths = np.mean([estimate.high - estimate.low for estimate in found])
    assert widths < 0.99 * 2 / num_classes, "an interval of all there can be would cover, too"


@TRIALS
def test_a_single_prompt_has_an_interval_over_its_images(trials: int) -> None:
    rng = np.random.default_rng(9)
    counts = rng.multinomial(NUM_IMAGES, [0.8, 0.2], size=(trials, 1))
    expected = bias(rng.multinomial(NUM_IMAGES, [0.8, 0.2], size=40_000)).mean()
    found = [estimate_mean(each, bias, generator=rng, num_resamples=400) for each in counts]
    assert np.mean([estimate.low <= expected <= estimate.high for estimate in found]) >= 0.92


@TRIALS
def test_a_difference_on_the_same_noise_is_surer_than_two_figures_apart(trials: int) -> None:
    """Cells are pairs of classes. Where most images stay what they were, the pairs know it."""
    rng = np.random.default_rng(10)

    def measure(num_prompts: int) -> np.ndarray:
        share = rng.uniform(0.1, 0.9, size=(num_prompts, 1))
        before = rng.random((num_prompts, NUM_IMAGES)) < share
        after = np.where(rng.random(before.shape) < 0.15, rng.random(before.shape) < 0.5, before)
        return count_classes(2 * before + after, 4)

    def fall(counts: np.ndarray) -> np.ndarray:
        table = counts.reshape(*counts.shape[:-1], 2, 2)
        return bias(table.sum(-2)) - bias(table.sum(-1))

    def one(counts: np.ndarray) -> np.ndarray:
        return bias(counts.reshape(*counts.shape[:-1], 2, 2).sum(-1))

    expected = fall(measure(40_000).astype(float)).mean()
    found = [estimate_mean(measure(16), fall, generator=rng, num_resamples=400) for _ in range(trials)]
    assert 0.92 <= np.mean([e.low <= expected <= e.high for e in found]) <= 0.98
    alone = estimate_mean(measure(16), one, generator=rng)
    assert np.mean([e.high - e.low for e in found]) < (alone.high - alone.low) / 2


def test_the_interval_is_a_function_of_its_generator_and_holds_the_value() -> None:
    counts = count_classes(np.random.default_rng(3).integers(2, size=(16, 32)), 2)
    first, second = (estimate_mean(counts, bias, generator=np.random.default_rng(9)) for _ in range(2))
    assert first == second and first.low <= first.value <= first.high
    alike = estimate_mean(np.tile([8, 0], (16, 1)), bias, generator=np.random.default_rng(0), bounds=(0, 1))
    assert alike.value == alike.high == 1 and 0.8 < alike.low < 0.95, "a seventeenth prompt may not be so"
    few = estimate_mean([[8, 0]], bias, generator=np.random.default_rng(0), bounds=(0, 1))
    assert few.value == few.high == 1 and few.low < 0.9, "a prompt whose images are all alike may not stay so"


def test_an_infinite_value_is_not_left_out() -> None:
    found = estimate_mean(
        [[8, 0], [7, 1]], lambda counts: divergence(counts, [1, 0]), generator=np.random.default_rng(0)
    )
    assert found.value == math.inf and math.isnan(found.low)


@pytest.mark.parametrize("concentration", [1e6, 1.0])
@pytest.mark.parametrize("num_prompts", [4, 16, 50])
def test_the_interval_of_the_worst_prompts_is_wide_enough(num_prompts: int, concentration: float) -> None:
    rng = np.random.default_rng(12)

    def worst(counts: np.ndarray) -> np.ndarray:
        return worst_decile(bias(counts))

    def measure(count: int) -> np.ndarray:
        return rng.multinomial(NUM_IMAGES, rng.dirichlet(np.full(2, concentration), size=(count, num_prompts)))

    expected = worst(measure(4000).astype(float)).mean()
    found = [estimate_pooled(each, worst, generator=rng, bounds=(0, 1), num_resamples=300) for each in measure(200)]
    assert np.mean([estimate.low <= expected <= estimate.high for estimate in found]) >= 0.91


def test_prompts_without_an_image_that_counts_are_left_out() -> None:
    generator = np.random.default_rng(0)
    some = estimate_mean([[8, 0], [0, 0]], bias, generator=generator)
    assert some.value == 1
    assert math.isnan(estimate_mean([[0, 0]], bias, generator=generator).low)
    values = estimate_values([[1.0, math.nan], [math.nan, math.nan]], generator=generator)
    assert (values.value, values.low, values.high) == (1, 1, 1)


@TRIALS
@pytest.mark.parametrize("between", [0.0, 1.0])
def test_the_interval_of_values_covers_their_mean(trials: int, between: float) -> None:
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(trials):
        values = between * rng.standard_normal((12, 1)) + rng.standard_normal((12, 20))
        estimate = estimate_values(values, generator=rng, num_resamples=400)
        covered += estimate.low <= 0 <= estimate.high
    assert 0.92 <= covered / trials <= 0.98


def test_an_estimate_says_everything() -> None:
    probs = np.full((4, 10, 2), 0.5)
    probs[..., 0], probs[..., 1] = 0.9, 0.1
    probs[0, :4] = [0.3, 0.7]
    estimate = estimate_bias(probs)
    assert estimate.value == pytest.approx((0.2 + 3) / 4)
    assert estimate.low <= estimate.value <= estimate.high
    assert estimate.floor == noise_floor(10, 2)
    assert (estimate.num_prompts, estimate.images_per_prompt) == (4, 10)
    assert estimate.undetermined == undetermined_rate(probs) == pytest.approx(0.1)


def test_of_an_uneven_target_the_distance_from_it_is_estimated() -> None:
    young = np.tile(np.arange(20) < 15, (4, 1))
    probs = np.stack([np.where(young, 0.9, 0.1), np.where(young, 0.1, 0.9)], -1)
    there, even = (estimate_bias(probs, target=target) for target in ((0.75, 0.25), (0.5, 0.5)))
    assert there.value == 0 and there.floor == total_variation_floor(20, (0.75, 0.25))
    assert even == estimate_bias(probs) and even.value == pytest.approx(0.5)
    assert estimate_bias(probs, target=(0.25, 0.75)).value == pytest.approx(0.5)


def test_a_rate_keeps_its_doubt_where_every_image_is_right() -> None:
    sure = estimate_rate(np.ones((8, 16), bool))
    assert sure.value == sure.high == 1
    assert 0.95 < sure.low < 1


def rates_covered(share: float, alike: float, num_prompts: int) -> float:
    """How often the interval of a rate holds it, where two images of one prompt correlate by ``alike``."""
    rng = np.random.default_rng(14)
    spread = (1 - alike) / alike if alike else 0.0
    size = (2000, num_prompts)
    shares = rng.beta(share * spread, (1 - share) * spread, size=size) if alike else np.full(size, share)
    hits = rng.random((*shares.shape, 20)) < shares[..., None]
    return float(np.mean([found.low <= share <= found.high for found in map(estimate_rate, hits)]))


@pytest.mark.parametrize("num_prompts", [16, 50])
@pytest.mark.parametrize("alike", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_the_interval_of_a_rate_covers_it(share: float, alike: float, num_prompts: int) -> None:
    assert 0.93 <= rates_covered(share, alike, num_prompts) <= 0.97


@pytest.mark.parametrize("num_prompts", [2, 4, 8])
def test_the_interval_of_a_rate_of_few_prompts_is_rather_too_wide(num_prompts: int) -> None:
    """That prompts do not differ cannot be known from few."""
    assert rates_covered(0.5, 0.0, num_prompts) >= 0.95 and rates_covered(0.5, 0.1, num_prompts) >= 0.93
    assert rates_covered(0.98, 0.0, num_prompts) >= 0.95


def test_images_of_prompts_that_differ_are_worth_less() -> None:
    alike = np.tile([True, False], (16, 8))
    apart = np.repeat([True, False], 8)[:, None].repeat(16, 1)
    narrow, wide = estimate_rate(alike), estimate_rate(apart)
    assert narrow.value == wide.value == 0.5
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
