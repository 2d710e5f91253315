"""The dry run: what it counts, what it asks the Hub, and where the recipes for people differ from the paper."""

import dataclasses
import math
from pathlib import Path

import pytest
from fair_adaptors.training import lora
from fair_adaptors.training.downloads import downloads
from fair_adaptors.training.plan import make_plan, memory, skeleton, trained_values
from fair_adaptors.training.recipes import OURS, PAPER, RECIPES, deviations, get_recipe

from fair_adaptors.errors import ConfigError
from tests.hub.fixtures import hub, online  # noqa: F401
from tests.hub.repos import Repository
from tests.hub.server import Hub
from tests.tiny import FAMILIES

PEOPLE = [name for name in RECIPES if not name.startswith("sandbox")]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_planned_without_its_weights(name: str) -> None:
    plan = make_plan(get_recipe(name))
    assert plan.trained > 0 and plan.iterations > 0
    assert all(math.isfinite(megabytes) and megabytes > 0 for megabytes in plan.megabytes.values())
    assert len(plan.megabytes) == 5


@pytest.mark.parametrize(
    ("name", "count"),
    [("gender", 8_294_400), ("gender-unet", 9_964_800), ("gender-both", 18_259_200), ("gender-tokens", 3840)],
)
def test_as_many_numbers_are_trained_as_in_the_published_adaptors(name: str, count: int) -> None:
    config = get_recipe(name)
    assert trained_values(config, skeleton(config.base)) == count


@pytest.mark.parametrize("family", FAMILIES)
def test_counted_numbers_are_those_that_are_attached(tmp_path: Path, family: str) -> None:
    pipe = FAMILIES[family]()
    pipe.save_pretrained(tmp_path)
    parts = ("text_encoder", "unet", *(["text_encoder_2"] if family == "SDXL" else ["tokens"]))
    config = get_recipe("gender", {"parts": ",".join(parts), "rank": "3"})
    attached = lora.attach(pipe, parts, rank=3, num_tokens=config.num_tokens)
    assert trained_values(config, skeleton(str(tmp_path))) == sum(p.numel() for p in attached.values())


def test_checkpointed_activations_need_a_fraction() -> None:
    config = dataclasses.replace(get_recipe("gender"), images_per_call=1, images_per_decode=1)
    plain = memory(config, skeleton(config.base), 1, 2)
    saved = memory(dataclasses.replace(config, activation_checkpointing=True), skeleton(config.base), 1, 2)
    for kind in (kind for kind in plain if kind.startswith("activations")):
        assert saved[kind] < 0.4 * plain[kind]


@pytest.mark.parametrize("name", PEOPLE)
def test_where_a_recipe_leaves_the_paper_the_reason_is_named(name: str) -> None:
    config = get_recipe(name)
    others = {"sdxl-gender-race": {"guidance_scale"}}.get(name, set())
    for setting, value in PAPER.items():
        if setting not in others:
            assert getattr(config, setting) == OURS.get(setting, (value,))[0], setting
    assert len(deviations(config)) == len(OURS) + len(others)
    assert all(reason for _, reason in OURS.values())


def test_the_papers_own_settings_can_be_asked_for() -> None:
    settings = {name: str(value) for name, value in PAPER.items()}
    assert deviations(get_recipe("gender-race", settings)) == []


@pytest.mark.parametrize(
    ("name", "images", "weight", "face", "sure"),
    [
        ("gender", 24, 8, 1, 0.9),
        ("race", 32, 6, 0.1, 0.8),
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


def test_downloads_are_named_with_commit_size_and_licence(hub: Hub, tmp_path: Path) -> None:  # noqa: F811
    folder = tmp_path / "pipe"
    FAMILIES["SD 1.x"]().save_pretrained(folder)
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    weights = sum(len(data) for data in files.values())
    half = {"unet/diffusion_pytorch_model.fp16.safetensors": b"0" * 999_999}
    extra = half | {"README.md": b"---\nlicense: openrail++\n---\n"}
    repository = hub.repositories["org/base"] = Repository.create(hub.root, "org/base")
    commit = repository.commit("main", "a base", files=files | extra, parent=None)
    config = dataclasses.replace(
        get_recipe("gender"), base="org/base", classifier="a:b", judge="a:b", encoders=("clip:org/none",)
    )
    found, absent, yunet, auraface = downloads(config, endpoint=hub.url)
    assert (yunet.what, auraface.what) == ("faces", "face_encoder") and yunet.commit and auraface.megabytes > 200
    assert (found.what, found.repo_id, found.commit, found.licence) == ("base", "org/base", commit, "openrail++")
    assert found.megabytes == pytest.approx(weights / 1e6, rel=0.01)
    assert absent.what == "encoders" and "none of that name" in absent.problem


def test_what_cannot_be_planned_is_said() -> None:
    with pytest.raises(ConfigError, match="no set or file"):
        make_plan(get_recipe("gender", {"prompt_sets": "ocupations"}))
    assert make_plan(dataclasses.replace(get_recipe("gender"), base="who/knows")).megabytes == {}
