"""What a run tells while it goes on: at a terminal and in a file."""

import dataclasses
import io
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from fair_adaptors.training.engine.processes import World
from fair_adaptors.training.engine.step import StepResult
from fair_adaptors.training.run import reporter
from fair_adaptors.training.run.reporter import Reporter
from rich.console import Console

from tests.tiny_training import CONFIG


def started(out: Path, written: io.StringIO, *, terminal: bool = False) -> Reporter:
    console = Console(file=written, force_terminal=terminal)
    told = Reporter(dataclasses.replace(CONFIG, iterations=99, trackers=()), out, World(), console)
    told.start(0)
    return told


def show(told: Reporter, iteration: int, bias: float) -> None:
    result = StepResult({"alignment": 0.5}, {"bright": bias}, images=2, took_part=2, applied=True)
    told.show(SimpleNamespace(iteration=iteration, skipped=0, empty=0), result)  # type: ignore[arg-type]


def test_batches_whose_prompts_name_their_classes_leave_the_bias_as_it_was(tmp_path: Path) -> None:
    told = started(tmp_path, io.StringIO())
    for bias, said in ((math.nan, "–"), (0.5, "bright 0.50"), (math.nan, "bright 0.50"), (0.7, "bright 0.60")):
        show(told, 1, bias)
        assert told.progress.tasks[told.task].fields["bias"] == said


def test_a_file_is_told_now_and_then_how_far_a_run_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock, written = [0.0], io.StringIO()
    monkeypatch.setattr(reporter.time, "monotonic", lambda: clock[0])
    told = started(tmp_path, written)
    told.progress.tasks[told.task]._get_time = told.progress.get_time = lambda: clock[0]
    told.progress.reset(told.task, total=99)
    for iteration, now in enumerate((30.0, 500.0, 530.0, 1_000.0), 1):
        clock[0] = now
        show(told, iteration, 0.5)
    first, second = written.getvalue().splitlines()  # no minute had gone by in between
    assert first.startswith("iteration 2 of 99: loss 0.50, bias bright 0.50")
    assert re.fullmatch(r"iteration 4 of 99: loss 0.50, bias bright 0.50, about 8 h \d\d min left", second)
    clock[0] = 2_000.0
    with caplog.at_level("ERROR", "fair_adaptors"):
        show(told, 5, 0.5)
    assert written.getvalue().count("of 99") == 2


def test_at_a_terminal_and_before_anything_was_learned_there_is_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporter, "PAUSE", 0.0)
    seen, filed = io.StringIO(), io.StringIO()
    show(started(tmp_path, seen, terminal=True), 1, 0.5)
    told = started(tmp_path, filed)
    told.show(SimpleNamespace(iteration=1, skipped=1, empty=0), StepResult({}, {"bright": 0.5}, 2, 2, finite=False))  # type: ignore[arg-type]
    assert "of 99: loss" not in seen.getvalue() + filed.getvalue() and "skipped" in filed.getvalue()


def test_what_is_being_loaded_is_shown(tmp_path: Path, terminal: io.StringIO) -> None:
    with Reporter(CONFIG, tmp_path, World(), Console()).loading(2) as tell:
        tell("classifiers")
        tell("base")
    for line in ("loading the classifiers (1 of 2) … ", "loading the base (2 of 2) … "):
        assert line in terminal.getvalue()
