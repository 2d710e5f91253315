"""How commands end that cannot go on: one line that says why, what is kept and what to do, and no traceback."""

import errno
import io
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from typer.core import TyperOption
from typer.main import get_command

from fair_adaptors import list_adaptors, progress
from fair_adaptors.adaptor.bases import BASES
from fair_adaptors.cli import main
from fair_adaptors.cli.commands import COMMANDS, app
from fair_adaptors.errors import ConfigError, FairAdaptorError
from fair_adaptors.hub import client
from tests.commands import Command

FAIR_ADAPTORS = [sys.executable, "-m", "fair_adaptors"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_an_example_and_plain_words_for_values(command: Command, name: str) -> None:
    status, printed, _ = command(name, "-h")
    assert status == 0 and "Example:\n    fair-adaptors " in printed
    assert "<" not in printed.partition("Example:")[0] and "{" not in printed


@pytest.mark.parametrize("name", ["adaptor", "base", "out", "seed", "device", "dtype", "images"])
def test_an_option_is_spelled_alike_in_every_command(name: str) -> None:
    program: Any = get_command(app)
    options = [one for each in program.commands.values() for one in each.params if one.name == name]
    spelled = {(tuple(one.opts), one.metavar) for one in options if isinstance(one, TyperOption)}
    assert len(spelled) == 1 and len(options) > 3


def test_a_shell_completes_names_of_adaptors_bases_and_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    def offered(words: str) -> list[str]:
        asked = {"_FAIR_ADAPTORS_COMPLETE": "complete_bash", "COMP_WORDS": f"fair-adaptors {words}"}
        asked["COMP_CWORD"] = str(len(words.split()))
        ran = subprocess.run(FAIR_ADAPTORS, env={**os.environ, **asked}, capture_output=True, text=True, check=True)
        return ran.stdout.split()

    assert offered("evaluate sd") == [base.short_name for base in BASES if base.short_name.startswith("sd")] != []
    assert offered("generate x --dtype bf") == ["bfloat16"]
    assert offered("info sandbox") == ["sandbox-gender", "sandbox-gender-tone"]


def test_the_list_of_commands_cuts_no_sentence_short(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    printed = command("--help")[1]
    assert "..." not in printed.partition("Commands:")[2] and max(map(len, printed.splitlines())) <= 80
    assert "the adaptor's folder." in printed, "the end of what train does"


def test_a_list_that_is_piped_has_a_line_for_each_adaptor(command: Command) -> None:
    lines = [line for line in command("list")[1].splitlines() if line.startswith("sandbox-gender ")]
    assert len(lines) == 1 and lines[0].split()[:4] == ["sandbox-gender", "sandbox", "embedded", "nothing"]


def test_the_list_has_whole_names_in_80_columns(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, for rich
    printed = re.sub(r"\x1b\[[\d;]*m", "", command("list")[1])
    table = [line for line in printed.splitlines() if line[:1] in "┏┃┡│├└"]
    assert len(table) > 20 and max(map(len, table)) <= 80
    assert all(any(line.startswith(f"│ {one.name} ") for line in table) for one in list_adaptors())


def test_a_reader_that_has_seen_enough_gets_no_traceback() -> None:
    piped = f"{' '.join(FAIR_ADAPTORS)} list --json | head -1"
    ran = subprocess.run(["bash", "-c", piped], capture_output=True, text=True, check=True)
    assert ran.stdout == "[\n" and ran.stderr == ""


def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        ran = subprocess.run([*FAIR_ADAPTORS, "list"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert ran.returncode == 1 and ran.stderr.count("\n") == 1
    assert ran.stderr.startswith("fair-adaptors: the disk is full. What was finished is kept: free some space")


def fails_with(error: BaseException) -> Any:
    def call(*arguments: Any, **settings: Any) -> None:
        raise error

    return call


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x/y"), "the disk is full (x/y). What was finished is kept"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "the disk is full."),
        (PermissionError(errno.EACCES, "Permission denied", "x/y"), "x/y: Permission denied"),
        (OSError("something of a library"), "OSError: something of a library"),
    ],
)
def test_faults_of_the_machine_are_one_line(
    command: Command, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    monkeypatch.setattr("fair_adaptors.cli.adaptors.list_adaptors", fails_with(error))
    status, _, said = command("list")
    assert status == 1 and said.startswith(f"fair-adaptors: {message}") and said.count("\n") == 1


def test_a_mistake_of_ours_is_not_hidden(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fair_adaptors.cli.adaptors.list_adaptors", fails_with(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        command("list")


@pytest.mark.parametrize(
    ("words", "where", "message"),
    [
        (
            ["evaluate", "sandbox", "--out", "audit", "-n", "9"],
            "fair_adaptors.evaluation.asked.prepare",
            "stopped. The images of the finished prompts are kept in audit. To go on, run the same command again:"
            " fair-adaptors evaluate sandbox --out audit -n 9\n",
        ),
        (["list"], "fair_adaptors.cli.adaptors.list_adaptors", "stopped. Nothing was written. To start afresh, run"),
        (["pull", "ann/x"], "fair_adaptors.hub.fetch.pull", "stopped. What was downloaded whole is kept in the cache"),
    ],
)
def test_ctrl_c_says_in_one_line_what_is_kept_and_how_to_go_on(
    command: Command, monkeypatch: pytest.MonkeyPatch, words: list[str], where: str, message: str
) -> None:
    monkeypatch.setattr(where, fails_with(KeyboardInterrupt()))
    status, _, said = command(*words)
    assert status == 130 and said.startswith(f"\nfair-adaptors: {message}") and said.count("\n") == 2


@pytest.mark.parametrize("saved", [False, True])
def test_ctrl_c_while_a_run_is_loading_says_whether_there_is_something_to_resume(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, saved: bool
) -> None:
    if saved:
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "iteration_00001.safetensors").touch()
    monkeypatch.setattr("fair_adaptors.training.start.configured", fails_with(KeyboardInterrupt()))
    status, _, said = command("train", "sandbox-gender", "--out", str(tmp_path), "--no-numbers")
    again = f"To go on: fair-adaptors train sandbox-gender --out {tmp_path} --no-numbers --resume\n"
    assert status == 130 and (said.endswith(again) if saved else "no checkpoint yet, so nothing is kept" in said)


def test_an_out_that_cannot_be_written_is_found_before_the_work(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fair_adaptors.pipelines.load_pipeline", fails_with(AssertionError("it was loaded")))
    others = ["make", "sandbox", "--attribute", "gender"], ["train", "sandbox-gender"], ["demo"]
    for words in (["evaluate", "sandbox"], ["generate", "a nurse", "--out", "/proc/x/grid.png"], *others):
        status, _, said = command(*words, *([] if "--out" in words else ["--out", "/proc/x"]))
        assert status == 1 and "nothing can be written to /proc/x" in said and said.endswith("name another --out\n")


@pytest.mark.parametrize("what", ["file", "repository", "base", "classifier"])
def test_offline_is_said_at_once_with_what_is_in_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    from huggingface_hub import constants

    from fair_adaptors.pipelines import load_pipeline
    from fair_adaptors.vision.catalog import load_classifier

    (tmp_path / "models--ann--x").mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(client, "getproxies", dict)
    monkeypatch.setattr("socket.getaddrinfo", fails_with(socket.gaierror(-2, "Name or service not known")))
    monkeypatch.setattr("time.sleep", fails_with(AssertionError("it waits")))
    asked: dict[str, Callable[[], Any]] = {
        "file": lambda: client.fetch_file("ann/y", "config.json", None),
        "repository": lambda: client.look_up(client.connect(None, False), "ann/y"),
        "base": lambda: load_pipeline("ann/y"),
        "classifier": lambda: load_classifier("clip:ann/y"),
    }
    with pytest.raises(FairAdaptorError, match="^ann/y( cannot be fetched)?: you seem to be offline.*: ann/x$"):
        asked[what]()


@pytest.mark.parametrize("words", [["--quiet", "list"], ["list", "-q"]])
def test_quiet_hides_bars_and_may_stand_anywhere(command: Command, words: list[str]) -> None:
    command("list")
    assert not progress.hidden()
    assert command(*words)[0] == 0 and progress.hidden()
    screen = io.StringIO()
    with progress.bar(console=Console(file=screen, force_terminal=True)) as (_, advance):
        advance(1, 2)
    assert screen.getvalue() == ""
    command("list")


def test_a_bar_whose_steps_take_minutes_tells_the_time_left() -> None:
    screen, now = io.StringIO(), 0.0
    with progress.bar(console=Console(file=screen, force_terminal=True)) as (shown, advance):
        shown.get_time = lambda: now
        for done in range(1, 4):
            now += 60
            advance(done, 5)
    assert "0:02:00" in screen.getvalue(), "two steps of a minute are left"


def test_a_wait_tells_how_long_it_has_taken_and_how_long_it_took_last_time(
    terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAIR_ADAPTORS_CACHE", str(tmp_path))
    clock = iter([0.0, 0.0, 9.0, 20.0, 21.0, 21.0])
    monkeypatch.setattr("fair_adaptors.progress.time", SimpleNamespace(monotonic=lambda: next(clock)))
    for shown in ("loading … 0 s\r", "loading … 1 s, about 8 s left\r"):
        with progress.waiting("loading"):
            pass
        assert shown in terminal.getvalue() and terminal.getvalue().endswith("\r\033[K"), "nothing is left of it"


def test_a_wait_gives_way_to_whoever_else_writes(terminal: io.StringIO) -> None:
    with progress.waiting("loading"):
        print("a download's bar", file=progress.sys.stderr)
        assert terminal.getvalue().endswith("\r\033[Ka download's bar\n")
    assert progress.sys.stderr is terminal and terminal.getvalue().count("loading") == 1


def test_messages_have_levels(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    import logging

    def warns() -> tuple[()]:
        logging.getLogger("fair_adaptors.x").warning("take care")
        return ()

    monkeypatch.setattr("fair_adaptors.cli.adaptors.list_adaptors", warns)
    assert command("list")[2] == "fair-adaptors: take care\n"
    assert command("--quiet", "list")[2] == ""
    monkeypatch.setenv("FAIR_ADAPTORS_LOG", "error")
    assert command("list")[2] == "" and command("--verbose", "list")[2] == "fair-adaptors: take care\n"
    monkeypatch.setenv("FAIR_ADAPTORS_LOG", "loud")
    assert "must be one of debug, info, warning, error" in command("list")[2]


def test_options_may_stand_in_a_file_and_the_command_line_goes_before_it(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "audit.yaml"
    file.write_text("base: sandbox\nadaptor: sandbox-gender\nimages-per-prompt: 7\nkeep_images: false\nplan: 0.2\n")
    printed = command("evaluate", "--config", str(file))[1]
    assert printed == command("evaluate", "sandbox", "--adaptor", "sandbox-gender", "-n", "7", "--plan", "0.2")[1]
    assert printed != command("evaluate", "--config", str(file), "-n", "60")[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("adapter: x", "there is no option 'adapter'. Did you mean 'adaptor'?"),
        ("seed: [1, 2]", "seed takes one value, and 2 are given"),
        ("- seed", "holds no options; write lines such as adaptor: gender-race"),
        ("seed: {", "cannot be read: while parsing"),
    ],
)
def test_a_file_of_options_that_is_wrong_is_refused(command: Command, tmp_path: Path, text: str, message: str) -> None:
    assert "there is no file gone.yaml" in command("evaluate", "sandbox", "--config", "gone.yaml")[2]
    (tmp_path / "audit.yaml").write_text(text)
    status, _, said = command("evaluate", "sandbox", "--config", str(tmp_path / "audit.yaml"))
    assert status == 1 and message in said and said.count("\n") == 1


def test_ctrl_c_while_the_command_line_is_loading_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "fair_adaptors.cli.commands", Interrupted("commands"))
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == "\nfair-adaptors: stopped. Nothing was written.\n"


def test_main_is_what_the_module_runs() -> None:
    assert callable(main) and issubclass(ConfigError, ValueError)
    ran = subprocess.run([*FAIR_ADAPTORS, "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout.count(".") == 2
