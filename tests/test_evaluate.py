"""An evaluation on the sandbox: what is drawn, seen, counted and kept; interrupted, and on several processes."""

import csv
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fair_adaptors.adaptor.results import Estimate, Results
from fair_adaptors.adaptor.results_file import load_results
from fair_adaptors.errors import ConfigError
from fair_adaptors.evaluation import evaluate
from fair_adaptors.evaluation.images_csv import plain_cell, write_csv
from fair_adaptors.evaluation.spec import Instruments, Target
from fair_adaptors.evaluation.store import IMAGES_FILE, RESULTS_FILE
from fair_adaptors.evaluation.variants import Variant, with_adaptor
from fair_adaptors.prompts.sets import PromptSet
from fair_adaptors.sandbox.instruments import calibrate, instruments
from fair_adaptors.sandbox.pipeline import load_sandbox_pipeline
from fair_adaptors.sandbox.prompts import occupations
from fair_adaptors.vision.types import FaceDetector, Faces
from tests.evaluated import few, run_killed, run_whole, small
from tests.processes import run_alone, run_in_world
from tests.reports import instruments as toy
from tests.reports import named, record


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load_sandbox_pipeline()


@pytest.fixture(scope="module")
def done(pipe: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    out = tmp_path_factory.mktemp("evaluation")
    variants = [with_adaptor("sandbox-gender-tone"), with_adaptor("sandbox-gender-tone", 0.0)]
    return out, evaluate(pipe, small(images_per_prompt=8, num_steps=6), variants, instruments(), out)


def test_every_figure_is_there_with_its_interval_and_floor(done: tuple[Path, Results]) -> None:
    out, results = done
    assert results == load_results(out / RESULTS_FILE)
    assert [variant.name for variant in results.variants] == [
        "original", "sandbox-gender-tone", "sandbox-gender-tone × 0"
    ]  # fmt: skip
    for variant in results.variants:
        for classifier in results.classifiers:
            for name, target in results.targets.items():
                found = variant.bias[classifier][name]
                for figure in ("bias", "floor_removed", "total_variation", "divergence", "worst_decile"):
                    assert getattr(found, figure).low <= getattr(found, figure).value <= getattr(found, figure).high
                for figure in ("bias", "total_variation", "divergence", "worst_decile"):
                    assert getattr(found, figure).floor > 0
                assert sum(row.value for row in found.frequencies) == pytest.approx(1, abs=1e-5)
                assert len(found.frequencies) == len(target.classes) and len(found.prompts) == 4
                for row, figure in itertools.product(found.prompts, ("bias", "total_variation")):
                    assert getattr(row, figure).low <= getattr(row, figure).value <= getattr(row, figure).high
        assert variant.kept.value > 0.5
        assert variant.no_face is None, "nothing looked for faces"
        assert 0 < variant.diversity["sandbox"].value < 1
        assert {row.target for row in variant.agreement} == set(results.targets)
    bias = {variant.name: variant.bias["sandbox:evaluation"]["gender"] for variant in results.variants}
    assert bias["sandbox-gender-tone"].bias.value < bias["original"].bias.value
    assert bias["sandbox-gender-tone"].change.bias.value == pytest.approx(
        bias["sandbox-gender-tone"].bias.value - bias["original"].bias.value, abs=2e-6
    )


def test_similarity_and_what_stayed_are_those_of_the_pairs(done: tuple[Path, Results]) -> None:
    out, results = done
    with (out / "images.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["variant"] == "sandbox-gender-tone"]
    first, after, none = results.variants
    alike = np.mean([float(row["sandbox similarity"]) for row in rows])
    assert after.preservation["sandbox"].value == pytest.approx(alike, abs=1e-4) and alike < 0.999
    fall = first.kept.value - after.kept.value
    assert after.kept_change.value == pytest.approx(-fall, abs=1e-5)
    assert none.kept_change.value == 0 and first.kept_change is None
    worst = after.bias["sandbox:evaluation"]["gender"]
    assert worst.worst_decile.value == max(row.bias.value for row in worst.prompts)


def test_an_adaptor_of_no_strength_is_the_original(done: tuple[Path, Results]) -> None:
    _, results = done
    first, _, none = results.variants
    assert none.preservation["sandbox"].value == pytest.approx(1, abs=1e-5)
    change = none.bias["sandbox:evaluation"]["gender"].change
    assert change.same_class == 1 and change.bias == Estimate(0, 0, 0)
    assert none.bias["sandbox:training"]["gender × tone"].bias == first.bias["sandbox:training"][
        "gender × tone"].bias  # fmt: skip


def test_the_pipeline_is_left_as_it_was(pipe: Any, done: tuple[Path, Results]) -> None:
    fresh = load_sandbox_pipeline().text_encoder.state_dict()
    assert all((value == fresh[name]).all() for name, value in pipe.text_encoder.state_dict().items())


def test_every_image_has_a_row_and_a_file(done: tuple[Path, Results]) -> None:
    out, results = done
    with (out / "images.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3 * 4 * 8
    assert all((out / row["file"]).is_file() for row in rows)
    first, after = rows[0], rows[4 * 8]
    assert all(first[name] == after[name] for name in ("seed", "label", "prompt text")), "the same noise"
    assert [row["prompt text"] for row in rows[: 4 * 8 : 8]] == list(results.settings.prompts)
    shares = {name: float(first[f"sandbox:evaluation gender {name}"]) for name in ("female", "male")}
    assert sum(shares.values()) == pytest.approx(1, abs=2e-4)
    assert first["sandbox:evaluation gender"] == max(shares, key=lambda name: shares[name])
    picture = np.asarray(Image.open(out / first["file"]))
    assert picture.shape == (64, 64, 3)
    women = [row["sandbox:evaluation gender"] == "female" for row in rows if row["variant"] == "original"]
    assert np.mean(women) == pytest.approx(
        results.variants[0].bias["sandbox:evaluation"]["gender"].frequencies[0].value, abs=1e-5
    )


def test_what_is_done_is_not_done_again(pipe: Any, tmp_path: Path) -> None:
    evaluate(pipe, small(), [with_adaptor("sandbox-gender")], instruments(), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("records/*/*")}
    results = evaluate(
        pipe, small(), [with_adaptor("sandbox-gender"), with_adaptor("sandbox-gender", 0.5)], instruments(), tmp_path
    )
    assert {path: path.stat().st_mtime_ns for path in before} == before and len(results.variants) == 3
    damaged = next(iter(before))
    damaged.write_bytes(damaged.read_bytes()[:100])
    again = evaluate(
        pipe, small(), [with_adaptor("sandbox-gender"), with_adaptor("sandbox-gender", 0.5)], instruments(), tmp_path
    )
    assert again == results, "a record that was cut is made again"


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, pipe: Any) -> None:
    (tmp_path / "settings.json").write_text('{"theme": "dark"}')
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(ConfigError, match="not written by this version"):
        evaluate(pipe, small(), [], instruments(), tmp_path, overwrite=True)
    assert (tmp_path / "images" / "holiday.jpg").exists()


def test_a_picture_that_is_gone_is_drawn_again(pipe: Any, tmp_path: Path) -> None:
    evaluate(pipe, small(), [], instruments(), tmp_path)
    picture = next(tmp_path.glob("images/*/0001/0002.png"))
    content = picture.read_bytes()
    picture.unlink()
    evaluate(pipe, small(), [], instruments(), tmp_path)
    assert picture.read_bytes() == content


def test_prompts_of_the_users_own_say_nothing_of_occupations(pipe: Any, tmp_path: Path) -> None:
    prompts = PromptSet("mine", ("a nurse", "a cook in a hospital"), ("nurse", "a cook in a hospital"), "here")
    found = evaluate(pipe, small(prompts), [with_adaptor("sandbox-gender")], instruments(), tmp_path).variants
    assert all(variant.kept is None and variant.kept_change is None for variant in found)


def test_names_are_no_formulas_in_the_table_of_images(tmp_path: Path) -> None:
    """A word that a spreadsheet would take for one has an apostrophe in front; who has no face has no class."""
    asked, classes = named(1, 2, word="cook"), {"gender": ("=1+1", "-male")}
    prompts = dataclasses.replace(asked.prompts, prompts=("+cook",), labels=("@cook",))
    asked, (sees,) = dataclasses.replace(asked, prompts=prompts), toy("=one").classifiers
    tools = Instruments((dataclasses.replace(sees, classes=classes),))
    records = {"=x": record(asked, tools, 1.0, found=np.array([[True, False]]))}
    path = tmp_path / IMAGES_FILE
    write_csv(path, asked, variants=[Variant("=x", "1")], instruments=tools, records=records)
    with path.open(newline="", encoding="utf-8") as stream:
        first, second = csv.DictReader(stream)
    said = [first[name] for name in ("variant", "prompt text", "label", "'=one gender")]
    assert said == ["'=x", "'+cook", "'@cook", "'=1+1"] and second["'=one gender"] == ""
    assert (first["'=one gender =1+1"], second["'=one gender -male"], second["face"]) == ("0.9500", "0.0500", "0")
    assert plain_cell("a nurse") == "a nurse"


def test_another_evaluation_in_the_folder_can_be_given_up(pipe: Any, tmp_path: Path) -> None:
    evaluate(pipe, small(), [], instruments(), tmp_path)
    results = evaluate(pipe, small(seed=1, keep_images=False), [], instruments(), tmp_path, overwrite=True)
    assert results.settings.seed == 1 and not list(tmp_path.glob("images/**/*.png"))


def test_killed_five_times_it_comes_to_the_same_results(tmp_path: Path) -> None:
    """And so do two processes."""
    run_alone(run_whole, tmp_path / "whole")
    run_alone(run_killed, tmp_path / "killed")
    run_in_world(2, run_whole, tmp_path / "two")
    whole, killed, two = ((tmp_path / name / RESULTS_FILE).read_bytes() for name in ("whole", "killed", "two"))
    assert whole == killed == two


def test_prompts_that_name_an_attribute_are_obeyed_or_not(pipe: Any, tmp_path: Path) -> None:
    asked = few("sandbox-explicit", 6)
    results = evaluate(pipe, small(asked, num_steps=6), [], instruments(), tmp_path)
    obeyed = results.variants[0].obeyed["sandbox:evaluation"]
    assert set(obeyed) == {name for named in asked.expected for name in named} and obeyed["gender"].value > 0.8
    for wanted, said in (({"gender": "neither"}, "expects gender 'neither'"), ({"gendr": "male"}, "expects gendr")):
        wrong = PromptSet("mine", ("a person",), ("a person",), "", (wanted,))
        with pytest.raises(ConfigError, match=said):
            evaluate(pipe, small(wrong), [], instruments(), tmp_path / "other")


def test_images_without_a_face_take_no_part(pipe: Any, tmp_path: Path) -> None:
    def find(images: torch.Tensor) -> Faces:
        found = torch.arange(len(images)) % 2 == 0
        boxes = torch.tensor([[1.0, 2, 3, 4]]) * found[:, None]
        return Faces(boxes, torch.zeros(len(images), 5, 2), found.float(), found)

    def nobody(images: torch.Tensor) -> Faces:
        found = torch.zeros(len(images), dtype=torch.bool)
        return Faces(torch.zeros(len(images), 4), torch.zeros(len(images), 5, 2), found.float(), found)

    blind = dataclasses.replace(instruments(), faces=FaceDetector("every other", "1", find))
    found = evaluate(pipe, small(), [], blind, tmp_path).variants[0]
    assert found.no_face.value == 0.5
    assert all(row.images == 2 for row in found.bias["sandbox:evaluation"]["gender"].prompts)
    with (tmp_path / IMAGES_FILE).open(encoding="utf-8") as file:
        rows = [[float(row[side]) for side in ("left", "top", "right", "bottom")] for row in csv.DictReader(file)]
    assert rows[0] == [1, 2, 3, 4] and rows[1] == [0, 0, 0, 0]
    none = FaceDetector("none", "2", nobody)
    found = evaluate(
        pipe, small(), [], dataclasses.replace(blind, faces=none), tmp_path, overwrite=True
    ).variants[0]  # fmt: skip
    assert found.no_face.value == 1 and np.isnan(found.bias["sandbox:evaluation"]["gender"].bias.value)


def test_the_measured_bias_is_near_the_true_one() -> None:
    """On rendered portraits, whose truth is known, both classifiers are within .03 for every attribute."""
    for attributes in calibrate(occupations("test"), images_per_prompt=32).values():
        for found in attributes.values():
            assert abs(found.error) < 0.03 and found.true > 0.1
            assert np.diag(found.confusion).min() > 0.9
    one = calibrate(["hospital nurse"], images_per_prompt=1)["sandbox:evaluation"]["tone"]
    assert np.isnan(one.confusion).all(1).sum() == 3, "one portrait says nothing of three of the tones"


def test_where_there_is_no_face_a_classifier_may_return_anything(pipe: Any, tmp_path: Path) -> None:
    def second(images: torch.Tensor) -> Faces:
        found = torch.arange(len(images)) == 1
        return Faces(torch.ones(len(images), 4), torch.zeros(len(images), 5, 2), found.float(), found)

    sees = instruments().classifiers[0]
    where = torch.tensor([[torch.nan], [1.0], [torch.nan], [torch.nan]])
    seldom = dataclasses.replace(
        sees, logits=lambda images: {name: each * where for name, each in sees.logits(images).items()}
    )
    tools = Instruments((seldom,), faces=FaceDetector("second", "1", second, crops=False))
    found = evaluate(pipe, small(few("sandbox-test", 1)), [], tools, tmp_path).variants[0]
    assert found.no_face is not None and found.no_face.value == 0.75


def test_targets_of_an_earlier_evaluation_are_kept(pipe: Any, tmp_path: Path) -> None:
    third = Target(("age",), (0.7, 0.3))
    evaluation = small(few("sandbox-test", 1))
    before = evaluate(
        pipe, dataclasses.replace(evaluation, targets=(*evaluation.targets, third)), [], instruments(), tmp_path
    )
    asked = dataclasses.replace(evaluation, targets=(Target(("tone",), (0.1, 0.2, 0.3, 0.4)),))
    after = evaluate(pipe, asked, [with_adaptor("sandbox-gender")], instruments(), tmp_path)
    wanted = {**before.targets, "tone": dataclasses.replace(before.targets["tone"], shares=(0.1, 0.2, 0.3, 0.4))}
    assert after.targets == wanted and set(before.targets) == {"gender", "tone", "gender × tone", "age"}
    assert set(after.variants[1].bias["sandbox:training"]) == set(wanted)
    anew = evaluate(pipe, dataclasses.replace(asked, seed=1), [], instruments(), tmp_path, overwrite=True)
    assert set(anew.targets) == {"gender", "tone", "age"}, "of another evaluation that was given up none is left"
