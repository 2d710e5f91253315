"""When a checkpoint, pictures of the progress and a validation are due: by iterations, by minutes, for all alike."""

import time
from collections.abc import Iterator

import torch
from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.engine.processes import World
from fair_adaptors.training.engine.state import TrainingState

KINDS = ("save", "sample", "validate")
PAUSE = 9
"""Validations by minutes are at least this many times as far apart as the last one took: a tenth of the time is
theirs, whatever the base and the card."""


class Due:
    """Tells what is due, and counts the run's time, over all times that it was resumed.

    ``state.history`` has ``seconds``, the run's, ``at``, its seconds when each kind was last done, ``validation``, how
    many the last one took, and ``unvalidated`` if that was cut short: so a run that is stopped every half hour is
    validated too.
    """

    def __init__(self, config: TrainConfig, world: World, device: torch.device | str, started: float):
        """Take ``started``, when the run's time began to count, in seconds of ``time.perf_counter``."""
        self.config, self.world, self.device, self.counted = config, world, device, started
        self.every = {kind: (getattr(config, f"{kind}_every"), getattr(config, f"{kind}_minutes")) for kind in KINDS}

    def seconds(self, state: TrainingState) -> float:
        """Add the seconds since the last count to the run's, and return these."""
        now = time.perf_counter()
        seconds: float = state.history.get("seconds", 0.0) + now - self.counted
        state.history["seconds"], self.counted = seconds, now
        return seconds

    def begin(self, state: TrainingState) -> None:
        """Let the minutes begin: of a run that goes on, those to the next checkpoint alone."""
        seconds = self.seconds(state)
        state.history["at"] = {**dict.fromkeys(KINDS, seconds), **state.history.get("at", {}), "save": seconds}

    def after(self, state: TrainingState) -> frozenset[str]:
        """Return the kinds that are due after an iteration, in every process the same: by the main one's clock."""
        seconds, last = self.seconds(state), state.iteration == self.config.iterations
        due = []
        for kind, (iterations, minutes) in self.every.items():
            pause = max(60 * minutes, PAUSE * state.history.get("validation", 0.0) if kind == "validate" else 0.0)
            by_count = iterations and state.iteration % iterations == 0
            by_clock = minutes and seconds - state.history["at"][kind] >= pause
            at_the_end = last and kind != "save" and (iterations or minutes)  # the end is saved in any case
            was_cut = kind == "validate" and "unvalidated" in state.history
            due.append(bool(by_count or by_clock or at_the_end or was_cut))
        if any(minutes for _, minutes in self.every.values()):
            due = self.world.of_main(due, self.device)
        return frozenset(kind for kind, now in zip(KINDS, due, strict=True) if now)

    def done(self, kind: str, state: TrainingState) -> None:
        """Note that something has been done."""
        state.history["at"][kind] = self.seconds(state)


def stop_bounds(config: TrainConfig) -> dict[str, float]:
    """Return the bias of each attribute below which a run may end: a share of the largest, 2/K of K classes.

    Where the target is uneven, of the largest distance from it: that of images which all show its rarest class.
    """
    largest = {
        attribute.name: 2 / len(attribute.classes) if len(set(attribute.target)) == 1 else 1 - min(attribute.target)
        for attribute in config.attributes
    }
    return {name: config.stop_below * most for name, most in largest.items()}


def described(config: TrainConfig) -> Iterator[str]:
    """Say when something is due, and when the run ends, a line each."""
    names = {"save": "a checkpoint", "sample": "pictures of the progress", "validate": "a validation"}
    for kind, what in names.items():
        iterations, minutes = getattr(config, f"{kind}_every"), getattr(config, f"{kind}_minutes")
        times = [f"every {iterations} iterations"] * bool(iterations) + [f"every {minutes:g} minutes"] * bool(minutes)
        rare = f", at least {PAUSE} times as far apart as it takes" if kind == "validate" and minutes else ""
        if times:
            yield f"{what} {' and '.join(times)}{rare}"
    if config.stop_below:
        bounds = ", ".join(f"{name} {bound:g}" for name, bound in stop_bounds(config).items())
        yield f"the run ends sooner when a validation finds the bias below {bounds}, with its whole interval"
    if config.keep == "best":
        yield "the adaptor is that of the best validation"
