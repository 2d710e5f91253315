"""Operations until an adaptor is good: what each way to train costs on the sandbox, counted at the modules.

Rows through U-Net, decoder, classifier and encoders are counted as they are called, forward and backward, and each is
weighed with the teraflops that it has for Stable Diffusion 1.5 (``docs/cost.md``). Beside them, every few iterations,
the averaged adaptor's bias, shift and occupation on prompts that take no part in training. What counts is the number
of operations when all three are good for the first time, and stay so to the end.
"""

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks._curves import plot
from benchmarks._operations import VISION, Operations, base_operations, vision_operations
from benchmarks._passes import first_tensor
from benchmarks._report import RESULTS, report
from fair_adaptors.evaluation.beside import pairs_of, shift
from fair_adaptors.evaluation.metrics import bias, frequencies
from fair_adaptors.sandbox.prompts import ATTRIBUTES

GOOD = {"gender bias": 0.25, "tone shift": 0.06, "age shift": 0.06, "occupation": 0.98}
"""Most of the first three, least of the last."""
SEED = 4_711
_PLAIN: Mapping[str, Any] = {"strength": 1.0}
"""Measured as trained: the recipe writes its adaptor stronger, which moves every figure and costs nothing."""
_ALL_STEPS: Mapping[str, Any] = {"gradient_steps": 0, "unguided": 0, "originals_pool": 0, **_PLAIN}
_HALF: Mapping[str, Any] = {"iterations": 150, "unguided": 88, **_PLAIN}
_SMALL: Mapping[str, Any] = {"gradient_decoder": "build/small_decoder"}
_CONDITIONAL: Mapping[str, Any] = {"unconditional_gradient": False}
_FOUR: Mapping[str, Any] = {"num_steps": 4}
_ONE_STEP: Mapping[str, Any] = {"gradient_steps": 1}
_MORE_PROMPTS: Mapping[str, Any] = {"prompts_per_step": 4, "images_per_prompt": 12}
_ONE_SET: Mapping[str, Any] = {"originals_pool": 1}
TRIED: Mapping[str, Mapping[str, Any]] = {
    "published form": {**_ALL_STEPS, "num_steps": 20},
    "six steps a picture": _ALL_STEPS,
    "K steps of each image": {"unguided": 0, "originals_pool": 0, **_PLAIN},
    "no guidance at first": {"originals_pool": 0, **_PLAIN},
    "recipe": {},
    "recipe at strength 1": _PLAIN,
    "two updates of each rollout": {"updates_per_rollout": 2, **_HALF},
    "two updates, a smaller rate": {"updates_per_rollout": 2, "learning_rate": 2.2e-3, **_HALF},
    "three updates, a smaller rate": {
        "updates_per_rollout": 3,
        "learning_rate": 2.2e-3,
        "iterations": 120,
        "unguided": 70,
        **_PLAIN,
    },
    "one step of each image": {**_PLAIN, **_ONE_STEP},
    "originals of one set of noises": {**_PLAIN, **_ONE_SET},
    "one step of each image, originals of one set of noises": {**_PLAIN, **_ONE_STEP, **_ONE_SET},
    "one step, four prompts of 12 images": {**_PLAIN, **_ONE_STEP, **_MORE_PROMPTS},
    "one step, six prompts of 8 images": {**_PLAIN, **_ONE_STEP, "prompts_per_step": 6, "images_per_prompt": 8},
    "small decoder": {**_PLAIN, **_SMALL},
    "conditional branch alone": {**_PLAIN, **_CONDITIONAL},
    "four steps a picture": {**_PLAIN, **_FOUR},
    "four steps, guided throughout": {**_PLAIN, **_FOUR, "unguided": 0},
    "four steps, guided throughout, conditional branch alone": {**_PLAIN, **_FOUR, **_CONDITIONAL, "unguided": 0},
    "small decoder, conditional branch alone and four steps": {**_PLAIN, **_SMALL, **_CONDITIONAL, **_FOUR},
    "early third of the steps": _PLAIN,
    "middle third of the steps": _PLAIN,
    "late third of the steps": _PLAIN,
}
"""What each way changes in the recipe; ``training/sandbox/small_decoder.py`` makes the small decoder."""
WINDOWS = {f"{name} third of the steps": (i / 3, (i + 1) / 3) for i, name in enumerate(("early", "middle", "late"))}
"""From which part of the run the steps of the gradient are taken, where it is not the whole."""
UNTRAINED = {"naming a class in the prompt": "words", "directions": "directions", "UCE": "edit"}
"""Points beside the curves: adaptors of ``fair-adaptors make``, for which no counted model is run."""
RECOMPUTED = ("published form", "six steps a picture")
"""Their gradient is that of all steps; its graph runs forward once more, by checkpointing (``docs/cost.md``)."""


def main() -> None:
    """Train what is asked for, keep each run's curve, and print what the curves say so far."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [*TRIED, *UNTRAINED]
    parser.add_argument("--only", nargs="*", choices=every, default=every, help="ways to train or make now")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--images", type=int, default=64, help="of each prompt, at each point of a curve")
    parser.add_argument("--every", type=int, default=20, help="iterations between points")
    parser.add_argument("--iterations", type=int, help="stop early")
    parser.add_argument("--name", default="efficiency", help="name of the JSON file, to which runs are added")
    arguments = parser.parse_args()
    path = RESULTS / f"{arguments.name}.json"
    curves = json.loads(path.read_text(encoding="utf-8"))["curves"] if path.exists() else []
    for name in arguments.only:
        for seed in arguments.seeds if name in TRIED else (0,):
            if any((one["tried"], one["seed"]) == (name, seed) for one in curves):
                continue
            points: list[dict[str, float]] = []
            curves.append({"tried": name, "seed": seed, "points": points})
            runs = run(name, seed, arguments, points) if name in TRIED else made(name, arguments, points)
            for _ in runs:  # a run that is cut keeps its curve
                report(arguments.name, summary(curves), curves=curves, good=GOOD, settings=vars(arguments))
    if curves:
        report(arguments.name, summary(curves), curves=curves, good=GOOD, settings=vars(arguments))
        plot(curves, GOOD, UNTRAINED, RESULTS / f"{arguments.name}.png")


class Rows:
    """Counts the rows through what it wraps: without gradient, with it, and backward."""

    def __init__(self) -> None:
        self.plain = self.graph = self.backward = 0

    def through(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``call``, counted by the rows of its first argument."""

        def counted(rows: Any, *arguments: Any, **named: Any) -> Any:
            output = call(rows, *arguments, **named)
            result = first_tensor(output)
            if result.requires_grad:
                self.graph += len(rows)
                result.register_hook(self._count)
            else:
                self.plain += len(rows)
            return output

        return counted

    def _count(self, gradient: Any) -> None:
        self.backward += len(gradient)


def run(name: str, seed: int, arguments: argparse.Namespace, points: list[dict[str, float]]) -> Iterator[None]:
    """Train in one way, and stop at each point of its curve, which is added."""
    from fair_adaptors.training.engine.loop import fit
    from fair_adaptors.training.engine.reference_images import ReferenceImages
    from fair_adaptors.training.engine.state import TrainingState, as_written, attached
    from fair_adaptors.training.recipes import get_recipe
    from fair_adaptors.training.setup import load_setup

    config = dataclasses.replace(get_recipe("sandbox-gender", {"seed": str(seed)}), **TRIED[name])
    setup, costs = load_setup(config), operations()
    before = look(setup.pipe, arguments)
    counts = {model: Rows() for model in costs}
    unet, decoder = setup.pipe.unet, setup.pipe.vae.decoder
    unet.forward, decoder.forward = counts["network"].through(unet.forward), counts["decoder"].through(decoder.forward)
    counted = dataclasses.replace(
        setup,
        classifier=counts["classifier"].through(setup.classifier),
        encoders={each: counts["encoder"].through(encode) for each, encode in setup.encoders.items()},
    )
    if setup.gradient_decoder is not None:
        through = counts["small decoder"].through(setup.gradient_decoder)
        counted = dataclasses.replace(counted, gradient_decoder=through)
    looked = 0.0
    last = arguments.iterations or config.iterations

    def due(state: TrainingState, _result: Any) -> bool:
        return state.iteration % arguments.every == 0 or state.iteration == last

    with (
        tempfile.TemporaryDirectory() as folder,
        steps_within(*WINDOWS.get(name, (0.0, 1.0))),
        attached(counted, config) as state,
    ):
        references = ReferenceImages(Path(folder)) if config.originals_pool else None
        while state.iteration < last:
            fit(counted, config, state, references=references, on_step=due)
            spent = teraflops(counts, costs, recomputed=name in RECOMPUTED) - looked
            with as_written(state, setup.pipe, config.strength):
                found = figures(before, look(setup.pipe, arguments))
            looked = teraflops(counts, costs, recomputed=name in RECOMPUTED) - spent
            points.append({"iteration": state.iteration, "teraflops": spent, **found})
            print(name, seed, points[-1], flush=True)
            yield


def made(name: str, arguments: argparse.Namespace, points: list[dict[str, float]]) -> Iterator[None]:
    """Add the one point of an adaptor that takes no training."""
    from fair_adaptors.load import load_fair_adaptor
    from fair_adaptors.making import make
    from fair_adaptors.pipelines import load_pipeline

    pipe = load_pipeline("sandbox")
    before = look(pipe, arguments)
    with tempfile.TemporaryDirectory() as folder:
        load_fair_adaptor(pipe, make("sandbox", "gender", out=Path(folder) / "adaptor", method=UNTRAINED[name]))
        points.append({"iteration": 0, "teraflops": 0.0, **figures(before, look(pipe, arguments))})
    yield


@contextmanager
def steps_within(first: float, last: float) -> Iterator[None]:
    """Let the gradient take its steps from this part of the run alone."""
    from fair_adaptors.training.engine import step

    plain = step.choose_steps

    def choose(num_steps: int, count: int, images: int, **settings: Any) -> Any:
        start, end = round(first * num_steps), round(last * num_steps)
        return start + plain(end - start, min(count, end - start), images, **settings)

    step.choose_steps = choose
    try:
        yield
    finally:
        step.choose_steps = plain


def operations() -> dict[str, Operations]:
    """Return the teraflops of a row through each model, in Stable Diffusion 1.5 and what the recipes see with."""
    judge, *encoders = (vision_operations(name)[0] for name in VISION)
    encoder = Operations(sum(one.forward for one in encoders), sum(one.backward for one in encoders))
    return {**base_operations("sd15"), "classifier": judge, "encoder": encoder}


def teraflops(counts: Mapping[str, Rows], costs: Mapping[str, Operations], *, recomputed: bool) -> float:
    """Weigh the rows; with ``recomputed`` those of the graph run forward through the U-Net again, as checkpointed."""
    total = 0.0
    for model, rows in counts.items():
        again = rows.graph if recomputed and model == "network" else 0
        total += (rows.plain + rows.graph + again) * costs[model].forward + rows.backward * costs[model].backward
    return total


def look(pipe: Any, arguments: argparse.Namespace) -> Any:
    """Return the evaluation classifier's probabilities and what is right of the occupations."""
    from fair_adaptors.sandbox.demo import measure

    return measure(pipe, arguments.split, images_per_prompt=arguments.images, seed=SEED)


def figures(before: Any, after: Any) -> dict[str, float]:
    """Return the bias, how far tone and age moved without the floor, and how many occupations are right."""
    (was, _), (now, right) = before, after
    moved = {}
    for name in ("tone", "age"):
        classes = len(ATTRIBUTES[name])
        moved[name] = shift(pairs_of(was[name].argmax(-1), now[name].argmax(-1), classes)).floor_removed.value
    return {
        "gender bias": float(bias(frequencies(now["gender"].argmax(-1), 2)).mean()),
        **{f"{name} shift": value for name, value in moved.items()},
        "occupation": float(right.mean()),
    }


def is_good(point: Mapping[str, float]) -> bool:
    """Tell whether a point of a curve is good in everything."""
    *most, least = GOOD
    return all(point[name] <= GOOD[name] for name in most) and point[least] >= GOOD[least]


def needed(points: Sequence[Mapping[str, float]]) -> Mapping[str, float] | None:
    """Return the first point from which on a curve is good; None if its last is not."""
    found = None
    for point in reversed(points):
        if not is_good(point):
            break
        found = point
    return found


def summary(curves: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each way: over its seeds, operations until it is good, and where it ends."""
    rows = []
    for name in dict.fromkeys(one["tried"] for one in curves):
        runs = [one["points"] for one in curves if one["tried"] == name]
        reached = [point["teraflops"] / 1_000 for point in map(needed, runs) if point]
        rows.append(
            {
                "tried": name,
                "seeds": len(runs),
                "iterations": runs[0][-1]["iteration"],
                "become good": len(reached),
                "petaflops until then": sum(reached) / len(reached) if reached else "–",
                "petaflops an iteration": sum(r[-1]["teraflops"] / max(1, r[-1]["iteration"]) for r in runs)
                / len(runs)
                / 1_000,
                **{figure: sum(r[-1][figure] for r in runs) / len(runs) for figure in GOOD},
            }
        )
    return rows


if __name__ == "__main__":
    main()
