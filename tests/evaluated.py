"""A small evaluation, whole or killed again and again: ``evaluated.py whole|killed FOLDER``; also under torchrun."""

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from fair_adaptors.evaluation.evaluate import evaluate
from fair_adaptors.evaluation.spec import Evaluation, Target
from fair_adaptors.evaluation.variants import with_adaptor
from fair_adaptors.prompts.sets import PromptSet, load_prompts
from fair_adaptors.sandbox.instruments import instruments
from fair_adaptors.sandbox.pipeline import GUIDANCE, load_sandbox_pipeline

KILLS = 5


def few(name: str, count: int) -> PromptSet:
    chosen = load_prompts(name)
    step = len(chosen.prompts) // count
    parts = (chosen.prompts[::step][:count], chosen.labels[::step][:count])
    return PromptSet(chosen.name, *parts, chosen.source, chosen.expected[::step][:count])


def small(prompts: PromptSet | None = None, **settings: Any) -> Evaluation:
    half, quarter = (0.5, 0.5), (0.25,) * 4
    targets = (Target(("gender",), half), Target(("tone",), quarter), Target(("gender", "tone"), (0.125,) * 8))
    options = {"images_per_prompt": 4, "num_steps": 3, "guidance_scale": GUIDANCE, "batch_size": 4} | settings
    return Evaluation("sandbox", prompts or few("sandbox-test", 4), targets, **options)


def run(pipe: Any, folder: Path) -> None:
    evaluate(pipe, small(), [with_adaptor("sandbox-gender")], instruments(), folder)


def count(folder: Path) -> int:
    return len(list(folder.glob("records/*/*.safetensors")))


def main(how: str, folder: Path) -> None:
    """Evaluate; in a child that is killed five times before it may come to its end."""
    torch.set_num_threads(1)
    chance = random.Random(0)
    pipe = load_sandbox_pipeline()
    for kill in range(KILLS if how == "killed" else 0):
        child = os.fork()
        if not child:
            run(pipe, folder)
            os._exit(0)
        while count(folder) < kill:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.15))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    left = count(folder)
    run(pipe, folder)
    print(f"{left} records were left by the killed ones", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
