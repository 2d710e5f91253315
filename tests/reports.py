"""Evaluations that are made up, with their reports: as bad as names can be, and as large as pages get."""

import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fair_adaptors.adaptor.results import Estimate, Results, VariantResults
from fair_adaptors.adaptor.results_file import from_json, to_json
from fair_adaptors.adaptor.results_settings import Calibration
from fair_adaptors.evaluation.spec import Evaluation, Instruments, Kept, Target
from fair_adaptors.evaluation.store import RESULTS_FILE, Record, image_path, record_path, save_record
from fair_adaptors.evaluation.summary import summarise
from fair_adaptors.evaluation.variants import Variant, original
from fair_adaptors.prompts.sets import PromptSet
from fair_adaptors.report import gallery
from fair_adaptors.report import page as report_page
from fair_adaptors.vision.types import Classifier, Encoder

CLASSES = {"gender": ("female", "male"), "tone": ("pale", "tan", "brown", "dark")}
HALF, QUARTER = Target(("gender",), (0.5, 0.5)), Target(("tone",), (0.25,) * 4)
OLD = Target(("gender",), (0.95, 0.05))
EVIL = "<script>alert(1)</script></script><b>&\u2028'\"$x ${y}" + 90 * "w"
COMMAND = "fair-adaptors evaluate sandbox --out 'a folder'"
PROMPTS, IMAGES = 16, 32
DARK = 3
HALVES = np.arange(IMAGES) % 2
TONES = np.where(np.arange(IMAGES) < IMAGES // 2, DARK, np.arange(IMAGES) % 3)
"""Half of the images of a prompt are dark."""


def named(
    prompts: int,
    images: int,
    *,
    targets: tuple[Target, ...] = (HALF, QUARTER),
    word: str = "job",
    expected: tuple[Mapping[str, str], ...] = (),
) -> Evaluation:
    labels = tuple(f"{word} {p}" for p in range(prompts))
    every = PromptSet("jobs", tuple(f"a photo of a {label}" for label in labels), labels, "made up", expected)
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
        "images_per_prompt": evaluation.images_per_prompt, "seed": 0, "num_steps": 20, "guidance_scale": 1.5,
        "batch_size": 8, "keep_images": True, "scheduler": "DDIM", "scheduler_config": "c", "instruments": "i",
        "versions": {},
    }  # fmt: skip


def measured(
    evaluation: Evaluation, tools: Instruments, records: Mapping[str, Record], *, aimed: tuple[str, ...] = ("gender",)
) -> Results:
    """Summarise the records: the original's first, then those of variants made for the attributes ``aimed``."""
    variants = [original(), *(Variant(n, f"id {n}", aimed=aimed, summary=f"It is {n}.") for n in list(records)[1:])]
    return summarise(evaluation, variants, tools, records, settings(evaluation))


def seen(gender: Any, tone: Any, *, images: int = IMAGES) -> dict[str, np.ndarray]:
    """Class indices [P, n] of both attributes; what is given for one image or prompt is that of all."""
    shape = PROMPTS, images
    return {"gender": np.broadcast_to(gender, shape).copy(), "tone": np.broadcast_to(tone, shape).copy()}


def seen_results(
    before: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    *,
    images: int = IMAGES,
    expected: tuple[Mapping[str, str], ...] = (),
    joint: bool = False,
    **changes: Any,
) -> Results:
    """An evaluation in which one classifier sees these classes before and after, beyond doubt."""
    targets = (HALF, replace(QUARTER, declared=False), *((Target(("gender", "tone"), (0.125,) * 8),) if joint else ()))
    evaluation, tools = named(PROMPTS, images, targets=targets, expected=expected), instruments("one")

    def looked(classes: Mapping[str, np.ndarray], **changes: Any) -> Any:
        sure = {name: np.eye(len(CLASSES[name]))[index] for name, index in classes.items()}
        return record(evaluation, tools, 0.0, probabilities={"one": sure}, **changes)

    return measured(evaluation, tools, {"original": looked(before), "fair": looked(after, **changes)})


def without_dark(prompts: int) -> np.ndarray:
    """Everybody who is dark in the first prompts turns tan."""
    tones = np.broadcast_to(TONES, (PROMPTS, IMAGES)).copy()
    tones[:prompts][tones[:prompts] == DARK] = 1
    return tones


def one_sided() -> dict[str, np.ndarray]:
    """Everybody is female, and half of everybody dark."""
    return seen(0, TONES)


def strengths(results: Results, *weights: float) -> Results:
    """Add the last variant again, as an adaptor of these strengths."""
    last = results.variants[-1]
    more = tuple(
        replace(last, name=f"adaptor × {weight}", identity=f"{weight} of it", adaptor="adaptor", weight=weight)
        for weight in weights
    )
    return replace(results, variants=results.variants + more)


def obeyed(results: Results) -> Results:
    """Let the first prompt name a gender, and three of four images be as it says."""
    rate = {"one": {"gender": Estimate(0.75, 0.5, 0.9)}}
    expected = ({"gender": results.targets["gender"].classes[0]}, *({},) * (len(results.labels) - 1))
    variants = tuple(replace(variant, obeyed=rate) for variant in results.variants)
    return replace(results, variants=variants, expected=expected)


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


def of_prompt(whole: Record, p: int) -> Record:
    probabilities = {
        classifier: {name: values[p] for name, values in seen.items()}
        for classifier, seen in whole.probabilities.items()
    }
    return Record(whole.seeds[p], whole.found[p], whole.boxes[p], probabilities)


@pytest.fixture(scope="module")
def evaluated_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
        save_record(record_path(out, variant, p), of_prompt(records[variant.name], p), "whatever")
        for i in range(9):
            path = out / image_path(variant, p, i)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (160, 160), (20 * p, 20 * i, 90)).save(path)
    return out


@pytest.fixture
def written_page(evaluated_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(report_page, "write_plots", lambda folder, results: [])
    return report_page.write_report(evaluated_folder, command=f"{COMMAND} {EVIL}")


def uneven() -> Results:
    """An evaluation in which one target is not the same share for every class."""
    evaluation, tools = named(8, 24, targets=(OLD, QUARTER)), instruments("one")
    records = {"original": record(evaluation, tools, 0.0), "fair": record(evaluation, tools, 0.9, seed=1)}
    return measured(evaluation, tools, records)


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


@pytest.fixture(scope="module")
def large_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of 50 prompts × 25 variants × 8 targets, as two classifiers see them: 10,000 rows each."""
    evaluation, tools = named(50, 16), instruments()
    records = {"original": record(evaluation, tools, 0.9), "fair": record(evaluation, tools, 0.1)}
    results = strengths(measured(evaluation, tools, records), *(k / 10 for k in range(1, 24)))
    results = more_targets(results, {f"{name} {k}": name for k in range(3) for name in ("gender", "tone")})
    out = tmp_path_factory.mktemp("large")
    write(results, out)
    return out
