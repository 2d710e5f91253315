"""What an iteration of training costs by part, whether a linear model of it holds, and what that predicts for GPUs.

Two things. The seconds (CPU time) of each part of an iteration on the sandbox, fitted on two image counts and tried on
a third and on a whole iteration. And for the recipes as they are, from the operations of docs/cost.md and assumptions
that stand in ``ASSUMED``, the seconds of an iteration on 1 to 32 GPUs: computing and the targets' draws, which are
split over them, and communication; and what a base that is split over them moves.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from benchmarks._report import report, table, write_tables

CARD = "H100"  # the fastest of docs/cost.md's, so that what is not computing weighs most
RECIPES = ("gender", "gender-race", "sdxl-gender-race")
GPUS = (1, 2, 4, 8, 16, 32)
SPLIT_OVER = (2, 4, 8)
ASSUMED = {
    "gigabytes_per_second": (450.0, 20.0, 1.0),  # within a machine with NVLink, between good ones, by 10 Gb/s Ethernet
    "seconds_per_message": 30e-6,
    "collectives": 7,  # class probabilities twice, targets, what is due, two requests to stop, the gradient
}
PARTS = ("original", "sample", "decode and loss", "gradient")


def parts_of_an_iteration(images: int, repeats: int) -> dict[str, float]:
    """Return the least CPU seconds of each part, and of the whole, with ``images`` images of one prompt."""
    import torch
    from fair_adaptors.training.engine import loop, reference_images, step
    from fair_adaptors.training.engine.batches import batch_at
    from fair_adaptors.training.engine.processes import World
    from fair_adaptors.training.engine.reference_images import ReferenceImages
    from fair_adaptors.training.engine.state import attached
    from fair_adaptors.training.recipes import get_recipe
    from fair_adaptors.training.setup import load_setup

    torch.set_num_threads(1)
    config = get_recipe("sandbox-gender", {"unguided": 0, "images_per_prompt": images, "images_per_call": images})
    setup = load_setup(config)
    taken: dict[str, list[float]] = defaultdict(list)

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            started = time.process_time()
            try:
                return function(*arguments, **named)
            finally:
                taken[name].append(time.process_time() - started)

        return call

    plain = {name: getattr(step, name) for name in ("sample", "accumulate_gradients")}
    references = ReferenceImages()
    original = reference_images.sample
    reference_images.sample = timed("original", original)  # type: ignore[assignment]
    for name, part in (("sample", "sample"), ("accumulate_gradients", "gradient")):
        setattr(step, name, timed(part, plain[name]))
    with attached(setup, config) as state:
        for number in range(repeats + 1):
            started = time.process_time()
            batch = batch_at(config, setup.prompts, number, 0)
            result = step.train_step(setup, config, state, batch, references=references)
            loop.apply_gradients(state, config, [result], World())
            taken["whole"].append(time.process_time() - started)
    reference_images.sample = original
    for name, function in plain.items():
        setattr(step, name, function)
    found = {name: min(values[1:]) for name, values in taken.items()}  # the first round warms up
    rest = found["whole"] - sum(found[name] for name in ("original", "sample", "gradient"))
    return {**found, "decode and loss": rest}


def in_process(images: int, repeats: int) -> dict[str, float]:
    """Measure in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.scaling", "--case", str(images), "--repeats", str(repeats)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def predict(found: dict[int, dict[str, float]], few: int, many: int, at: int) -> dict[str, float]:
    """Draw a line through two image counts for each part, and read it at a third."""
    return {
        part: found[few][part] + (found[many][part] - found[few][part]) * (at - few) / (many - few) for part in PARTS
    }


def recipe_work(name: str) -> dict[str, Any]:
    """Return what an iteration of a recipe costs, whatever the number of GPUs.

    Seconds of computing per image; CPU seconds of the targets of all images, measured here; megabytes of the adaptor.
    """
    import torch
    from fair_adaptors.training.cost import BASES, seconds_per_image, work_per_image
    from fair_adaptors.training.engine.targets import assign_targets
    from fair_adaptors.training.memory import skeleton, trained_values
    from fair_adaptors.training.plan import originals_made
    from fair_adaptors.training.recipes import get_recipe

    from fair_adaptors.adaptor.bases import BASES as KNOWN

    torch.set_num_threads(1)
    config = get_recipe(name)
    base = next(known.short_name for known in KNOWN if config.base in known.names)
    made = originals_made(config)
    taken = []
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        probabilities = {
            a.name: torch.randn(config.images_per_prompt, len(a.classes), generator=generator).mul(3).softmax(1)
            for a in config.attributes
        }
        started = time.process_time()
        shares = {a.name: a.target for a in config.attributes}
        draws = config.num_draws
        assign_targets(probabilities, shares, threshold=config.threshold, num_draws=draws, generator=generator)
        taken.append(time.process_time() - started)
    return {
        "recipe": name,
        "images": config.images_per_prompt,
        "updates": config.updates_per_rollout,
        "seconds per image": seconds_per_image(work_per_image(config, made, BASES[base]), CARD),
        "targets": min(taken[1:]),
        "megabytes": trained_values(config, skeleton(config.base)) * 4 / 1e6,
    }


def iteration(work: dict[str, Any], gpus: int) -> dict[str, Any]:
    """Return the predicted seconds of an iteration on some GPUs: by computing, targets and communication."""
    images = -(-work["images"] // gpus)
    moved = work["updates"] * 2 * (gpus - 1) / gpus * work["megabytes"] / 1e3
    messages = ASSUMED["collectives"] * 2 * (gpus - 1) * ASSUMED["seconds_per_message"]
    return {
        "recipe": work["recipe"],
        "gpus": gpus,
        "images": images,
        "compute": images * work["seconds per image"],
        "targets": work["targets"] / gpus,
        "communicate": [moved / rate + messages if gpus > 1 else 0.0 for rate in ASSUMED["gigabytes_per_second"]],
    }


def split_base(name: str, gpus: int) -> dict[str, Any]:
    """Return the gigabytes that a process gathers in an iteration where the base is split, and the time of that.

    The network's weights once for a call without gradient and twice for one with; those of the text encoders for each
    time that a prompt, or the empty one, is encoded.
    """
    from fair_adaptors.training.engine.sampling import WITHOUT_GRADIENT
    from fair_adaptors.training.memory import skeleton
    from fair_adaptors.training.plan import originals_made
    from fair_adaptors.training.recipes import get_recipe
    from fair_adaptors.training.setup import part_dtype
    from fair_adaptors.training.sharding import sharded_parts

    config = get_recipe(name)
    base, images, sets = skeleton(config.base), -(-config.images_per_prompt // gpus), 1 + originals_made(config)
    network, *encoders = (
        sum(p.numel() for p in getattr(base, part).parameters()) * part_dtype(config, base, part).itemsize / 1e9
        for part in sharded_parts(base)
    )
    steps = (config.num_steps + max(config.num_steps, config.max_steps)) / 2
    plain = sets * steps * -(-images // (WITHOUT_GRADIENT * config.images_per_call))
    graph = config.updates_per_rollout * -(-images * config.gradient_steps // config.images_per_call)
    moved = (gpus - 1) / gpus * (network * (plain + 2 * graph) + sum(encoders) * 2 * (sets + 2))
    rates = ASSUMED["gigabytes_per_second"]
    return {"recipe": name, "gpus": gpus, "gigabytes": moved, "seconds": [moved / rate for rate in rates]}


def main() -> None:
    """Print the check of the model, then the predictions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(parts_of_an_iteration(arguments.case, arguments.repeats)))
        return
    found = {images: in_process(images, arguments.repeats) for images in (8, 16, 24)}
    predicted = predict(found, 8, 24, 16)
    rows = [
        {"what": part, "measured": found[16][part], "predicted": value, "ratio": value / found[16][part]}
        for part, value in (*predicted.items(), ("whole", sum(predicted.values())))
    ]
    works = [recipe_work(name) for name in RECIPES]
    gpus = [iteration(work, number) for work in works for number in GPUS if number <= work["images"]]
    split = [split_base(RECIPES[-1], number) for number in SPLIT_OVER]
    report("scaling", rows, parts=found, works=works, assumed=ASSUMED, predicted=gpus, split=split)
    write_tables("scaling", tables(rows, works, gpus, split))


def tables(
    rows: list[dict[str, Any]], works: list[dict[str, Any]], gpus: list[dict[str, Any]], split: list[dict[str, Any]]
) -> list[str]:
    """Return what stands between the marks of ``docs/scaling.md``."""
    ratios = table(["part, 16 images", "predicted / measured"], [(row["what"], f"{row['ratio']:.2f}") for row in rows])
    columns = ["recipe", "images", "computing, s per image", "targets, s", "megabytes summed"]
    costs = table(
        columns,
        [
            (
                f"`{one['recipe']}`",
                one["images"],
                f"{one['seconds per image']:.3f}",
                f"{one['targets']:.4f}",
                f"{one['updates'] * one['megabytes']:.0f}",
            )
            for one in works
        ],
    )
    rates = [f"{rate:g} GB/s" for rate in ASSUMED["gigabytes_per_second"]]
    columns = ["recipe", f"{CARD}s", "s per iteration", "times as fast", "targets", *rates]
    alone = {row["recipe"]: _whole(row) for row in gpus if row["gpus"] == 1}
    predicted = table(columns, [_cells(row, alone[row["recipe"]]) for row in gpus])
    compute = {(row["recipe"], row["gpus"]): row["compute"] for row in gpus}
    times = [f"s at {rate}" for rate in rates]
    columns = [f"`{split[0]['recipe']}`, {CARD}s", "gathered by each, GB", "computing, s", *times]
    moved = table(
        columns,
        [
            (
                row["gpus"],
                f"{row['gigabytes']:.0f}",
                f"{compute[row['recipe'], row['gpus']]:.1f}",
                *(f"{seconds:.1f}" for seconds in row["seconds"]),
            )
            for row in split
        ],
    )
    return [ratios, costs, predicted, moved]


def _whole(row: dict[str, Any]) -> float:
    """Return the seconds of an iteration at the second of the rates."""
    return row["compute"] + row["targets"] + row["communicate"][1]


def _cells(row: dict[str, Any], alone: float) -> tuple[str, ...]:
    rest = row["compute"] + row["targets"]
    return (
        f"`{row['recipe']}`",
        str(row["gpus"]),
        f"{_whole(row):.2f}",
        f"{alone / _whole(row):.1f}",
        f"{row['targets'] / _whole(row):.1%}",
        *(f"{seconds / (rest + seconds):.1%}" for seconds in row["communicate"]),
    )


if __name__ == "__main__":
    main()
