"""The report of an evaluation: what it says, and that it holds whatever users name things."""

import itertools
import json
import math
import re
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fair_adaptors.adaptor.results import Calibration, Estimate, Results, VariantResults
from fair_adaptors.adaptor.results_file import from_json, load_results, to_json
from fair_adaptors.errors import MissingExtraError
from fair_adaptors.evaluation.metrics import total_variation_floor
from fair_adaptors.evaluation.records import Record, save
from fair_adaptors.evaluation.spec import Evaluation, Instruments, Kept, Target
from fair_adaptors.evaluation.store import RESULTS_FILE, image_path, record_path
from fair_adaptors.evaluation.summary import summarise
from fair_adaptors.evaluation.variants import Variant, original
from fair_adaptors.evaluation.verdict import direction, number, signed, verdicts
from fair_adaptors.prompts.sets import PromptSet
from fair_adaptors.report import gallery, plots
from fair_adaptors.report import page as report_page
from fair_adaptors.report.page_data import page_data
from fair_adaptors.vision.types import Classifier, Encoder

CLASSES = {"gender": ("female", "male"), "tone": ("pale", "tan", "brown", "dark")}
HALF, QUARTER = Target(("gender",), (0.5, 0.5)), Target(("tone",), (0.25,) * 4)
OLD = Target(("gender",), (0.95, 0.05))
EVIL = "<script>alert(1)</script></script><b>&\u2028'\"$x ${y}" + 90 * "w"
COMMAND = "fair-adaptors evaluate sandbox --out 'a folder'"


def named(
    prompts: int, images: int, *, targets: tuple[Target, ...] = (HALF, QUARTER), word: str = "job"
) -> Evaluation:
    labels = tuple(f"{word} {p}" for p in range(prompts))
    every = PromptSet("jobs", tuple(f"a photo of a {label}" for label in labels), labels, "made up")
    return Evaluation("toy", every, targets, images_per_prompt=images)


def instruments(*classifiers: str, kept: bool = True) -> Instruments:
    return Instruments(
        tuple(Classifier(name, name, CLASSES, lambda images: {}) for name in classifiers or ("one", "two")),
        (Encoder("eye", "eye", lambda images: images),),
        kept=Kept("right job", lambda label, logits: np.ones(1, bool)) if kept else None,
        calibrate=lambda labels: {"one": {"gender": Calibration(("female", "male"), 0.5, 0.45, -0.05,
                                                                ((0.9, 0.1), (0.05, 0.95)))}},
    )  # fmt: skip


def record(evaluation: Evaluation, tools: Instruments, lean: float, *, seed: int = 0, **changes: Any) -> Record:
    """Images of class 0 with chance ``lean``, else of any class; the classifier is sure of all."""
    chance = np.random.default_rng(seed)
    shape = len(evaluation.prompts.prompts), evaluation.images_per_prompt
    seen = {}
    for name, classes in CLASSES.items():
        number = len(classes)
        index = np.where(chance.random(shape) < lean, 0, chance.integers(number, size=shape))
        seen[name] = np.eye(number)[index] * 0.9 + 0.1 / number
    features = chance.normal(size=(*shape, 8)) * 0.2 + 1
    whole = Record(
        seeds=np.arange(shape[0] * shape[1]).reshape(shape),
        found=np.ones(shape, bool),
        boxes=np.zeros((*shape, 4)),
        probabilities={classifier.name: seen for classifier in tools.classifiers},
        features={"eye": features / np.linalg.norm(features, axis=-1, keepdims=True)},
        right=np.ones(shape, bool) if tools.kept else None,
        seconds=np.ones(shape[0]),
    )
    return Record(**{**vars(whole), **changes})


def settings(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "format": "1", "base": evaluation.base, "base_fingerprint": "f00", "prompt_set": evaluation.prompts.name,
        "prompts": list(evaluation.prompts.prompts), "labels": list(evaluation.prompts.labels),
        "images_per_prompt": evaluation.images_per_prompt, "seed": 0, "num_steps": 3, "guidance_scale": 1.5,
        "batch_size": 8, "keep_images": True, "scheduler": "DDIM", "scheduler_config": "c", "instruments": "i",
        "versions": {},
    }  # fmt: skip


def measured(evaluation: Evaluation, tools: Instruments, records: Mapping[str, Record]) -> Results:
    variants = [original(), *(Variant(name, f"id {name}", summary=f"It is {name}.") for name in list(records)[1:])]
    return summarise(evaluation, variants, tools, records, settings(evaluation))


def said(targets: tuple[Target, ...], *, before: float, after: float, **changes: Any) -> dict[str, str]:
    evaluation, tools = named(12, 24, targets=targets), instruments("one")
    records = {
        "original": record(evaluation, tools, before),
        "fair": record(evaluation, tools, after, seed=1, **changes),
    }
    return dict(verdicts(measured(evaluation, tools, records)))


def strengths(results: Results, *weights: float) -> Results:
    """Add the last variant again, as an adaptor of these strengths."""
    last = results.variants[-1]
    more = tuple(
        replace(last, name=f"adaptor × {weight}", identity=f"{weight} of it", adaptor="adaptor", weight=weight)
        for weight in weights
    )
    return replace(results, variants=results.variants + more)


def obeyed(results: Results) -> Results:
    """Let three of four images be as the prompts say."""
    rate = {"one": {"gender": Estimate(0.75, 0.5, 0.9)}}
    return replace(results, variants=tuple(replace(variant, obeyed=rate) for variant in results.variants))


def more_targets(results: Results, names: Mapping[str, str]) -> Results:
    """Add targets whose figures are those of another target."""

    def doubled(variant: VariantResults) -> VariantResults:
        return replace(
            variant,
            bias={
                classifier: {**figures, **{new: figures[old] for new, old in names.items()}}
                for classifier, figures in variant.bias.items()
            },
        )

    targets = {**results.targets, **{new: results.targets[old] for new, old in names.items()}}
    return replace(results, targets=targets, variants=tuple(map(doubled, results.variants)))


def write(results: Results, out: Path) -> None:
    (out / RESULTS_FILE).write_text(json.dumps(to_json(results)), encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation with pictures, whose names are as bad as can be."""
    from PIL import Image

    out = tmp_path_factory.mktemp("report")
    evaluation, tools = named(8, 9, word=EVIL), instruments()
    found = np.ones((8, 9), bool)
    found[0, 0] = False
    records = {"original": record(evaluation, tools, 0.9, found=found), f"fair {EVIL}": record(evaluation, tools, 0.0)}
    results = strengths(measured(evaluation, tools, records), 0.5, 1.0)
    write(results, out)
    for variant, p in itertools.product(results.variants[:2], range(8)):
        save(record_path(out, variant, p), of_prompt(records[variant.name], p), "whatever")
        for i in range(9):
            path = out / image_path(variant, p, i)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (160, 160), (20 * p, 20 * i, 90)).save(path)
    return out


def of_prompt(whole: Record, p: int) -> Record:
    probabilities = {
        classifier: {name: values[p] for name, values in seen.items()}
        for classifier, seen in whole.probabilities.items()
    }
    return Record(whole.seeds[p], whole.found[p], whole.boxes[p], probabilities)


@pytest.fixture
def page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(report_page, "write_plots", lambda folder, results: [])
    return report_page.write_report(folder, command=f"{COMMAND} {EVIL}")


def test_a_change_is_called_one_only_where_its_interval_says_so() -> None:
    fell = said((HALF,), before=1.0, after=0.0)
    assert re.match(r"Gender bias is 1\.00 \(0\.\d\d–1\.00\), above the noise floor of 0\.16; ", fell["original"])
    change = r"Gender bias falls from 1\.00 to 0\.\d\d \(change −0\.\d\d to −0\.\d\d\)"
    assert re.match(
        change + r", not told apart from the noise floor of 0\.16; right job shows no clear change", fell["fair"]
    )
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


def uneven() -> Results:
    """An evaluation in which one target is not the same share for every class."""
    evaluation, tools = named(8, 24, targets=(OLD, QUARTER)), instruments("one")
    records = {"original": record(evaluation, tools, 0.0), "fair": record(evaluation, tools, 0.9, seed=1)}
    return measured(evaluation, tools, records)


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
    pytest.importorskip("matplotlib")
    results = uneven()
    found = results.figures(results.variants[1], "gender")
    for figure, across in ((plots.bias_figure(results), True), (plots.pareto_figure(results), False)):
        axes = figure.axes[0]
        drawn = {float(value) for line in axes.lines for value in (line.get_xdata() if across else line.get_ydata())}
        assert axes.get_title(loc="left") == "distance of gender from its target"
        assert {found.total_variation.value, found.total_variation.floor} <= drawn
        assert found.bias.value not in drawn


def test_words_on_the_plot_do_not_overlap() -> None:
    """Twelve strengths with the same figures are twelve points in one place."""
    pytest.importorskip("matplotlib")
    figure = plots.pareto_figure(strengths(uneven(), *(k / 8 for k in range(12))))
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert 2 <= len(boxes) <= 4
    assert not any(one.overlaps(other) for k, one in enumerate(boxes) for other in boxes[:k])
    assert len(plots._label("runs/" + 40 * "long " + "seed 3", 28)) == 28 and "seed 3" in plots._label(EVIL + "seed 3")


def test_images_that_do_not_count_or_are_doubtful_are_mentioned_unless_few() -> None:
    missing = np.arange(12 * 24).reshape(12, 24) % 5 > 0
    assert "% of the images show no face" in said((HALF,), before=1.0, after=1.0, found=missing)["fair"]
    unsure = {"one": {"gender": np.full((12, 24, 2), 0.5), "tone": np.full((12, 24, 4), 0.25)}}
    sentences = said((HALF,), before=1.0, after=1.0, probabilities=unsure)
    assert "gender is undetermined in 100% of the images" in sentences["fair"]
    assert "undetermined" not in sentences["original"] and "no face" not in sentences["original"]


def test_what_is_kept_falls_only_where_the_intervals_part() -> None:
    lost = np.zeros((12, 24), bool)
    assert "right job falls from 100% to 0% of the images" in said((HALF,), before=1.0, after=1.0, right=lost)["fair"]


def test_many_targets_are_told_by_what_happened_to_them() -> None:
    evaluation, tools = named(12, 24), instruments("one")
    records = {"original": record(evaluation, tools, 1.0), "fair": record(evaluation, tools, 0.0)}
    results = more_targets(measured(evaluation, tools, records), {f"more {k}": "gender" for k in range(18)})
    sentence = dict(verdicts(results))["fair"]
    assert sentence.startswith("Bias falls for gender (1.00 to ") and " and 14 more; " in sentence


def test_ties_are_rounded_as_the_page_does() -> None:
    assert [number(value) for value in (0.125, 0.375, -0.125, math.nan)] == ["0.13", "0.38", "−0.13", "–"]
    assert [signed(value) for value in (0.125, -0.125, 0.0, -0.001)] == ["+0.13", "−0.13", "0.00", "0.00"]


def test_marks_of_classes_differ() -> None:
    assert gallery.marks(["female", "male"]) == ["F", "M"]
    assert gallery.marks(["female pale", "female tan"]) == ["FP", "FT"]
    assert gallery.marks(["brown", "black", ""]) == ["A", "B", "C"]


def test_the_page_needs_nothing_and_reads_without_its_script(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg\b)", text)
    assert set(re.findall(r'src="(.{15})', text)) == {"data:image/jpeg"}
    plain = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    for words in ("falls from", "noise floor", "right job", "Cohen’s κ", "measured bias", "female 90%", COMMAND[:30]):
        assert words in plain or words.replace("'", "&#x27;") in plain
    assert plain.count('data-label="floor removed"') == 4 * 2 * 2


def test_names_are_text_wherever_they_stand(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
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


def renamed(value: Any, ending: str, names: set[str]) -> Any:
    """Put an ending to every text in some results, and to what is a name among the keys."""
    if isinstance(value, str):
        return value + ending
    if isinstance(value, dict):
        return {(key + ending if key in names else key): renamed(item, ending, names) for key, item in value.items()}
    return [renamed(item, ending, names) for item in value] if isinstance(value, list) else value


def page_of_names(ending: str, picture: Path) -> tuple[str, set[str]]:
    """A page on which everything that has a name has it with an ending, and the names that it should show."""
    evaluation, tools = named(2, 4), instruments()
    records = {"original": record(evaluation, tools, 0.9), "fair": record(evaluation, tools, 0.0)}
    results = replace(obeyed(strengths(measured(evaluation, tools, records), 0.5)), face_detector="detector")
    names = {"one", "two", "eye", "gender", "tone"}
    results = from_json(renamed(to_json(results), ending, names | set(results.versions)))
    seen = [gallery.Picture(picture, 0, False), gallery.Picture(picture, None, True)]
    pictures = {(variant.name, p): seen for variant in results.variants for p in range(2)}
    words = {"toy", "detector", "jobs", "made up", "job 0", "a photo of a job 1", "It is fair.", "right job", "female",
             "pale", "DDIM", "adaptor × 0.5", "fair-adaptors evaluate", *names}  # fmt: skip
    text = report_page.page(results, {}, pictures, f"fair-adaptors evaluate{ending}")
    return text, {word + ending for word in words}


HOSTILE = '</script></title></option><img src=x onerror=alert(1)>" onmouseover="alert(2)\' $x ${y} &amp; <!-- \u2028'


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


def test_pictures_are_few_small_and_marked(folder: Path, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("<img ") == 6 * 8 * 2 and "4 more prompts" in text
    assert "image 0: no face" in text and re.search(r'image 1: (fe)?male"', text)
    grids = list((folder / "plots").glob("grid_*.png"))
    assert len(grids) == 1 and "/" not in grids[0].name and "<" not in grids[0].name


def test_pictures_that_are_gone_or_whose_record_is_damaged_are_left_out(folder: Path, tmp_path: Path) -> None:
    results = load_results(folder / RESULTS_FILE)
    first, second = results.variants[:2]
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / image_path(first, 0, 1)).unlink()
    record_path(tmp_path, second, 0).write_bytes(b"no record")
    shutil.rmtree((tmp_path / image_path(second, 1, 0)).parent)
    found = gallery.find_pictures(tmp_path, results, 2, 8)
    assert {key: len(pictures) for key, pictures in found.items()} == {(first.name, 0): 7, (first.name, 1): 8}
    assert found[first.name, 0][0].seen is None and found[first.name, 0][1].path.name == "0002.png"


def test_without_pictures_and_with_one_variant_there_is_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_page, "write_plots", lambda folder, results: [])
    evaluation, tools = named(2, 4), instruments("one", kept=False)
    write(obeyed(measured(evaluation, tools, {"original": record(evaluation, tools, 0.5)})), tmp_path)
    text = report_page.write_report(tmp_path, command="x").read_text(encoding="utf-8")
    assert "were not saved" in text and "prompts obeyed" in text and "classifiers agree" not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", RESULTS_FILE]


def test_plots_lie_beside_the_page(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    from PIL import Image

    report_page.write_report(folder, command=COMMAND)
    for name in ("bias.png", "pareto.png"):
        with Image.open(folder / "plots" / name) as picture:
            assert picture.width > 600 and picture.height > 300
    assert "matplotlib.pyplot" not in sys.modules


def test_without_matplotlib_the_page_is_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"] + ["matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    (folder / "report.html").unlink(missing_ok=True)
    with pytest.raises(MissingExtraError, match=r"fair-adaptors\[eval\]"):
        report_page.write_report(folder, command=COMMAND)
    assert (folder / "report.html").exists()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of 50 prompts × 25 variants × 8 targets, as two classifiers see them: 10,000 rows each."""
    evaluation, tools = named(50, 16), instruments()
    records = {"original": record(evaluation, tools, 0.9), "fair": record(evaluation, tools, 0.1)}
    results = strengths(measured(evaluation, tools, records), *(k / 10 for k in range(1, 24)))
    results = more_targets(results, {f"{name} {k}": name for k in range(3) for name in ("gender", "tone")})
    out = tmp_path_factory.mktemp("large")
    write(results, out)
    return out


def test_ten_thousand_rows_are_quick_and_small(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_page, "write_plots", lambda folder, results: [])
    started = time.perf_counter()
    path = report_page.write_report(large, command=COMMAND)
    assert time.perf_counter() - started < 20
    assert path.stat().st_size < 5e6
