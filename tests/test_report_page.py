"""The report's page in a real browser: it fits, it sorts and filters, and names stay text."""

import time
from pathlib import Path

import pytest

from fair_adaptors.adaptor.results_file import load_results
from fair_adaptors.evaluation.store import RESULTS_FILE
from fair_adaptors.evaluation.wording import number
from fair_adaptors.report import page as report_page
from tests.browser import Browser
from tests.reports import (
    COMMAND,
    HALVES,
    HOSTILE,
    one_sided,
    page_of_names,
    seen,
    seen_results,
    uneven,
    without_dark,
    write,
)

COLUMN = "[...document.querySelectorAll('table.sortable')[0].tBodies[0].rows].map(row => row.cells[{}].dataset.v)"
HEAD = "document.querySelectorAll('table.sortable')[0].tHead.rows[0].cells"


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_the_page_fits_and_has_nothing_to_complain_of(
    written_page: Path, browser: Browser, width: int, dark: bool
) -> None:
    browser.problems.clear()
    browser.open(written_page, width=width, dark=dark)
    browser.run("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    assert browser.run("document.documentElement.scrollWidth") <= width
    tables = browser.run("[...document.querySelectorAll('table')].map(one => one.scrollWidth - one.clientWidth)")
    assert width > 600 or max(tables) <= 0
    first = "(one => one.scrollWidth - one.clientWidth)(document.querySelector('.scroll'))"
    assert browser.run(first) <= 0, "nothing of the first table is out of sight"
    ink = browser.run("getComputedStyle(document.body).color")
    assert (ink == "rgb(231, 236, 241)") == dark
    assert browser.run("document.querySelectorAll('#dots circle').length") > 2 * 8
    assert browser.run("document.querySelector('#pareto svg.plot polyline').getAttribute('points').split(' ').length")
    assert browser.problems == []


def test_names_stay_text_when_the_script_has_written_them(tmp_path: Path, browser: Browser) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    path = tmp_path / "report.html"
    path.write_text(page_of_names(HOSTILE, tmp_path / "picture.png")[0], encoding="utf-8")
    browser.problems.clear()
    browser.open(path)
    assert browser.run("document.querySelectorAll('[onerror], [onmouseover], img[src=x], #data img').length") == 0
    assert browser.run("document.querySelector('#dots tbody th').textContent") == f"job 0{HOSTILE}"
    assert browser.problems == []


def test_tables_sort_by_click_and_by_key_and_filter(written_page: Path, browser: Browser) -> None:
    browser.problems.clear()
    browser.open(written_page)
    listed = [float(value) for value in browser.run(COLUMN.format(3))]
    browser.run(f"{HEAD}[3].querySelector('button').click()")
    assert [float(value) for value in browser.run(COLUMN.format(3))] == sorted(listed) != listed
    assert browser.run(f"{HEAD}[3].getAttribute('aria-sort')") == "ascending"
    browser.run(f"{HEAD}[3].querySelector('button').focus()")
    browser.press("Enter", 13)
    assert [float(value) for value in browser.run(COLUMN.format(3))] == sorted(listed, reverse=True)
    assert browser.run(f"[...{HEAD}].map(head => head.getAttribute('aria-sort'))")[3] == "descending"
    browser.run(f"{HEAD}[5].querySelector('button').click()")  # the original has no change: it stands last
    assert browser.run(COLUMN.format(5))[-2:] == ["", ""]
    browser.run(f"{HEAD}[5].querySelector('button').click()")
    assert browser.run(COLUMN.format(5))[-2:] == ["", ""]

    def filtered(words: str) -> int:
        box = f"document.querySelector('.tools input').value = {words!r}"
        browser.run(f"{box}; document.querySelector('.tools input').dispatchEvent(new Event('input'))")
        found: int = browser.run(f"{COLUMN.format(3)}.length")
        return found

    assert filtered("TONE orig") == 1
    assert browser.run("document.querySelector('output').textContent") == "1 of 8 rows"
    assert filtered("nothing has this name") == 0 and filtered("") == 8
    assert browser.problems == []


def test_the_page_may_not_reach_the_network(written_page: Path, browser: Browser) -> None:
    browser.open(written_page)
    attempt = (
        "new Promise(done => { document.addEventListener('securitypolicyviolation', event =>"
        " done(event.effectiveDirective)); fetch('http://127.0.0.1:9/').catch(() => {}); })"
    )
    assert browser.run(attempt) == "connect-src"


def test_the_dot_plot_shows_what_is_chosen(written_page: Path, browser: Browser) -> None:
    browser.open(written_page)
    results = load_results(written_page.parent / RESULTS_FILE)
    browser.run("(([target, variant]) => { target.value = 1; target.dispatchEvent(new Event('change'));"
                " variant.value = 0; variant.dispatchEvent(new Event('change')); })"
                "(document.querySelectorAll('#dots select'))")  # fmt: skip
    shown = browser.run("[...document.querySelectorAll('#dots tbody tr')].map(row => [row.cells[0].textContent,"
                        " Number(row.cells[2].dataset.v), Number(row.cells[3].dataset.v)])")  # fmt: skip
    before, after = ([row.bias.value for row in results.figures(variant, "tone").prompts]
                     for variant in results.variants[:2])  # fmt: skip
    for label, (name, was, now), one, other in zip(results.labels, shown, before, after, strict=True):
        assert name == label and abs(was - one) < 1e-3 and abs(now - other) < 1e-3
    browser.run("document.querySelectorAll('#dots thead button')[3].click()")
    changes = browser.run(
        "[...document.querySelectorAll('#dots tbody tr')].map(row => Number(row.cells[4].dataset.v))"
    )
    assert changes == sorted(changes) and changes[0] < changes[-1]


def test_the_dot_plot_of_a_target_that_is_not_even_is_of_the_distance_from_it(
    tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_page, "write_plots", lambda folder, results: [])
    results = uneven()
    write(results, tmp_path)
    browser.open(report_page.write_report(tmp_path, command=COMMAND))
    figure = results.figures(results.variants[1], "gender")
    about = browser.run("document.querySelector('#dots p').textContent")
    assert about.startswith("Distance of gender from its target, mean over prompts: original ")
    assert f"Noise floor {number(figure.total_variation.floor)}." in about
    shown = browser.run("[...document.querySelectorAll('#dots tbody tr')].map(row => Number(row.cells[3].dataset.v))")
    assert shown == [round(row.total_variation.value, 3) for row in figure.prompts]
    assert browser.run("document.querySelector('#dots svg.axis').textContent") == "00.4750.95"
    assert "distance of gender from its target" in browser.run(
        "document.querySelector('#pareto svg.plot').textContent"
    )


def test_a_large_page_opens_and_filters_at_once(
    large_folder: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_page, "write_plots", lambda folder, results: [])
    browser.problems.clear()
    path = report_page.write_report(large_folder, command=COMMAND)
    started = time.perf_counter()
    browser.open(path)
    browser.run(f"{HEAD}[3].querySelector('button').click()")
    assert time.perf_counter() - started < 20
    assert browser.run(f"{COLUMN.format(3)}.length") == 60
    browser.run("[...document.querySelectorAll('button')].find(one => one.textContent === 'Show all 200').click()")
    assert browser.run(f"{COLUMN.format(3)}.length") == 200
    assert browser.problems == []


def test_a_class_that_is_gone_from_a_prompt_is_red_on_the_screen(
    tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_page, "write_plots", lambda folder, results: [])
    write(seen_results(one_sided(), seen(HALVES, without_dark(1))), tmp_path)
    browser.problems.clear()
    browser.open(report_page.write_report(tmp_path, command=COMMAND))
    browser.run("(target => { target.value = 1; target.dispatchEvent(new Event('change')); })"
                "(document.querySelector('#dots select'))")  # fmt: skip
    rows = browser.run("[...document.querySelectorAll('#classes tbody tr')].map(row => [...row.cells].map("
                       "cell => [cell.firstChild.textContent.trim(), getComputedStyle(cell).color]))")  # fmt: skip
    ink, red = "rgb(23, 32, 43)", "rgb(179, 38, 30)"
    assert [row[0][0] for row in rows] == ["all prompts", *(f"job {p}" for p in range(16))]
    assert rows[1][4] == ["50% → 0%", red] and rows[1][2] == ["19% → 69%", red] and rows[1][1] == ["16% → 16%", ink]
    assert {colour for row in rows[2:] for _, colour in row} == {ink}
    assert "Not aimed at: what counts is the distance from the original" in browser.run(
        "document.querySelector('#dots p').textContent"
    )
    assert browser.problems == []
