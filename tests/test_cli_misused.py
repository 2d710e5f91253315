"""What a command says of words that it cannot use: one line, in our words, that names the option and what it takes."""

import shlex
import sys
from pathlib import Path

import pytest

from fair_adaptors.cli.commands import COMMANDS
from fair_adaptors.cli.ends import resuming
from tests.commands import Command

FOLDERS = [
    "demo",
    "evaluate sandbox",
    "reproduce sandbox-gender",
    "train sandbox-gender",
    "make sandbox --attribute gender",
    "convert lora.safetensors --attribute gender",
    "pull sandbox-gender",
    "train-classifier --dataset pictures --attributes gender",
    "export sandbox-gender --format diffusers",
    "export sandbox-gender --format peft",
    "export sandbox-gender --format merged",
]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("demo -n many", "--images-per-prompt takes a whole number of at least 1, not 'many'"),
        ("demo -n 0", "--images-per-prompt takes a whole number of at least 1, not '0'"),
        ("generate x --steps 5000", "--steps takes a whole number from 1 to 1,000, not '5000'"),
        ("evaluate sandbox --weight 1 --weight x", "--weight takes a number, not '1, x'"),
        ("evaluate sandbox --config audit.yaml", "--overwrite takes true or false, not 'perhaps'"),
        ("demo --oot x", "demo has no option --oot. Did you mean '--out'? See fair-adaptors demo -h"),
        ("--loud demo", "fair-adaptors has no option --loud. See fair-adaptors -h"),
        ("demon", "there is no command 'demon'. Did you mean 'demo'? For all of them: fair-adaptors -h"),
        ("list all", "list does not take 'all'; see fair-adaptors list -h"),
        ("push adaptor org/x --tag", "--tag needs NAME"),
        ("demo -n", "-n needs a whole number of at least 1"),
        ("push adaptor org/x --private=3", "--private takes no value"),
        ("push adaptor", "push needs ORG/NAME. For example: fair-adaptors push runs/mine ORG/NAME --tag v1"),
        ("evaluate sandbox --target gender=1", "gender needs 2 shares, one for each class; its target has 1"),
        ("make sandbox --out x", "make needs --attribute. For example: fair-adaptors make sandbox --attribute gender"),
        (
            "train-classifier --dataset x --attributes gender --out x --epochs 0",
            "--epochs is 0; it must be at least 1",
        ),
    ],
)
def test_wrong_words_are_told_in_one_line(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "audit.yaml").write_text("overwrite: perhaps\n")
    status, printed, said = command(*shlex.split(line))
    assert status and not printed and said.startswith(f"fair-adaptors: {message}") and said.count("\n") == 1


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"demo", "app", "list", "search", "doctor"}))
def test_what_a_command_needs_is_named(command: Command, name: str) -> None:
    status, _, said = command(name)
    assert status == 2 and said.startswith(f"fair-adaptors: {name} needs ") and f"fair-adaptors {name} " in said


def test_without_a_command_there_is_help(command: Command) -> None:
    assert command() == command("--help") == command("-q")


@pytest.mark.parametrize("line", FOLDERS)
def test_a_folder_has_no_name_of_a_file(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lora.safetensors").touch()
    (tmp_path / "taken").touch()
    status, _, said = command(*line.split(), "--out", "x.txt")
    assert status == 1 and said == "fair-adaptors: --out must be the name of a folder, but x.txt looks like a file\n"
    status, _, said = command(*line.split(), "--out", "taken")
    assert status == 1 and "taken" in said and said.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"lora.safetensors", "taken"}


@pytest.mark.parametrize(
    ("line", "out", "message"),
    [
        ("generate x", "x.gif", "--out must end in .png, .jpg, .jpeg or .webp (got x.gif)"),
        ("generate x", "folder.png", "--out must be the name of a file, but folder.png is a folder"),
        ("face-bank --dataset x", "bank", "--out must end in .safetensors (got bank)"),
        ("face-bank --dataset x", "bank.bin", "--out must end in .safetensors (got bank.bin)"),
        (
            "export sandbox-gender --format kohya",
            "x.bin",
            "--out must end in .safetensors, or be the name of a folder (got x.bin)",
        ),
    ],
)
def test_a_file_ends_in_what_it_is(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, out: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    assert command(*line.split(), "--out", out) == (1, "", f"fair-adaptors: {message}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_a_folder_may_have_a_dot_in_its_name(command: Command, tmp_path: Path) -> None:
    assert command("export", "sandbox-gender", "--format", "diffusers", "--out", str(tmp_path / "v1.2"))[0] == 0
    assert (tmp_path / "v1.2").is_dir()


def test_a_run_is_resumed_with_the_same_words() -> None:
    words = "-q train sandbox-gender --no-numbers --set rank=4 --target age=0.5,0.5 --num-processes 2".split()
    again = f"fair-adaptors {' '.join(words)} --resume"
    assert resuming([*words, "--overwrite"]) == again
    assert resuming([*words, "--resume"]) == resuming([*words, "--checkpoint", "x"]) == again
    assert resuming([*words, "--checkpoint=x"]) == again
    assert resuming(["train", "x", "--out", "a folder"]) == "fair-adaptors train x --out 'a folder' --resume"


def test_training_without_its_packages_says_what_to_install(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fair_adaptors.training.run.train", None)  # as where scipy cannot be imported
    status, _, errors = command("train", "sandbox-gender", "--out", str(tmp_path / "new"))
    assert status == 1 and "pip install" in errors and "[train]" in errors and "Traceback" not in errors
