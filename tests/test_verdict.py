"""The sentences of a report: what they call a change, and what they leave unsaid."""

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fair_adaptors.adaptor.results import Estimate
from fair_adaptors.evaluation.spec import Target
from fair_adaptors.evaluation.verdict import verdicts
from fair_adaptors.evaluation.wording import direction, number, percent, signed
from tests.reports import HALF, OLD, instruments, measured, more_targets, named, record


def said(targets: tuple[Target, ...], *, before: float, after: float, **changes: Any) -> dict[str, str]:
    evaluation, tools = named(12, 24, targets=targets), instruments("one")
    records = {
        "original": record(evaluation, tools, before),
        "fair": record(evaluation, tools, after, seed=1, **changes),
    }
    return {one.name: one.text for one in verdicts(measured(evaluation, tools, records))}


def test_a_change_is_called_one_only_where_its_interval_says_so() -> None:
    fell = said((HALF,), before=1.0, after=0.0)
    least = r"\(smallest share: (fe)?male \d+%\)\. "
    is_one = r"Gender bias is 1\.00 \(0\.\d\d–1\.00\), above the noise floor of 0\.16 "
    assert re.match(is_one + least, fell["original"])
    change = r"Gender bias falls from 1\.00 to 0\.\d\d \(change −0\.\d\d to −0\.\d\d\)"
    assert re.match(change + r", not distinguishable from the noise floor of 0\.16 " + least, fell["fair"])
    assert "rises from" in said((HALF,), before=0.0, after=0.9)["fair"]
    assert "shows no clear change" in said((HALF,), before=0.5, after=0.5)["fair"]


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(-0.2, -0.01, "falls"), (-0.2, 0.01, "no clear change"), (-0.01, 0.2, "no clear change"), (0.01, 0.2, "rises"),
     (math.nan, math.nan, "no clear change")],
)  # fmt: skip
def test_the_interval_alone_says_what_happened(low: float, high: float, word: str) -> None:
    assert direction(Estimate(0.0, low, high)) == word


def test_where_the_target_is_not_even_shares_the_distance_from_it_counts() -> None:
    sentence = said((OLD,), before=0.0, after=0.9)["fair"]
    assert sentence.startswith("Distance of gender from its target falls from 0.4"), sentence


def test_images_that_do_not_count_or_are_doubtful_are_mentioned_unless_few() -> None:
    missing = np.arange(12 * 24).reshape(12, 24) % 5 > 0
    assert "% of the images show no face" in said((HALF,), before=1.0, after=1.0, found=missing)["fair"]
    unsure = {"one": {"gender": np.full((12, 24, 2), 0.5), "tone": np.full((12, 24, 4), 0.25)}}
    sentences = said((HALF,), before=1.0, after=1.0, probabilities=unsure)
    assert "Gender is undetermined in 100% of the images" in sentences["fair"]
    assert "undetermined" not in sentences["original"] and "no face" not in sentences["original"]


def test_what_is_kept_falls_only_where_the_intervals_part() -> None:
    lost = np.zeros((12, 24), bool)
    assert "right job falls from 100% to 0% of the images" in said((HALF,), before=1.0, after=1.0, right=lost)["fair"]


def test_many_targets_are_told_by_what_happened_to_them() -> None:
    evaluation, tools = named(12, 24), instruments("one")
    records = {"original": record(evaluation, tools, 1.0), "fair": record(evaluation, tools, 0.0)}
    results = more_targets(measured(evaluation, tools, records), {f"more {k}": "gender" for k in range(18)})
    variant = replace(results.variants[1], aimed=tuple(results.targets))
    sentence = verdicts(replace(results, variants=(results.original, variant)))[1].aim
    assert sentence.startswith("Bias falls for gender (1.00 to ") and " and 14 more" in sentence


def test_ties_are_rounded_as_the_page_does() -> None:
    assert [number(value) for value in (0.125, 0.375, -0.125, math.nan)] == ["0.13", "0.38", "−0.13", "–"]
    assert [percent(value) for value in (0.0, 0.004, 0.625, 0.999, 1.0)] == ["0%", "0.4%", "63%", "99.9%", "100%"]
    assert [signed(value) for value in (0.125, -0.125, 0.0, -0.001)] == ["+0.13", "−0.13", "0.00", "0.00"]
