"""Processes of real training runs that are told to stop, or are killed."""

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fair_adaptors.training.run import checkpoint

from fair_adaptors.adaptor.record import CONFIG_FILE
from tests.killed_runs import kill_at_random_moments
from tests.processes import run_alone
from tests.sizes import KILLS

QUICK = ["num_steps=2", "gradient_steps=1", "images_per_prompt=4", "prompts_per_step=1", "save_every=1", "trackers="]
SET = [word for text in QUICK for word in ("--set", text)]


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fair_adaptors", "train", *arguments]
    env = {**os.environ, "COLUMNS": "200", **environment}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_checkpoint(folder: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        if list((folder / "checkpoints").glob("step_*")):
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    raise AssertionError("no checkpoint in two minutes")


@KILLS
def test_killed_at_random_moments_it_always_goes_on(tmp_path: Path, kills: int) -> None:
    run_alone(functools.partial(kill_at_random_moments, kills), tmp_path, seconds=300)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_with_a_checkpoint_and_the_command_to_go_on(tmp_path: Path, number: int) -> None:
    words = ["sandbox-gender", "--out", str(tmp_path), *SET, "--set", "iterations=500", "--no-numbers"]
    process = start(*words)
    wait_for_checkpoint(tmp_path, process)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0, printed
    assert f"To go on: fair-adaptors train {' '.join(words)} --resume\n" in printed
    assert ("Ctrl-C again stops at once" in printed) == (number == signal.SIGINT)
    latest = checkpoint.list_checkpoints(tmp_path / "checkpoints")[-1]
    assert latest.name in printed and not (tmp_path / CONFIG_FILE).exists()


def test_a_process_that_is_killed_is_restarted_and_the_run_goes_on_to_its_end(tmp_path: Path) -> None:
    """torchrun starts both again, and they go on from the latest checkpoint; SIGTERM reaches both."""
    import psutil

    process = start("sandbox-gender", "--out", str(tmp_path), *SET, "--set", "iterations=500", "--num-processes", "2")
    wait_for_checkpoint(tmp_path, process)
    workers = [p for p in psutil.Process(process.pid).children(recursive=True) if "fair_adaptors" in p.cmdline()]
    workers = [p for p in workers if "torch.distributed.run" not in p.cmdline()]
    assert len(workers) == 2
    before = checkpoint.list_checkpoints(tmp_path / "checkpoints")[-1].name
    workers[1].kill()
    for _ in range(1200):
        if checkpoint.list_checkpoints(tmp_path / "checkpoints")[-1].name > before and not workers[0].is_running():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=90)
    assert process.returncode == 0, printed[-4000:]
    assert "resumed from" in printed and "--num-processes 2 --resume" in printed


def test_what_would_come_again_is_not_tried_again(tmp_path: Path) -> None:
    process = start(
        "sandbox-gender", "--out", str(tmp_path), *SET, "--set", "images_per_prompt=2", "--num-processes", "3"
    )
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    said = "fair-adaptors: 3 processes for 2 images of a prompt: use fewer"
    assert printed.splitlines()[-1] == said
    assert printed.count(said) <= 4, "by each process once, and by what started them"
