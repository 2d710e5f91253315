"""What was tried so that an adaptor changes nothing beside its aim: ways to keep tone and age, on validation prompts.

By image, by prompt, or not at all with stronger preservation (docs/training.md). One seed each, the evaluation
classifier, 64 images of each of the eight prompts, the same noise before and after.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks._report import report
from fair_adaptors import load_fair_adaptor
from fair_adaptors.evaluation.metrics import bias, frequencies, total_variation
from fair_adaptors.sandbox.demo import measure
from fair_adaptors.sandbox.pipeline import load_sandbox_pipeline
from fair_adaptors.sandbox.prompts import ATTRIBUTES

SEED = 777
_FAIR = {"prompt_sets": "train:1", "gradient_steps": 3}
_BOTH = _FAIR | {"iterations": 160, "unguided": 100, "parts": "text_encoder,unet", "learning_rate": 3e-3}
_TONE = _FAIR | {"iterations": 165, "unguided": 100, "learning_rate": 5e-3, "preservation": 24}
_BY_IMAGE, _BY_PROMPT, _NOT = {"keep_by": "image"}, {"keep_by": "prompt"}, {"keep_attributes": ""}
TRIED: Mapping[str, tuple[str, dict[str, Any]]] = {
    "not kept, preservation 60": ("sandbox-gender", _BOTH | _NOT | {"preservation": 60}),
    "by image": ("sandbox-gender", _BOTH | _BY_IMAGE | {"preservation": 30}),
    "by prompt": ("sandbox-gender", _BOTH | _BY_PROMPT | {"preservation": 30}),
    "by prompt, weight 2, preservation 40": (
        "sandbox-gender",
        _BOTH | _BY_PROMPT | {"preservation": 40, "keep_weight": 2, "originals_pool": 16},
    ),
    "by prompt, weight 2, U-Net": (
        "sandbox-gender-unet",
        _BY_PROMPT | {"iterations": 160, "unguided": 100, "keep_weight": 2, "originals_pool": 16},
    ),
    "by image, 220 iterations, rate 0.005, preservation 15": (
        "sandbox-gender",
        _BOTH | _BY_IMAGE | {"iterations": 220, "unguided": 120, "learning_rate": 5e-3, "preservation": 15},
    ),
    "by prompt, 180 iterations, preservation 36": (
        "sandbox-gender",
        _BOTH | _BY_PROMPT | {"preservation": 36, "iterations": 180, "unguided": 105},
    ),
    "gender and tone: age by image, 200 iterations": (
        "sandbox-gender-tone",
        _TONE | _BY_IMAGE | {"iterations": 200, "unguided": 110},
    ),
    "gender and tone: age by prompt, 165 iterations": ("sandbox-gender-tone", _TONE | _BY_PROMPT),
}
"""A recipe and what differs from it."""


def main() -> None:
    """Print a row for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", type=int, default=range(len(TRIED)), help="numbers of the ways, from 0")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--set", nargs="+", default=[], help="other settings, such as iterations=2: does it run?")
    parser.add_argument("--name", default="keeping", help="name of the JSON file")
    arguments = parser.parse_args()
    pipe, rows = load_sandbox_pipeline(), []
    changed = dict(setting.split("=", 1) for setting in arguments.set)
    before = measure(pipe, "validation", images_per_prompt=arguments.images, seed=SEED)
    for name in [list(TRIED)[number] for number in arguments.only]:
        with tempfile.TemporaryDirectory() as folder:
            recipe, settings = TRIED[name]
            train(Path(folder) / "adaptor", recipe, settings | changed)
            with load_fair_adaptor(pipe, Path(folder) / "adaptor"):
                after = measure(pipe, "validation", images_per_prompt=arguments.images, seed=SEED)
        rows.append({"tried": name, **figures(before, after)})
    report(arguments.name, rows, settings=TRIED, images=arguments.images, **({"changed": changed} if changed else {}))


def train(folder: Path, recipe: str, settings: Mapping[str, Any]) -> None:
    """Train in a process of its own."""
    quiet = {"sample_every": 0, "save_every": 0, "trackers": ""}
    options = [word for name, value in (settings | quiet).items() for word in ("--set", f"{name}={value}")]
    command = [sys.executable, "-m", "fair_adaptors", "train", recipe, "--seed", "0", "--out", str(folder)]
    subprocess.run([*command, *options], check=True)


def figures(before: Any, after: Any) -> dict[str, float | str]:
    """Return the bias, how far tone and age moved, the share of dark people and what is left of the occupations."""
    (was, _), (now, right) = before, after
    classes = {name: (was[name].argmax(-1), now[name].argmax(-1), len(each)) for name, each in ATTRIBUTES.items()}
    found: dict[str, float | str] = {"gender bias": float(bias(frequencies(classes["gender"][1], 2)).mean())}
    for name in ("tone", "age"):
        one, other, number = classes[name]
        moved = total_variation(frequencies(one, number), frequencies(other, number))
        found |= {f"{name} shift": float(moved.mean()), f"{name} flips": float((one != other).mean())}
    dark = [float(frequencies(each, 4)[:, 3].mean()) for each in classes["tone"][:2]]
    return {
        **found,
        "dark": f"{dark[0]:.2f} → {dark[1]:.2f}",
        "occupation": float(right.mean()),
        "worst prompt": float(right.mean(1).min()),
    }


if __name__ == "__main__":
    main()
