"""The notebooks run from top to bottom, and the template of a Space starts."""

import ast
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import yaml

from fair_adaptors.app.page import listen

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def code(notebook: Path) -> list[str]:
    """Return the cells of code, in order."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_clean_and_leads_to_itself_in_colab(notebook: Path) -> None:
    found = json.loads(notebook.read_text(encoding="utf-8"))
    cells = found["cells"]
    assert found["nbformat"] == 4 and len({cell["id"] for cell in cells}) == len(cells) > 5
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code")
    assert f"blob/main/notebooks/{notebook.name})" in "".join(cells[0]["source"])
    assert all(ast.parse(cell) is not None for cell in code(notebook))


def test_the_notebooks_are_linked() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"colab\.research\.google\.com/github/\S+?/blob/main/notebooks/([\w-]+\.ipynb)", readme)
    assert sorted(linked) == [path.name for path in NOTEBOOKS] and len(linked) == 3


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "\n".join(code(notebook))],
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "gender" in ran.stdout


@pytest.mark.slow
def test_the_template_of_a_space_starts_and_shows_the_page(tmp_path: Path) -> None:
    head = yaml.safe_load((ROOT / "space" / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert (head["sdk"], head["app_file"], head["python_version"]) == ("gradio", "app.py", "3.12")
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    log = tmp_path / "log"
    with log.open("wb") as file:
        app = subprocess.Popen(
            [sys.executable, ROOT / "space" / head["app_file"]],
            env=os.environ | {"PYTHONPATH": str(ROOT), "PORT": str(port), "HF_HUB_OFFLINE": "1"},
            cwd=tmp_path,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        assert "fair" in page_at(f"http://127.0.0.1:{port}/", app).lower(), log.read_text()[-2000:]
    finally:
        app.terminate()
        app.wait(30)


def page_at(url: str, app: "subprocess.Popen[bytes]", *, patience: float = 300) -> str:
    """Return a page once it is there; nothing if the program has ended before."""
    end = time.monotonic() + patience
    while app.poll() is None and time.monotonic() < end:
        try:
            with urlopen(url, timeout=60) as answer:
                return str(answer.read().decode())
        except (URLError, ConnectionError):
            time.sleep(1)
    return ""
