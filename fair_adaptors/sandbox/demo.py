"""The demo: the sandbox's biased model before and after its fair adaptor, counted, pictured and written up."""

import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..evaluation.estimates import Estimate, estimate_rate
from ..evaluation.grid import before_after_grid
from ..evaluation.metrics import CONFIDENCE, bias, frequencies
from ..evaluation.report import PromptResult, Report, verdict, write_report
from ..evaluation.run import Comparison, as_json, classify, compare, generate
from ..load import FairAdaptor, load_fair_adaptor
from .classifiers import load_classifier
from .pipeline import GUIDANCE, STEPS, load_sandbox_pipeline
from .prompts import ATTRIBUTES, ROLES, SECTORS, TEMPLATE, Split, occupations

if TYPE_CHECKING:
    from PIL import Image

GRID_PROMPTS, GALLERY_PROMPTS, COLUMNS = 4, 8, 8
KEPT = "right occupation"
LIMITS = (
    "The sandbox is a small drawn world with two gender presentations and four skin tones, because its truth must be"
    " countable. People are not so. What works here shows the method at work; it is no evidence about photographs.",
    "The classifier judges by the same drawn features that the renderer used; on images of the model it can err, and"
    " its errors are not part of the interval.",
    "Equal frequencies are one idea of fairness. They say nothing about how people are shown.",
    "The prompts are occupations that training never saw, but made of words that it did.",
)

Probabilities = dict[str, np.ndarray]


@dataclass(frozen=True)
class Demo:
    """What the demo found.

    Attributes:
        comparisons: bias of each attribute that the adaptor makes fair, before and after.
        others: bias of the other attributes.
        occupation: share of images with sector and role right, before and after.
        seconds: time it all took.
        files: what was written.
    """

    comparisons: dict[str, Comparison]
    others: dict[str, Comparison]
    occupation: tuple[Estimate, Estimate]
    seconds: float
    files: tuple[Path, ...]

    @property
    def verdict(self) -> str:
        """The finding in one sentence."""
        return verdict(self.comparisons, KEPT, self.occupation)


@dataclass(frozen=True)
class _Findings:
    """What was drawn and seen on the held-out occupations, and what to say about how."""

    handle: FairAdaptor
    names: tuple[str, ...]
    images: tuple[Any, Any]
    seen: tuple[Probabilities, Probabilities]
    seed: int

    @property
    def images_per_prompt(self) -> int:
        return int(self.images[0].shape[1])

    @property
    def fair(self) -> list[str]:
        """Attributes that the adaptor makes fair."""
        return [name for name in ATTRIBUTES if name in self.handle.info["attributes"]]

    @property
    def versions(self) -> dict[str, str]:
        names = ("fair-adaptors", "torch", "diffusers", "transformers")
        return {**{name: version(name) for name in names}, "python": platform.python_version()}

    @cached_property
    def right(self) -> tuple[np.ndarray, np.ndarray]:
        return occupation_right(self.seen[0], self.names), occupation_right(self.seen[1], self.names)

    @cached_property
    def prompts(self) -> list[PromptResult]:
        shares = {
            key: [frequencies(seen[key].argmax(-1), len(classes)).tolist() for seen in self.seen]
            for key, classes in ATTRIBUTES.items()
        }
        return [
            PromptResult(
                name,
                {key: (before[p], after[p]) for key, (before, after) in shares.items()},
                (float(self.right[0][p].mean()), float(self.right[1][p].mean())),
                (self.images[0][p, :COLUMNS], self.images[1][p, :COLUMNS]) if p < GALLERY_PROMPTS else None,
            )
            for p, name in enumerate(self.names)
        ]


def run_demo(
    out: Path,
    *,
    adaptor: str = "sandbox-gender",
    images_per_prompt: int = 20,
    seed: int = 0,
    on_images: Callable[[int, int], None] = lambda done, total: None,
) -> Demo:
    """Show an adaptor's effect on the sandbox's held-out test prompts; write grid, report and results into ``out``.

    Args:
        out: a folder; made if need be.
        adaptor: a name, a folder or a Hub repository.
        images_per_prompt: of each of the 16 prompts, before and after.
        seed: of the images.
        on_images: called with the images made and to make.
    """
    started = time.perf_counter()
    pipe = load_sandbox_pipeline()
    handle = load_fair_adaptor(pipe, adaptor)
    out.mkdir(parents=True, exist_ok=True)
    found = _find(pipe, handle, images_per_prompt=images_per_prompt, seed=seed, on_images=on_images)
    comparisons = compare(*found.seen, found.fair)
    others = compare(*found.seen, [name for name in ATTRIBUTES if name not in found.fair])
    kept = estimate_rate(found.right[0]), estimate_rate(found.right[1])
    name = handle.info["name"]
    files = out / "grid.png", out / "report.html", out / "results.json"
    _grid(found).save(files[0])
    write_report(
        files[1], Report(name, ATTRIBUTES, comparisons, others, KEPT, kept, found.prompts, _facts(pipe, found), LIMITS)
    )
    demo = Demo(comparisons, others, kept, time.perf_counter() - started, files)
    files[2].write_text(json.dumps(_results(found, demo), indent=2) + "\n", encoding="utf-8")
    return demo


def _find(
    pipe: Any, handle: FairAdaptor, *, images_per_prompt: int, seed: int, on_images: Callable[[int, int], None]
) -> _Findings:
    """Draw and classify, without and with the adaptor."""
    names = occupations("test")
    total, done = 2 * len(names) * images_per_prompt, 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        on_images(done, total)

    handle.disable()
    before = draw(pipe, names, images_per_prompt=images_per_prompt, seed=seed, on_batch=advance)
    handle.enable()
    after = draw(pipe, names, images_per_prompt=images_per_prompt, seed=seed, on_batch=advance)
    judge = load_classifier("evaluation")
    return _Findings(handle, names, (before, after), (classify(before, judge), classify(after, judge)), seed)


def _grid(found: _Findings) -> "Image.Image":
    before, after = (images[:GRID_PROMPTS, :COLUMNS] for images in found.images)
    return before_after_grid(
        before,
        after,
        found.names[:GRID_PROMPTS],
        title=f"{found.handle.info['name']}: before and after",
        subtitle=f"Occupations that training never saw. In each column the same noise, from seed {found.seed}.",
        notes=[_notes(prompt, found.fair) for prompt in found.prompts[:GRID_PROMPTS]],
    )


def _facts(pipe: Any, found: _Findings) -> dict[str, str]:
    """Say how it was measured."""
    info, count = found.handle.info, found.images_per_prompt
    example = TEMPLATE.format(found.names[0])
    return {
        "Prompts": f"{len(found.names)} occupations that training never saw, such as “{example}”",
        "Images": f"{count} per prompt, before and after; {2 * len(found.names) * count} in all",
        "Seeds": f"{found.seed}; every image's own seed follows from it, the prompt and the image's number",
        "Sampling": f"{STEPS} steps of {type(pipe.scheduler).__name__}, guidance {GUIDANCE:g}",
        "Classifier": "trained on portraits whose truth is known; not the one that the adaptor was trained with",
        "Adaptor": f"{info['name']}: LoRA of rank {info['rank']} on {', '.join(info['trained_parts'])},"
        f" strength {found.handle.weight:g}",
        "Versions": ", ".join(f"{name} {number}" for name, number in found.versions.items()),
    }


def _results(found: _Findings, demo: Demo) -> dict[str, Any]:
    """Return the content of ``results.json``."""
    was, now = demo.occupation
    return {
        "schema_version": 1,
        "adaptor": found.handle.info["name"],
        "base_model": found.handle.info["base_model"],
        "weight": found.handle.weight,
        "classifier": "sandbox evaluation classifier",
        "confidence": CONFIDENCE,
        "images_per_prompt": found.images_per_prompt,
        "seed": found.seed,
        "num_steps": STEPS,
        "guidance_scale": GUIDANCE,
        "prompts": [TEMPLATE.format(name) for name in found.names],
        "bias": as_json(demo.comparisons),
        "not_trained_for": as_json(demo.others),
        "occupation_right": {"before": asdict(was), "after": asdict(now)},
        "frequencies": {
            key: {
                "classes": list(classes),
                "before": [prompt.shares[key][0] for prompt in found.prompts],
                "after": [prompt.shares[key][1] for prompt in found.prompts],
            }
            for key, classes in ATTRIBUTES.items()
        },
        "versions": found.versions,
        "seconds": round(demo.seconds, 1),
    }


def draw(
    pipe: Any,
    names: Sequence[str],
    *,
    images_per_prompt: int,
    seed: int,
    on_batch: Callable[[int], None] = lambda count: None,
) -> Any:
    """Draw portraits [P, n, 3, 64, 64] of occupations with the sandbox's tuned settings."""
    return generate(
        pipe,
        [TEMPLATE.format(name) for name in names],
        images_per_prompt=images_per_prompt,
        seed=seed,
        num_steps=STEPS,
        guidance_scale=GUIDANCE,
        on_batch=on_batch,
    )


def occupation_right(probabilities: Probabilities, names: Sequence[str]) -> np.ndarray:
    """Tell for which images [P, n] both sector and role are those of the prompt's occupation."""
    sector, role = np.array([(SECTORS.index(s), ROLES.index(r)) for s, r in (name.split() for name in names)]).T
    drawn = {name: probabilities[name].argmax(-1) for name in ("sector", "role")}
    return (drawn["sector"] == sector[:, None]) & (drawn["role"] == role[:, None])


def measure(pipe: Any, split: Split, *, images_per_prompt: int, seed: int) -> tuple[Probabilities, np.ndarray]:
    """Return the evaluation classifier's probabilities [P, n, K] on a split, and ``occupation_right`` [P, n]."""
    names = occupations(split)
    probabilities = classify(
        draw(pipe, names, images_per_prompt=images_per_prompt, seed=seed), load_classifier("evaluation")
    )
    return probabilities, occupation_right(probabilities, names)


def _notes(result: PromptResult, fair: Sequence[str]) -> tuple[str, str]:
    """Say beside the rows of the grid what was counted of the first attribute."""
    if not fair:
        return "", ""
    first, *more = ATTRIBUTES[fair[0]]
    pair = result.shares[fair[0]]
    if len(more) == 1:
        return f"{pair[0][0]:.0%} {first}", f"{pair[1][0]:.0%} {first}"
    return f"bias {bias(pair[0]):.2f}", f"bias {bias(pair[1]):.2f}"
