import dataclasses
from pathlib import Path
from typing import Any

import pytest
from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.keeping import keeping, kept_attributes
from fair_adaptors.training.plan import make_plan
from fair_adaptors.training.preflight import check, known_classes
from fair_adaptors.training.prompt_sets import named_classes
from fair_adaptors.training.recipes import RECIPES, get_recipe

from fair_adaptors.errors import ConfigError


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_a_valid_row_under_its_own_name(name: str) -> None:
    assert get_recipe(name).name == name


def test_settings_are_read_from_text_in_their_own_type() -> None:
    config = get_recipe("sandbox-gender", {"rank": "4", "learning_rate": "1e-4", "parts": "text_encoder,unet"})
    assert (config.rank, config.learning_rate, config.parts) == (4, 1e-4, ("text_encoder", "unet"))
    assert dataclasses.replace(config, rank=8).iterations == get_recipe("sandbox-gender").iterations


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learningrate": "1"}, "Did you mean 'learning_rate'"),
        ({"rank": "many"}, "a whole number"),
        ({"rank": "0"}, "at least 1"),
        ({"gradient_steps": "99"}, "more than num_steps"),
        ({"images_per_prompt": "1"}, "at least 2"),
        ({"least_kept": "-1.5"}, "at least -1"),
        ({"step_weights": "best"}, "one of uniform, noise, velocity, image, published, exact"),
        ({"parts": "vae"}, "choose from text_encoder, text_encoder_2, transformer, unet, tokens"),
        ({"learning_rate": "nan"}, "finite"),
        ({"threshold": "2"}, "threshold is 2.0; it must be at least 0 and at most 1"),
        ({"ema": "1"}, "ema is 1.0; it must be at least 0 and below 1"),
        ({"learning_rate": "0"}, "learning_rate is 0.0; it must be above 0"),
        ({"seed": str(2**32 + 1)}, "at most 4294967296"),
        ({"keep_attributes": "age,gender"}, "keep_attributes has gender, which is to be made fair, not kept"),
        ({"named_images": "5"}, r"named_images \(5\) must divide images_per_prompt"),
        ({"prompt_sets": "train:0"}, "at least one set, with shares above 0"),
        ({"trackers": "paper"}, "trackers has paper; choose from tensorboard and wandb"),
        ({"stop_below": "0.1"}, "need validate_every or validate_minutes"),
        ({"keep": "best"}, "need validate_every or validate_minutes"),
        ({"face_weight": "1"}, "needs a face_encoder, and faces"),
    ],
)
def test_a_wrong_setting_is_named(values: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_recipe("sandbox-gender", values)


def test_a_prompt_s_class_is_one_that_its_attribute_has(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text('[{"prompt": "a femal cook", "expected": {"gender": "femal"}}]')
    with pytest.raises(ConfigError, match="'a femal cook' names the gender 'femal'; its classes are female, male"):
        check(get_recipe("sandbox-gender", {"prompt_sets": str(file)}))
    assert named_classes(get_recipe("sandbox-age", {"prompt_sets": str(file)})) == {}


def test_what_prompts_name_is_told_before_the_run(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text('["a cook", {"prompt": "a lady cook", "expected": {"gender": "female", "hair": "grey"}}]')
    config = get_recipe("sandbox-gender", {"prompt_sets": f"train:3,{file}:1"})
    assert named_classes(config) == {"a lady cook": {"gender": "female"}}
    assert "images of 1 prompt that names a class of gender are to show it" in make_plan(config).kept
    assert not any("names a class" in line for line in make_plan(get_recipe("sandbox-age")).kept)


GENDER = get_recipe("sandbox-gender")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "falling"}, "schedule is 'falling'; choose one of constant, cosine, linear"),
        ({"attributes": ()}, "nothing to make fair"),
        ({"attributes": GENDER.attributes * 2}, "an attribute is given twice"),
    ],
)
def test_what_cannot_be_is_refused_however_it_comes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(GENDER, **changes)


def test_an_unknown_recipe_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'sandbox-gender'"):
        get_recipe("sandbox-gendre")


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        get_recipe("sandbox-gender").rank = 3  # type: ignore[misc]


def test_the_defaults_are_the_papers() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    assert (defaults["rank"], defaults["learning_rate"], defaults["threshold"]) == (50, 5e-5, 0.8)
    assert defaults["step_weights"] == "uniform"


KNOWN = {"gender": ("female", "male"), "race": ("Black", "Asian"), "age": ("young", "old")}


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, ("race", "age")),
        ({"keep_attributes": "age,others"}, ("age", "race")),
        ({"keep_attributes": "age"}, ("age",)),
        ({"keep_attributes": ""}, ()),
        ({"keep_weight": "0"}, ()),
    ],
)
def test_what_the_classifier_knows_and_nobody_aims_at_is_kept(settings: dict[str, str], kept: tuple[str, ...]) -> None:
    config = get_recipe("gender", settings)
    assert kept_attributes(config, KNOWN) == kept
    said = "\n".join(keeping(config, KNOWN))
    free = [name for name in ("race", "age") if name not in kept]
    assert f"stays as the original model shows it: {', '.join(kept) or 'no attribute'}" in said
    assert (f"may change, though the classifier knows it: {', '.join(free)}" in said) == bool(free)
    assert ("prompt by prompt" in said and "Weight: 1" in said) == bool(kept)


@pytest.mark.parametrize(
    ("recipe", "kept"),
    [("gender", "race, age"), ("race", "gender, age"), ("gender-race", "age"), ("gender-race-age", "no attribute")],
)
def test_recipes_for_people_keep_what_they_do_not_aim_at_and_say_what_nobody_sees(recipe: str, kept: str) -> None:
    said = list(keeping(get_recipe(recipe), known_classes("classifier", get_recipe(recipe).classifier)))
    assert said[0].startswith(f"stays as the original model shows it: {kept}")
    assert len(said) == 2 and "does not know tone: nothing keeps it as it is" in said[1]


def test_what_is_kept_is_checked_before_anything_is_loaded_where_the_classes_can_be_told() -> None:
    with pytest.raises(ConfigError, match="keep_attributes has height, which the classifier sandbox:training"):
        check(get_recipe("sandbox-gender", {"keep_attributes": "height"}))
    unknown = get_recipe("gender", {"keep_by": "image"})
    assert "can only be told once it is loaded" in list(keeping(unknown, None))[0]
    assert "others. Rule: image by image" in list(keeping(unknown, None))[1]
