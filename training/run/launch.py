"""Starts a run on several processes of this machine with torchrun, and passes signals on to them."""

import atexit
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from fair_adaptors.errors import ConfigError, FairAdaptorError, PeersLostError, TrainingError

MAX_RESTARTS = 3
FRESH_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
"""Have torchrun open a new store at each restart. By default it keeps one, where restarted gloo processes may read the
addresses of the dead ones and wait for them for half an hour."""

REFUSED = "FAIR_ADAPTORS_REFUSED"
"""The variable that names the file where a process writes why it would end the same if it were started again."""


@contextmanager
def refusals_told() -> Iterator[bool]:
    """Within the block, which is a process's whole run, tell ``launch`` of an error that a restart would only repeat.

    After an error, a process of several ends as soon as that is printed: the others wait for it, and NCCL's own ending
    may wait for them.

    Yields whether such an error is the reason why this process was started again: then there is nothing to do.
    """
    note = Path(os.environ[REFUSED]) if REFUSED in os.environ else None
    try:
        yield note is not None and note.exists()
    except BaseException as error:
        if note is not None and isinstance(error, FairAdaptorError) and not isinstance(error, PeersLostError):
            note.write_text(str(error), encoding="utf-8")
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            atexit.register(_leave)
        raise


def _leave() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _wait(process: subprocess.Popen[bytes], stop: threading.Event) -> int:
    """Wait for torchrun. Once told to stop, tell each of its processes so, those that it starts again too."""
    told: set[int] = set()
    while True:
        try:
            return process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            if stop.is_set():
                _tell(process.pid, told)


def _tell(torchrun: int, told: set[int]) -> None:
    try:
        for worker in psutil.Process(torchrun).children():
            if worker.pid not in told:
                told.add(worker.pid)
                worker.terminate()
    except psutil.Error:  # it has just ended
        pass


def launch(arguments: Sequence[str], num_processes: int) -> None:
    """Run ``fair-adaptors train ARGUMENTS`` on several processes and wait. A process that dies restarts them all.

    A restarted run goes on from its latest checkpoint; what would only come again ends it. SIGTERM and SIGINT reach
    the processes, which save and end.

    Raises:
        ConfigError: fewer than one process, or already within a launcher.
        TrainingError: the run failed for good, with the process's own words if it had any.
    """
    if num_processes < 1:
        raise ConfigError(f"`num_processes` is {num_processes}; it must be at least 1")
    if "WORLD_SIZE" in os.environ:
        raise ConfigError("`num_processes` starts torchrun, but a launcher is already running: leave it out")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    command += ["--max-restarts", str(MAX_RESTARTS), "-m", "fair_adaptors", "train", *arguments]
    threads = max(1, (os.cpu_count() or 1) // num_processes)
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "refused"
        environment = {"OMP_NUM_THREADS": str(threads), FRESH_STORE: "1"} | os.environ | {REFUSED: str(note)}
        # A group of its own, or a terminal's Ctrl-C would reach torchrun too, which kills instead of waiting.
        process = subprocess.Popen(command, env=environment, start_new_session=True)

        stop = threading.Event()
        before = {n: signal.signal(n, lambda number, frame: stop.set()) for n in (signal.SIGTERM, signal.SIGINT)}
        try:
            status = _wait(process, stop)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        refused = note.read_text(encoding="utf-8") if note.exists() else None
    if refused is not None:
        raise TrainingError(refused)
    if status and stop.is_set():
        raise TrainingError("stopped while the processes were starting, or without being able to save; see above")
    if status:
        raise TrainingError(f"the run failed on {num_processes} processes (exit status {status}); see above")
