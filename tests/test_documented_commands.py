"""What README.md and the guides tell to type works from the wheel, away from the checkout; each command, made smaller.

Of the other documents, each command is one that there is, with its options.
"""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import pytest
from typer.main import get_command

from fair_adaptors.adaptor.record import WEIGHTS_FILE
from fair_adaptors.adaptor.registry import EMBEDDED
from fair_adaptors.cli.commands import app
from tests.wheels import ROOT, build_wheel

README = ROOT / "README.md"
GUIDES = [ROOT / "docs" / f"{name}.md" for name in ("quickstart", "ship", "train", "audit", "comfyui", "faq")]
DOCUMENTS = [README, *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name != "commands.md")]
NETWORK = (
    "push my-adaptor", "push runs/mine", "pull ORG", "search", "reproduce", "convert ORG",
    "train sandbox-gender --push-to", "evaluate sd15", "export gender-",
)  # fmt: skip
"""What cannot be run without one; and beside these the demo, which .ci/run runs from the wheel by itself."""
QUICK = " --set iterations=1 --set num_steps=2 --set gradient_steps=1 --set images_per_prompt=4 --set trackers="
FEW = " -n 2 --steps 2"
SMALLER = {
    r"info NAME": "info sandbox-gender",
    r"(generate) PROMPT --adaptor NAME -n 8": r"\1 'a hospital nurse' --adaptor sandbox-gender -n 2",
    r"--base sd15": "--base sandbox",
    r"--num-processes 4": "--num-processes 2 --no-numbers",
    r"--out my-adaptor$": "--out converted",
    r"^(app|train-classifier|face-bank)$": r"\1 --help",
    r"^(train sandbox-gender(?!.*--dry-run).*)$": rf"\1{QUICK}",
    r"^(evaluate.*) -n \d+": r"\1",
    r"^(evaluate(?!.*--plan).*)$": rf"\1{FEW}",
}
RUN = """
import importlib, json, os, sys
import fair_adaptors
from fair_adaptors.cli import main

importlib.import_module("fair_adaptors.cli.train").IMAGES = 2  # of a prompt, for the numbers before and after
print(fair_adaptors.__file__)
for place, commands, examples in json.load(sys.stdin):
    os.chdir(place)
    for command in commands:
        print("$", *command, flush=True)
        sys.argv = command
        try:
            main()
        except SystemExit as end:
            allowed = (0, None, 1) if "--fail-on-harm" in command else (0, None)
            if end.code not in allowed:
                sys.exit(f"{command} ended with {end.code}")
    for example in examples:
        print(example, flush=True)
        exec(example, {})
print("all were run")
"""


def commands(page: Path) -> list[str]:
    """Every command of a page, without ``fair-adaptors``: of its blocks, its tables and its sentences."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^    fair-adaptors (.+?)(?:\s+#.*)?$", text, re.MULTILINE)
    cells = re.findall(r"^\| (`fair-adaptors .+?) \|", text, re.MULTILINE)
    rows = [word.removeprefix("fair-adaptors ") for cell in cells for word in re.findall("`(.+?)`", cell)]
    sentences = re.findall(r"`fair-adaptors ([^`]+)`", re.sub(r"^\|.*$", "", text, flags=re.MULTILINE))
    return list(dict.fromkeys(blocks + rows + sentences))


def examples(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def smaller(number: int, command: str) -> list[str]:
    for large, small in SMALLER.items():
        command = re.sub(large, small, command)
    words = shlex.split(command)
    if words[0] in ("train", "evaluate") and not {"--out", "--dry-run", "--plan", "list"} & set(words):
        words += ["--out", f"out-{number}"]
    return ["fair-adaptors", *words]


def test_what_is_not_run_is_there_to_be_run_elsewhere() -> None:
    """So that no command is left out by a name that it no longer has."""
    known = [command for page in (README, *GUIDES) for command in commands(page)]
    assert all(any(command.startswith(start) for command in known) for start in (*NETWORK, "demo"))


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_every_command_of_a_document_has_these_arguments_and_options(page: Path) -> None:
    group = get_command(app)
    for line in commands(page):
        name, *words = shlex.split(line.replace("…", ""))
        command = group.commands[name]  # type: ignore[attr-defined]
        unfinished = not words or words[-1].startswith("-") or "FILE" in line  # such as `evaluate --plan`
        with command.context_class(command, info_name=name, resilient_parsing=unfinished) as context:
            command.parse_args(context, words)


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_every_example_of_a_document_imports_what_there_is(page: Path) -> None:
    for example in examples(page):
        for node in ast.walk(ast.parse(example)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fair_adaptors"):
                assert all(hasattr(import_module(node.module or ""), name.name) for name in node.names), example


class TestReadme:  # apart from the guides, so that two processes share the work
    @pytest.mark.slow
    def test_every_command_and_example_that_needs_no_network_works_from_the_wheel(self, tmp_path: Path) -> None:
        assert run_from_the_wheel(tmp_path, [README]) > 20
        made = ["grid.png", "my-adaptor.safetensors", "audit/report.html", "runs/mine/fair_adaptor.json", "converted"]
        assert [name for name in made if not (tmp_path / "README" / name).exists()] == []


class TestGuides:
    @pytest.mark.slow
    def test_every_command_and_example_that_needs_no_network_works_from_the_wheel(self, tmp_path: Path) -> None:
        assert run_from_the_wheel(tmp_path, GUIDES) > 25


def run_from_the_wheel(folder: Path, pages: list[Path]) -> int:
    """Run what pages tell to type, each page in a folder of its own; return how many commands and examples ran."""
    installed = folder / "installed"
    with zipfile.ZipFile(build_wheel(folder)) as wheel:
        wheel.extractall(installed)
    todo = [(prepared(folder / page.stem), *wanted(page)) for page in pages]
    ran = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(todo),
        env=os.environ | {"PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    assert ran.stdout.startswith(str(installed)) and ran.stdout.endswith("all were run\n"), ran.stdout[:200]
    return sum(len(lines) + len(code) for _, lines, code in todo)


def prepared(place: Path) -> str:
    """Return a new folder with what the commands take for granted."""
    place.mkdir()
    shutil.copytree(EMBEDDED / "sandbox-gender", place / "my-adaptor")
    (place / "settings.yaml").write_text("rank: 4\n")
    with zipfile.ZipFile(place / "checkpoint.zip", "w") as packed:
        packed.write(EMBEDDED / "sandbox-gender" / WEIGHTS_FILE, WEIGHTS_FILE)
    return str(place)


def wanted(page: Path) -> tuple[list[list[str]], list[str]]:
    """Return the commands and the examples of a page that need no network."""
    lines = [smaller(*one) for one in enumerate(commands(page)) if not one[1].startswith((*NETWORK, "demo"))]
    return lines, [code for code in examples(page) if "sandbox" in code]
