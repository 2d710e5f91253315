"""Processes that start at once: forked from a server that has imported torch, diffusers and what else takes long."""

import multiprocessing
import os
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["accelerate", "peft", "fair_adaptors.training.run.train", "tests.tiny_training"])


def run_in_world(size: int, work: Callable[[Path], None], folder: Path, *, seconds: float = 240) -> None:
    """Let ``size`` processes, which find each other as those of torchrun do, each call ``work(folder)``.

    Raises:
        AssertionError: one failed, with what it printed, or was not done in that time.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(size)}
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as printed:
        outputs = [Path(printed, f"{rank}.txt") for rank in range(size)]
        processes = []
        for rank, output in enumerate(outputs):
            environment = address | {"RANK": str(rank), "LOCAL_RANK": str(rank)} if size > 1 else {}
            processes.append(_server.Process(target=_run, args=(environment, output, work, folder)))
        for process in processes:
            process.start()
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
        late = [process.is_alive() for process in processes]
        for process in processes:
            process.kill()
            process.join()
        for output, process, is_late in zip(outputs, processes, late, strict=True):
            assert not is_late, f"not done in {seconds:.0f} s\n{output.read_text()[-3000:]}"
            assert process.exitcode == 0, output.read_text()[-3000:]


def run_alone(work: Callable[[Path], None], folder: Path, *, seconds: float = 240) -> None:
    """Call ``work(folder)`` in a process of its own; see ``run_in_world``."""
    run_in_world(1, work, folder, seconds=seconds)


def _run(environment: dict[str, str], output: Path, work: Callable[[Path], None], folder: Path) -> None:
    with output.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ |= environment
    work(folder)
