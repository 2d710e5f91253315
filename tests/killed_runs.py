"""Trains on tiny models in processes that are killed at random moments."""

import dataclasses
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import torch
from fair_adaptors.training.engine.loop import fit
from fair_adaptors.training.engine.state import attached
from fair_adaptors.training.run import checkpoint

from tests.tiny_training import CONFIG, tiny_setup

LONG = dataclasses.replace(CONFIG, iterations=12, images_per_prompt=4)


def run(folder: Path) -> list[torch.Tensor]:
    """Go on from the latest checkpoint, if there is one, saving after every iteration."""
    with attached(PLACE, LONG) as state:
        if checkpoint.list_checkpoints(folder):
            checkpoint.restore(state, checkpoint.load_latest(folder, LONG))
        fit(PLACE, LONG, state, on_step=lambda state, result: bool(not checkpoint.save(folder, state, LONG)))
        return [*state.parameters.values(), *state.average.means]


def save_again_and_again(folder: Path) -> None:
    """Nothing but saving, so that many kills come in the middle of it."""
    with attached(PLACE, LONG) as state:
        checkpoint.restore(state, checkpoint.load_latest(folder, LONG))
        while True:
            checkpoint.save(folder, state, LONG)


def killed_after(seconds: float, work: Callable[[], object]) -> None:
    """Run ``work`` in a child and kill it."""
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def kill_at_random_moments(kills: int, folder: Path) -> None:
    """Kill, and after each kill see that the latest checkpoint loads; in the end compare with a run left alone."""
    chance = random.Random(0)
    for kill in range(kills):
        if kill % 2 and checkpoint.list_checkpoints(folder):
            killed_after(chance.uniform(0.1, 0.4), lambda: save_again_and_again(folder))
        else:
            killed_after(chance.uniform(0.05, 1.5), lambda: run(folder))
        for path in checkpoint.list_checkpoints(folder):
            checkpoint.load(path, LONG)  # every one that there is, not only one of them
    alone = run(folder / "alone")
    assert all(torch.equal(a, b) for a, b in zip(run(folder), alone, strict=True)), "another result"


PLACE = tiny_setup()
