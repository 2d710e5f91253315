"""What a run tells while it goes on: at a terminal and in a file."""

import dataclasses
import io
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from fair_adaptors.training.engine.processes import World
from fair_adaptors.training.engine.step import StepResult
from fair_adaptors.training.run import reporter
from fair_adaptors.training.run.reporter import Reporter
from rich.console import Console

from tests.tiny_training import CONFIG


def started(out: Path, written: io.StringIO) -> Reporter:
    told = Reporter(dataclasses.replace(CONFIG, iterations=9, trackers=()), out, World(), Console(file=written))
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
    written = io.StringIO()
    told = started(tmp_path, written)
    show(told, 1, 0.5)
    assert written.getvalue() == ""  # no minute has gone by
    monkeypatch.setattr(reporter, "PAUSE", 0.0)
    show(told, 2, 0.5)
    assert written.getvalue().startswith("iteration 2 of 9: loss 0.50, bias bright 0.50")
    written.truncate(0)
    with caplog.at_level("ERROR", "fair_adaptors"):
        show(told, 3, 0.5)
    assert written.getvalue() == ""


def test_what_is_being_loaded_is_shown(tmp_path: Path, terminal: io.StringIO) -> None:
    with Reporter(CONFIG, tmp_path, World(), Console()).loading(2) as tell:
        tell("classifiers")
        tell("base")
    for line in ("loading the classifiers (1 of 2) … ", "loading the base (2 of 2) … "):
        assert line in terminal.getvalue()
