"""What a variant changes beside its aim is found, ranked and said in words that nobody can misread."""

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fair_adaptors.adaptor.results import Estimate, Results
from fair_adaptors.attributes import people
from fair_adaptors.evaluation.harm import class_judgement, harms, judgement, not_aimed_at
from fair_adaptors.evaluation.verdict import ONE_IMAGE, verdicts
from fair_adaptors.report import grid
from fair_adaptors.report import page as report_page
from fair_adaptors.report.page_data import page_data
from fair_adaptors.report.terminal import print_headline
from tests.reports import (
    DARK,
    HALVES,
    IMAGES,
    PROMPTS,
    TONES,
    more_targets,
    one_sided,
    seen,
    seen_results,
    without_dark,
)

PACKAGE = Path(__file__).parents[1] / "fair_adaptors"


def said(results: Results) -> tuple[list[tuple[str, str]], str]:
    variant = results.variants[1]
    return [(harm.kind, harm.sentence) for harm in harms(results, variant)], verdicts(results)[1].beside


def test_who_vanishes_is_said_first_and_in_plain_words() -> None:
    found, beside = said(seen_results(one_sided(), seen(HALVES, without_dark(PROMPTS))))
    gone = "dark-skinned people all but vanish (50% → 0%)"
    assert found[0] == (
        "erasure",
        "Dark-skinned people all but vanish (50% → 0%); in 16 of 16 prompts they all but vanish (job 0 50% → 0%,"
        " job 1 50% → 0%, job 2 50% → 0% and 13 more).",
    )
    assert found[1] == (
        "shift", "In the average prompt the tone of 50% of the people shifts (10% by chance alone)."
    )  # fmt: skip
    assert beside.startswith(f"Side effects: {gone}; in 16 of 16") and "shown less often" not in beside
    assert "; tan-skinned people are shown more often (19% → 69%); in the average prompt the tone" in beside


def test_who_vanishes_in_some_prompts_is_found_there() -> None:
    found, beside = said(seen_results(one_sided(), seen(HALVES, without_dark(2))))
    sentence = "in 2 of 16 prompts dark-skinned people all but vanish (job 0 50% → 0% and job 1 50% → 0%)"
    assert found[0] == ("erasure", sentence.capitalize() + ".")
    assert sentence in beside


@pytest.mark.parametrize("aimed", [True, False])
@pytest.mark.parametrize(("now", "harm"), [(0.5, True), (0.85, False)])
def test_a_named_class_that_is_no_longer_shown_is_harm(now: float, harm: bool, aimed: bool) -> None:
    """It is said with the aim where that is the attribute, and else with what is beside it."""
    results = seen_results(one_sided(), one_sided())
    shown = [Estimate(0.93, 0.85, 0.98), Estimate(now, now - 0.1, now + 0.1)]
    variants = zip(results.variants, shown, strict=True)
    attribute = "gender" if aimed else "tone"
    results = replace(
        results,
        variants=tuple(replace(variant, obeyed={"one": {attribute: rate}}) for variant, rate in variants),
        expected=({attribute: results.targets[attribute].classes[0]}, *({},) * (PROMPTS - 1)),
    )
    found, beside = said(results)
    verdict = verdicts(results)[1]
    clause = f"where the prompt names the {attribute}, {100 * now:.0f}% of the images show it (93% before)"
    assert found == ([("obeyed", f"W{clause[1:]}.")] if harm else [])
    assert (verdict.aim_harms, verdict.beside_harms) == (harm and aimed, harm and not aimed)
    if aimed:
        assert verdict.aim.endswith(f"; {'but ' if harm else ''}{clause}.") and clause not in beside
    else:
        assert beside.startswith(f"Side effects: {clause}" if harm else f"No clear side effects: {clause}")


def test_who_is_left_with_less_than_half_is_not_said_to_vanish() -> None:
    tones = seen(0, TONES)["tone"]
    rare = (tones == DARK) & (np.arange(IMAGES) > 1)
    found, _ = said(seen_results(one_sided(), seen(0, np.where(rare, 1, tones))))
    assert found[0][1].startswith("Dark-skinned people are shown less than half as often as before (50% → 6%)")


def test_a_bias_that_was_not_aimed_at_never_falls() -> None:
    """Everybody is dark before, and of all four tones after: the bias falls, the original is far away."""
    results = seen_results(seen(0, DARK), seen(HALVES, np.arange(IMAGES) // 2 % 4))
    variant = results.variants[1]
    assert not_aimed_at(results, variant) == ["tone"]
    change = results.figures(variant, "tone").change
    assert change is not None and change.bias.high < 0
    assert "tone bias" not in verdicts(results)[1].text and "falls" not in verdicts(results)[1].beside
    assert [judgement(results, variant, name) for name in ("gender", "tone")] == ["better", "worse"]
    aimed = replace(variant, aimed=("gender", "tone"))
    assert judgement(replace(results, variants=(results.original, aimed)), aimed, "tone") == ""


def test_what_nothing_aims_at_is_never_better_in_any_table() -> None:
    """Everything moves to equal shares, and the variant is made for none of it."""
    results = seen_results(seen(0, DARK), seen(HALVES, np.arange(IMAGES) // 2 % 4))
    variant = replace(results.variants[1], aimed=())
    results = replace(results, variants=(results.original, variant))
    text = report_page.page(results, {}, {}, "x")
    assert re.findall(r'class="n better"|[▼▲]', text) == [] and 'class="n worse"' in text
    assert {mark for row in page_data(results)["changes"][0] for mark in row[0]["marks"]} == {"-"}
    assert not re.search(r"(falls|rises)", verdicts(results)[1].text)


def test_green_stands_for_better_and_for_nothing_else() -> None:
    """Neither before and after in pictures, report and app, nor anything else that is not a judgement, is green."""
    report, app = ((PACKAGE / name).read_text() for name in ("report/page.css", "app/page.html.jinja"))
    assert re.findall(r"([^{}]*)\{[^{}]*var\(--better\)", report) == ["\n.better, .better small "]
    sides = re.findall(r"--(?:before|after|was|now): (#\w{6})", report + app)
    assert len(sides) == 8
    for colour in (*sides, grid.BEFORE, grid.AFTER, grid.FAINT, grid.INK):
        red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
        assert green <= max(red, blue), colour
    judged = re.findall(r"--better: (#\w{6})", report)
    assert [int(one[3:5], 16) > max(int(one[1:3], 16), int(one[5:7], 16)) for one in judged] == [True, True]


def test_a_combination_of_something_aimed_at_and_something_else_is_nothing_beside_the_aim() -> None:
    results = more_targets(seen_results(one_sided(), seen(HALVES, without_dark(PROMPTS))), {"gender × tone": "tone"})
    joint = replace(results.targets["tone"], attributes=("gender", "tone"))
    results = replace(results, targets={**results.targets, "gender × tone": joint})
    variant = results.variants[1]
    assert not_aimed_at(results, variant) == ["tone"]
    assert judgement(results, variant, "gender × tone") == "" != judgement(results, variant, "tone")
    assert class_judgement(results, variant, "gender × tone", 1) == "" != class_judgement(results, variant, "tone", 1)


def test_where_nothing_changes_it_says_so_with_the_figures() -> None:
    found, beside = said(seen_results(one_sided(), seen(HALVES, TONES)))
    assert found == []
    assert beside == (
        "No clear side effects: in the average prompt the tone of 0% of the people shifts (0% by"
        " chance alone); right job shows no clear change (100% to 100% of the images)."
    )


def test_swaps_without_a_direction_are_no_harm() -> None:
    """Of each prompt's images six turn from dark to tan, and six from tan to dark."""
    swapped = TONES.copy()
    swapped[:6], swapped[TONES == 1] = 1, DARK
    results = seen_results(one_sided(), seen(HALVES, swapped))
    assert results.figures(results.variants[1], "tone").change.same_class == 1 - 12 / IMAGES
    assert said(results)[0] == []


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        (
            {3: IMAGES},
            "ight job shows no clear change (100% to 93.8% of the images), but it falls for job 3 (100% → 0%)",
        ),
        ({1: 1}, None),
        ({1: 12, 2: 9}, "job 1 (100% → 63%) and job 2 (100% → 72%)"),
    ],
)
def test_what_should_stay_is_told_with_the_worst_prompts(lost: dict[int, int], expected: str | None) -> None:
    right = np.ones((PROMPTS, IMAGES), bool)
    for prompt, images in lost.items():
        right[prompt, :images] = False
    found, beside = said(seen_results(one_sided(), seen(HALVES, TONES), right=right))
    assert [kind for kind, _ in found] == (["kept"] if expected else [])
    assert expected is None or (expected in found[0][1] and expected in beside)
    assert expected is not None or "right job shows no clear change (100% to 99.8% of the images)" in beside


def test_where_nothing_tells_what_should_stay_the_fit_to_the_prompt_is_told() -> None:
    results = seen_results(one_sided(), seen(HALVES, TONES))

    def beside(fit: Estimate) -> str:
        fits = [(Estimate(0.5, 0.49, 0.51),) * PROMPTS for _ in range(2)]
        fits[1] = (*fits[1][:9], fit, *fits[1][10:])
        variants = [
            replace(one, kept=None, kept_change=None, kept_prompts=None, text_alignment={"eye": row[9]},
                    text_prompts={"eye": row})
            for one, row in zip(results.variants, fits, strict=True)
        ]  # fmt: skip
        return verdicts(replace(results, kept=None, variants=tuple(variants)))[1].beside

    assert beside(Estimate(0.4, 0.38, 0.5)).endswith("; fit to the prompt goes from 0.50 to 0.40.")
    clearly = beside(Estimate(0.4, 0.38, 0.48))
    falls = "fit to the prompt goes from 0.50 to 0.40, and clearly falls for job 9 (0.50 → 0.40)"
    assert clearly.startswith(f"Side effects: {falls}")


def test_the_bounds_are_those_of_clear_losses() -> None:
    results = seen_results(one_sided(), seen(HALVES, TONES))
    variant = results.variants[1]

    def kinds(**changes: Any) -> list[str]:
        changed = replace(variant, **changes)
        return [harm.kind for harm in harms(replace(results, variants=(results.original, changed)), changed)]

    assert kinds(kept_change=Estimate(-0.02, -0.03, -0.009)) == []
    assert kinds(kept_change=Estimate(-0.02, -0.03, -0.011)) == ["kept"]
    assert kinds(kept_prompts=(*variant.kept_prompts[1:], Estimate(0.7, 0.5, 0.86))) == []
    assert kinds(kept_prompts=(*variant.kept_prompts[1:], Estimate(0.7, 0.5, 0.84))) == ["kept"]
    before = replace(results.original, kept_prompts=(Estimate(0.84, 0.8, 0.9), *variant.kept_prompts[1:]))
    low = replace(variant, kept_prompts=(Estimate(0.5, 0.4, 0.6), *variant.kept_prompts[1:]))
    assert harms(replace(results, variants=(before, low)), low) == [], "it was not right before either"
    figures = results.figures(variant, "tone")
    for low, expected in ((0.059, []), (0.061, ["shift"])):
        shift = replace(figures.change.shift, floor_removed=Estimate(0.1, low, 0.2))
        bias = {"one": {**variant.bias["one"], "tone": replace(figures, change=replace(figures.change, shift=shift))}}
        assert kinds(bias=bias) == expected


def test_who_vanishes_of_an_attribute_that_was_aimed_at_is_part_of_the_aim() -> None:
    results = seen_results(seen(HALVES, TONES), seen(0, TONES))
    verdict = verdicts(results)[1]
    assert "; but men all but vanish (50% → 0%); in 16 of 16 prompts they all but vanish (job 0" in verdict.aim
    assert verdict.beside.startswith("No clear side effects")
    assert [harm.kind for harm in harms(results, results.variants[1])] == ["erasure"]
    assert harms(results, results.original) == [] and verdicts(results)[0].beside == ""


def test_who_is_erased_is_no_better_off_for_being_nearer_to_the_target() -> None:
    """Women are 28 of 32 before and 6 after, where 16 are asked for: that is nearer, and less than half of it."""
    men = np.arange(IMAGES)[None] >= np.array([[28], [6]])
    results = seen_results(*(seen(row.astype(int), TONES) for row in men))
    assert class_judgement(results, results.variants[1], "gender", 0) == "worse"
    assert class_judgement(results, results.variants[1], "gender", 0, prompt=3) == "worse"


def test_one_image_per_prompt_is_told_to_say_nothing() -> None:
    results = seen_results(seen(0, 0, images=1), seen(1, 0, images=1), images=1)
    assert [verdict.aim for verdict in verdicts(results)] == [ONE_IMAGE] * 2


def test_classes_without_words_of_their_own_are_named() -> None:
    assert people("tone", "dark") == "dark-skinned people" and people("gender", "male") == "men"
    assert people("hair", "red") == "images of hair red" and people("gender", "x") == "images of gender x"


def printed(results: Results) -> str:
    from rich.console import Console

    console = Console(width=80, record=True, quiet=False, file=io.StringIO())
    print_headline(console, results)
    return console.export_text()


def test_the_terminal_says_it_in_80_columns() -> None:
    results = seen_results(one_sided(), seen(HALVES, without_dark(PROMPTS)))
    text = printed(replace(results, variants=(results.original, replace(results.variants[1], name="fair " * 9))))
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"yes +bias 1\.00 → 0\.00 +0\.00–0\.\d\d ", text) and re.search(r"no +shift 0\.50 ", text)
    assert "dark 0%" in text and "tone bias falls" not in text
    assert "dark-skinned people all but vanish (50% → 0%)" in " ".join(text.split())


def test_the_terminal_says_who_shows_no_face_however_few() -> None:
    found = np.ones((PROMPTS, IMAGES), bool)
    found[4], found[5, 0] = False, False
    text = " ".join(printed(seen_results(one_sided(), seen(HALVES, TONES), found=found)).split())
    assert "6.4% of the images show no face and do not count; no image of job 4 shows a face." in text
    found[4] = True
    assert "0.2% of the images show no face" in " ".join(
        printed(seen_results(one_sided(), seen(HALVES, TONES), found=found)).split()
    )
