"""The table of adaptors: what is in it can be found, what is not is said not to be."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fair_adaptors.training.recipes import RECIPES, get_recipe

from fair_adaptors.adaptor import registry
from fair_adaptors.adaptor.bases import STABLE_DIFFUSION_1_5, STABLE_DIFFUSION_2_1
from fair_adaptors.adaptor.folder import read_adaptor
from fair_adaptors.adaptor.record import RESULTS_FILE, read_record
from fair_adaptors.adaptor.registry import NAMESPACE, AdaptorInfo, default_for, find, list_adaptors
from fair_adaptors.adaptor.results_file import load_results
from fair_adaptors.errors import NotPublishedError, UnknownAdaptorError
from fair_adaptors.hub.resolve import resolve
from tests.tiny import tiny_pipeline, write_tiny_adaptor

EMBEDDED = [info.name for info in list_adaptors() if info.folder]


def test_every_name_is_there_once_and_found() -> None:
    names = [info.name for info in list_adaptors()]
    assert len(set(names)) == len(names)
    assert all(find(info.name) is info for info in list_adaptors())


def test_embedded_adaptors_come_first() -> None:
    assert EMBEDDED == ["sandbox-gender", "sandbox-gender-tone"]
    assert [info.name for info in list_adaptors()][: len(EMBEDDED)] == EMBEDDED


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_adaptor_has_the_weights_that_the_table_names(name: str) -> None:
    info = find(name)
    assert info.folder is not None and read_adaptor(info.folder).record.identity == info.sha256
    record = read_record(info.folder)
    assert (record.base_model, tuple(record.attributes)) == (info.base_model, info.attributes)
    assert record.trained_parts == info.trained_parts
    assert info.results == load_results(info.folder / RESULTS_FILE) and find("gender").results is None


def test_every_row_has_a_licence_and_what_has_a_recipe_names_it() -> None:
    for info in list_adaptors():
        assert info.licence and info.base_model == info.base_models[0]
        assert info.recipe == (info.name if info.name in RECIPES else None)
        assert info.status != "recipe-only" or info.recipe
        if info.recipe:
            recipe = get_recipe(info.recipe)
            assert (recipe.base, recipe.parts) == (info.base_model, info.trained_parts)
            assert tuple(attribute.name for attribute in recipe.attributes) == info.attributes


def test_what_is_not_published_says_how_to_get_it() -> None:
    with pytest.raises(NotPublishedError) as caught:
        resolve("sd21-gender-race")
    for words in (STABLE_DIFFUSION_2_1, "fair-adaptors train sd21-gender-race"):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_in_a_namespace_of_ones_own_what_has_only_a_recipe_is_looked_for_on_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(NAMESPACE, "my-lab")
    info = find("sd21-gender-race")
    assert info.repo_id == "my-lab/sd21-gender-race" and info.status == "published"
    assert find("sandbox-gender").repo_id is None and find("gender").repo_id is None
    with pytest.raises(UnknownAdaptorError, match="'my-lab/sd21-gender-race'.*not in the cache"):
        resolve("sd21-gender-race", cache_dir=tmp_path, local_files_only=True)
    monkeypatch.setenv(NAMESPACE, "../my lab")
    with pytest.raises(UnknownAdaptorError, match="cannot be the name of a Hub repository"):
        resolve("sd21-gender-race", cache_dir=tmp_path, local_files_only=True)


def test_what_is_published_is_in_an_archive_or_has_a_repository_and_a_commit_and_what_is_not_has_none() -> None:
    for info in list_adaptors():
        assert (info.repo_id is not None) == (info.revision is not None)
        assert (info.status == "published") == (info.repo_id is not None or info.checkpoint is not None)


def test_a_row_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        list_adaptors()[0].name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("typed", "meant"), [("gender_race", "gender-race"), ("sandbox-gendr", "sandbox-gender"), ("race-", "race")]
)
def test_a_near_miss_gets_the_nearest_name(typed: str, meant: str) -> None:
    with pytest.raises(UnknownAdaptorError, match=f"Did you mean '{meant}'"):
        find(typed)


def test_a_far_miss_gets_the_list_and_no_guess() -> None:
    with pytest.raises(UnknownAdaptorError, match="Known: sandbox-gender") as caught:
        find("zzzzzz")
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize("name", [STABLE_DIFFUSION_1_5, "runwayml/stable-diffusion-v1-5"])
def test_the_default_is_known_by_any_name_of_the_base(name: str) -> None:
    pipe = tiny_pipeline()
    pipe.register_to_config(_name_or_path=name)
    assert default_for(pipe) == find("gender-race") and find("gender-race").base_model == STABLE_DIFFUSION_1_5


def test_the_default_is_known_by_the_shapes_of_an_embedded_adaptors_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe: Any = tiny_pipeline()
    write_tiny_adaptor(tmp_path / "mine", pipe)
    monkeypatch.setattr(registry, "EMBEDDED", tmp_path)
    monkeypatch.setattr(registry, "ADAPTORS", (AdaptorInfo("mine", "", (), "tiny", "embedded"),))
    assert default_for(pipe).name == "mine"
    with pytest.raises(UnknownAdaptorError, match="Name one"):
        default_for(tiny_pipeline(width=64))
    shutil.rmtree(tmp_path / "mine")
    with pytest.raises(UnknownAdaptorError, match="Name one"):
        default_for(pipe)


def test_the_table_is_read_without_torch() -> None:
    code = "import sys, fair_adaptors; fair_adaptors.list_adaptors(); print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
