"""Importing the package, its rooms and the command line costs nothing; public names are looked up on first use."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.imports import HEAVY, loaded_by


def test_importing_the_package_loads_nothing_but_itself(tmp_path: Path) -> None:
    assert loaded_by("import fair_adaptors", tmp_path) - sys.stdlib_module_names == {"fair_adaptors"}


def test_convert_and_prompts_are_imported_without_a_framework(tmp_path: Path) -> None:
    code = "import fair_adaptors.convert.importing, fair_adaptors.convert.exporting, fair_adaptors.prompts.sets"
    assert not loaded_by(code + "\nfrom fair_adaptors.convert import convert, export", tmp_path) & set(HEAVY)


def test_looking_up_the_public_names_loads_no_framework(tmp_path: Path) -> None:
    code = "import fair_adaptors\nfor name in fair_adaptors.__all__: getattr(fair_adaptors, name)"
    assert not loaded_by(code, tmp_path) & set(HEAVY)


FRONT_DOORS = {
    "convert": {"convert", "export"},
    "evaluation": {"Classifier", "Encoder", "Evaluation", "Target", "evaluate"},
    "hub": {"pull", "push", "search"},
    "sandbox": {"load_sandbox_pipeline"},
    "training": {"TrainConfig", "get_recipe", "train"},
}
"""The public names of each room."""


def test_the_front_doors_open_without_a_framework_to_the_public_names(tmp_path: Path) -> None:
    code = "\n".join(f"import fair_adaptors.{room}" for room in FRONT_DOORS)
    assert not loaded_by(code, tmp_path) & set(HEAVY)
    for room, names in FRONT_DOORS.items():
        door = import_module(f"fair_adaptors.{room}")
        assert set(door.__all__) == names and all(callable(getattr(door, name)) for name in names)
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            _ = door.nothing


def test_help_loads_no_framework(tmp_path: Path) -> None:
    code = (
        "import sys; from fair_adaptors.cli import main; sys.argv = ['fair-adaptors', '--help']\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code"
    )
    assert not loaded_by(code, tmp_path) & set(HEAVY)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    import fair_adaptors

    with pytest.raises(AttributeError, match="load_fair_adapter"):
        _ = fair_adaptors.load_fair_adapter
    assert set(fair_adaptors.__all__) <= set(dir(fair_adaptors))


def test_every_error_is_a_fair_adaptor_error() -> None:
    from fair_adaptors import errors

    ours = [value for value in vars(errors).values() if isinstance(value, type)]
    assert all(issubclass(error, errors.FairAdaptorError) for error in ours)


def test_training_offers_its_names_and_loads_no_framework_until_they_are_asked_for(tmp_path: Path) -> None:
    code = "import fair_adaptors.training"
    assert not loaded_by(code, tmp_path) & set(HEAVY)
    from fair_adaptors import training

    assert all(getattr(training, name).__name__ == name for name in training.__all__)
    with pytest.raises(AttributeError, match="trian"):
        _ = training.trian
