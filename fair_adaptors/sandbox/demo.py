"""The demo: the sandbox's biased model before and after its fair adaptor, counted, pictured and written up."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.grid import before_after_grid
from ..evaluation.metrics import RateEstimate, bias, estimate_rate, frequencies
from ..evaluation.report import write_report
from ..evaluation.run import Comparison, as_json, classify, compare, generate
from ..load import load_fair_adaptor
from .classifiers import CLASSES, load_classifier
from .pipeline import GUIDANCE, STEPS, load_sandbox_pipeline
from .prompts import ATTRIBUTES, ROLES, SECTORS, TEMPLATE, Split, occupations

GRID_PROMPTS, GRID_COLUMNS = 4, 8


@dataclass(frozen=True)
class Demo:
    """What the demo found.

    Attributes:
        comparisons: bias of each attribute that the adaptor makes fair, before and after.
        occupation: share of images with sector and role right, before and after.
        seconds: time it all took.
        files: what was written.
    """

    comparisons: dict[str, Comparison]
    occupation: tuple[RateEstimate, RateEstimate]
    seconds: float
    files: tuple[Path, ...]


def run_demo(
    out: Path,
    *,
    adaptor: str = "sandbox-gender",
    images_per_prompt: int = 32,
    seed: int = 0,
    on_images: Callable[[int, int], None] = lambda done, total: None,
) -> Demo:
    """Show an adaptor's effect on the sandbox's held-out test prompts; write grid, report and results into ``out``.

    Args:
        adaptor: a name, a folder or a Hub repository.
        images_per_prompt: of each of the 16 prompts, before and after.
        on_images: called with the images made and to make.
    """
    started = time.perf_counter()
    pipe = load_sandbox_pipeline()
    judge = load_classifier("evaluation")
    names = occupations("test")
    total, done = 2 * len(names) * images_per_prompt, 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        on_images(done, total)

    def run() -> Any:
        return generate(
            pipe,
            [TEMPLATE.format(name) for name in names],
            images_per_prompt=images_per_prompt,
            seed=seed,
            num_steps=STEPS,
            guidance_scale=GUIDANCE,
            on_batch=advance,
        )

    handle = load_fair_adaptor(pipe, adaptor)
    handle.disable()
    before = run()
    handle.enable()
    after = run()
    found = classify(before, judge), classify(after, judge)
    fair = [name for name in handle.info["attributes"] if name in ATTRIBUTES]
    comparisons = compare(*found, fair)
    right = [occupation_right(probabilities, names) for probabilities in found]
    kept = (estimate_rate(right[0]), estimate_rate(right[1]))

    out.mkdir(parents=True, exist_ok=True)
    grid = before_after_grid(
        before[:GRID_PROMPTS, :GRID_COLUMNS], after[:GRID_PROMPTS, :GRID_COLUMNS], names, title=handle.info["name"]
    )
    files = tuple(out / name for name in ("grid.png", "report.html", "results.json"))
    grid.save(files[0])
    header, rows = _rows(names, found, fair, right)
    versions = ", ".join(f"{name} {version}" for name, version in handle.info["versions"].items())
    write_report(
        files[1],
        title=f"{handle.info['name']}: before and after",
        comparisons=comparisons,
        upper_bounds={name: 2 / CLASSES[name] for name in fair},
        kept=("Occupation right", kept[0].value, kept[1].value),
        header=header,
        rows=rows,
        grid=grid,
        method=[
            f"{len(names)} occupations that training never saw, {images_per_prompt} images each, {STEPS} steps,"
            f" guidance {GUIDANCE:g}, seed {seed}; every image has its own seed, the same before and after.",
            "Bias of a prompt is the mean over pairs of classes of the difference of their frequencies; 0 is fair. The"
            " figure is the mean over prompts, its interval a bootstrap over prompts and images. The noise floor is"
            " what a perfectly fair model scores with as many images.",
            "Classes come from a classifier that training did not use, trained on portraits whose truth is known.",
            "The sandbox is a small drawn world. What works here shows the method at work; it is no evidence about"
            " photographs of people.",
            f"The adaptor was made with {versions}.",
        ],
    )
    summary = {
        "adaptor": handle.info["name"],
        "seed": seed,
        "prompts": [TEMPLATE.format(name) for name in names],
        "bias": as_json(comparisons),
        "occupation_right": {"before": asdict(kept[0]), "after": asdict(kept[1])},
    }
    files[2].write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return Demo(comparisons, kept, time.perf_counter() - started, files)


def occupation_right(probabilities: dict[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """Tell for which images [P, n] both sector and role are those of the prompt's occupation."""
    sector, role = np.array([(SECTORS.index(s), ROLES.index(r)) for s, r in (name.split() for name in names)]).T
    drawn = {name: probabilities[name].argmax(-1) for name in ("sector", "role")}
    return (drawn["sector"] == sector[:, None]) & (drawn["role"] == role[:, None])


def measure(pipe: Any, split: Split, *, images_per_prompt: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the evaluation classifier's probabilities [P, n, K] on a split, and ``occupation_right`` [P, n]."""
    names = occupations(split)
    images = generate(
        pipe,
        [TEMPLATE.format(name) for name in names],
        images_per_prompt=images_per_prompt,
        seed=seed,
        num_steps=STEPS,
        guidance_scale=GUIDANCE,
    )
    probabilities = classify(images, load_classifier("evaluation"))
    return probabilities, occupation_right(probabilities, names)


def _rows(
    names: Sequence[str], found: Sequence[dict[str, np.ndarray]], fair: Sequence[str], right: Sequence[np.ndarray]
) -> tuple[list[str], list[list[str]]]:
    """Make the table of prompts: per attribute the bias, or the first of two classes' share; and occupation kept."""
    header, columns = ["occupation"], []
    for attribute in fair:
        for when, probabilities in zip(("before", "after"), found, strict=True):
            shares = frequencies(probabilities[attribute].argmax(-1), CLASSES[attribute])
            if CLASSES[attribute] == 2:
                header.append(f"{ATTRIBUTES[attribute][0]} {when}")
                columns.append([f"{share:.0%}" for share in shares[:, 0]])
            else:
                header.append(f"{attribute} bias {when}")
                columns.append([f"{value:.2f}" for value in bias(shares)])
    for when, kept in zip(("before", "after"), right, strict=True):
        header.append(f"right {when}")
        columns.append([f"{share:.0%}" for share in kept.mean(1)])
    return header, [[name, *cells] for name, *cells in zip(names, *columns, strict=True)]
