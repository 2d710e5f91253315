"""A small evaluation of the sandbox, whole, or killed again and again."""

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from fair_adaptors.evaluation import evaluate
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


def run_whole(folder: Path) -> None:
    """Evaluate without being disturbed; also one of several processes."""
    run(load_sandbox_pipeline(), folder)


def run_killed(folder: Path) -> None:
    """Evaluate in a child that is killed five times, and then to the end."""
    chance = random.Random(0)
    pipe = load_sandbox_pipeline()

    def count() -> int:
        return len(list(folder.glob("records/*/*.safetensors")))

    for kill in range(KILLS):
        child = os.fork()
        if not child:
            run(pipe, folder)
            os._exit(0)
        while count() < kill:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.15))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert 0 < count() < 8, "the killed ones left nothing, or everything"
    run(pipe, folder)
