"""Prompts that name a class are to show it: they have no part in its bias, and are obeyed or not."""

import csv
import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard

from fair_adaptors.adaptor.bases import EMBEDDED
from fair_adaptors.adaptor.record import read_record
from fair_adaptors.adaptor.results import Results
from fair_adaptors.adaptor.results_file import from_json, to_json
from fair_adaptors.errors import ConfigError, InvalidResultsError
from fair_adaptors.evaluation.bounds import Bounds, failures, read_bounds
from fair_adaptors.evaluation.harm import harms
from fair_adaptors.evaluation.images_csv import write_csv
from fair_adaptors.evaluation.spec import Evaluation, plan
from fair_adaptors.evaluation.variants import Variant, original, with_adaptor
from fair_adaptors.evaluation.verdict import verdicts
from fair_adaptors.report import gallery, png_plots
from fair_adaptors.report import page as report_page
from fair_adaptors.report.card import render_card
from fair_adaptors.report.card_tables import metrics
from fair_adaptors.report.page_data import page_data
from fair_adaptors.report.terminal import headline_table
from tests.reports import DARK, HALF, HALVES, IMAGES, PROMPTS, QUARTER, instruments, named, record, seen, seen_results

FEMALE, MALE = ({"gender": name} for name in ("female", "male"))
HALF_NAMED = (FEMALE, MALE) * (PROMPTS // 4) + ({},) * (PROMPTS // 2)
"""The first half of the prompts names a gender, in turn."""
ALL_NAMED = (FEMALE, MALE) * (PROMPTS // 2)
AS_NAMED = (np.arange(PROMPTS) % 2)[:, None]
"""Every image shows the gender that its prompt names."""


def obedient(*, images: int = IMAGES) -> np.ndarray:
    """Prompts that name a gender show it, the others everybody female."""
    return np.where(np.arange(PROMPTS)[:, None] < PROMPTS // 2, AS_NAMED, np.zeros((PROMPTS, images), int))


def evened() -> np.ndarray:
    """The same with the other prompts even."""
    return np.where(np.arange(PROMPTS)[:, None] < PROMPTS // 2, AS_NAMED, HALVES)


def half_named(gender: Any = None, tone: Any = 0, **changes: Any) -> Results:
    after = seen(evened() if gender is None else gender, tone)
    return seen_results(seen(obedient(), 0), after, expected=HALF_NAMED, **changes)


def all_named(gender: Any = AS_NAMED, **changes: Any) -> Results:
    return seen_results(seen(AS_NAMED, 0), seen(gender, 0), expected=ALL_NAMED, **changes)


def numbers(value: Any) -> list[float]:
    if isinstance(value, Mapping):
        return [number for part in value.values() for number in numbers(part)]
    if isinstance(value, list):
        return [number for part in value for number in numbers(part)]
    return [value] if isinstance(value, float | int) else []


def test_the_figures_are_those_of_the_prompts_that_name_nothing() -> None:
    """Named or left away, the prompts of the first half are nothing to the gender's figures."""
    found = half_named(joint=True)
    for name in ("gender", "gender × tone"):
        figures = found.figures(found.variants[1], name)
        assert figures.change is not None
        assert found.open_prompts(name) == list(range(PROMPTS // 2, PROMPTS))
        assert [math.isnan(row.bias.value) for row in figures.prompts] == [True] * 8 + [False] * 8
        assert figures.prompts[1].frequencies[len(figures.frequencies) // 2] == 1, "what was seen is still told"
    gender = found.figures(found.variants[1], "gender")
    assert gender.change is not None
    assert gender.bias.value == 0 and found.figures(found.original, "gender").bias.value == 1
    assert gender.frequencies[0].value == gender.frequencies[1].value == 0.5 == gender.change.same_class
    assert (gender.change.shift.value, gender.change.classes[0].before) == (0.5, 1.0)
    assert found.open_prompts("tone") == list(range(PROMPTS))


def test_a_share_that_changes_where_it_is_named_is_no_erasure_and_no_flip() -> None:
    """Nobody dark was shown where the prompt names a tone, and everybody is now; elsewhere nothing changes."""
    expected = ({"tone": "dark"},) * 4 + ({"tone": "pale"},) * 4 + ({},) * 8
    before, after = (np.zeros((PROMPTS, IMAGES), int) for _ in range(2))
    after[:4], before[4:8] = DARK, DARK
    results = seen_results(seen(HALVES, before), seen(HALVES, after), expected=expected)
    variant = results.variants[1]
    assert variant.erasures == () and harms(results, variant) == []
    change = results.figures(variant, "tone").change
    assert change is not None and change.shift.value == 0 and change.prompts[4][0].value == 1
    assert gallery.worst_prompts(results) == []
    (flips,) = (one for one in variant.flips if one.attribute == "tone")
    assert flips.where_same.value == 0
    unnamed = seen_results(seen(HALVES, after), seen(HALVES, before))
    assert unnamed.variants[1].erasures and gallery.worst_prompts(unnamed) == list(range(8))
    gone = seen_results(seen(HALVES, DARK), seen(HALVES, 0), expected=expected)
    assert "in 8 of 8 prompts they all but vanish" in harms(gone, gone.variants[1])[0].clause


def test_the_verdict_counts_only_open_prompts_and_says_how_often_the_named_class_is_shown() -> None:
    before, after = verdicts(half_named())
    bias = "Gender bias in the 8 prompts that name no gender"
    assert before.aim.startswith(f"{bias} is 1.00")
    assert before.aim.endswith("; where the prompt names the gender, 100% of the images show it.")
    assert after.aim.startswith(f"{bias} falls from 1.00 to 0.00 (change −1.00 to ")
    assert after.aim.endswith("; where the prompt names the gender, 100% of the images show it (100% before).")
    assert not after.aim_harms and not after.beside_harms


@pytest.mark.parametrize(("gender", "share", "worse"), [(AS_NAMED, "100%", False), (HALVES, "50%", True)])
def test_where_every_prompt_names_it_there_is_no_bias_and_no_green(gender: Any, share: str, worse: bool) -> None:
    """Even shares would be the bias that the target asks for; here they are what nobody asked for."""
    results = all_named(gender, joint=True)
    said = verdicts(results)[1]
    assert said.aim == f"Every prompt names the gender, and {share} of the images show it (100% before)."
    assert said.aim_harms is worse and "bias" not in said.text
    figures = results.figures(results.variants[1], "gender × tone")
    told = {**to_json(figures), "prompts": [], "undetermined": None}
    told["change"]["prompts"], told["frequencies"] = [], [{**row, "target": None} for row in told["frequencies"]]
    assert numbers(told) == [], "no bias, share, floor or change of it"
    text = report_page.page(results, {}, {}, "x")
    assert 'class="n better"' not in text
    assert ('<span class="worse"><b role="img" aria-label="Warning:">' in text) == worse
    assert 'data-label="target">gender <small>every prompt names the gender</small>' in text
    marks = page_data(results)["changes"][0][0][0]["marks"]
    assert set(marks) == {" "}
    table = headline_table(results)
    cells = [list(column.cells) for column in table.columns]
    assert cells[2][1:3] == ["obeyed 100%", f"obeyed 100% → {share}"] and cells[5][2] == "–"


def test_the_page_says_which_prompts_count_and_which_are_to_be_obeyed() -> None:
    results = half_named()
    text = report_page.page(results, {}, {}, "x").replace("\n", "")
    assert "Do prompts get the class that they name?" in text
    row = re.findall(r'data-label="prompts that name it"[^>]*>(\d+)</td><td class="n([^"]*)" data-label="one"', text)
    assert row == [("8", ""), ("8", "")]
    assert text.count("<small>in the 8 prompts that name no gender</small>") == 4, "of both, in both tables"
    assert "<b>gender in the 8 prompts that name no gender</b>" in text
    target = page_data(results)["targets"][0]
    assert target["named"] == ["female", "male"] * 4 + [""] * 8 and target["open"] == 8
    said = [axes.get_xlabel() for axes in png_plots.bias_figure(results).axes]
    assert said == ["dotted: noise floor; in the 8 prompts that name no gender", "dotted: noise floor; not aimed at"]
    assert [axes.get_title(loc="left") for axes in png_plots.pareto_figure(all_named()).axes] == ["tone bias"]


def test_a_share_is_rounded_alike_in_every_table_of_the_page() -> None:
    """Of 8 images one is male before."""
    results = seen_results(seen((np.arange(8) == 0).astype(int), 0, images=8), seen(0, 0, images=8), images=8)
    change = page_data(results)["changes"][0][0][0]
    assert (change["b"][:2], change["a"][:2]) == ([88, 13], [100, 0])


def test_the_grids_say_how_often_a_named_class_is_shown() -> None:
    results = all_named()
    row = results.figures(results.original, "gender").prompts[1]
    assert png_plots._note(row, results.targets["gender"], "male") == "100% male"
    assert png_plots._note(row, results.targets["gender"], "") == "0% female"


def test_the_card_and_the_hubs_metadata_have_what_is_obeyed_in_the_place_of_a_bias() -> None:
    folder = EMBEDDED / "sandbox-gender"
    adaptor = read_record(folder)
    found = {}
    for name, results in (("half", half_named()), ("all", all_named(HALVES))):
        variant = replace(results.variants[1], identity=with_adaptor(str(folder)).identity)
        results = replace(results, variants=(results.original, variant))
        found[name] = render_card(adaptor, results), metrics(adaptor, results)
    card, rows = found["half"]
    assert "| gender | 8 | 100% (" in card and "| gender bias in the 8 prompts that name no gender | yes |" in card
    assert [row.metric_name for row in rows] == ["gender bias", "tone shift", "gender obeyed"]
    card, rows = found["all"]
    assert "\n**⚠ Every prompt names the gender, and 50% of the images show it (100% before).**" in card
    assert "| gender bias" not in card and "| gender | female |" not in card and "worst tenth" not in card
    assert [(row.metric_name, row.metric_value) for row in rows[1:]] == [("gender obeyed", 0.5)]
    assert rows[1].metric_args["before"] == 1 and "floor" not in rows[1].metric_args
    assert [row.metric_type for row in ModelCard(card).data.eval_results or []] == ["shift", "obeyed"]


def test_no_bound_can_be_kept_by_a_bias_that_there_is_none_of() -> None:
    half, every = (named(PROMPTS, 4, expected=expected) for expected in (HALF_NAMED, ALL_NAMED))
    fair = [Variant("fair", "fair")]
    assert read_bounds(["gender=0.3"], half, variants=fair).most == {"gender": 0.3}
    with pytest.raises(ConfigError, match="`fail_above` 'gender=0.3': every prompt names the gender"):
        read_bounds(["gender=0.3"], every, variants=fair)
    (said,) = failures(all_named(), Bounds({"gender": 0.3}))
    assert said.startswith("fair: there is no gender bias, because every prompt names the gender: nothing keeps")
    said = "\n".join(failures(all_named(HALVES), Bounds({}, no_harm=True)))
    assert said == "fair: every prompt names the gender, and 50% of the images show it (100% before)"


def test_a_plan_counts_the_prompts_that_tell_a_bias() -> None:
    evaluation = replace(named(PROMPTS, 60, expected=HALF_NAMED), targets=(HALF, QUARTER))
    lines = plan(evaluation, 2, 0.1)
    alone = plan(named(PROMPTS // 2, 60), 2, 0.1)
    assert lines[2].replace(" (in the 8 prompts that name no class of it)", "") == alone[2]
    assert lines[3] != alone[3]
    every = plan(named(PROMPTS, 60, expected=ALL_NAMED), 2, 0.1)
    assert every[2] == "  gender: none can be told, because every prompt names a class of it"


def test_the_csv_says_what_each_prompt_names(tmp_path: Path) -> None:
    def written(expected: tuple[Mapping[str, str], ...]) -> list[dict[str, str]]:
        evaluation, tools = named(2, 2, expected=expected), instruments("one")
        found: Evaluation = evaluation
        records = {"original": record(found, tools, 0.5)}
        write_csv(tmp_path / "x.csv", found, variants=[original()], instruments=tools, records=records)
        with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))

    assert [row["named gender"] for row in written((FEMALE, {}))] == ["female", "female", "", ""]
    assert not any("named" in column for row in written(()) for column in row)


def test_the_file_says_what_prompts_name_and_an_older_one_is_refused() -> None:
    results = half_named()
    content = to_json(results)
    assert content["expected"] == list(HALF_NAMED) and to_json(from_json(content)) == content
    assert "expected" not in to_json(seen_results(seen(0, 0), seen(0, 0)))
    older = {key: value for key, value in content.items() if key != "expected"}
    for wrong, said in (
        (older, "An earlier version of fair-adaptors wrote it, and counted those prompts in every bias"),
        ({**content, "expected": content["expected"][1:]}, "names classes of prompts that it does not have"),
        ({**content, "expected": [{"gender": "neither"}, *content["expected"][1:]]}, "names gender neither"),
        ({**content, "expected": [{"race": "Black"}, *content["expected"][1:]]}, "names race Black"),
    ):
        with pytest.raises(InvalidResultsError, match=said):
            from_json(json.loads(json.dumps(wrong)))
