"""Starts a run on several processes of this machine with torchrun, and passes signals on to them."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import psutil

from fair_adaptors.errors import ConfigError, TrainingError

MAX_RESTARTS = 3


def launch(arguments: Sequence[str], num_processes: int) -> None:
    """Run ``fair-adaptors train ARGUMENTS`` on several processes and wait. A process that dies restarts them all.

    A restarted run goes on from its latest checkpoint. SIGTERM and SIGINT reach the processes, which save and end.

    Raises:
        ConfigError: fewer than one process, or already within a launcher.
        TrainingError: the run failed for good.
    """
    if num_processes < 1:
        raise ConfigError(f"--num-processes is {num_processes}; it must be at least 1")
    if "WORLD_SIZE" in os.environ:
        raise ConfigError("--num-processes starts torchrun, but a launcher is already running: leave it out")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    command += ["--max-restarts", str(MAX_RESTARTS), "-m", "fair_adaptors", "train", *arguments]
    threads = max(1, (os.cpu_count() or 1) // num_processes)
    environment = {"OMP_NUM_THREADS": str(threads)} | os.environ
    # A group of its own, or a terminal's Ctrl-C would reach torchrun too, which kills instead of waiting.
    process = subprocess.Popen(command, env=environment, start_new_session=True)

    def forward(number: int, frame: object) -> None:
        for worker in psutil.Process(process.pid).children():
            worker.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if status:
        raise TrainingError(f"the run failed on {num_processes} processes (exit status {status}); see above")
