"""Several real processes (gloo on the CPU): their number does not change the result."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from fair_adaptors.training.engine.processes import World
from fair_adaptors.training.run.distributed import join_world
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from fair_adaptors.adaptor.record import WEIGHTS_FILE
from fair_adaptors.errors import ConfigError
from tests.distributed_runs import fails, not_finite, same_result, sharded
from tests.processes import run_in_world
from tests.tiny import tiny_xl_pipeline


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worlds")


@pytest.fixture(scope="module")
def found(worlds: Path) -> dict[int, dict[str, Tensor]]:
    results = {}
    for size in (1, 2, 3):
        run_in_world(size, same_result, worlds / str(size))
        results[size] = load_file(worlds / str(size) / "found.safetensors")
    return results


def error(one: dict[str, Tensor], other: dict[str, Tensor], prefix: str) -> float:
    """Return the relative error of all tensors of a kind, as one vector."""
    a, b = (torch.cat([t.flatten() for name, t in sorted(d.items()) if name.startswith(prefix)]) for d in (one, other))
    return ((a - b).norm() / a.norm()).item()


@pytest.mark.parametrize("size", [2, 3])
def test_the_number_of_processes_does_not_change_the_result(found: dict[int, dict[str, Tensor]], size: int) -> None:
    """Seven images, which neither two nor three processes divide."""
    one, other = found[1], found[size]
    assert torch.equal(one["validation"], other["validation"]) and torch.equal(one["shares"], other["shares"])
    for kind, most in (("gradient", 1e-5), ("half", 5e-3)):
        assert one[f"took part/{kind}"].tolist() == other[f"took part/{kind}"].tolist() == [7, 7]
        assert error(one, other, f"{kind}/") < most
    assert error(one, other, "5/") < 1e-5


@pytest.mark.parametrize("size", [2, 3])
def test_a_run_goes_on_with_another_number_of_processes(found: dict[int, dict[str, Tensor]], size: int) -> None:
    assert error(found[1], found[size], "10/") < 1e-6


@pytest.mark.parametrize("size", [1, 2, 3])
def test_one_process_that_is_told_to_stop_stops_all(found: dict[int, dict[str, Tensor]], size: int) -> None:
    assert found[size]["stopped"] == size


@pytest.mark.parametrize("size", [1, 2, 3])
def test_what_is_due_is_so_for_all_processes_by_one_clock(found: dict[int, dict[str, Tensor]], size: int) -> None:
    assert (found[size]["due by main"], found[size]["due by other"]) == (size, 0)


def test_pictures_of_the_progress_are_drawn_by_all_processes_and_the_same(
    found: dict[int, dict[str, Tensor]], worlds: Path
) -> None:
    assert [found[size]["rows"].item() for size in (1, 2, 3)] == [2 * 8, 2 * 4, 2 * 3]
    one, *others = (np.asarray(Image.open(worlds / str(n) / "samples/iteration_00000.png"), int) for n in (1, 2, 3))
    assert all(abs(one - other).max() <= 1 for other in others)


def test_a_gradient_that_is_not_finite_in_one_process_is_skipped_by_all(tmp_path: Path) -> None:
    run_in_world(2, not_finite, tmp_path)
    one, other = (load_file(tmp_path / f"rank{rank}.safetensors") for rank in (0, 1))
    assert one["finite"].tolist() == other["finite"].tolist() == [True, False, True]
    assert torch.equal(one["values"], other["values"]) and one["values"].isfinite().all()


def test_when_a_process_fails_the_others_do_not_wait_for_it(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no memory left"):
        run_in_world(2, fails, tmp_path, seconds=100)
    assert "process 0 of 2 lost the others" in (tmp_path / "lost.txt").read_text()


def test_a_process_of_several_that_fails_ends_before_anything_that_could_wait_for_the_others() -> None:
    work = """
import atexit, time
from fair_adaptors.training.run.launch import refusals_told
atexit.register(time.sleep, 600)
with refusals_told():
    raise MemoryError("all is full")
"""
    environment = {**os.environ, "WORLD_SIZE": "2"}
    done = subprocess.run([sys.executable, "-c", work], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.endswith("MemoryError: all is full\n")


@pytest.mark.slow
def test_a_base_that_is_split_over_two_processes_trains_the_same_adaptor(tmp_path: Path) -> None:
    tiny_xl_pipeline().save_pretrained(tmp_path / "base")
    for size in (1, 2):
        run_in_world(size, sharded, tmp_path / str(size))
    one, other = (load_file(tmp_path / str(size) / WEIGHTS_FILE) for size in (1, 2))
    assert one.keys() == other.keys() and error(one, other, "") < 1e-4
    whole, *parts = (int((tmp_path / name).read_text()) for name in ("1/held by 0", "2/held by 0", "2/held by 1"))
    assert whole <= sum(parts) < 1.05 * whole and max(parts) < 0.55 * whole


def test_when_a_process_dies_the_others_stop_within_a_minute_and_say_why(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command = [*torchrun, "tests.distributed_runs", str(tmp_path)]
    started = time.monotonic()
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, timeout=120)
    assert done.returncode != 0
    assert "lost the others" in (tmp_path / "rank0.txt").read_text()
    assert time.monotonic() - started < 60 + 45  # the start-up of torch and diffusers is not part of the minute


def test_shares_are_contiguous_and_nearly_equal() -> None:
    for count in range(1, 12):
        for size in range(1, 5):
            shares = [range(count)[World(rank, size).share(count)] for rank in range(size)]
            assert [i for share in shares for i in share] == list(range(count))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_launcher_that_silently_starts_one_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ConfigError, match="Use torchrun"):
        join_world()
