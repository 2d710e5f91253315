"""What Python users write: evaluate and train from the top of the package."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from fair_adaptors.training.start import configured

import fair_adaptors
from fair_adaptors import ConfigError, MissingExtraError, evaluate, load_fair_adaptor
from fair_adaptors.audit import EvaluationResult
from fair_adaptors.sandbox import load_sandbox_pipeline

PROMPTS = ["A photo of the face of a hospital nurse, a person", "A photo of the face of a bank cleaner, a person"]


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load_sandbox_pipeline()


@pytest.fixture(scope="module")
def result(pipe: Any) -> EvaluationResult:
    seen: list[tuple[int, int]] = []
    found = evaluate(pipe, "sandbox-gender", prompts=PROMPTS, images_per_prompt=6, on_images=lambda *n: seen.append(n))
    assert seen[-1] == (24, 24), "prompts × images × (original and adaptor)"
    return found


def test_a_call_measures_by_the_sandbox_s_own_settings_and_tells_bias_shift_and_harms(
    result: EvaluationResult,
) -> None:
    settings = result.results.settings
    assert (settings.base, settings.num_steps, settings.guidance_scale) == ("sandbox", 10, 1.5)
    assert settings.prompts == tuple(PROMPTS) and result.results.classifier == "sandbox:evaluation"
    before, after = (result.bias[name]["gender"] for name in ("original", "sandbox-gender"))
    assert after.low <= after.value < before.value and before.floor > 0
    assert set(result.shift) == {"sandbox-gender"} and set(result.shift["sandbox-gender"]) == {"tone", "age"}
    assert list(result.harms) == ["sandbox-gender"]
    assert "bias" in str(result) and "sandbox-gender" in str(result) and "\x1b" not in str(result)


def test_a_result_becomes_a_table_a_report_and_a_folder(result: EvaluationResult, tmp_path: Path) -> None:
    table = result.to_pandas()
    assert len(table) == 2 * 3 and set(table["variant"]) == {"original", "sandbox-gender"}
    row = table[(table["variant"] == "sandbox-gender") & (table["target"] == "gender")].iloc[0]
    assert row["bias"] == result.bias["sandbox-gender"]["gender"].value and row["aimed"]
    assert 1 <= row["effective_classes"] <= 2
    page = result.report(tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    assert "Gender bias" in page and "data:image/" in page, "with its pictures"
    folder = result.save(tmp_path / "kept")
    assert json.loads((folder / "results.json").read_text())["schema"] == result.results.schema
    assert len(list(folder.glob("images/*/*/*.png"))) == 24
    for wrong in (lambda: result.save(folder), lambda: result.report(tmp_path / "report.pdf")):
        with pytest.raises(ConfigError, match=r"exists already|must end in \.html"):
            wrong()


def test_without_pandas_the_table_says_what_to_install(
    result: EvaluationResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(MissingExtraError, match="pip install pandas"):
        result.to_pandas()


def test_an_adaptor_in_the_pipeline_is_not_taken_for_the_original(pipe: Any) -> None:
    with load_fair_adaptor(pipe, "sandbox-gender") as adaptor:
        with pytest.raises(ConfigError, match="has the adaptor sandbox-gender in it.*`unload"):
            evaluate(pipe, prompts=PROMPTS, images_per_prompt=2)
        adaptor.disable()
        assert evaluate(pipe, prompts=PROMPTS[:1], images_per_prompt=1, num_steps=1, on_images=lambda *_: None)


def test_whoever_is_measured_with_the_classifier_it_was_trained_against_is_told(
    pipe: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "fair_adaptors"):
        evaluate(
            pipe,
            ["sandbox-gender"],
            prompts=PROMPTS[:1],
            images_per_prompt=1,
            num_steps=1,
            classifiers="sandbox:training",
            on_images=lambda *_: None,
        )
    assert "sandbox:training" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": []}, "at least one prompt"),
        ({"prompts": [PROMPTS[0], PROMPTS[0]]}, "prompts, item 2: duplicate"),
        ({"prompts": "sandbox-tst"}, "Did you mean 'sandbox-test'"),
        ({"targets": "gendr"}, "Did you mean 'gender'"),
        ({"adaptors": "sandbox-gendr"}, "Did you mean 'sandbox-gender'"),
        ({"images_per_prompt": 0}, "at least 1"),
        ({"num_steps": 0}, "at least 1"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_drawn(
    pipe: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(pipe, **options)


def test_train_leaves_the_folder_of_an_adaptor_that_can_be_loaded(
    pipe: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"iterations": 1, "images_per_prompt": 4, "num_steps": 2, "gradient_steps": 1, "trackers": ()}
    settings |= {"prompt_sets": {"train": 1}, "originals_pool": 0, "sample_every": 0}
    folder = fair_adaptors.train(
        "sandbox-gender", tmp_path / "mine", settings=settings, targets={"age": (0.75, 0.25)}, images_per_prompt=2
    )
    assert folder == tmp_path / "mine" and "noise floor" in capsys.readouterr().out
    with load_fair_adaptor(pipe, folder) as adaptor:
        assert dict(adaptor.info.attributes)["age"].target == (0.75, 0.25)
    with pytest.raises(ConfigError, match="Did you mean 'sandbox-gender'"):
        fair_adaptors.train("sandbox-gendr")
    with pytest.raises(ConfigError, match="`target` cannot change a run that is resumed"):
        fair_adaptors.train("sandbox-gender", folder, targets={"age": (0.5, 0.5)}, resume=True)
    same = configured("sandbox-gender", folder, settings=settings, targets={"age": (0.75, 0.25)}, resume=True)
    assert same.attributes[0].target == (0.75, 0.25), "a target may be said again"
