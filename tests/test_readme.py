"""What README.md tells to type works from the wheel, away from the checkout: each command, made smaller."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fair_adaptors.adaptor.record import WEIGHTS_FILE
from fair_adaptors.adaptor.registry import EMBEDDED
from tests.wheels import ROOT, build_wheel

README = (ROOT / "README.md").read_text(encoding="utf-8")
NETWORK = ("push my-adaptor", "pull ORG", "search", "reproduce", "convert ORG", "train sandbox-gender --push-to")
"""What cannot be run without one; and beside these the demo, which .ci/run runs from the wheel by itself."""
QUICK = " --set iterations=1 --set num_steps=2 --set gradient_steps=1 --set images_per_prompt=4 --set trackers="
FEW = " -n 2 --steps 2"
SMALLER = {
    r"info NAME": "info sandbox-gender",
    r"(generate) PROMPT --adaptor NAME -n 8": r"\1 'a hospital nurse' --adaptor sandbox-gender -n 2",
    r"--base sd15": "--base sandbox",
    r"--num-processes 4": "--num-processes 2",
    r"--out my-adaptor$": "--out converted",
    r"^(app|train-classifier|face-bank)$": r"\1 --help",
    r"^(train sandbox-gender(?!.*--dry-run).*)$": rf"\1{QUICK}",
    r" -n 60": "",
    r"^(evaluate(?!.*--plan).*)$": rf"\1{FEW}",
}
RUN = """
import json, sys
import fair_adaptors
from fair_adaptors.cli import main

commands, example = json.load(sys.stdin)
print(fair_adaptors.__file__)
for command in commands:
    print("$", *command, flush=True)
    sys.argv = command
    try:
        main()
    except SystemExit as end:
        allowed = (0, None, 1) if "--fail-on-harm" in command else (0, None)
        if end.code not in allowed:
            sys.exit(f"{command} ended with {end.code}")
exec(example)
print("all were run")
"""


def commands() -> list[str]:
    """Every command of the page, without ``fair-adaptors``: of its blocks, its tables and its sentences."""
    blocks = re.findall(r"^    fair-adaptors (.+?)(?:\s+#.*)?$", README, re.MULTILINE)
    cells = re.findall(r"^\| (`fair-adaptors .+?) \|", README, re.MULTILINE)
    rows = [word.removeprefix("fair-adaptors ") for cell in cells for word in re.findall("`(.+?)`", cell)]
    sentences = re.findall(r"`fair-adaptors ([^`]+)`", re.sub(r"^\|.*$", "", README, flags=re.MULTILINE))
    return list(dict.fromkeys(blocks + rows + sentences))


def smaller(number: int, command: str) -> list[str]:
    for large, small in SMALLER.items():
        command = re.sub(large, small, command)
    words = shlex.split(command)
    if words[0] in ("train", "evaluate") and not {"--out", "--dry-run", "--plan", "list"} & set(words):
        words += ["--out", f"out-{number}"]
    return ["fair-adaptors", *words]


def test_what_is_not_run_is_there_to_be_run_elsewhere() -> None:
    """So that no command is left out by a name that it no longer has."""
    assert all(any(command.startswith(start) for command in commands()) for start in (*NETWORK, "demo"))


@pytest.mark.slow
def test_every_command_that_needs_no_network_works_from_the_wheel(tmp_path: Path) -> None:
    installed, place = tmp_path / "installed", tmp_path / "place"
    with zipfile.ZipFile(build_wheel(tmp_path)) as wheel:
        wheel.extractall(installed)
    place.mkdir()
    shutil.copytree(EMBEDDED / "sandbox-gender", place / "my-adaptor")
    (place / "settings.yaml").write_text("rank: 4\n")
    with zipfile.ZipFile(place / "checkpoint.zip", "w") as packed:
        packed.write(EMBEDDED / "sandbox-gender" / WEIGHTS_FILE, WEIGHTS_FILE)
    wanted = [command for command in commands() if not command.startswith((*NETWORK, "demo"))]
    (example,) = (code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "sandbox" in code)
    assert len(wanted) > 15
    ran = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps([[smaller(*one) for one in enumerate(wanted)], example]),
        env=os.environ | {"PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"},
        cwd=place,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    assert ran.stdout.startswith(str(installed)) and ran.stdout.endswith("all were run\n"), ran.stdout[:200]
    made = ["grid.png", "my-adaptor.safetensors", "audit/report.html", "runs/mine/fair_adaptor.json", "converted"]
    assert [name for name in made if not (place / name).exists()] == []
