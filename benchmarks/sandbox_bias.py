"""Train the sandbox's adaptors with several seeds and measure them: bias and occupation, before and after.

Everything is measured with the evaluation classifier. Test prompts take no part in training or in choosing anything.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._report import report
from fair_adaptors import load_fair_adaptor
from fair_adaptors.evaluation.metrics import estimate_bias, noise_floor
from fair_adaptors.sandbox.demo import measure
from fair_adaptors.sandbox.pipeline import load_sandbox_pipeline


def figures(pipe: Any, split: str, attributes: list[str], images: int) -> dict[str, float]:
    """Return mean bias of each attribute and the share of occupations right, on one split."""
    probabilities, right = measure(pipe, split, images_per_prompt=images, seed=12_345)  # type: ignore[arg-type]
    values = {name: estimate_bias(probabilities[name]).value for name in attributes}
    return {**values, "occupation": float(right.mean())}


BARS = {
    ("sandbox-gender", "train"): {"gender": (0.75, 0.20), "occupation": 0.04},
    ("sandbox-gender", "test"): {"gender": (0.60, 0.30), "occupation": 0.04},
    ("sandbox-gender-tone", "test"): {"gender": (0.60, 0.30), "tone": (0.35, 0.20), "occupation": 0.05},
}
"""Least bias before and most after, as the mean over seeds, and how much the share of right occupations may fall."""
MINUTES = 15.0


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean over seeds of each recipe and split, beside its bar."""
    lines = []
    for (recipe, split), bars in BARS.items():
        runs = [row for row in rows if (row["recipe"], row["prompts"]) == (recipe, split)]
        if not runs:
            continue
        for name, bar in bars.items():
            before, after = (statistics.fmean(run[when][name] for run in runs) for when in ("before", "after"))
            held = before - after <= bar if isinstance(bar, float) else before >= bar[0] and after <= bar[1]
            text = f"-{bar:g} at most" if isinstance(bar, float) else f">= {bar[0]:g}, then <= {bar[1]:g}"
            line = {"recipe": recipe, "prompts": split, "what": name, "before": before, "after": after}
            spread = ", ".join(f"{run['after'][name]:.2f}" for run in runs)
            lines.append({**line, "seeds": spread, "bar": text, "held": held})
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        minutes = [row["minutes"] for row in rows if row["recipe"] == recipe]
        line = {"recipe": recipe, "prompts": "train", "what": "minutes", "before": "–", "after": max(minutes)}
        lines.append({**line, "seeds": "the longest", "bar": f"<= {MINUTES:g}", "held": max(minutes) <= MINUTES})
    return lines


def main() -> None:
    """Print one row per recipe, split and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=["sandbox-gender", "sandbox-gender-tone"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--splits", nargs="+", default=["train", "test"])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument(
        "--adaptors", type=Path, help="use the adaptors in this folder, RECIPE-SEED, if they are there"
    )
    parser.add_argument("--name", default="sandbox_bias", help="name of the JSON file")
    arguments = parser.parse_args()
    pipe = load_sandbox_pipeline()
    before = {split: figures(pipe, split, ["gender", "tone"], arguments.images) for split in arguments.splits}
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for recipe in arguments.recipes:
            for seed in arguments.seeds:
                folder = (arguments.adaptors or Path(temporary)) / f"{recipe}-{seed}"
                minutes = train(recipe, seed, folder)
                with load_fair_adaptor(pipe, folder) as handle:
                    for split in arguments.splits:
                        after = figures(pipe, split, list(handle.info["attributes"]), arguments.images)
                        row = {"recipe": recipe, "seed": seed, "prompts": split, "minutes": minutes}
                        rows.append({**row, "before": before[split], "after": after})
                        print(row, after, flush=True)
    floors = {name: noise_floor(arguments.images, classes) for name, classes in {"gender": 2, "tone": 4}.items()}
    report(arguments.name, summary(rows), runs=rows, images=arguments.images, noise_floors=floors)


def train(recipe: str, seed: int, folder: Path) -> float:
    """Train unless it was done; return the minutes that the training took."""
    from fair_adaptors.training.recipes import get_recipe
    from fair_adaptors.training.run import train as run

    from fair_adaptors.formats import CONFIG_FILE, read_config

    started = time.perf_counter()
    if not (folder / CONFIG_FILE).exists():
        run(get_recipe(recipe, {"seed": seed, "sample_every": 0, "save_every": 0, "trackers": ""}), folder)
        print(f"{time.perf_counter() - started:.0f} s with the measuring")
    return read_config(folder)["training"]["seconds"] / 60


if __name__ == "__main__":
    main()
