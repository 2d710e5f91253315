"""What a variant changes beside its aim is measured, and an alarm is raised where a class all but vanishes."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest, chi2

from benchmarks import alarms
from fair_adaptors.adaptor.results import Erasure
from fair_adaptors.evaluation import beside
from tests.sizes import TRIALS, few_or_many

NONE = np.zeros((2, 2), int)


def moved(images: int, share: float, flips: float, drift: float, prompts: int, seed: int = 0) -> NDArray[np.int64]:
    """Pairs of two classes: ``share`` are of class 1 before; a part flips either way, a part of class 1 leaves it."""
    flip = flips * min(share, 1 - share)
    left = drift * (share - flip)
    cells = [1 - share - flip, flip, flip + left, share - flip - left]
    return np.random.default_rng(seed).multinomial(images, cells, size=prompts).reshape(-1, 2, 2)


def erased(pairs: Any, wanted: tuple[float, ...] | None = None) -> tuple[Erasure, ...]:
    return beside.erasures({"tone": np.asarray(pairs)}, {"tone": ("a", "b")}, {"tone": wanted} if wanted else {})


def test_pairs_are_counted_where_both_images_have_a_face() -> None:
    before, after = np.array([[0, 0, 1, 2, 1], [2, 2, 2, 0, 0]]), np.array([[0, 1, 1, 1, 2], [0, 1, 2, 2, 2]])
    assert beside.pairs_of(before, after, 2).tolist() == [[[1, 1], [0, 1]], [[0, 0], [0, 0]]]


@pytest.mark.parametrize(
    ("pairs", "value", "floor", "squared"),
    [
        ([[[5, 0], [0, 3]], [[0, 0], [0, 9]]], 0.0, 0.0, 0.0),
        ([[[0, 4], [0, 0]], [[0, 4], [0, 0]]], 1.0, 0.375, 1.0),
        ([[[2, 1], [1, 0]], NONE], 0.0, 0.25, -1 / 6),
        ([[[2, 0], [2, 0]], [[4, 0], [0, 0]]], 0.25, 0.125, 1 / 12),
        ([[[0, 2, 0], [0, 0, 0], [0, 0, 2]]], 0.5, 0.25, 1 / 6),
        ([[[1, 1], [0, 0]], [[1, 0], [0, 0]]], 0.5 / 2, 0.25, 0.0),
    ],
)
def test_the_shift_in_cases_that_are_known(pairs: Any, value: float, floor: float, squared: float) -> None:
    """Walks of 1, 2, 3, 4 steps end 1, 1, 1.5, 1.5 from where they began; n d² − m / n over n − 1 is by hand."""
    found = beside.shift(np.array(pairs))
    assert (found.value, found.floor) == pytest.approx((value, floor))
    removed = found.floor_removed
    assert removed.value * abs(removed.value) == pytest.approx(squared)
    assert found.low <= found.value <= found.high and removed.low <= removed.value <= removed.high


def test_where_nothing_changed_nothing_is_told() -> None:
    """The interval of a class is that of Agresti and Min for 16 pairs of which none changed."""
    pairs = np.array([[[5, 0], [0, 3]]] * 2)
    found, half = beside.shift(pairs), 1.959964 / 18
    for estimate in (found, found.floor_removed):
        assert (estimate.low, estimate.value, estimate.high) == (0, 0, 0)
    for change in beside.class_changes(pairs):
        assert (change.low, change.value, change.high) == pytest.approx((-half, 0, half))


def test_one_image_per_prompt_tells_no_floor_that_could_be_removed() -> None:
    found = beside.shift(np.array([[[0, 1], [0, 0]], [[1, 0], [0, 0]]]))
    assert (found.value, found.floor) == (0.5, 0.5) and math.isnan(found.floor_removed.value)


def test_the_floor_is_what_is_left_when_before_and_after_are_swapped_at_random() -> None:
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 5, size=(6, 3, 3))
    swapped = rng.binomial(pairs, 0.5, size=(8000, *pairs.shape))
    left = pairs - swapped + swapped.swapaxes(-1, -2)
    changes = (left.sum(-2) - left.sum(-1)) / pairs.sum((1, 2))[:, None]
    simulated = np.abs(changes).sum(-1).mean() / 2
    assert beside.shift(pairs).floor == pytest.approx(simulated, abs=0.002)


@pytest.mark.parametrize(("flips", "drift", "true"), [(0.3, 0.0, 0.0), (0.0, 0.5, 0.2), (0.3, 0.5, 0.14)])
def test_with_the_floor_removed_the_shift_is_near_the_true_one(flips: float, drift: float, true: float) -> None:
    found = beside.shift(moved(16, 0.4, flips, drift, 400))
    assert found.floor_removed.value == pytest.approx(true, abs=0.03) and found.floor_removed.low <= true
    assert (found.value == pytest.approx(found.floor, abs=0.01)) is (not drift), "flips alone are what the floor tells"


def test_shares_move_from_class_to_class() -> None:
    pairs = np.random.default_rng(0).integers(0, 9, size=(5, 4, 4))
    for changes in (beside.class_changes(pairs), *beside.prompt_changes(pairs)):
        assert sum(change.value for change in changes) == pytest.approx(0)
        for change in changes:
            assert change.after - change.before == pytest.approx(change.value)
            assert -1 <= change.low < change.value < change.high <= 1


def test_the_interval_of_agresti_and_min() -> None:
    """Agresti's prime minister, whom 1600 people judge twice: 150 leave him, 86 join; then half a pair a cell."""
    change = beside.prompt_changes(np.array([[[570, 86], [150, 794]]]))[0][0]
    p12, p21, n = 86.5 / 1602, 150.5 / 1602, 1602
    error = math.sqrt((p12 + p21 - (p21 - p12) ** 2) / n)
    assert change.value == pytest.approx(0.04)
    assert (change.low, change.high) == pytest.approx((64 / n - 1.96 * error, 64 / n + 1.96 * error), abs=1e-6)


@TRIALS
@pytest.mark.parametrize(("prompts", "images", "flips", "drift"), [(16, 64, 0.01, 0.0), (6, 16, 0.3, 0.4)])
def test_intervals_of_a_change_cover_it(trials: int, prompts: int, images: int, flips: float, drift: float) -> None:
    true = -drift * 0.3 * (1 - flips)
    covered = []
    for seed in range(trials):
        pairs = moved(images, 0.3, flips, drift, prompts, seed)
        changes = zip((*beside.class_changes(pairs), *beside.prompt_changes(pairs[:1])[0]), (-1, 1) * 2, strict=True)
        covered.append([change.low <= sign * true <= change.high for change, sign in changes])
    assert np.mean(covered, axis=0).min() > 0.92


@few_or_many("trials", 120, 1000)
@pytest.mark.parametrize(
    ("prompts", "images", "spread"), [(16, 64, None), (48, 8, None), (8, 16, 1.0), (16, 16, 1.0), (16, 64, 100.0)]
)
def test_the_interval_of_the_shift_without_its_floor_covers_it(
    trials: int, prompts: int, images: int, spread: float | None
) -> None:
    """Images flip either way, and none, a tenth or, unequally, a fifth of a prompt's leave a class for its neighbour.

    The lower end decides what counts as harm: it is above the truth in no more than 3 of 100. Counted from few trials,
    coverage is uncertain by 4 points.
    """
    rng = np.random.default_rng(prompts * images)
    beta = (spread, (9 if spread > 1 else 4) * spread) if spread else None
    truth = math.sqrt(np.mean(rng.beta(*beta, 400_000) ** 2)) if beta else 0.0
    found = []
    for _ in range(trials):
        leaving = rng.beta(*beta, prompts) if beta else np.zeros(prompts)
        shares = rng.dirichlet([1.0, 1.0], prompts) * (1 - leaving)[:, None] + leaving[:, None] * [0, 1]
        cells = alarms.chances(shares, leaving, 0.4).reshape(prompts, -1)
        found.append(beside.shift_without_floor(rng.multinomial(images, cells).reshape(-1, 2, 2)))
    assert np.mean([one.low > truth for one in found]) <= 0.03
    assert np.mean([one.low <= truth <= one.high for one in found]) >= (0.92 if trials > 500 else 0.88)


def test_the_upper_end_of_a_skewed_shift_is_that_of_a_mean_of_squares() -> None:
    """In twelve prompts 4 of 16 images flip without a direction, in four others 4 of 16 move."""
    pairs = np.array([[[6, 2], [2, 6]]] * 12 + [[[8, 4], [0, 4]]] * 4)
    squares = np.array([0.0] * 12 + [16 * 0.25**2 / 15] * 4)
    floor = 4 / 16 / 15
    freedom = 2 * squares.mean() ** 2 / (squares.var(ddof=1) / 16)
    high = squares.mean() * freedom / chi2.ppf(0.025, freedom) - floor
    found = beside.shift(pairs).floor_removed
    assert found.high == pytest.approx(math.sqrt(high), rel=0.05)


@pytest.mark.parametrize("freedom", [0.3, 1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 30.0, 300.0])
def test_the_quantile_of_chi_square(freedom: float) -> None:
    assert 0.92 <= beside._low_chi_square(freedom) / chi2.ppf(0.025, freedom) <= 1.0001


@pytest.mark.parametrize(("left", "joined"), [(0, 0), (5, 0), (0, 5), (7, 3), (60, 40), (900, 800)])
def test_the_sign_test_is_the_binomial_one(left: int, joined: int) -> None:
    expected = binomtest(left, left + joined, 0.5, "greater").pvalue if left + joined else 1.0
    assert beside.sign_test(left, joined) == pytest.approx(expected, rel=1e-9)


def test_holms_correction_by_hand() -> None:
    assert beside.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert beside.holm([0.9, 0.6]) == [1.0, 1.0] and beside.holm([]) == []


@pytest.mark.parametrize(
    ("table", "wanted", "found"),
    [
        ([[10, 0], [20, 0]], None, ["b"]),
        ([[10, 0], [20, 20]], None, []),
        ([[10, 0], [21, 20]], None, ["b"]),
        ([[40, 0], [5, 0]], None, []),
        ([[10, 0], [40, 10]], None, ["b"]),
        ([[10, 0], [40, 10]], (0.6, 0.4), ["b"]),
        ([[10, 0], [40, 10]], (0.75, 0.25), []),
        ([[10, 0], [40, 0]], (1.0, 0.0), []),
        ([[10, 0], [20, 25]], (0.05, 0.95), []),
    ],
    ids=["gone", "half is left", "less than half", "too few to tell", "not aimed at", "below half of the target",
         "half of the target is left", "wanted to be gone", "the target is above what was"],
)  # fmt: skip
def test_a_class_is_erased_where_less_than_half_is_left(
    table: list[list[int]], wanted: tuple[float, ...] | None, found: list[str]
) -> None:
    """Of what was there before; where it is aimed at, of its target, if that is less."""
    alarms = erased([table], wanted)
    assert {one.class_name for one in alarms} == set(found) and {one.prompt for one in alarms} <= {None, 0}


def test_erasures_say_where_and_how_sure_it_is() -> None:
    """All twelve leave in one prompt of six: with 2 classes, 6 prompts and all of them, 14 are looked at."""
    still, gone = [[10, 0], [0, 12]], [[10, 0], [12, 0]]
    (alarm,) = erased([still] * 5 + [gone])
    assert (alarm.target, alarm.class_name, alarm.prompt) == ("tone", "b", 5)
    assert (alarm.change.before, alarm.change.after) == (12 / 22, 0) and alarm.p_value == pytest.approx(14 / 2**12)
    nobody = [[22, 0], [0, 0]]
    assert [one.prompt for one in erased([nobody] * 5 + [gone])] == [5], "one prompt says little of others"
    assert erased([still] * 200 + [gone]) == (), "what is rare among so many may be chance"


def test_prompts_without_a_face_tell_nothing() -> None:
    gone = [[10, 0], [20, 0]]
    assert [one.prompt for one in erased([NONE, gone, NONE])] == [None, 1]
    assert math.isnan(beside.prompt_changes(np.array([NONE]))[0][0].high)
    nobody = np.array([NONE, NONE])
    found = beside.shift(nobody)
    assert all(map(math.isnan, (found.value, found.floor, found.floor_removed.high)))
    assert erased(nobody) == () and math.isnan(beside.class_changes(nobody)[0].before)
    lone = np.array([[[0, 1], [0, 0]], [[3, 1], [0, 1]]])
    assert math.isfinite(beside.shift(lone).floor_removed.value), "one pair tells no square; it is left out"


def test_flips_are_told_where_another_attribute_changed_and_where_not() -> None:
    before, same = np.tile([0, 1], (4, 8)), np.ones((4, 16), int)
    half = np.where(np.arange(16) < 8, before, 1 - before)
    both = {"gender": (before, half, 2), "tone": (before, half, 3), "age": (same, same, 2)}
    found = {(one.attribute, one.beside): one for one in beside.flips(both)}
    assert len(found) == 6
    tone, age, beside_age = found["tone", "gender"], found["age", "gender"], found["tone", "age"]
    assert (tone.where_changed.value, tone.where_same.value) == (1, 0)
    assert (age.where_changed.value, age.where_same.value) == (0, 0) and age.where_same.high > 0
    assert math.isnan(beside_age.where_changed.value) and beside_age.where_same.value == 0.5
    faceless = {**both, "gender": (before, np.full_like(half, 2), 2)}
    found = {(one.attribute, one.beside): one for one in beside.flips(faceless)}
    untold = [(one.where_changed, one.where_same) for pair, one in found.items() if "gender" in pair]
    assert len(untold) == 4 and all(math.isnan(rate.value) for pair in untold for rate in pair)
    assert found["tone", "age"].where_same.value == 0.5


@few_or_many("trials", 60, 500)
def test_alarms_are_rarely_false_and_the_gardener_is_found(trials: int) -> None:
    """What docs/results.md tells of ``benchmarks/alarms.py``: at most 5 of 100 are false, 95 of 100 are found."""
    assert alarms.DARK.mean() == pytest.approx(0.16, abs=0.005)
    assert alarms.DARK_AFTER.mean() == pytest.approx(0.07, abs=0.005)
    assert max(alarms.without_direction(4, 64, 1.0, trials)[1], alarms.without_direction(16, 16, 0.4, trials)[1]) <= 5
    assert alarms.gardener(64, trials // 4)[1] >= 95
