"""How strong an adaptor should be written: what is left of the bias, and what else moves, beside ``strength``.

Adaptors of a sandbox on validation prompts, weaker and stronger than they were written; the evaluation
classifier, each strength on the same noise. The strength is that of the last update's LoRAs, which is 1.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path

from benchmarks._report import report
from benchmarks.sandbox_bias import ALARMS, NAMED, OBEYED, SHARE, figures, obeyed
from fair_adaptors.adaptor.record import read_record
from fair_adaptors.adaptor.results import Results
from fair_adaptors.evaluation import Evaluation, evaluate
from fair_adaptors.evaluation.spec import targets_for
from fair_adaptors.evaluation.variants import with_adaptor
from fair_adaptors.hub.resolve import resolve
from fair_adaptors.pipelines import load_pipeline
from fair_adaptors.prompts.sets import load_prompts
from fair_adaptors.sandbox.instruments import instruments
from fair_adaptors.sandbox.pipeline import GUIDANCE, STEPS

SEED = 12_345


def main() -> None:
    """Measure, and print a row for each adaptor and strength."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adaptors", nargs="+", default=["sandbox-gender", "sandbox-gender-tone"])
    parser.add_argument("--strengths", nargs="+", type=float, default=[0.8, 1.0, 1.1, 1.2, 1.4])
    parser.add_argument(
        "--images", type=int, default=64, help="of each prompt, an eighth of prompts that name a class"
    )
    parser.add_argument("--name", default="strength", help="name of the JSON file")
    arguments = parser.parse_args()
    rows = []
    for adaptor in arguments.adaptors:
        plain = measure(adaptor, "validation", arguments.strengths, arguments.images)
        named = measure(adaptor, "explicit-validation", arguments.strengths, max(2, arguments.images // 8))
        before = figures(plain, plain.original) | obeyed(named, named.original)
        written = read_record(resolve(adaptor)).training["strength"]
        told = [
            "gender", "tone", "tone shift", "age shift", SHARE, ALARMS, "occupation", OBEYED.format("gender"), NAMED,
        ]  # fmt: skip
        adaptor = Path(adaptor).name
        rows.append({"adaptor": adaptor, "strength": "none", **{name: before.get(name, "–") for name in told}})
        for strength, one, asked in zip(arguments.strengths, plain.variants[1:], named.variants[1:], strict=True):
            after = figures(plain, one) | obeyed(named, asked)
            chosen = f"{strength:g}, as written" if strength == written else f"{strength:g}"
            rows.append({"adaptor": adaptor, "strength": chosen, **{name: after[name] for name in told}})
    settings = vars(arguments) | {"adaptors": [Path(adaptor).name for adaptor in arguments.adaptors]}
    report(arguments.name, rows, settings=settings, seed=SEED)


def measure(adaptor: str, prompts: str, strengths: list[float], images: int) -> Results:
    """Evaluate an adaptor at each strength, beside the original."""
    tools = instruments()
    tools = dataclasses.replace(tools, classifiers=tools.classifiers[:1], encoders=(), calibrate=None)
    record = read_record(resolve(adaptor))
    written = record.training["strength"]
    wanted = Evaluation(
        record.base_model, load_prompts(f"sandbox-{prompts}"), targets_for([], [adaptor], tools),
        images_per_prompt=images, seed=SEED, num_steps=STEPS, guidance_scale=GUIDANCE, batch_size=64,
        keep_images=False,
    )  # fmt: skip
    variants = [with_adaptor(adaptor, strength / written) for strength in strengths]
    with tempfile.TemporaryDirectory() as out:
        return evaluate(load_pipeline(record.base_model), wanted, variants, tools, Path(out))


if __name__ == "__main__":
    main()
