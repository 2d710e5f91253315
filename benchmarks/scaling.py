"""What an iteration of training costs by part, whether a linear model of it holds, and what that predicts for GPUs.

Three things. The seconds (CPU time) of each part of an iteration on the sandbox, fitted on two image counts and tried
on a third and on a whole iteration. The floating-point operations of models of the size of SD 1.5 and SDXL, counted on
torch's meta device. From these, and from assumptions that stand in ``ASSUMED``, the images per second of 1 to 64 GPUs.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from benchmarks._operations import base_operations
from benchmarks._report import report, table, write_tables

ASSUMED = {
    "teraflops": 300.0,  # sustained in bfloat16 by one GPU of the H100's class
    "gigabytes_per_second": 20.0,  # between machines, of the all-reduce
    "seconds_per_message": 30e-6,
    "steps": 20,
    "gradient_steps": 5,
    "images": 64,
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


def operations(recipe: str) -> dict[str, float]:
    """Count the teraflops of one row through the U-Net and of decoding one image, forward, and the adaptor's bytes."""
    from fair_adaptors.training.plan import skeleton, trained_values
    from fair_adaptors.training.recipes import get_recipe

    from fair_adaptors.adaptor.bases import BASES

    config = get_recipe(recipe)
    counted = base_operations(next(known.short_name for known in BASES if config.base in known.names))
    return {
        "unet": counted["unet"].forward,
        "decode": counted["decoder"].forward,
        "megabytes": trained_values(config, skeleton(config.base)) * 4 / 1e6,
    }


def iteration(kind: dict[str, float], gpus: int) -> dict[str, float]:
    """Return the predicted seconds of an iteration on some GPUs, by computing and by communicating."""
    images = -(-int(ASSUMED["images"]) // gpus)
    forward = 2 * kind["unet"]  # a row with the prompt, one without
    computed = images * (
        2 * ASSUMED["steps"] * forward + 3 * ASSUMED["gradient_steps"] * forward + (1 + 1 + 2) * kind["decode"]
    )
    moved = 2 * (gpus - 1) / gpus * kind["megabytes"] / 1e3 / ASSUMED["gigabytes_per_second"]
    messages = 2 * (gpus - 1) * ASSUMED["seconds_per_message"]
    return {"compute": computed / ASSUMED["teraflops"], "communicate": moved + messages if gpus > 1 else 0.0}


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
    gpus = []
    kinds = {kind: operations(recipe) for kind, recipe in (("SD 1.5", "gender"), ("SDXL", "sdxl-gender-race"))}
    for kind, counted in kinds.items():
        for number in (1, 2, 4, 8, 16, 32, 64):
            seconds = iteration(counted, number)
            whole = sum(seconds.values())
            share = seconds["communicate"] / whole
            gpus.append({"model": kind, "gpus": number, "images/s": ASSUMED["images"] / whole, "communication": share})
    report("scaling", rows, parts=found, operations=kinds, assumed=ASSUMED, predicted=gpus)
    write_tables("scaling", [tables(rows, kinds, gpus)])


def tables(rows: list[dict[str, Any]], kinds: dict[str, dict[str, float]], gpus: list[dict[str, Any]]) -> str:
    """Return what stands between the marks of ``docs/scaling.md``."""
    ratios = [(row["what"], f"{row['ratio']:.2f}") for row in rows]
    named = {"unet": "teraflops of a row forward", "decode": "teraflops of decoding an image"}
    counted = [(words, *(f"{kind[what]:.2f}" for kind in kinds.values())) for what, words in named.items()]
    summed = ("megabytes summed", *(f"{kind['megabytes']:.0f}" for kind in kinds.values()))
    operations = table(["", "SD 1.5, 512²", "SDXL, 1024²"], [*counted, summed])
    said = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in ASSUMED.items())
    predicted = []
    for number in dict.fromkeys(row["gpus"] for row in gpus):
        both = [row for row in gpus if row["gpus"] == number]
        predicted.append([number, *(cell for row in both for cell in _cells(row))])
    columns = ["GPUs", "SD 1.5 images/s", "communication", "SDXL images/s", "communication"]
    checked = table(["part, 16 images", "predicted / measured"], ratios)
    return "\n\n".join([checked, operations, f"Assumed: {said}.", table(columns, predicted)])


def _cells(row: dict[str, Any]) -> tuple[str, str]:
    return f"{row['images/s']:.1f}", f"{row['communication']:.1%}"


if __name__ == "__main__":
    main()
