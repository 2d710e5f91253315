"""The demo: an embedded biased model before and after its fair adaptor, by the same evaluation as any other's."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fair_adaptors.adaptor.bases import BASES, by_short_name, imported
from fair_adaptors.adaptor.record import CONFIG_FILE
from fair_adaptors.errors import ConfigError
from fair_adaptors.evaluation.drawing import classify, generate

from .pipeline import GUIDANCE, STEPS
from .prompts import ROLES, SECTORS, TEMPLATE, Split, occupations

if TYPE_CHECKING:
    from fair_adaptors.adaptor.results import Results

Probabilities = dict[str, np.ndarray]


def run_demo(
    out: Path,
    *,
    base: str = "sandbox",
    adaptor: str | None = None,
    images_per_prompt: int = 20,
    seed: int = 0,
    overwrite: bool = False,
    on_images: Callable[[int, int], None] = lambda done, total: None,
) -> "Results":
    """Evaluate an adaptor on the sandbox's held-out test prompts.

    Args:
        out: an evaluation's folder; made if need be.
        base: an embedded base's name.
        adaptor: a name, a folder or a Hub repository; None for the base's own, see ``own_adaptor``.
        images_per_prompt: of each of the 16 prompts, before and after.
        seed: of the images.
        overwrite: remove another evaluation that is in the way.
        on_images: called with the images made and to make.

    Returns:
        The evaluation's results: what the adaptor makes fair, then the other attributes.

    Raises:
        FairAdaptorError: no such base or adaptor, they do not fit each other, or another evaluation is in the way.
    """
    from fair_adaptors.evaluation import evaluate
    from fair_adaptors.evaluation.asked import Asked, prepare

    known = by_short_name(base)
    if known is None or known.plugin is None:
        names = ", ".join(one.short_name for one in BASES if one.plugin)
        raise ConfigError(f"the demo is of a small drawn world, and {base} is not: give {names}, or use `evaluate`")
    pipe = imported(known.plugin.load)()  # or the command that builds it is said
    found = prepare(Asked(base, [adaptor or own_adaptor(base)], images_per_prompt=images_per_prompt, seed=seed))
    return evaluate(
        pipe, found.evaluation, found.variants, found.instruments, out, overwrite=overwrite, on_images=on_images
    )


def own_adaptor(base: str) -> str:
    """Return the adaptor of an embedded base: one that comes with it, or the folder that one was trained into.

    Raises:
        ConfigError: none was trained.
    """
    if base == "sandbox":
        return "sandbox-gender"
    from .flow import flow_folder

    recipe = f"{base}-gender"
    folder = flow_folder() / recipe
    if not (folder / CONFIG_FILE).is_file():
        raise ConfigError(
            f"there is no adaptor for {base} in {folder}: train one with `fair-adaptors train {recipe} --out"
            f" {folder}`, or give another as `adaptor`"
        )
    return str(folder)


def draw(pipe: Any, names: Sequence[str], *, images_per_prompt: int, seed: int) -> Any:
    """Draw portraits [P, n, 3, 64, 64] of occupations with the sandbox's tuned settings."""
    return generate(
        pipe,
        [TEMPLATE.format(name) for name in names],
        images_per_prompt=images_per_prompt,
        seed=seed,
        num_steps=STEPS,
        guidance_scale=GUIDANCE,
    )


def occupation_right(probabilities: Probabilities, names: Sequence[str]) -> np.ndarray:
    """Tell for which images [P, n] both sector and role are those of the prompt's occupation."""
    sector, role = np.array([(SECTORS.index(s), ROLES.index(r)) for s, r in (name.split() for name in names)]).T
    drawn = {name: probabilities[name].argmax(-1) for name in ("sector", "role")}
    return (drawn["sector"] == sector[:, None]) & (drawn["role"] == role[:, None])


def measure(pipe: Any, split: Split, *, images_per_prompt: int, seed: int) -> tuple[Probabilities, np.ndarray]:
    """Return the evaluation classifier's probabilities [P, n, K] on a split, and ``occupation_right`` [P, n]."""
    from .classifiers import load_classifier

    names = occupations(split)
    probabilities = classify(
        draw(pipe, names, images_per_prompt=images_per_prompt, seed=seed), load_classifier("evaluation")
    )
    return probabilities, occupation_right(probabilities, names)
