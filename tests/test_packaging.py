"""What is installed is what is in the checkout: nothing missing, nothing extra."""

import re
import zipfile
from configparser import ConfigParser
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.wheels import ROOT, build_wheel


@pytest.fixture(scope="module")
def setup_cfg() -> ConfigParser:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def source_files() -> set[str]:
    """Every file of the package, as it is called in the wheel."""
    folders = {"fair_adaptors": ROOT / "fair_adaptors", "fair_adaptors/training": ROOT / "training"}
    return {
        f"{name}/{file.relative_to(folder).as_posix()}"
        for name, folder in folders.items()
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def test_the_packages_listed_by_hand_are_the_folders(setup_cfg: ConfigParser) -> None:
    folders = {Path(name).parent for name in source_files() if name.endswith(".py")}
    assert set(lines(setup_cfg["options"]["packages"])) == {".".join(folder.parts) for folder in folders}


def test_the_wheel_holds_every_module_and_data_file_and_nothing_else(tmp_path: Path) -> None:
    names = zipfile.ZipFile(build_wheel(tmp_path)).namelist()
    assert {name for name in names if ".dist-info/" not in name} == source_files()
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_constraints_pin_a_version_that_every_requirement_allows(setup_cfg: ConfigParser) -> None:
    pins = dict(line.split("==") for line in lines((ROOT / "constraints.txt").read_text(encoding="utf-8")))
    pins = {name.lower(): version for name, version in pins.items()}
    wanted = "\n".join([setup_cfg["options"]["install_requires"], *setup_cfg["options.extras_require"].values()])
    for requirement in map(Requirement, lines(wanted)):
        if requirement.name == "fair-adaptors":  # an extra that is made of others
            continue
        assert requirement.name.lower() in pins, f"{requirement.name} is not pinned in constraints.txt"
        assert requirement.specifier.contains(pins[requirement.name.lower()]), str(requirement)


def test_all_is_every_extra_that_users_have_and_make_installs_those_and_the_rest(setup_cfg: ConfigParser) -> None:
    (installed,) = re.findall(r"-e \"\.\[(.+)\]\"", (ROOT / "Makefile").read_text(encoding="utf-8"))
    (every,) = map(Requirement, lines(setup_cfg["options.extras_require"]["all"]))
    assert every.name == "fair-adaptors" and not {"docs", "dev"} & every.extras
    assert every.extras | set(installed.split(",")) == set(setup_cfg["options.extras_require"])
    assert set(installed.split(",")) == {"all", "docs", "dev"}


def test_every_file_names_the_same_address_of_the_project(setup_cfg: ConfigParser) -> None:
    owner = setup_cfg["metadata"]["url"].removeprefix("https://github.com/")
    names = ["README.md", "CITATION.cff", "mkdocs.yml", "RELEASING.md", "space/requirements.txt"]
    files = [*(ROOT / name for name in names), *ROOT.glob("notebooks/*.ipynb")]
    named = {file: set(re.findall(r"github(?:\.com)?/([\w-]+/fair-adaptors)\b", file.read_text())) for file in files}
    assert named == dict.fromkeys(files, {owner}) and len(files) == 8


def test_the_command_is_installed() -> None:
    (command,) = entry_points(group="console_scripts", name="fair-adaptors")
    assert callable(command.load())


def test_the_version_is_said_once(setup_cfg: ConfigParser) -> None:
    import fair_adaptors

    assert setup_cfg["metadata"]["version"] == "attr: fair_adaptors.__version__"
    assert version("fair-adaptors") == fair_adaptors.__version__
