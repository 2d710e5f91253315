"""Facts about the bias figure, its noise floor and its interval."""

import itertools
import math

import numpy as np
import pytest

from fair_adaptors.evaluation.metrics import (
    bias,
    bias_interval,
    estimate_bias,
    estimate_rate,
    frequencies,
    noise_floor,
    undetermined_rate,
)

PAPER_FLOORS = {
    2: {60: 0.103, 80: 0.089, 160: 0.063, 250: 0.050, 1000: 0.025},
    4: {60: 0.073, 80: 0.063, 160: 0.045, 250: 0.036, 1000: 0.018},
    8: {60: 0.052, 80: 0.045, 160: 0.032, 250: 0.025, 1000: 0.013},
}


@pytest.mark.parametrize("num_classes", [2, 3, 4, 8])
def test_bias_is_the_mean_over_pairs(num_classes: int) -> None:
    shares = np.random.default_rng(0).dirichlet(np.ones(num_classes), size=5)
    pairs = list(itertools.combinations(range(num_classes), 2))
    expected = np.mean([abs(shares[:, i] - shares[:, j]) for i, j in pairs], axis=0)
    assert np.allclose(bias(shares), expected)
    assert np.allclose(bias(np.full(num_classes, 7)), 0), "equal counts of every class are no bias"
    assert np.allclose(bias(np.eye(num_classes)), 2 / num_classes), "one class alone is the most there can be"


def test_bias_takes_counts_and_does_not_know_the_order_of_the_classes() -> None:
    assert bias([30, 10]) == pytest.approx(0.5)
    assert bias([30, 10, 5, 5]) == pytest.approx(bias([5, 30, 5, 10]))
    with pytest.raises(ValueError, match="at least two"):
        bias([3])


def test_frequencies_count_classes_also_those_that_never_appear() -> None:
    assert np.allclose(frequencies([[0, 0, 1, 0], [1, 1, 1, 1]], 3), [[0.75, 0.25, 0], [0, 1, 0]])


@pytest.mark.parametrize("num_classes", PAPER_FLOORS)
def test_the_floor_agrees_with_the_papers_approximation(num_classes: int) -> None:
    for num_images, tabulated in PAPER_FLOORS[num_classes].items():
        formula = math.sqrt(2 / math.pi) * math.sqrt(2 / (num_classes * num_images))
        assert noise_floor(num_images, num_classes) == pytest.approx(formula, rel=0.02)
        assert noise_floor(num_images, num_classes) == pytest.approx(tabulated, abs=0.0015)


@pytest.mark.parametrize(("num_images", "num_classes"), [(1, 2), (2, 2), (7, 2), (8, 4), (5, 3), (64, 2), (32, 8)])
def test_the_floor_is_what_fair_draws_score(num_images: int, num_classes: int) -> None:
    draws = np.random.default_rng(1).multinomial(num_images, np.full(num_classes, 1 / num_classes), size=100_000)
    scores = bias(draws)
    assert noise_floor(num_images, num_classes) == pytest.approx(scores.mean(), abs=5 * scores.std() / 300 + 1e-9)


def test_the_floor_of_a_few_images_by_hand() -> None:
    assert noise_floor(1, 2) == pytest.approx(1)
    assert noise_floor(2, 2) == pytest.approx(0.5), "two images differ or not, with equal chance"
    with pytest.raises(ValueError, match="0 images"):
        noise_floor(0, 2)


@pytest.mark.parametrize(
    ("num_prompts", "num_classes", "concentration"),
    [(1, 2, 1e6), (16, 2, 1e6), (16, 2, 1.0), (16, 4, 1e6), (16, 4, 2.0), (50, 2, 0.3)],
)
def test_the_interval_covers_what_the_measurement_gives_on_average(
    num_prompts: int, num_classes: int, concentration: float
) -> None:
    """Prompts whose true shares are Dirichlet: all fair (1e6), unequal, or almost all of one class."""
    rng = np.random.default_rng(2)
    num_images, trials = 32, 300

    def measure(count: int) -> np.ndarray:
        shares = rng.dirichlet(np.full(num_classes, concentration), size=count)
        return (rng.random((count, num_images, 1)) > shares.cumsum(1)[:, None, :-1]).sum(-1)

    expected = bias(frequencies(measure(20_000), num_classes)).mean()
    covered = 0
    for _ in range(trials):
        low, high = bias_interval(measure(num_prompts), num_classes, generator=rng, num_resamples=400)
        covered += low <= expected <= high
    assert covered / trials >= 0.92


def test_the_interval_is_a_function_of_its_generator_and_holds_the_value() -> None:
    classes = np.random.default_rng(3).integers(2, size=(16, 32))
    first, second = (bias_interval(classes, 2, generator=np.random.default_rng(9)) for _ in range(2))
    assert first == second
    assert first[0] <= bias(frequencies(classes, 2)).mean() <= first[1]
    assert bias_interval(np.zeros((4, 8), int), 2, generator=np.random.default_rng(0)) == (1.0, 1.0)


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


def test_a_rate_keeps_its_doubt_where_every_image_is_right() -> None:
    sure = estimate_rate(np.ones((8, 16), bool))
    assert sure.value == sure.high == 1
    assert 0.95 < sure.low < 1


def test_images_of_prompts_that_differ_are_worth_less() -> None:
    alike = np.tile([True, False], (16, 8))
    apart = np.repeat([True, False], 8)[:, None].repeat(16, 1)
    narrow, wide = estimate_rate(alike), estimate_rate(apart)
    assert narrow.value == wide.value == 0.5
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
