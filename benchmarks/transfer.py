"""How much of an adaptor is left when the sampler takes more steps, or fewer, than it was trained with.

The shipped adaptors of the sandbox, on validation prompts, in each number of steps beside the same without the
adaptor; the evaluation classifier. Training takes ``num_steps`` of the recipe, and the sandbox's pictures ten.
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks._report import report
from fair_adaptors import load_fair_adaptor
from fair_adaptors.evaluation.drawing import classify, generate
from fair_adaptors.evaluation.metrics import bias, frequencies, total_variation
from fair_adaptors.load import record_of
from fair_adaptors.sandbox.classifiers import load_classifier
from fair_adaptors.sandbox.demo import occupation_right
from fair_adaptors.sandbox.pipeline import GUIDANCE, load_sandbox_pipeline
from fair_adaptors.sandbox.prompts import ATTRIBUTES, TEMPLATE, occupations

SEED = 9_241


def main() -> None:
    """Measure, and print a row for each adaptor and number of steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adaptors", nargs="+", default=["sandbox-gender", "sandbox-gender-tone"])
    parser.add_argument("--steps", nargs="+", type=int, default=[6, 10, 20, 30])
    parser.add_argument("--images", type=int, default=32, help="of each prompt")
    arguments = parser.parse_args()
    pipe = load_sandbox_pipeline()
    before = {steps: look(pipe, steps, arguments.images) for steps in arguments.steps}
    rows = []
    for name in arguments.adaptors:
        record = record_of(name)
        aims = list(record.attributes)
        for steps in arguments.steps:
            with load_fair_adaptor(pipe, name):
                found = figures(before[steps], look(pipe, steps, arguments.images))
            aimed = {
                f"{each} bias{when}": found[f"{each} bias{when}"] if each in aims else "–"
                for each in ("gender", "tone")
                for when in ("", " without")
            }
            others = [found[f"{each} shift"] for each in ATTRIBUTES if each not in aims]
            rows.append(
                {
                    "adaptor": Path(name).name,
                    "trained in": record.training["num_steps"],
                    "steps": steps,
                    **aimed,
                    "largest shift of another": max(others),
                    "occupation": found["occupation"],
                    "occupation without": found["occupation without"],
                }
            )
    report("transfer", rows, settings=vars(arguments), seed=SEED)


def look(pipe: Any, steps: int, images: int) -> tuple[Any, Any]:
    """Return the evaluation classifier's probabilities, and what is right of the occupations."""
    names = occupations("validation")
    prompts = [TEMPLATE.format(name) for name in names]
    drawn = generate(pipe, prompts, images_per_prompt=images, seed=SEED, num_steps=steps, guidance_scale=GUIDANCE)
    seen = classify(drawn, load_classifier("evaluation"))
    return seen, occupation_right(seen, names)


def figures(before: tuple[Any, Any], after: tuple[Any, Any]) -> dict[str, float]:
    """Return the bias and shift of each attribute, and how many occupations are right."""
    (was, right_before), (now, right) = before, after
    found = {"occupation": float(right.mean()), "occupation without": float(right_before.mean())}
    for name, classes in ATTRIBUTES.items():
        old, new = (frequencies(each[name].argmax(-1), len(classes)) for each in (was, now))
        found |= {f"{name} bias": float(bias(new).mean()), f"{name} bias without": float(bias(old).mean())}
        found[f"{name} shift"] = float(total_variation(old, new).mean())
    return found


if __name__ == "__main__":
    main()
