"""The demo: the sandbox's biased model before and after its fair adaptor, by the same evaluation as any other's."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fair_adaptors.evaluation.drawing import classify, generate

from .pipeline import GUIDANCE, STEPS
from .prompts import ATTRIBUTES, ROLES, SECTORS, TEMPLATE, Split, occupations

if TYPE_CHECKING:
    from rich.table import Table

    from fair_adaptors.adaptor.results import Estimate, Results
    from fair_adaptors.evaluation.spec import Instruments, Target

Probabilities = dict[str, np.ndarray]


def run_demo(
    out: Path,
    *,
    adaptor: str = "sandbox-gender",
    images_per_prompt: int = 20,
    seed: int = 0,
    overwrite: bool = False,
    on_images: Callable[[int, int], None] = lambda done, total: None,
) -> "Results":
    """Evaluate an adaptor on the sandbox's held-out test prompts.

    Args:
        out: an evaluation's folder; made if need be.
        adaptor: a name, a folder or a Hub repository.
        images_per_prompt: of each of the 16 prompts, before and after.
        seed: of the images.
        overwrite: remove another evaluation that is in the way.
        on_images: called with the images made and to make.

    Returns:
        The evaluation's results: what the adaptor makes fair, then the other attributes.

    Raises:
        FairAdaptorError: no such adaptor, it does not fit the sandbox, or another evaluation is in the way.
    """
    from fair_adaptors.evaluation import evaluate
    from fair_adaptors.evaluation.spec import Evaluation
    from fair_adaptors.prompts.sets import load_prompts

    from ..evaluation.variants import with_adaptor
    from .instruments import instruments
    from .pipeline import load_sandbox_pipeline

    tools = instruments()
    variant = with_adaptor(adaptor)
    evaluation = Evaluation(
        "sandbox",
        load_prompts("sandbox-test"),
        _targets(adaptor, tools),
        images_per_prompt=images_per_prompt,
        seed=seed,
        num_steps=STEPS,
        guidance_scale=GUIDANCE,
        batch_size=64,
    )
    return evaluate(
        load_sandbox_pipeline(), evaluation, [variant], tools, out, overwrite=overwrite, on_images=on_images
    )


def _targets(adaptor: str, tools: "Instruments") -> "tuple[Target, ...]":
    """Return what the adaptor was trained for, and equal shares of whatever else can be seen."""
    from fair_adaptors.evaluation.spec import Target, targets_for

    trained = targets_for([], [adaptor], tools)
    rest = [name for name in ATTRIBUTES if not any(name in target.attributes for target in trained)]
    return (*trained, *(Target((name,), (1 / len(ATTRIBUTES[name]),) * len(ATTRIBUTES[name])) for name in rest))


def comparison(results: "Results") -> "Table":
    """Return the table of each figure before and after; it fits 80 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from fair_adaptors.adaptor.results import headline

    from ..evaluation.wording import fine, number, percent

    before, after = results.variants[:2]
    columns = ("held-out", "before (95 %)", "after (95 %)", "floor", "undetermined")
    table = Table(*columns, box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for name, target in results.targets.items():
        was, now = (results.figures(variant, name) for variant in (before, after))
        floor = headline(now, target).floor
        table.add_row(
            f"{name} bias" if target.is_uniform else f"{name} off target",
            *(_range(headline(found, target), number) for found in (was, now)),
            number(floor),
            " → ".join(percent(found.undetermined.value) for found in (was, now)),
        )
    table.add_row(results.kept, _range(before.kept, fine), _range(after.kept, fine), "", "")
    return table


def _range(found: "Estimate | None", write: Callable[[float], str]) -> str:
    if found is None:
        return "–"
    return f"{write(found.value)} ({write(found.low).removesuffix('%')}–{write(found.high)})"


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
