"""Time to load an adaptor against diffusers' own loader of the same file, and time to generate with it and without.

``load_lora_weights`` puts the factors beside the weights, and every step of every image pays for them; ours adds their
product to the weights once, as diffusers does if ``fuse_lora`` comes after: that is the second comparison.
Each round times both sides, in turn first, and its ratio is one sample: what slows the machine down slows both.
"""

import argparse
import hashlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from benchmarks._report import report
from fair_adaptors import FairAdaptor, load_fair_adaptor
from fair_adaptors.adaptor.record import WEIGHTS_FILE
from tests.tiny import tiny_pipeline, write_tiny_adaptor

Side = Callable[[], object]


def seconds(work: Side) -> float:
    """Time one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_pairs(one: tuple[Side, Side], other: tuple[Side, Side], rounds: int) -> list[tuple[float, float]]:
    """Time two sides in each round, now one first and now the other.

    One round more comes before, and is not counted: it warms up.

    Args:
        one, other: what is timed, and what undoes it.
    """
    pairs = []
    for index in range(rounds + 1):
        times = {}
        for work, undo in ((one, other), (other, one))[index % 2]:
            times[work] = seconds(work)
            undo()
        pairs.append((times[one[0]], times[other[0]]))
    return pairs[1:]


def row(what: str, pairs: list[tuple[float, float]], bar: float) -> dict[str, Any]:
    """Return the median of the rounds' ratios, the range of their middle half, and both medians in seconds."""
    ratios = [mine / theirs for mine, theirs in pairs]
    low, median, high = statistics.quantiles(ratios, n=4)
    mine, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    return {
        "what": what,
        "ratio": median,
        "quartiles": f"{low:.2f}–{high:.2f}",
        "seconds": mine,
        "against": theirs,
        "bar": bar,
        "held": median <= bar,
    }


Pairs = list[tuple[float, float]]


def loading(rank: int, rounds: int) -> tuple[int, Pairs, Pairs, float]:
    """Return the bytes of an adaptor, seconds of (ours, diffusers), the same fused, and of the checksum alone."""
    pipe = tiny_pipeline(width=768, layers=12, channels=(128, 256))  # a text encoder as Stable Diffusion 1.5's
    with tempfile.TemporaryDirectory() as folder:
        path = write_tiny_adaptor(Path(folder), pipe, rank=rank) / WEIGHTS_FILE
        loaded: list[FairAdaptor] = []

        def load() -> None:
            pipe.load_lora_weights(folder, weight_name=WEIGHTS_FILE)

        def load_and_fuse() -> None:
            load()
            pipe.fuse_lora()

        def unfuse_and_unload() -> None:
            pipe.unfuse_lora()
            pipe.unload_lora_weights()

        ours = lambda: loaded.append(load_fair_adaptor(pipe, folder)), lambda: loaded.pop().unload()
        plain = in_pairs(ours, (load, pipe.unload_lora_weights), rounds)
        fused = in_pairs(ours, (load_and_fuse, unfuse_and_unload), rounds)
        data = path.read_bytes()
        checksum = statistics.median(seconds(lambda: hashlib.sha256(data).hexdigest()) for _ in range(rounds))
        return len(data), plain, fused, checksum


def generating(rounds: int) -> list[tuple[float, float]]:
    """Return the seconds of generation (with, without) an adaptor."""
    pipe = tiny_pipeline(width=512, layers=12, channels=(128, 256))

    def generate() -> None:
        generator = torch.Generator().manual_seed(0)
        pipe("a nurse", num_inference_steps=20, num_images_per_prompt=2, generator=generator, output_type="pt")

    with tempfile.TemporaryDirectory() as folder:
        write_tiny_adaptor(Path(folder), pipe, rank=16)
        handle = load_fair_adaptor(pipe, folder)
        pairs = []
        for index in range(rounds + 1):
            times = {}
            for enabled in (True, False) if index % 2 else (False, True):
                handle.enable() if enabled else handle.disable()
                times[enabled] = seconds(generate)
            pairs.append((times[True], times[False]))
        return pairs[1:]


def main() -> None:
    """Print the bars' ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--rank", type=int, default=70, help="of the adaptor that is loaded; 70 makes 40 MB")
    arguments = parser.parse_args()
    size, plain, fused, checksum = loading(arguments.rank, arguments.repeats)
    ours = statistics.median(mine for mine, _ in plain)
    rows = [
        row(f"load_fair_adaptor / pipe.load_lora_weights, {size / 1e6:.0f} MB", plain, 1.2),
        row("load_fair_adaptor / load_lora_weights and fuse_lora", fused, 1.2),
        row("generation with the adaptor / without", generating(arguments.repeats), 1.05),
    ]
    report(
        "loading",
        rows,
        bytes=size,
        checksum={"seconds": checksum, "share_of_loading": checksum / ours},
        repeats=arguments.repeats,
    )
    print(f"sha256 of {size / 1e6:.0f} MB takes {checksum:.3f} s, {checksum / ours:.0%} of loading")


if __name__ == "__main__":
    main()
