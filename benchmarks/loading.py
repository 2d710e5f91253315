"""Time to load an adaptor against diffusers' own loader of the same file, and time to generate with it and without.

``load_lora_weights`` puts the factors beside the weights, and every step of every image pays for them; ours adds their
product to the weights once, as diffusers does if ``fuse_lora`` comes after: that is the second comparison. Injected,
ours puts the factors beside the weights too. Each round times both sides, in turn first, and its ratio is one sample.
Loading is timed in two ways: by the clock with as many threads as torch takes, as users wait for it, which wants a
machine that does nothing else; and in the processor's seconds on one thread, of which everything else is, so that what
else runs counts little. A second table says what the steps of loading in place take.
"""

import argparse
import cProfile
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks._report import report
from fair_adaptors import FairAdaptor, load_fair_adaptor
from fair_adaptors.adaptor.bases import by_short_name
from fair_adaptors.adaptor.record import WEIGHTS_FILE
from tests.tiny import tiny_pipeline, write_tiny_adaptor

Side = tuple[Callable[[], object], Callable[[], object]]
"""What is timed, and what undoes it."""

STEPS = {
    "'copy_'": "new memory, and the original weights copied into it",
    "'addmm_'": "the products added",
    "'acquire'": "waiting for the file's sha256",
    "'sum'": "checksums of the new weights",
}
"""By a part of the name of what computes it."""


@dataclass(frozen=True)
class Way:
    """A way to time: its name, the clock, and the number of threads."""

    name: str
    clock: Callable[[], float]
    threads: int

    def seconds(self, work: Callable[[], object]) -> float:
        """Time one call."""
        torch.set_num_threads(self.threads)
        started = self.clock()
        work()
        return self.clock() - started


BY_CLOCK = Way("by the clock", time.perf_counter, torch.get_num_threads())
BY_PROCESSOR = Way("processor, one thread", time.process_time, 1)


def in_pairs(one: Side, other: Side, rounds: int, way: Way) -> list[tuple[float, float]]:
    """Time two sides in each round, now one first and now the other.

    One round more comes before, and is not counted: it warms up.
    """
    pairs = []
    for index in range(rounds + 1):
        times = {}
        for work, undo in ((one, other), (other, one))[index % 2]:
            times[work] = way.seconds(work)
            undo()
        pairs.append((times[one[0]], times[other[0]]))
    return pairs[1:]


def row(model: str, what: str, way: Way, pairs: list[tuple[float, float]], bar: float) -> dict[str, Any]:
    """Return the median of the rounds' ratios, the range of their middle half, and both medians in seconds."""
    ratios = [mine / theirs for mine, theirs in pairs]
    low, median, high = statistics.quantiles(ratios, n=4)
    mine, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(f"{model}: {what}, {way.name}: {median:.2f}", flush=True)
    return {
        "model": model,
        "what": what,
        "timed": way.name,
        "ratio": median,
        "quartiles": f"{low:.2f}–{high:.2f}",
        "seconds": mine,
        "against": theirs,
        "bar": bar,
        "held": median <= bar,
    }


def small() -> Any:
    """Return a pipeline with a text encoder as Stable Diffusion 1.5's, and a small U-Net."""
    return tiny_pipeline(width=768, layers=12, channels=(128, 256))


def published() -> Any:
    """Return a pipeline with text encoder and U-Net of Stable Diffusion 1.5's shapes, with random weights."""
    pipe, base = tiny_pipeline(), by_short_name("sd15")
    assert base is not None
    configurations = base.configurations
    special = {"bos_token_id": pipe.tokenizer.bos_token_id, "eos_token_id": pipe.tokenizer.eos_token_id}
    pipe.text_encoder = CLIPTextModel(CLIPTextConfig(**configurations["text_encoder"], **special)).eval()
    pipe.unet = UNet2DConditionModel(**configurations["unet"]).eval()
    return pipe


def loading(model: str, pipe: Any, folder: str, rounds: int) -> list[dict[str, Any]]:
    """Return what loading takes, in place and injected, against diffusers' loader."""
    loaded: list[FairAdaptor] = []

    def ours(inject: bool) -> Side:
        return lambda: loaded.append(load_fair_adaptor(pipe, folder, inject=inject)), lambda: loaded.pop().unload()

    def load() -> None:
        pipe.load_lora_weights(folder, weight_name=WEIGHTS_FILE)

    def load_and_fuse() -> None:
        load()
        pipe.fuse_lora()

    def unfuse_and_unload() -> None:
        pipe.unfuse_lora()
        pipe.unload_lora_weights()

    theirs, fused = (load, pipe.unload_lora_weights), (load_and_fuse, unfuse_and_unload)
    compared = (
        ("load in place / load_lora_weights", ours(False), theirs, 1.2),
        ("load in place / load_lora_weights and fuse_lora", ours(False), fused, 1.2),
        ("load injected / load_lora_weights", ours(True), theirs, 1.1),
    )
    return [
        row(model, what, way, in_pairs(mine, other, rounds, way), bar)
        for way in (BY_CLOCK, BY_PROCESSOR)
        for what, mine, other, bar in compared
    ]


def shares(model: str, pipe: Any, folder: str, rounds: int) -> list[dict[str, Any]]:
    """Return the seconds that each step of loading in place takes; in "all else" are those of looking on."""
    torch.set_num_threads(BY_PROCESSOR.threads)
    profile = cProfile.Profile(BY_PROCESSOR.clock)
    for _ in range(rounds):
        with profile:
            handle = load_fair_adaptor(pipe, folder)
        handle.unload()
    taken = dict.fromkeys((*STEPS.values(), "all else"), 0.0)
    for entry in profile.getstats():
        what = next((step for name, step in STEPS.items() if name in str(entry.code)), "all else")
        taken[what] += entry.inlinetime / rounds
    taken["all"] = sum(taken.values())
    return [
        {"model": model, "step": what, "seconds": each, "share": each / taken["all"]} for what, each in taken.items()
    ]


def generating(model: str, pipe: Any, folder: str, rounds: int) -> list[dict[str, Any]]:
    """Return what generating takes, in place against without, and injected against diffusers' layers."""

    def generate() -> None:
        generator = torch.Generator().manual_seed(0)
        pipe("a nurse", num_inference_steps=10, generator=generator, output_type="latent")

    def compared(with_it: Side, without: Side) -> list[tuple[float, float]]:
        pairs = []
        for index in range(rounds + 1):
            times = {}
            for prepare, undo in ((with_it, without), (without, with_it))[index % 2]:
                prepare()
                times[prepare] = BY_PROCESSOR.seconds(generate)
                undo()
            pairs.append((times[with_it[0]], times[without[0]]))
        return pairs[1:]

    handle = load_fair_adaptor(pipe, folder)
    in_place = compared((handle.enable, handle.disable), (lambda: None, lambda: None))
    handle.unload()
    injected = compared(
        (lambda: load_fair_adaptor(pipe, folder, inject=True), lambda: load_fair_adaptor(pipe, folder).unload()),
        (lambda: pipe.load_lora_weights(folder, weight_name=WEIGHTS_FILE), pipe.unload_lora_weights),
    )
    return [
        row(model, "generate with it in place / without", BY_PROCESSOR, in_place, 1.05),
        row(model, "generate with it injected / with load_lora_weights", BY_PROCESSOR, injected, 1.05),
    ]


def strengths(pipe: Any, folder: str, rounds: int) -> dict[str, float]:
    """Return the seconds that a new strength takes, in place and injected."""
    found = {}
    for name, inject in (("in place", False), ("injected", True)):
        with load_fair_adaptor(pipe, folder, inject=inject) as handle:
            steps = [step / rounds for step in range(1, rounds + 1)]
            times = [BY_PROCESSOR.seconds(lambda weight=weight: handle.set_weight(weight)) for weight in steps]
        found[name] = statistics.median(times)
    return found


def main() -> None:
    """Print the bars' ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--model", action="append", choices=["small", "sd15"], help="both by default")
    arguments = parser.parse_args()
    rows, steps, weights, sizes = [], [], {}, {}
    # The ranks make files of about 40 MB, and as large as those that the paper's authors published.
    for name, make, rank in (("small", small, 70), ("sd15", published, 50)):
        if name in (arguments.model or (name,)):
            repeats = arguments.repeats
            with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as base:
                make().save_pretrained(base)
                pipe = StableDiffusionPipeline.from_pretrained(base)  # weights are mapped from their files then
                pipe.set_progress_bar_config(disable=True)
                path = write_tiny_adaptor(Path(folder), pipe, rank=rank) / WEIGHTS_FILE
                rows += loading(name, pipe, folder, repeats)
                steps += shares(name, pipe, folder, repeats)
                if name == "small":  # the other takes minutes for an image on one thread
                    rows += generating(name, pipe, folder, repeats)
                weights[name], sizes[name] = strengths(pipe, folder, repeats), path.stat().st_size
    report("loading", rows, beside=steps, bytes=sizes, seconds_of_set_weight=weights, repeats=arguments.repeats)
    for name, times in weights.items():
        each = ", ".join(f"{1000 * time:.2g} ms {way}" for way, time in times.items())
        print(f"{name}, {sizes[name] / 1e6:.0f} MB: a new strength takes {each}")


if __name__ == "__main__":
    main()
