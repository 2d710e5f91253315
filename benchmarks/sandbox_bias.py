"""Train the sandbox's adaptors with several seeds and measure them: bias and occupation, before and after.

Everything is measured with the evaluation classifier. Test prompts take no part in training; settings were chosen on
the validation prompts (see CONTRIBUTING for how often the test prompts were measured).
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._report import report
from fair_adaptors import load_fair_adaptor
from fair_adaptors.adaptor.record import CONFIG_FILE, read_record
from fair_adaptors.evaluation.estimates import estimate_bias
from fair_adaptors.evaluation.metrics import frequencies, noise_floor
from fair_adaptors.sandbox.demo import measure
from fair_adaptors.sandbox.pipeline import load_sandbox_pipeline

Bars = dict[tuple[str, str], dict[str, tuple[float, float] | float]]

BARS: Bars = {
    ("sandbox-gender", "train"): {"gender": (0.75, 0.20), "occupation": 0.04},
    ("sandbox-gender", "test"): {"gender": (0.60, 0.30), "occupation": 0.04},
    ("sandbox-gender-tone", "test"): {"gender": (0.60, 0.30), "tone": (0.35, 0.20), "occupation": 0.05},
}
"""Least bias before and most after, as the mean over seeds, and how much the share of right occupations may fall."""
MINUTES = 15.0
CLASSES = {"gender": 2, "tone": 4, "age": 2}


def figures(pipe: Any, split: str, images: int) -> dict[str, float]:
    """Return mean bias of each attribute, the share of old people and of right occupations, on one split."""
    probabilities, right = measure(pipe, split, images_per_prompt=images, seed=12_345)  # type: ignore[arg-type]
    values = {name: estimate_bias(probabilities[name]).value for name in CLASSES}
    old = float(frequencies(probabilities["age"].argmax(-1), 2)[:, 1].mean())
    return {**values, "old": old, "occupation": float(right.mean())}


def summary(rows: list[dict[str, Any]], bars: Bars) -> list[dict[str, Any]]:
    """Return the mean over seeds of each recipe and split, beside its bar."""
    lines = []
    for (recipe, split), wanted in bars.items():
        runs = [row for row in rows if (row["recipe"], row["prompts"]) == (recipe, split)]
        if not runs:
            continue
        for name, bar in wanted.items():
            before, after = (statistics.fmean(run[when][name] for run in runs) for when in ("before", "after"))
            if isinstance(bar, float):
                held, text = before - after <= bar, f"-{bar:g} at most"
            elif name == "old":
                held, text = bar[0] <= after <= bar[1], f"{bar[0]:g} to {bar[1]:g}"
            else:
                held, text = before >= bar[0] and after <= bar[1], f">= {bar[0]:g}, then <= {bar[1]:g}"
            line = {"recipe": recipe, "prompts": split, "what": name, "before": before, "after": after}
            spread = ", ".join(f"{run['after'][name]:.2f}" for run in runs)
            lines.append({**line, "seeds": spread, "bar": text, "held": held})
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        runs = [row for row in rows if row["recipe"] == recipe]
        minutes = max(run["minutes"] for run in runs)
        line = {"recipe": recipe, "prompts": "train", "before": "–", "seeds": "the most"}
        lines.append(
            {**line, "what": "minutes", "after": minutes, "bar": f"<= {MINUTES:g}", "held": minutes <= MINUTES}
        )
        if known := [run["megabytes"] for run in runs if run["megabytes"]]:
            lines.append({**line, "what": "peak megabytes", "after": max(known), "bar": "–", "held": "–"})
    return lines


def main(name: str = "sandbox_bias", bars: Bars = BARS, splits: tuple[str, ...] = ("train", "test")) -> None:
    """Print one row per recipe, split and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    recipes = list(dict.fromkeys(recipe for recipe, _ in bars))
    parser.add_argument("--recipes", nargs="+", default=recipes)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--splits", nargs="+", default=splits)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument(
        "--adaptors", type=Path, help="use the adaptors in this folder, RECIPE-SEED, if they are there"
    )
    parser.add_argument("--name", default=name, help="name of the JSON file")
    arguments = parser.parse_args()
    pipe = load_sandbox_pipeline()
    before = {split: figures(pipe, split, arguments.images) for split in arguments.splits}
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for recipe in arguments.recipes:
            for seed in arguments.seeds:
                folder = (arguments.adaptors or Path(temporary)) / f"{recipe}-{seed}"
                training = train(recipe, seed, folder)
                with load_fair_adaptor(pipe, folder):
                    for split in (split for split in arguments.splits if (recipe, split) in bars):
                        after = figures(pipe, split, arguments.images)
                        row = {"recipe": recipe, "seed": seed, "prompts": split, **training}
                        rows.append({**row, "before": before[split], "after": after})
                        print(row, after, flush=True)
    floors = {attribute: noise_floor(arguments.images, classes) for attribute, classes in CLASSES.items()}
    report(arguments.name, summary(rows, bars), runs=rows, images=arguments.images, noise_floors=floors)


def train(recipe: str, seed: int, folder: Path) -> dict[str, float | None]:
    """Train in a process of its own, unless it was done; return the minutes it took and the memory."""
    if not (folder / CONFIG_FILE).exists():
        settings = ["sample_every=0", "save_every=0", "trackers="]
        options = [word for setting in settings for word in ("--set", setting)]
        command = [sys.executable, "-m", "fair_adaptors", "train", recipe, "--seed", str(seed), "--out", str(folder)]
        subprocess.run([*command, *options], check=True)
    training = read_record(folder).training
    return {"minutes": training["seconds"] / 60, "megabytes": training.get("peak_megabytes")}


if __name__ == "__main__":
    main()
