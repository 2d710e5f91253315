import dataclasses

import pytest
from fair_adaptors.training.config import TrainConfig
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
        ({"step_weights": "best"}, "one of uniform, published, exact"),
        ({"parts": "vae"}, "choose from text_encoder, text_encoder_2, unet, tokens"),
        ({"learning_rate": "nan"}, "finite"),
        ({"threshold": "2"}, "threshold is 2.0; it must be at least 0 and at most 1"),
        ({"ema": "1"}, "ema is 1.0; it must be at least 0 and below 1"),
        ({"learning_rate": "0"}, "learning_rate is 0.0; it must be above 0"),
        ({"seed": str(2**32 + 1)}, "at most 4294967296"),
    ],
)
def test_a_wrong_setting_is_named(values: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_recipe("sandbox-gender", values)


def test_a_word_that_is_none_to_choose_from_is_refused_however_it_comes() -> None:
    with pytest.raises(ConfigError, match="schedule is 'falling'; choose one of constant, cosine, linear"):
        dataclasses.replace(get_recipe("sandbox-gender"), schedule="falling")  # type: ignore[arg-type]


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
