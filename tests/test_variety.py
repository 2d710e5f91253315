"""Facts about variety within a prompt: how much images differ, how many classes are shown, and how sure both are."""

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fair_adaptors.adaptor.bases import BASES, FEW_STEPS, is_few_step
from fair_adaptors.adaptor.results import PairedChange, Results
from fair_adaptors.adaptor.results_file import from_json, to_json
from fair_adaptors.evaluation.metrics import effective_classes, effective_floor
from fair_adaptors.evaluation.variety import diversity, diversity_change, within_class
from fair_adaptors.evaluation.variety_words import is_more_alike, variety_rows, variety_sentence
from fair_adaptors.evaluation.verdict import verdicts
from fair_adaptors.report.page import page
from fair_adaptors.report.terminal import headline_text
from tests.reports import HALVES, IMAGES, TONES, one_sided, seen, seen_results
from tests.sizes import TRIALS

FEMALE, MALE, NOBODY = 0, 1, 2


def people(rng: np.random.Generator, classes: np.ndarray, *, spread: float = 0.15, lean: float = 0.0) -> np.ndarray:
    """Unit features of images [P, n]: classes lie apart, images of one are spread, and prompts lean their own way."""
    centre = np.zeros((*classes.shape, 8))
    centre[..., 0], centre[..., 1] = classes == FEMALE, classes == MALE
    noise = rng.standard_normal(centre.shape) * spread + rng.standard_normal((len(classes), 1, 8)) * lean
    return unit(centre + noise)


def unit(rows: np.ndarray) -> np.ndarray:
    found: np.ndarray = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return found


def test_diversity_is_the_mean_distance_of_pairs() -> None:
    features = unit(np.random.default_rng(0).standard_normal((3, 5, 7)))
    pairs = [1 - features[p, i] @ features[p, j] for p in range(3) for i in range(5) for j in range(i)]
    found = diversity(features)
    assert found.value == pytest.approx(np.mean(pairs)) and found.low < found.value < found.high
    assert diversity(np.repeat(features[:, :1], 4, 1)).value == pytest.approx(0)
    assert math.isnan(diversity(features[:, :1]).value)


def test_within_a_class_only_its_own_pairs_count_and_every_class_counts_once() -> None:
    rng = np.random.default_rng(1)
    classes = np.array([[FEMALE] * 5 + [MALE] * 2, [FEMALE] * 5 + [MALE, NOBODY]])
    features = unit(rng.standard_normal((2, 7, 4)))

    def mean(p: int, index: range) -> float:
        return float(np.mean([1 - features[p, i] @ features[p, j] for i, j in itertools.combinations(index, 2)]))

    females, males = [mean(p, range(5)) for p in (0, 1)], mean(0, range(5, 7))
    found = within_class((features, classes), (features, classes), 2, compared=True)
    assert found.distance.value == pytest.approx(np.mean([(females[0] + males) / 2, females[1]]))
    change = found.change
    assert change is not None and (change.value, change.low, change.high) == (0, 0, 0)
    assert change.before == change.after == pytest.approx(found.distance.value)
    alone = within_class((features, classes), (features[:, :1], classes[:, :1]), 2, compared=True)
    assert math.isnan(alone.distance.value) and alone.change is not None and math.isnan(alone.change.value)


def test_more_of_a_class_is_more_variety_and_none_within_a_class() -> None:
    """What steering is to do: as many women as men, each as varied as before."""
    rng = np.random.default_rng(2)
    before = (rng.random((16, 40)) < 0.2).astype(int)
    after = np.arange(40) % 2 + np.zeros((16, 1), int)
    was, now = people(rng, before), people(rng, after)
    more, within = diversity_change(was, now), within_class((was, before), (now, after), 2, compared=True)
    assert more.low > 0.02 and more.value == pytest.approx(more.after - more.before)
    assert within.change is not None and within.change.low < 0 < within.change.high


def test_a_class_that_is_shown_as_one_person_is_a_clear_fall_that_the_whole_hides() -> None:
    rng = np.random.default_rng(3)
    before = (rng.random((16, 40)) < 0.2).astype(int)
    after = np.arange(40) % 2 + np.zeros((16, 1), int)
    was, now = people(rng, before), people(rng, after)
    now[after == MALE] = now[0, 1]
    assert diversity_change(was, now).value > 0
    within = within_class((was, before), (now, after), 2, compared=True).change
    assert within is not None and within.high < -0.05


@TRIALS
@pytest.mark.parametrize("which", ["whole", "within a class"])
def test_the_interval_of_a_change_covers_what_the_measurement_gives_on_average(trials: int, which: str) -> None:
    rng = np.random.default_rng(4)

    def measure(count: int) -> PairedChange:
        before = (rng.random((count, 16)) < 0.3).astype(int)
        after = np.where(rng.random((count, 16)) < 0.3, 1 - before, before)
        was, now = people(rng, before, lean=0.2), people(rng, after, lean=0.2, spread=0.12)
        if which == "whole":
            return diversity_change(was, now)
        found = within_class((was, before), (now, after), 2, compared=True).change
        assert found is not None
        return found

    expected = measure(4_000).value
    found = [measure(16) for _ in range(trials)]
    assert 0.92 <= np.mean([one.low <= expected <= one.high for one in found]) <= 0.98


@pytest.mark.parametrize(("counts", "number"), [((7, 0), 1), ((3, 3), 2), ((2, 2, 2, 2), 4), ((9, 9, 0, 0), 2)])
def test_as_many_classes_are_shown_as_would_be_equally_frequent(counts: tuple[int, ...], number: float) -> None:
    assert effective_classes(counts) == pytest.approx(number)


def test_classes_that_are_rare_count_for_less_than_one() -> None:
    counts = np.array([(60, 0), (59, 1), (45, 15), (30, 30)])
    assert (np.diff(effective_classes(counts)) > 0).all()


@pytest.mark.parametrize(("n", "target"), [(1, (0.5, 0.5)), (5, (0.5, 0.5)), (4, (0.75, 0.25)), (6, (0.25,) * 4),
                                           (5, (0.5, 0.3, 0.2)), (4, (0.6, 0.0, 0.4))])  # fmt: skip
def test_what_a_fair_model_shows_is_the_mean_over_every_outcome(n: int, target: tuple[float, ...]) -> None:
    outcomes = itertools.product(range(len(target)), repeat=n)
    number = sum(math.prod(target[k] for k in one) * effective_classes(np.bincount(one, minlength=len(target)))
                 for one in outcomes)  # fmt: skip
    assert effective_floor(n, target) == pytest.approx(number)


@pytest.mark.parametrize(("n", "number"), [(60, 2), (60, 4), (200, 8)])
def test_few_images_show_too_few_classes_by_what_miller_says(n: int, number: int) -> None:
    assert effective_floor(n, (1 / number,) * number) == pytest.approx(number * (1 - (number - 1) / (2 * n)), rel=2e-3)


def test_the_more_images_the_nearer_is_a_fair_model_to_all_classes() -> None:
    assert 7.9 < effective_floor(300, (0.125,) * 8) < effective_floor(500, (0.125,) * 8) < 8


@pytest.fixture(scope="module")
def results() -> Results:
    """Everybody was female; now half are, and every woman of a prompt is the same one."""
    rng, gender = np.random.default_rng(5), seen(HALVES, TONES)["gender"]
    features = people(rng, gender)
    features[gender == FEMALE] = features[0, 0]
    return seen_results(one_sided(), seen(HALVES, TONES), features={"eye": features})


def test_what_is_told_is_what_was_measured_with_its_change_and_what_a_fair_model_shows(results: Results) -> None:
    assert [row.what for row in variety_rows(results, results.variants[1])] == [
        "distance of two images", "distance within one gender", "number of gender classes", "number of tone classes"
    ]  # fmt: skip
    gender = variety_rows(results, results.variants[1])[2]
    assert gender.change is not None and gender.shown.value == 2 and gender.change.before == 1
    assert gender.fair == pytest.approx(effective_floor(IMAGES, (0.5, 0.5)), abs=1e-6)
    assert "number of gender classes rises from 1.00 to 2.00 of 2 (change " in variety_sentence(*two(results))
    assert "where a fair model shows 1.97" in variety_sentence(*two(results))
    assert "tone classes" not in variety_sentence(*two(results)), "nobody aims at it"
    said = variety_sentence(results, results.original)
    assert said.startswith("Within a prompt the distance of two images is 0.034 (0.0"), "distances may be small"


def two(results: Results) -> tuple[Results, Any]:
    return results, results.variants[1]


def test_a_class_of_clones_is_a_warning_and_nothing_is_called_better(results: Results) -> None:
    whole, within = variety_rows(*two(results))[:2]
    assert whole.change is not None and whole.change.low > 0 and not whole.is_worse
    assert within.change is not None and within.change.high < 0 and within.is_worse
    assert is_more_alike(*two(results)) and verdicts(results)[1].variety_harms
    assert not verdicts(results)[0].variety_harms
    shown = page(results, {}, {}, "command")
    section = shown[shown.index("<h2>Variety within a prompt</h2>") :].partition("</table>")[0]
    assert section.count('class="n worse"') == 1 and "better" not in section


def test_it_comes_first_where_the_base_draws_in_few_steps(results: Results) -> None:
    few = replace(results, settings=replace(results.settings, num_steps=4))
    for one, first in ((results, False), (few, True)):
        shown, said = page(one, {}, {}, "command"), headline_text(one)
        assert (shown.index("Variety within a prompt</h2>") < shown.index("Every variant and target</h2>")) == first
        assert (said.index("variety within a prompt") < said.index("aimed")) == first
        assert (said.index("Within a prompt the") < said.index("Gender bias is")) == first
        assert max(map(len, headline_text(one).partition("original:")[0].splitlines())) <= 80


@pytest.mark.parametrize("base", [base for base in BASES if base.names[0] != "sandbox"])
def test_a_known_base_is_few_step_by_its_usual_steps_and_another_by_those_it_is_drawn_in(base: Any) -> None:
    assert (
        is_few_step(base.names[0], 1)
        == is_few_step(f"{base.names[0]}@main", 50)
        == (base.defaults.num_steps <= FEW_STEPS)
    )
    assert is_few_step("somebody/turbo", 4) and not is_few_step("somebody/else", 30)


def test_files_from_before_are_read_and_tell_nothing_of_what_they_do_not_have(results: Results) -> None:
    content = to_json(results)
    for variant in content["variants"]:
        variant.pop("diversity_change", None)
        variant.pop("within_class")
        for figures in variant["bias"]["one"].values():
            figures.pop("effective_classes")
            figures.get("change", {}).pop("effective_classes", None)
    old = from_json(content)
    assert [row.what for row in variety_rows(*two(old))] == ["distance of two images"]
    assert variety_sentence(*two(old)) == "" and "shows 1.97" not in page(old, {}, {}, "command")
    assert from_json(to_json(results)) == results
