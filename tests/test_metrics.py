"""Facts about the figures: bias, noise floors, distances from a target, agreement."""

import itertools
import math

import numpy as np
import pytest

from fair_adaptors.evaluation.metrics import (
    bias,
    cohens_kappa,
    divergence,
    divergence_floor,
    frequencies,
    images_needed,
    mean_floor,
    noise_floor,
    signed_root,
    squared_bias,
    total_variation,
    total_variation_floor,
    worst_decile,
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


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.9, 0.1], [0.25] * 4, [0.7, 0.2, 0.1]])
@pytest.mark.parametrize("num_images", [2, 8, 60])
def test_the_squared_bias_has_the_expectation_of_the_truth(shares: list[float], num_images: int) -> None:
    """Fair and biased samplers, few images and many: the mean over trials is the truth within its error."""
    pairs = itertools.combinations(shares, 2)
    truth = np.mean([(a - b) ** 2 for a, b in pairs])
    found = squared_bias(np.random.default_rng(1).multinomial(num_images, shares, size=40_000))
    assert abs(found.mean() - truth) < 4 * found.std() / 200


def test_the_root_of_the_mean_squared_bias_is_near_the_truth_with_fifty_prompts() -> None:
    rng = np.random.default_rng(2)
    for share in (0.5, 0.6, 0.95):
        counts = rng.binomial(60, share, size=(500, 50))
        squared = squared_bias(np.stack([counts, 60 - counts], -1)).mean(1)
        roots = np.array([signed_root(value) for value in squared])
        assert abs(roots.mean() - abs(2 * share - 1)) < 0.01
        raw = np.abs(2 * counts / 60 - 1).mean()
        assert share != 0.5 or raw == pytest.approx(noise_floor(60, 2), rel=0.02)


def test_a_single_image_has_no_squared_bias() -> None:
    assert np.isnan(squared_bias([1, 0])) and np.isnan(squared_bias([0, 0]))
    assert signed_root(-0.04) == pytest.approx(-0.2)


@pytest.mark.parametrize("target", [(0.5, 0.5), (0.75, 0.25), (0.25,) * 4, (1.0, 0.0), (0.6, 0.3, 0.1)])
@pytest.mark.parametrize("num_images", [1, 7, 60, 160])
def test_the_floors_of_a_target_are_what_draws_from_it_score(target: tuple[float, ...], num_images: int) -> None:
    counts = np.random.default_rng(3).multinomial(num_images, target, size=60_000)
    for measure, floor in ((total_variation, total_variation_floor), (divergence, divergence_floor)):
        assert measure(counts, target).mean() == pytest.approx(floor(num_images, target), rel=0.02, abs=1e-12)


def test_distances_from_a_target() -> None:
    assert total_variation([3, 1], [0.75, 0.25]) == divergence([3, 1], [0.75, 0.25]) == 0
    assert total_variation([1, 1], [0.75, 0.25]) == pytest.approx(0.25)
    assert total_variation([0, 9], [1, 0]) == 1 and divergence([0, 9], [1, 0]) == math.inf
    assert divergence([0, 9], [0.5, 0.5]) == pytest.approx(math.log(2))


def test_the_floor_of_prompts_with_unlike_counts_is_the_mean() -> None:
    floor = mean_floor(lambda n: noise_floor(n, 2), [10, 10, 40])
    assert floor == pytest.approx((2 * noise_floor(10, 2) + noise_floor(40, 2)) / 3)


def test_the_worst_decile_is_of_the_prompts_that_have_a_value() -> None:
    values = np.arange(20) / 20
    assert worst_decile(values) == pytest.approx((0.95 + 0.9) / 2)
    assert worst_decile([0.3, 0.7]) == 0.7
    assert worst_decile([*[0.5] * 10, math.nan]) == 0.5 and worst_decile([*range(10), math.nan]) == 9
    assert math.isnan(worst_decile([math.nan]))


def test_agreement_beyond_chance() -> None:
    assert cohens_kappa([[5, 0], [0, 7]]) == 1
    assert cohens_kappa([[4, 4], [4, 4]]) == 0
    assert cohens_kappa([[20, 5], [10, 15]]) == pytest.approx(0.4), "the worked example of Cohen (1960)'s statistic"
    assert math.isnan(cohens_kappa([[5, 0], [0, 0]])) and math.isnan(cohens_kappa(np.zeros((2, 2))))


@pytest.mark.parametrize(("share", "num_classes"), [(0.5, 2), (0.8, 2), (0.25, 4)])
def test_as_many_images_as_planned_tell_the_difference(share: float, num_classes: int) -> None:
    """Two models whose mean bias differs by a tenth are told apart at least as often as planned."""
    num_prompts, difference = 16, 0.1
    count = images_needed(difference, num_prompts, num_classes)
    rng = np.random.default_rng(4)
    rest = [(1 - share) / (num_classes - 1)] * (num_classes - 1)
    drawn = bias(rng.multinomial(count, [share, *rest], size=(4000, num_prompts))).mean(1)
    assert (1.96 + 0.84) * math.sqrt(2) * drawn.std() <= difference * 1.02
    with pytest.raises(ValueError, match="must lie"):
        images_needed(0, 16)
