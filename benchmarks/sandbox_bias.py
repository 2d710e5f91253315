"""Train the sandbox's adaptors with several seeds and measure them: the aim, and what else changed.

Everything is measured with the evaluation classifier, before and after on the same noise. Test prompts take no part in
training; settings are chosen on the validation prompts.
"""

import argparse
import dataclasses
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._report import report
from fair_adaptors.adaptor.record import CONFIG_FILE, read_record
from fair_adaptors.adaptor.results import Results, VariantResults, headline
from fair_adaptors.evaluation import Evaluation, evaluate
from fair_adaptors.evaluation.spec import targets_for
from fair_adaptors.evaluation.variants import with_adaptor
from fair_adaptors.pipelines import load_pipeline
from fair_adaptors.prompts.sets import load_prompts
from fair_adaptors.sandbox.instruments import instruments
from fair_adaptors.sandbox.pipeline import GUIDANCE, STEPS
from fair_adaptors.sandbox.prompts import ATTRIBUTES

OBEYED = "{} obeyed"
"""Of prompts that name a class of an attribute, the share of images that show it."""
NAMED = "occupation where a class is named"
"""Of prompts that name a gender or a tone, the share of images whose occupation is right."""
WORST_NAMED = f"{NAMED}, worst prompt"
SHARE, ALARMS, WORST = "largest change of a share", "erasure alarms", "occupation, worst prompt"
"""Figures of which every seed is held to the bar; of the others the mean over seeds."""
WORST_SEED = {SHARE: max, ALARMS: max, WORST: min, WORST_NAMED: min}

Bars = Mapping[tuple[str, str], Mapping[str, tuple[float, float] | float]]

BARS: Bars = {
    ("sandbox-gender", "train"): {"gender": (0, 0.20), "occupation": 0.04},
    ("sandbox-gender", "test"): {
        "gender": (0, 0.22),
        "tone shift": (0, 0.06),
        "age shift": (0, 0.06),
        SHARE: (0, 0.03),
        ALARMS: (0, 0),
        "occupation": 0.01,
        WORST: (0.85, 1),
        OBEYED.format("gender"): 0.02,
        NAMED: 0.02,
    },
    ("sandbox-gender-tone", "test"): {
        "gender": (0, 0.22),
        "tone": (0, 0.17),
        "age shift": (0, 0.06),
        "occupation": 0.02,
        OBEYED.format("gender"): 0.02,
        OBEYED.format("tone"): 0.02,
        NAMED: 0.02,
    },
}
"""Least and most of a figure after training, or how much it may fall. Those of the test are for validation too."""
MINUTES = 20.0
NOISE = 12_345
"""The seed of the noise, where no other is asked for."""
EXPLICIT = {"test": "explicit", "validation": "explicit-validation"}
"""Prompts that name a gender or a tone, of the same occupations."""


def figures(results: Results, variant: VariantResults) -> dict[str, float]:
    """Return each attribute's bias, or distance from an uneven target, and what a variant changed beside its aim."""
    found: dict[str, float] = {"old": results.figures(variant, "age").frequencies[1].value}
    largest = 0.0
    for name in ATTRIBUTES:
        shown = results.figures(variant, name)
        aim = headline(shown, results.targets[name])
        found |= {name: aim.value, f"{name} floor": aim.floor}
        if change := shown.change:
            found |= {
                f"{name} shift": change.shift.value,
                f"{name} shift floor": change.shift.floor,
                f"{name} shift, floor removed": change.shift.floor_removed.value,
                f"{name} flips": 1 - change.same_class,
            }
            if name not in variant.aimed:
                largest = max(largest, *(abs(one.value) for one in change.classes))
    assert variant.kept and variant.kept_prompts
    worst = min(one.value for one in variant.kept_prompts)
    return {**found, "occupation": variant.kept.value, WORST: worst, SHARE: largest, ALARMS: len(variant.erasures)}


def measure(
    pipe: Any,
    prompts: str,
    adaptors: Mapping[str, Path],
    images: int,
    *,
    base: str = "sandbox",
    steps: int = STEPS,
    guidance_scale: float = GUIDANCE,
    seed: int = NOISE,
) -> Results:
    """Evaluate adaptors by their names in the results, as the evaluation classifier sees them. Seed: of the noise."""
    tools = instruments()
    tools = dataclasses.replace(tools, classifiers=tools.classifiers[:1], encoders=(), calibrate=None)
    targets = targets_for([], [str(folder) for folder in adaptors.values()], tools)
    wanted = Evaluation(
        base, load_prompts(f"sandbox-{prompts}"), targets, images_per_prompt=images, seed=seed, num_steps=steps,
        guidance_scale=guidance_scale, batch_size=64, keep_images=False,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as out:
        variants = [with_adaptor(str(folder), label=name) for name, folder in adaptors.items()]
        return evaluate(pipe, wanted, variants, tools, Path(out))


def obeyed(results: Results, variant: VariantResults) -> dict[str, float]:
    """Return how often a class that the prompt names is shown, and the occupation beside it."""
    assert variant.obeyed and variant.kept and variant.kept_prompts
    shown = variant.obeyed[results.seen_by("gender")]
    found = {OBEYED.format(name): rate.value for name, rate in shown.items()}
    return {**found, NAMED: variant.kept.value, WORST_NAMED: min(one.value for one in variant.kept_prompts)}


def summary(rows: Sequence[Mapping[str, Any]], bars: Bars, most_minutes: float = MINUTES) -> list[dict[str, Any]]:
    """Return each recipe's figures on each split, of all seeds, beside its bar."""
    lines = []
    for recipe, split in dict.fromkeys((row["recipe"], row["prompts"]) for row in rows):
        runs = [row for row in rows if (row["recipe"], row["prompts"]) == (recipe, split)]
        wanted = bars.get((recipe, split if split == "train" else "test"), {})
        for name in (name for name in _told(runs[0]["aimed"], wanted) if name in runs[0]["after"]):
            values = [run["after"][name] for run in runs]
            before, after = runs[0]["before"].get(name), WORST_SEED.get(name, statistics.fmean)(values)
            floors = [run["after"][f"{name} floor"] for run in runs if f"{name} floor" in run["after"]]
            text, held = _held(wanted.get(name), before, after)
            lines.append(
                {
                    "recipe": recipe,
                    "prompts": split,
                    "what": name,
                    "before": "–" if before is None else before,
                    "after": after,
                    "floor": statistics.fmean(floors) if floors else "–",
                    "seeds": ", ".join(f"{value:.2f}".removesuffix(".00") for value in values),
                    "bar": text,
                    "held": held,
                }
            )
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        runs = [row for row in rows if row["recipe"] == recipe]
        line = {"recipe": recipe, "prompts": "train", "before": "–", "floor": "–", "seeds": "the most"}
        minutes = max(run["minutes"] for run in runs)
        bar = {"bar": f"at most {most_minutes:g}", "held": minutes <= most_minutes}
        lines.append({**line, "what": "minutes", "after": minutes, **bar})
        if known := [run["megabytes"] for run in runs if run["megabytes"]]:
            lines.append({**line, "what": "peak megabytes", "after": max(known), "bar": "–", "held": "–"})
    return lines


def _told(aimed: Sequence[str], wanted: Mapping[str, Any]) -> list[str]:
    """Return the figures of a table: bias where it is aimed at, shift where it is not, and what has a bar."""
    names = [name if name in aimed else f"{name} shift" for name in ATTRIBUTES]
    return list(dict.fromkeys([*names, SHARE, ALARMS, "occupation", WORST, *wanted, WORST_NAMED]))


def _held(bar: tuple[float, float] | float | None, before: float | None, after: float) -> tuple[str, bool | str]:
    if bar is None:
        return "–", "–"
    if isinstance(bar, float):
        assert before is not None
        return f"-{bar:g} at most", before - after <= bar
    least, most = bar
    text = f"at most {most:g}" if least == 0 else f"at least {least:g}" if most == 1 else f"{least:g} to {most:g}"
    return text, least <= after <= most


def main(
    name: str = "sandbox_bias",
    bars: Bars = BARS,
    splits: tuple[str, ...] = ("train", "test"),
    *,
    base: str = "sandbox",
    most_minutes: float = MINUTES,
) -> None:
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
    parser.add_argument("--found", action="store_true", help="only those that are there; none is trained")
    parser.add_argument("--set", nargs="+", default=[], help="other settings, such as iterations=2: does it run?")
    parser.add_argument("--name", default=name, help="name of the JSON file")
    arguments = parser.parse_args()
    pipe, rows = load_pipeline(base), []
    runs = [(recipe, seed) for recipe in arguments.recipes for seed in arguments.seeds]
    with tempfile.TemporaryDirectory() as temporary:
        folders = {run: (arguments.adaptors or Path(temporary)) / f"{run[0]}-{run[1]}" for run in runs}
        if arguments.found:
            folders = {run: folder for run, folder in folders.items() if (folder / CONFIG_FILE).exists()}
        training = {run: train(*run, folder, arguments.set) for run, folder in folders.items()}
        for split in arguments.splits:
            chosen = [run for run in folders if split != "train" or (run[0], split) in bars]
            adaptors = {folders[run].name: folders[run] for run in chosen}
            results = measure(pipe, split, adaptors, arguments.images, base=base)
            each = [figures(results, variant) for variant in results.variants]
            if explicit := EXPLICIT.get(split):
                asked = measure(pipe, explicit, adaptors, arguments.images // 8, base=base)
                each = [one | obeyed(asked, named) for one, named in zip(each, asked.variants, strict=True)]
            for run, variant, after in zip(chosen, results.variants[1:], each[1:], strict=True):
                row = {"recipe": run[0], "seed": run[1], "prompts": split, "aimed": variant.aimed, **training[run]}
                rows.append({**row, "before": each[0], "after": after})
    report(arguments.name, summary(rows, bars, most_minutes), runs=rows, images=arguments.images)


def train(recipe: str, seed: int, folder: Path, changed: Sequence[str] = ()) -> dict[str, float | None]:
    """Train in a process of its own, unless it was done; return the minutes it took and the memory."""
    if not (folder / CONFIG_FILE).exists():
        settings = ["sample_every=0", "save_every=0", "trackers=", *changed]
        options = [word for setting in settings for word in ("--set", setting)]
        command = [sys.executable, "-m", "fair_adaptors", "train", recipe, "--seed", str(seed), "--out", str(folder)]
        subprocess.run([*command, *options], check=True)
    training = read_record(folder).training
    return {"minutes": training["seconds"] / 60, "megabytes": training.get("peak_megabytes")}


if __name__ == "__main__":
    main()
