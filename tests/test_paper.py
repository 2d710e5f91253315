"""The recipes beside the paper: where they leave it and why, and how its own settings are asked for."""

import pytest
import torch
from fair_adaptors.training.ours import ours_for
from fair_adaptors.training.paper import PAPER, TABLE, authors_parts, deviations, published_settings
from fair_adaptors.training.recipes import RECIPES, get_recipe
from fair_adaptors.training.run import validation

from fair_adaptors.errors import ConfigError
from tests.commands import Command
from tests.tiny_training import CONFIG, tiny_setup

EVERY = ["images", "images", "classifier,", "an", "prompts", "the", "the", "validation"]
"""What every recipe for people does otherwise than the published code, by the first word."""


PEOPLE = [name for name in RECIPES if not name.startswith("sandbox")]


@pytest.mark.parametrize("name", PEOPLE)
def test_where_a_recipe_leaves_the_paper_the_reason_is_named(name: str) -> None:
    config = get_recipe(name)
    said, published = deviations(config), published_settings(config)
    reasons = ours_for(config.base, published)
    different = {key for key, value in published.items() if getattr(config, key) != value}
    assert different == set(reasons) and len(published) > len(PAPER)
    for key in different:
        assert any(line.startswith(f"{key} is ") and reasons[key][1] in line for line in said)
    beside = [line.partition(" ")[0] for line in said[len(different) :]]
    others = ["base"] * (config.base != get_recipe("gender").base)
    age = ["the"] * ("age" in name.split("-"))
    mine = ["classifier", "face_encoder", "face_bank", "prompts", "prompts"]
    draws = ["targets"] * ("race" in name)
    precise = ["trained"] * (config.parts not in [("unet",), ("transformer",)])
    assert beside == [*others, *precise, *mine, *age, *draws, *EVERY]


def test_all_that_the_papers_table_has_is_compared() -> None:
    """Paper §4. Betas are AdamW's own; the solver and the warm-up of the average are no settings."""
    table = {"images_per_prompt", "preservation", "face_weight", "iterations", "parts"}
    common = {
        "optimizer", "learning_rate", "schedule", "warmup", "weight_decay", "max_grad_norm", "ema", "guidance_scale",
        "num_steps", "max_steps", "dtype", "prompts_per_step", "rank", "alpha", "num_tokens", "target_modules",
    }  # fmt: skip
    for name in ("race", "gender-race", "gender-race-age", "gender-race-many-concepts"):
        assert table | common <= set(published_settings(get_recipe(name)))
    assert torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))]).defaults["betas"] == (0.9, 0.999)


def test_what_is_said_of_the_steps_in_validation_is_so(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []

    def sample(*arguments: object, num_steps: int, **settings: object) -> object:
        steps.append(num_steps)
        return original(*arguments, num_steps=num_steps, **settings)  # type: ignore[arg-type]

    original = validation.sample
    monkeypatch.setattr(validation, "sample", sample)
    validation.draw(tiny_setup(), CONFIG, "a nurse", [1])
    config = get_recipe("gender")
    assert steps == [CONFIG.num_steps]
    assert f"validation samples in {config.num_steps} steps, and did in 25" in deviations(config)[-1]


def test_the_papers_own_settings_can_be_asked_for() -> None:
    settings = {name: ",".join(value) if isinstance(value, tuple) else str(value) for name, value in PAPER.items()}
    wanted = get_recipe(
        "gender-race", settings | {"face_bank": "faces", "classifier": "mobilenet:theirs", "iterations": "15000"}
    )
    said = [line.partition(" ")[0] for line in deviations(wanted)]
    assert said == ["trained", "face_encoder", "prompts", "prompts", "faces", "targets", "a", *EVERY]
    assert deviations(get_recipe("sandbox-gender")) == []


@pytest.mark.parametrize("name", TABLE)
def test_paper_stands_for_all_settings_of_the_published_adaptor_and_for_the_authors_parts(name: str) -> None:
    wanted = get_recipe(name, {"paper": "true", "iterations": "7"})
    published = published_settings(wanted) | authors_parts(name) | {"iterations": 7}
    assert {key: getattr(wanted, key) for key in published} == published
    said = [line.partition(" ")[0] for line in deviations(wanted)]
    many, age, several = name.endswith("many-concepts"), "age" in name, name != "gender"
    beside = ["trained"] + ["prompt_sets"] * many + ["faces"] + ["the"] * age + ["targets"] * several + ["a"]
    assert said == ["iterations", *beside, *EVERY]
    own = {"name", "parts", "images_per_call", "save_every", "seed"}
    assert {key: getattr(wanted, key) for key in own} == {key: getattr(get_recipe(name), key) for key in own}
    assert get_recipe(name, {"paper": "false"}) == get_recipe(name)


def test_the_paper_has_no_adaptor_for_other_attributes_and_other_bases() -> None:
    for name in ("sdxl-gender-race", "sandbox-gender"):
        with pytest.raises(ConfigError, match="the paper has no adaptor for gender"):
            get_recipe(name, {"paper": "true"})
    with pytest.raises(ConfigError, match="paper: 'perhaps' is not true or false"):
        get_recipe("gender", {"paper": "perhaps"})


@pytest.mark.usefixtures("authors_data")
def test_the_papers_run_is_planned_with_the_authors_parts(command: Command) -> None:
    status, said, _ = command("train", "gender-race", "--set", "paper=true", "--dry-run")
    assert status == 0 and "data.zip" not in said
    for part in ("classifier: authors:gender-race", "face_bank: authors:fairface", "authors:occupations: 1.0"):
        assert part in said
    assert "# not as the paper: images are not clamped" in said and "# not as the paper: classifier is" not in said


@pytest.mark.parametrize(
    ("name", "images", "weight", "face", "sure"),
    [
        ("gender", 24, 8, 1, 0.9),
        ("race", 32, 6, 0.1, 0.9),
        ("gender-race", 32, 8, 0.1, 0.8),
        ("gender-race-age", 40, 8, 0.1, 0.75),
        ("gender-race-many-concepts", 40, 8, 0.1, 0.8),
    ],
)
def test_the_recipes_are_the_papers_table(name: str, images: int, weight: float, face: float, sure: float) -> None:
    config = get_recipe(name)
    found = config.images_per_prompt, config.preservation, config.face_weight, config.face_confidence
    assert found == (images, weight, face, sure)
    factors = {a.name: (a.factor1, a.factor2) for a in config.attributes}
    assert factors.items() <= {"gender": (0.2, 0.2), "race": (0.6, 0.3), "age": (0.6, 0.3)}.items()
