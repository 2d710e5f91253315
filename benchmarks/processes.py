"""Images per second of a training run on one process and on two, with a thread each: run it where two cores are free.

The second column is what one process makes of both cores by its own threads.
"""

import argparse
import json
import os
import subprocess
import sys
import time


def work(iterations: int) -> None:
    """Train in this process of a run, and print the time of the iterations after the first."""
    from fair_adaptors.training.engine.loop import fit
    from fair_adaptors.training.engine.state import attached
    from fair_adaptors.training.recipes import get_recipe
    from fair_adaptors.training.run.distributed import join_world
    from fair_adaptors.training.setup import load_setup

    world = join_world()
    config = get_recipe("sandbox-gender", {"iterations": iterations + 1, "unguided": 0})
    setup = load_setup(config)
    times: list[float] = []
    with attached(setup, config) as state:
        fit(setup, config, state, world=world, on_step=lambda state, result: times.append(time.perf_counter()))
    if world.is_main:
        images = iterations * config.images_per_prompt * config.prompts_per_step
        print(json.dumps({"images_per_second": images / (times[-1] - times[0])}), flush=True)


def measure(processes: int, threads: int, iterations: int) -> float:
    """Return the images per second of so many processes with so many threads each."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["-m", "benchmarks.processes", "--work", str(iterations)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.strip().splitlines()[-1])["images_per_second"])


def main() -> None:
    """Print a row per repeat."""
    from benchmarks._report import report

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--iterations", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work)
        return
    rows = []
    for repeat in range(arguments.repeats):
        one, both, two = (measure(*how, arguments.iterations) for how in ((1, 1), (1, 2), (2, 1)))
        rows.append(
            {
                "repeat": repeat,
                "1 process, 1 thread": one,
                "1 process, 2 threads": both,
                "2 processes, 1 thread": two,
                "2 processes / 1": two / one,
            }
        )
    ratio = sorted(row["2 processes / 1"] for row in rows)[len(rows) // 2]
    report("processes", rows, unit="images per second", median_ratio=ratio, bar=">= 1.6", held=ratio >= 1.6)


if __name__ == "__main__":
    main()
