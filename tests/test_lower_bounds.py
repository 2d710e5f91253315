"""The oldest versions that setup.cfg allows install together, and draw and measure what today's do."""

import json
import os
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from packaging.version import Version
from PIL import Image

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
FROM_HERE = {"torch"}
"""What the other environment has of this one: too large to be fetched for a test."""


def oldest() -> dict[str, str]:
    """The lower bound of every package that the base and the evaluation need."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    named = config["options"]["install_requires"] + config["options.extras_require"]["eval"]
    wanted = [Requirement(line) for line in named.splitlines() if line]
    bounds = {one.name: [bound.version for bound in one.specifier if bound.operator == ">="] for one in wanted}
    return {name: bound for name, (bound,) in bounds.items() if name not in FROM_HERE}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the lower bounds, above this environment for all that is not bounded."""
    folder = tmp_path_factory.mktemp("oldest")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "zz_shared.pth").write_text(str(Path(torch.__file__).parents[1]))
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    ran = subprocess.run(
        [*install, *(f"{name}=={bound}" for name, bound in oldest().items())], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return python


def evaluated(python: Path | str, out: Path) -> dict[str, Any]:
    """Let a Python evaluate the sandbox, and return the results without what names versions."""
    words = ["evaluate", "sandbox", "--adaptor", "sandbox-gender", "-n", "1", "--steps", "4", "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [python, "-m", "fair_adaptors", *words], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    results: dict[str, Any] = json.loads((out / "results.json").read_text())
    del results["versions"], results["settings"]["versions"]
    return results


def test_the_oldest_versions_install_together_and_are_the_ones_that_are_used(python: Path) -> None:
    code = f"from importlib.metadata import version as v; print(*map(v, {list(oldest())}))"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [Version(each) for each in found] == [Version(bound) for bound in oldest().values()]


def test_the_oldest_versions_draw_and_measure_the_same(python: Path, tmp_path: Path) -> None:
    ours, theirs = evaluated(sys.executable, tmp_path / "ours"), evaluated(python, tmp_path / "theirs")
    pictures = sorted(path.relative_to(tmp_path / "ours") for path in (tmp_path / "ours").rglob("images/**/*.png"))
    assert len(pictures) == 2 * 16  # without and with the adaptor, of each prompt one
    for picture in pictures:
        pair = [np.asarray(Image.open(tmp_path / side / picture)) for side in ("ours", "theirs")]
        assert np.array_equal(*pair), picture
    assert theirs == ours
