"""Time to load an adaptor against diffusers' own loader of the same file, and time to generate with it and without."""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from benchmarks._report import report
from fair_adaptors import load_fair_adaptor
from fair_adaptors.formats import WEIGHTS_FILE
from tests.tiny import tiny_pipeline, write_tiny_adaptor


def seconds(work: Callable[[], object]) -> float:
    """Time one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Print the bars' ratios: medians of interleaved runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    pipe = tiny_pipeline(width=512, layers=12, channels=(128, 256))

    def generate() -> None:
        generator = torch.Generator().manual_seed(0)
        pipe("a nurse", num_inference_steps=20, num_images_per_prompt=2, generator=generator, output_type="pt")

    with tempfile.TemporaryDirectory() as folder:
        write_tiny_adaptor(Path(folder), pipe, rank=16)
        times: dict[str, list[float]] = {"ours": [], "diffusers": [], "with": [], "without": []}
        for _ in range(repeats + 1):
            times["without"].append(seconds(generate))
            times["ours"].append(seconds(lambda: load_fair_adaptor(pipe, folder)))
            times["with"].append(seconds(generate))
            load_fair_adaptor(pipe, folder).unload()
            times["diffusers"].append(seconds(lambda: pipe.load_lora_weights(folder, weight_name=WEIGHTS_FILE)))
            pipe.unload_lora_weights()
    median = {name: statistics.median(values[1:]) for name, values in times.items()}  # the first round warms up
    rows = [
        ("load_fair_adaptor / pipe.load_lora_weights", median["ours"] / median["diffusers"], 1.2),
        ("generation with the adaptor / without", median["with"] / median["without"], 1.05),
    ]
    report(
        "loading",
        [{"what": what, "ratio": ratio, "bar": bar, "held": ratio <= bar} for what, ratio, bar in rows],
        seconds=median,
        repeats=repeats,
    )


if __name__ == "__main__":
    main()
