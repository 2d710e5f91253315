"""The report of an evaluation: what it says, and that it holds whatever users name things."""

import json
import re
import shutil
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from fair_adaptors.adaptor.results import Estimate
from fair_adaptors.adaptor.results_file import load_results
from fair_adaptors.errors import MissingExtraError
from fair_adaptors.evaluation.metrics import total_variation_floor
from fair_adaptors.evaluation.store import RESULTS_FILE, image_path, record_path
from fair_adaptors.report import gallery, png_plots
from fair_adaptors.report import page as report_page
from fair_adaptors.report.page_data import page_data
from tests.reports import (
    COMMAND,
    DARK,
    EVIL,
    HALVES,
    HOSTILE,
    IMAGES,
    OLD,
    PROMPTS,
    TONES,
    instruments,
    measured,
    named,
    obeyed,
    one_sided,
    page_of_names,
    record,
    seen,
    seen_results,
    strengths,
    uneven,
    without_dark,
    write,
)


def test_where_the_target_is_not_even_shares_the_page_draws_the_distance_from_it() -> None:
    results = uneven()
    data = page_data(results)
    assert [(one["figure"], one["most"]) for one in data["targets"]] == [
        ("distance of gender from its target", 0.95), ("tone bias", 0.5)
    ]  # fmt: skip
    for target, key, floor in (
        ("gender", "total_variation", total_variation_floor(24, OLD.shares)),
        ("tone", "bias", None),
    ):
        figures = [results.figures(variant, target) for variant in results.variants]
        for found, rows in zip(figures, data["rows"][0][target == "tone"], strict=True):
            mean = getattr(found, key)
            assert rows["v"] == [round(1000 * getattr(row, key).value) for row in found.prompts]
            assert all(low <= value <= high for low, value, high in zip(rows["l"], rows["v"], rows["h"], strict=True))
            assert (*rows["mean"], rows["floor"]) == (mean.value, mean.low, mean.high, mean.floor)
            assert floor is None or rows["floors"] == {24: round(1000 * floor)}
        assert data["rows"][0][target == "tone"][1]["change"][0] == getattr(figures[1].change, key).value


def test_where_the_target_is_not_even_shares_the_plots_show_the_distance_from_it() -> None:
    results = uneven()
    found = results.figures(results.variants[1], "gender")
    for figure, across in ((png_plots.bias_figure(results), True), (png_plots.pareto_figure(results), False)):
        axes = figure.axes[0]
        drawn = {float(value) for line in axes.lines for value in (line.get_xdata() if across else line.get_ydata())}
        assert axes.get_title(loc="left") == "distance of gender from its target"
        assert {found.total_variation.value, found.total_variation.floor} <= drawn
        assert found.bias.value not in drawn
        assert ["not aimed at" in one.get_xlabel() for one in figure.axes] == [False, True]


def test_words_on_the_plot_do_not_overlap() -> None:
    """Twelve strengths with the same figures are twelve points in one place."""
    figure = png_plots.pareto_figure(strengths(uneven(), *(k / 8 for k in range(12))))
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert 2 <= len(boxes) <= 4
    assert not any(one.overlaps(other) for k, one in enumerate(boxes) for other in boxes[:k])
    assert len(png_plots._label("runs/" + 40 * "long " + "seed 3", 28)) == 28 and "seed 3" in png_plots._label(
        EVIL + "seed 3"
    )


def test_marks_of_classes_differ() -> None:
    assert gallery.marks(["female", "male"]) == ["F", "M"]
    assert gallery.marks(["female pale", "female tan"]) == ["FP", "FT"]
    assert gallery.marks(["brown", "black", ""]) == ["A", "B", "C"]


def test_the_page_needs_nothing_and_reads_without_its_script(written_page: Path) -> None:
    text = written_page.read_text(encoding="utf-8")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg\b)", text)
    assert set(re.findall(r'src="(.{15})', text)) == {"data:image/jpeg"}
    plain = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    for words in ("falls from", "noise floor", "right job", "Cohen’s κ", "measured bias", "female 90%", COMMAND[:30]):
        assert words in plain or words.replace("'", "&#x27;") in plain
    assert plain.count('data-label="floor removed"') == 4 * 2 * 2


@pytest.mark.parametrize("gone", [0, 1, PROMPTS])
def test_who_vanishes_is_red_and_green_is_only_what_was_aimed_at(gone: int) -> None:
    """Women and men get even, and of the first prompts everybody dark turns tan: 16 of 32 before, none after."""
    results = seen_results(one_sided(), seen(HALVES, without_dark(gone)))
    text = report_page.page(results, {}, {}, COMMAND)
    coloured = dict.fromkeys(re.findall(r'<td class="n (better|worse)" data-label="([^"]+)"', text))
    over_all = [("worse", "dark"), ("worse", "tan"), ("worse", "shift")] if gone == PROMPTS else []
    assert set(coloured) == {("better", "change"), ("better", "female"), ("better", "male"), *over_all}
    assert re.findall(r'<td class="n( \w+)?" data-label="change"', text) == ["", "", " better", ""]
    assert re.findall(r'data-label="change"[^>]*>([▼▲])', text) == ["▼"], "of what it is aimed at, and nothing else"
    assert ('<span class="beside worse"><b role="img" aria-label="Warning:">' in text) == bool(gone)
    assert ("dark-skinned people all but vanish" in text) == bool(gone) and "tone bias falls" not in text
    marks = page_data(results)["changes"][0][1][0]["marks"]
    rows = [marks[k : k + 4] for k in range(0, len(marks), 4)]
    assert rows == [" - -" if gone == PROMPTS else "    "] + [" - -"] * gone + ["    "] * (PROMPTS - gone)
    assert "aimed at" in text and "floor 0." in text and ">where it did not<" in text


def test_what_is_lost_of_a_prompt_stands_first_and_is_red() -> None:
    right = np.ones((PROMPTS, IMAGES), bool)
    right[7, 4:] = False
    results = seen_results(one_sided(), seen(HALVES, TONES), right=right)
    fits = [(Estimate(0.5, 0.49, 0.51),) * 9 + (Estimate(fit, fit, fit),) + (Estimate(0.5, 0.49, 0.51),) * 6
            for fit in (0.5, 0.1)]  # fmt: skip
    variants = [replace(one, text_prompts={"eye": fit}) for one, fit in zip(results.variants, fits, strict=True)]
    results = replace(results, variants=tuple(variants))
    text = report_page.page(results, {}, {}, COMMAND).replace("\n", "")
    for name, prompt in (("right job", 7), ("fit to prompt (eye)", 9)):
        table = text.partition(f"<b>{name}</b>")[2].partition("</table>")[0]
        rows = re.findall(r'<th scope="row">(job \d+)</th><td.*?</td><td class="n( worse)?"', table)
        assert rows[0] == (f"job {prompt}", " worse") and [colour for _, colour in rows[1:]] == [""] * (PROMPTS - 1)


def test_names_are_text_wherever_they_stand(written_page: Path) -> None:
    text = written_page.read_text(encoding="utf-8")
    assert text.count("<script") == 2 and text.count("</script") == 2 and "alert(1)<" not in text
    data = json.loads(re.findall(r'id="data">(.*?)</script>', text, re.DOTALL)[0])
    assert data["variants"][1][0] == f"fair {EVIL}" and data["prompts"][0][0] == f"{EVIL} 0"
    assert "\u2028" not in re.findall(r'id="data">(.*?)</script>', text, re.DOTALL)[0]


class Elements(HTMLParser):
    """What a page is made of: elements with the names of their attributes, and the text in them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))
        self.text += [value for _, value in attrs if value]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_whatever_things_are_called_the_page_has_the_same_elements(tmp_path: Path) -> None:
    from PIL import Image

    picture = tmp_path / "picture.png"
    Image.new("RGB", (8, 8)).save(picture)
    plain, _ = page_of_names(" of ours", picture)
    hostile, words = page_of_names(HOSTILE, picture)
    expected, found = Elements(plain), Elements(hostile)
    assert found.found == expected.found
    shown = " ".join(" ".join(found.text).split())
    missing = [word for word in words if " ".join(word.split()) not in shown]
    assert not missing


def test_pictures_are_few_small_and_marked(evaluated_folder: Path, written_page: Path) -> None:
    text = written_page.read_text(encoding="utf-8")
    assert text.count("<img ") == 6 * 8 * 2 and "4 more prompts" in text
    assert "image 0: no face" in text and re.search(r'image 1: (fe)?male"', text)
    grids = list((evaluated_folder / "plots").glob("grid_*.png"))
    assert len(grids) == 1 and "/" not in grids[0].name and "<" not in grids[0].name


def test_pictures_that_are_gone_or_whose_record_is_damaged_are_left_out(
    evaluated_folder: Path, tmp_path: Path
) -> None:
    results = load_results(evaluated_folder / RESULTS_FILE)
    first, second = results.variants[:2]
    shutil.copytree(evaluated_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / image_path(first, 0, 1)).unlink()
    record_path(tmp_path, second, 0).write_bytes(b"no record")
    shutil.rmtree((tmp_path / image_path(second, 1, 0)).parent)
    found = gallery.find_pictures(tmp_path, results, range(2), 8)
    assert {key: len(pictures) for key, pictures in found.items()} == {(first.name, 0): 7, (first.name, 1): 8}
    assert found[first.name, 0][0].seen is None and found[first.name, 0][1].path.name == "0002.png"


def test_the_prompts_in_which_most_changed_are_among_those_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    tones = without_dark(0)
    tones[9][tones[9] == DARK] = 1
    right = np.ones((PROMPTS, IMAGES), bool)
    right[12] = False
    results = seen_results(one_sided(), seen(HALVES, tones), right=right)
    assert gallery.worst_prompts(results) == [9, 12]  # erased is worse than all occupations lost
    assert gallery.chosen_prompts(results, 6) == {0: False, 9: True, 1: False, 12: True, 2: False, 3: False}
    assert list(gallery.chosen_prompts(results, 6)) == [0, 9, 1, 12, 2, 3]
    assert list(gallery.chosen_prompts(seen_results(one_sided(), one_sided()), 3)) == [0, 1, 2]
    monkeypatch.setattr(gallery, "worst_prompts", lambda results: [0, 5])
    assert gallery.chosen_prompts(results, 4) == {0: True, 1: False, 5: True, 2: False}


def test_without_pictures_and_with_one_variant_there_is_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_page, "write_plots", lambda folder, results: [])
    evaluation, tools = named(2, 4), instruments("one", kept=False)
    write(obeyed(measured(evaluation, tools, {"original": record(evaluation, tools, 0.5)})), tmp_path)
    text = report_page.write_report(tmp_path, command="x").read_text(encoding="utf-8")
    assert "were not saved" in text and "get the class that they name" in text and "classifiers agree" not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", RESULTS_FILE]


def test_plots_lie_beside_the_page(evaluated_folder: Path) -> None:
    from PIL import Image

    report_page.write_report(evaluated_folder, command=COMMAND)
    for name in ("bias.png", "pareto.png"):
        with Image.open(evaluated_folder / "plots" / name) as picture:
            assert picture.width > 600 and picture.height > 300
    assert "matplotlib.pyplot" not in sys.modules


def test_without_matplotlib_the_page_is_there(evaluated_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"] + ["matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    (evaluated_folder / "report.html").unlink(missing_ok=True)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[eval\]"):
        report_page.write_report(evaluated_folder, command=COMMAND)
    assert (evaluated_folder / "report.html").exists()


def test_ten_thousand_rows_are_quick_and_small(large_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_page, "write_plots", lambda folder, results: [])
    started = time.perf_counter()
    path = report_page.write_report(large_folder, command=COMMAND)
    assert time.perf_counter() - started < 20
    assert path.stat().st_size < 5e6
