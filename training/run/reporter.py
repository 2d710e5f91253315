"""What a run tells: lines, a progress bar, and curves for trackers."""

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.engine.loop import mean_of
from fair_adaptors.training.engine.processes import World
from fair_adaptors.training.engine.state import TrainingState
from fair_adaptors.training.engine.step import StepResult
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from fair_adaptors.progress import REFRESHES, REMEMBERED, bar, hidden, waiting

from .trackers import Trackers

logger = logging.getLogger(__name__)
OnIteration = Callable[[int, int], None]
PAUSE = 60.0
"""Seconds between lines that tell how far a run is, where nobody sees the bar: in a file it shows only its end."""


class Reporter:
    """Prints and tracks in the main process; the others say nothing.

    Attributes:
        console: what is printed on; one that is quiet where somebody else shows the progress, and lines are logged.
        on_iteration: called with the iterations that are done and all there will be, in the main process.
        progress: the bar, to be entered while iterations go on.
    """

    def __init__(
        self, config: TrainConfig, out: Path, world: World, console: Console, on_iteration: OnIteration | None = None
    ):
        self.config, self.out, self.world, self.on_iteration = config, out, world, on_iteration
        self.console = console if world.is_main else Console(quiet=True)
        self.recent: list[StepResult] = []
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("loss {task.fields[loss]:.2f}  bias {task.fields[bias]}"),
            console=self.console,
            disable=hidden(),
            refresh_per_second=REFRESHES,
            speed_estimate_period=REMEMBERED,
        )

    def say(self, text: str) -> None:
        """Print a line, in the main process."""
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)
        if self.console.quiet and self.world.is_main:
            logger.info(text)

    @contextmanager
    def loading(self, count: int) -> Iterator[Callable[[str], None]]:
        """Show what is being loaded and how long it will take; yields what is to be called with each part, before it.

        Downloads have bars of their own, which take the place of this line.
        """
        if self.console.quiet:
            yield lambda part: None
            return
        numbers = iter(range(1, count + 1))
        with waiting("loading what trains") as rename:
            yield lambda part: rename(f"loading the {part} ({next(numbers)} of {count})")

    def follow(self, what: str) -> "Callable[[Sequence[str]], Iterable[str]]":
        """Return what goes through prompts one by one and shows how many are left, with the time that takes."""

        def go_through(prompts: Sequence[str]) -> Iterator[str]:
            with bar(what, self.console, transient=True) as (_, advance):
                for done, prompt in enumerate(prompts):
                    advance(done, len(prompts))
                    yield prompt

        return go_through

    def start(self, iteration: int) -> None:
        """Put the bar where the run is, and start the trackers."""
        config = self.config
        self.task: TaskID = self.progress.add_task(
            config.name, total=config.iterations, completed=iteration, loss=float("nan"), bias="–"
        )
        self.told = time.monotonic()
        tracked = config if self.world.is_main else dataclasses.replace(config, trackers=())
        self.trackers = Trackers(tracked, self.out, warn=self.say)

    def show(self, state: TrainingState, result: StepResult) -> None:
        """Tell of an iteration: the loss and the bias of the last ten, and curves."""
        if result.applied:
            self.recent = [*self.recent[-9:], result]
        elif not result.finite:
            self.say(f"iteration {state.iteration}: the gradient is not finite; skipped ({state.skipped} so far)")
        else:
            self.say(
                f"iteration {state.iteration}: no image could be used, nothing was learned ({state.empty} so far)"
            )
        loss = mean_of([r.loss for r in self.recent])
        bias = {name: mean_of([r.bias[name] for r in self.recent]) for name in result.bias}
        said = " ".join(f"{name} {value:.2f}" for name, value in bias.items() if not math.isnan(value)) or "–"
        if self.on_iteration is not None and self.world.is_main:
            self.on_iteration(state.iteration, self.config.iterations)
        self.progress.update(self.task, completed=state.iteration, loss=loss, bias=said)
        if self.recent:
            self._tell(f"iteration {state.iteration} of {self.config.iterations}: loss {loss:.2f}, bias {said}")
        values = {f"loss/{name}": value for name, value in result.losses.items()} | {
            "gradient_norm": result.gradient_norm,
            "learning_rate": result.learning_rate,
            "images/took_part": result.took_part / result.images,
            "iterations/skipped": state.skipped,
            "iterations/empty": state.empty,
        }
        self.log(values | {f"bias/{name}": value for name, value in result.bias.items()}, state.iteration)

    def _tell(self, text: str) -> None:
        """Print a line now and then where the bar cannot be seen, as in a file, with the time left."""
        bar_is_seen = self.console.is_interactive or self.console.is_jupyter
        if bar_is_seen or self.console.quiet or hidden() or time.monotonic() - self.told < PAUSE:
            return
        self.told = time.monotonic()
        left = self.progress.tasks[self.task].time_remaining
        hours, minutes = divmod(round((left or 0.0) / 60), 60)
        self.say(text + ("" if left is None else f", about {hours} h {minutes:02} min left"))

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        """Send numbers to the trackers."""
        self.trackers.log(values, iteration)

    def close(self) -> None:
        """End the run for the trackers."""
        self.trackers.close()
