"""What an evaluation is asked for: targets, variants, instruments and settings. What does not fit is refused."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fair_adaptors.errors import ConfigError
from fair_adaptors.evaluation import evaluate
from fair_adaptors.evaluation.spec import Instruments, Target, plan, targets_for
from fair_adaptors.evaluation.store import claim, settings_of, variant_folder
from fair_adaptors.evaluation.variants import Variant, distinct, original, variants_for, with_adaptor
from fair_adaptors.hub.resolve import resolve
from fair_adaptors.load import load_fair_adaptor
from fair_adaptors.prompts.sets import load_prompts
from fair_adaptors.sandbox.instruments import instruments
from fair_adaptors.sandbox.pipeline import load_sandbox_pipeline
from fair_adaptors.vision.catalog import check_own, load_classifier, load_encoder, split_specs
from tests.evaluated import few, small


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load_sandbox_pipeline()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"num_steps": 4},
        {"guidance_scale": 2.0},
        {"batch_size": 2},
        {"images_per_prompt": 3},
        {"base": "x"},
    ],
)
def test_other_settings_in_the_same_folder_are_refused(pipe: Any, tmp_path: Path, change: dict[str, Any]) -> None:
    claim(tmp_path, settings_of(pipe, small(), instruments()), False)
    other = settings_of(pipe, dataclasses.replace(small(), **change), instruments())
    with pytest.raises(ConfigError, match=f"another evaluation, with different {next(iter(change))}"):
        claim(tmp_path, other, False)


def test_other_labels_weights_and_instruments_are_other_settings(pipe: Any, tmp_path: Path) -> None:
    mine = settings_of(pipe, small(), instruments())
    prompts = dataclasses.replace(small().prompts, labels=tuple("abcd"))
    assert settings_of(pipe, dataclasses.replace(small(), prompts=prompts), instruments()) != mine
    assert settings_of(pipe, small(), Instruments(instruments().classifiers[:1])) != mine
    changed = load_sandbox_pipeline()
    assert settings_of(changed, small(), instruments()) == mine
    with torch.no_grad():
        changed.unet.conv_in.weight.mul_(1.001)
    assert settings_of(changed, small(), instruments()) != mine


def test_variants_never_share_a_folder() -> None:
    names = [("男", "variant-1"), ("女", "variant-2"), ("mine", "weights-a"), ("mine", "weights-b"), ("x", "/../../y")]
    folders = [variant_folder(Variant(name, identity)) for name, identity in names]
    assert len(set(folders)) == len(names) and not any("/" in folder or "." in folder for folder in folders)


def test_results_name_bases_adaptors_and_prompts_without_where_they_lie(pipe: Any, tmp_path: Path) -> None:
    places = [str(tmp_path / place) for place in ("a/mine", "b/mine", "other")]
    for place in places:
        shutil.copytree(resolve("sandbox-gender"), place)
    variants = variants_for(places, [])
    assert [variant.name for variant in variants] == ["mine (1)", "mine (2)", "other"]
    (tmp_path / "prompts.txt").write_text("a nurse\n")
    asked = small(load_prompts(tmp_path / "prompts.txt"), images_per_prompt=2, num_steps=2)
    asked = dataclasses.replace(asked, base=str(tmp_path / "base"))
    results = evaluate(pipe, asked, variants[:1], instruments(), tmp_path / "out")
    assert results.settings.base == "base" and results.prompt_source == "prompts.txt"
    assert str(tmp_path) not in (tmp_path / "out" / "results.json").read_text(encoding="utf-8")


def test_an_adaptor_that_changes_on_the_way_is_an_error(pipe: Any, tmp_path: Path) -> None:
    source = load_fair_adaptor(pipe, "sandbox-gender")
    source.unload()
    shutil.copytree(resolve("sandbox-gender"), tmp_path / "mine")
    variant = with_adaptor(str(tmp_path / "mine"))
    shutil.rmtree(tmp_path / "mine")
    shutil.copytree(resolve("sandbox-gender-tone"), tmp_path / "mine")
    with pytest.raises(ConfigError, match="has changed since"), variant.applied(pipe):
        pass


def test_targets_are_what_adaptors_were_trained_for_unless_some_are_named() -> None:
    tools = instruments()
    gender, tone, age = (Target((name,), (1 / n,) * n) for name, n in (("gender", 2), ("tone", 4), ("age", 2)))
    others = [dataclasses.replace(target, declared=False) for target in (gender, tone, age)]
    joint = Target(("gender", "tone"), (0.125,) * 8)
    assert targets_for([], [], tools) == tuple(others)
    assert targets_for([], ["sandbox-gender"], tools) == (gender, *others[1:])
    assert targets_for([], ["sandbox-gender-tone"], tools) == (gender, tone, joint, others[2])
    assert targets_for(["age=0.75,0.25"], [], tools) == (Target(("age",), (0.75, 0.25)), *others[:2])
    for text, said in (("hair", "no attribute 'hair'"), ("gender=1,1", "add up to 1"), ("gender=x", "write it as")):
        with pytest.raises(ConfigError, match=said):
            targets_for([text], [], tools)


def test_variants_have_distinct_names() -> None:
    assert [variant.name for variant in distinct(variants_for(["sandbox-gender"], [0.5, 1.0]))] == [
        "original", "sandbox-gender × 0.5", "sandbox-gender × 1"
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="given twice"):
        distinct([original(), *variants_for(["sandbox-gender", "sandbox-gender"], [])])
    with pytest.raises(ConfigError, match="name an `adaptor` as well"):
        variants_for([], [1.0])
    with pytest.raises(ConfigError, match="finite"):
        variants_for(["sandbox-gender"], [float("nan")])


def test_a_plan_says_how_many_images_tell_a_difference() -> None:
    said = "\n".join(plan(small(images_per_prompt=40), 2, 0.2))
    assert "4 prompts × 40 images × 2 variants = 320 images" in said and "gender: " in said and "floor at 40" in said
    with pytest.raises(ConfigError, match="between 0 and 1"):
        plan(small(), 1, 0.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda gender: {"gender": gender * torch.nan}, r"evaluation returned NaN .* gender for 4 of 4 images"),
        (lambda gender: {"gender": gender.log()}, "NaN or infinite logits of gender"),
        (lambda gender: {"gender": torch.zeros(4, 5)}, r"returned gender \(4, 5\).* must be .*: gender \(4, 2\)"),
        (lambda gender: {"gender": gender[1:]}, r"gender \(3, 2\)"),
        (lambda gender: {"gender": gender[:, 0]}, r"gender \(4,\)"),
        (lambda gender: {"age": gender}, r"returned age \(4, 2\)"),
        (lambda gender: {"gender": [0.5] * 4}, "returned gender list"),
        (lambda gender: gender, "no tensor by attribute but Tensor"),
    ],
)
def test_a_classifier_that_returns_anything_else_is_an_error(
    pipe: Any, tmp_path: Path, change: Callable[[torch.Tensor], Any], said: str
) -> None:
    sees = instruments().classifiers[0]
    broken = dataclasses.replace(
        sees, classes={"gender": sees.classes["gender"]}, logits=lambda images: change(sees.logits(images)["gender"])
    )
    evaluation = dataclasses.replace(small(few("sandbox-test", 1)), targets=())
    with pytest.raises(ConfigError, match=said):
        evaluate(pipe, evaluation, [], Instruments((broken,)), tmp_path)


def test_instruments_that_are_none() -> None:
    for load in (load_classifier, load_encoder):
        for spec, said in (("nothing", "MODULE:OBJECT"), ("no.such:thing", "No module"), ("json:dumps", "is no")):
            with pytest.raises(ConfigError, match=said):
                load(spec)
    with pytest.raises(ConfigError, match="choose sandbox:evaluation"):
        load_classifier("sandbox:other")
    with pytest.raises(ConfigError, match="without a classifier nothing can be counted"):
        Instruments(())


def test_a_classifier_may_be_in_a_file_of_the_user_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "from fair_adaptors.sandbox.instruments import instruments\n"
        "judge = instruments().classifiers[0]\nother = 1\nprint('it is run')\n"
    )
    monkeypatch.chdir(tmp_path)
    found = load_classifier("./mine.py:judge")
    assert load_classifier(f"{tmp_path}/mine.py:judge") is found, "a file is run once"
    assert split_specs("sandbox:training+./mine.py:judge") == ["sandbox:training", "./mine.py:judge"]
    check_own("classifier", "mine.py:judge", ())
    for spec, said in (
        ("./mine.py:other", "is not a fair_adaptors.vision.types.Classifier"),
        ("./mine.py:missing", "has no attribute 'missing'$"),
        ("./gone.py:judge", "there is no file .*gone.py$"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_classifier(spec)
    with pytest.raises(ConfigError, match="there is no file gone.py"):
        check_own("classifier", "gone.py:judge", ())


def test_a_target_has_to_fit_the_classifiers(tmp_path: Path, pipe: Any) -> None:
    for target, said in (
        (Target(("hair",), (0.5, 0.5)), "no classifier knows hair"),
        (Target(("gender",), (0.2,) * 5), "needs 2 shares, one for each class; its target has 5"),
    ):
        with pytest.raises(ConfigError, match=said):
            evaluate(pipe, dataclasses.replace(small(), targets=(target,)), [], instruments(), tmp_path)
    with pytest.raises(ConfigError, match="at least 1"):
        small(images_per_prompt=0)
