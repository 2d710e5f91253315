"""From an adaptor folder to its results and card: ``python -m fair_adaptors.training.publish FOLDER``.

For adaptors of the sandbox, whose prompts, classifier and truth are in the package.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from fair_adaptors.evaluation.grid import before_after_grid
from fair_adaptors.evaluation.run import as_json, classify, compare, generate
from fair_adaptors.formats import CARD_FILE, RESULTS_FILE, read_config
from fair_adaptors.load import load_fair_adaptor
from fair_adaptors.sandbox.classifiers import load_classifier
from fair_adaptors.sandbox.demo import occupation_right
from fair_adaptors.sandbox.pipeline import GUIDANCE, STEPS, load_sandbox_pipeline
from fair_adaptors.sandbox.prompts import ATTRIBUTES, TEMPLATE, Split, occupations

SPLITS: tuple[Split, ...] = ("train", "test")
SEED = 2_026


def measure_adaptor(folder: Path, *, images_per_prompt: int = 64) -> dict[str, Any]:
    """Measure an adaptor before and after, draw its picture, and write ``results.json``; returns what it wrote."""
    pipe, judge = load_sandbox_pipeline(), load_classifier("evaluation")
    handle = load_fair_adaptor(pipe, folder)
    names = list(handle.info["attributes"])
    results: dict[str, Any] = {
        "classifier": "sandbox evaluation classifier",
        "files": {file: record["sha256"] for file, record in handle.info["files"].items()},
        "images_per_prompt": images_per_prompt,
        "seed": SEED,
        "num_steps": STEPS,
        "guidance_scale": GUIDANCE,
        "splits": {},
    }
    for split in SPLITS:
        found, right, images = [], [], []
        for enabled in (False, True):
            if enabled:
                handle.enable()
            else:
                handle.disable()
            images.append(
                generate(
                    pipe,
                    [TEMPLATE.format(name) for name in occupations(split)],
                    images_per_prompt=images_per_prompt,
                    seed=SEED,
                    num_steps=STEPS,
                    guidance_scale=GUIDANCE,
                )
            )
            found.append(classify(images[-1], judge))
            right.append(float(occupation_right(found[-1], occupations(split)).mean()))
        comparisons = compare(found[0], found[1], names)
        results["splits"][split] = {
            "prompts": len(occupations(split)),
            "bias": as_json(comparisons),
            "occupation_right": {"before": right[0], "after": right[1]},
        }
        if split == "test":
            (folder / "images").mkdir(exist_ok=True)
            shown = occupations(split)[:4]
            grid = before_after_grid(
                images[0][:4, :8],
                images[1][:4, :8],
                shown,
                title=f"{folder.name}: before and after",
                subtitle=f"Held-out occupations. Shares are of {images_per_prompt} images; each column has one noise.",
                notes=[_notes(found, names[0], p) for p in range(len(shown))],
            )
            grid.save(folder / "images" / "before_after.png", optimize=True)
    (folder / RESULTS_FILE).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return results


def _notes(found: list[dict[str, Any]], attribute: str, prompt: int) -> tuple[str, str]:
    """Say beside the rows of the picture how often the first class was seen."""
    before, after = (float((seen[attribute][prompt].argmax(-1) == 0).mean()) for seen in found)
    name = ATTRIBUTES[attribute][0]
    return f"{before:.0%} {name}", f"{after:.0%} {name}"


def card(config: dict[str, Any], results: dict[str, Any]) -> str:
    """Return the card in Markdown with the Hub's metadata, from ``fair_adaptor.json`` and ``results.json``."""
    targets = "; ".join(
        f"{name}: " + ", ".join(f"{c} {t:.0%}" for c, t in zip(row["classes"], row["target"], strict=True))
        for name, row in config["attributes"].items()
    )
    training = config["training"]
    lines = [
        "---",
        f"base_model: {config['base_model']}",
        "base_model_relation: adapter",
        "library_name: diffusers",
        "pipeline_tag: text-to-image",
        "license: apache-2.0",
        "tags: [lora, template:sd-lora, fairness, fair-adaptors]",
        "---",
        f"# {config['name']}",
        "",
        f"Makes the sandbox's portraits follow this distribution, jointly: {targets}.",
        "",
        "![Before and after, the same seed in each column](images/before_after.png)",
        "",
        "## Numbers",
        "",
        "| prompts | measure | before (95 % interval) | after (95 % interval) | noise floor | undetermined |",
        "|---|---|---|---|---|---|",
    ]
    for split, row in results["splits"].items():
        label = f"{row['prompts']} {'held-out' if split == 'test' else 'training'} occupations"
        for name, both in row["bias"].items():
            before, after = both["before"], both["after"]
            lines.append(
                f"| {label} | {name} bias | {_interval(before)} | {_interval(after)} | {after['floor']:.2f} |"
                f" {before['undetermined']:.1%} → {after['undetermined']:.1%} |"
            )
        kept = row["occupation_right"]
        lines.append(f"| {label} | occupation right | {kept['before']:.1%} | {kept['after']:.1%} | | |")
    lines += [
        "",
        f"{results['images_per_prompt']} images per prompt, {results['num_steps']} steps, guidance"
        f" {results['guidance_scale']:g}, seed {results['seed']}, the same noise before and after;"
        f" {results['classifier']}, which training did not use. A perfectly fair model scores the noise floor.",
        "",
        "## How it was made",
        "",
        f"`fair-adaptors train {training['name']}`: LoRA of rank {config['rank']} on"
        f" {', '.join(config['trained_parts'])}; {training['iterations']} steps of {training['prompts_per_step']}"
        f" prompts with {training['images_per_prompt']} images each, {training['seconds'] / 60:.0f} minutes on a CPU."
        " Training and test prompts are different pairs of the same words.",
        "",
        "## Limits",
        "",
        "The sandbox is a small drawn world with two gender presentations and four skin tones, because its truth must"
        " be countable; people are not so. The adaptor works with the sandbox's base only, and says nothing about"
        " photographs of people.",
        "",
        "## Use",
        "",
        "```python",
        "from fair_adaptors import load_fair_adaptor",
        "from fair_adaptors.sandbox.pipeline import load_sandbox_pipeline",
        "",
        "pipe = load_sandbox_pipeline()",
        f'adaptor = load_fair_adaptor(pipe, "{config["name"]}")',
        "```",
    ]
    return "\n".join(lines) + "\n"


def _interval(estimate: dict[str, float]) -> str:
    return f"{estimate['value']:.2f} ({estimate['low']:.2f}–{estimate['high']:.2f})"


def main() -> None:
    """Measure adaptors and write their cards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=64, help="images per prompt")
    parser.add_argument("--cards", type=Path, help="copy the cards to this folder, under the adaptors' names")
    arguments = parser.parse_args()
    for folder in arguments.folders:
        results = measure_adaptor(folder, images_per_prompt=arguments.images)
        (folder / CARD_FILE).write_text(card(read_config(folder), results), encoding="utf-8")
        if arguments.cards:
            arguments.cards.mkdir(exist_ok=True)
            shutil.copy(folder / CARD_FILE, arguments.cards / f"{folder.name}.md")
        print(f"{folder}: {RESULTS_FILE} and {CARD_FILE} written")


if __name__ == "__main__":
    main()
