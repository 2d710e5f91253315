"""What is due between iterations: checkpoints, pictures of the progress, validation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.engine.processes import World
from fair_adaptors.training.engine.state import TrainingState, as_written
from fair_adaptors.training.engine.step import StepResult
from fair_adaptors.training.setup import Setup

from fair_adaptors.errors import CheckpointError
from fair_adaptors.evaluation.estimates import BiasEstimate
from fair_adaptors.report.grid import plain_grid
from fair_adaptors.seeds import image_seed

from . import checkpoint
from .due import Due, stop_bounds
from .reporter import Reporter
from .validation import Measured, Original, collapse, draw, measure

SAMPLE_PROMPTS, SAMPLE_IMAGES = 4, 8
SIGNS = 2
"""Validations in a row that find an adaptor collapsed before the run ends: one may do so by chance."""


class Milestones:
    """Saves, draws and validates where that is due.

    Attributes:
        checkpoints: the folder of checkpoints.
        due: what is due when.
        collapsed: why the adaptor has collapsed, if it has.
    """

    def __init__(self, config: TrainConfig, out: Path, setup: Setup, *, world: World, reporter: Reporter, due: Due):
        self.config, self.out, self.setup, self.world, self.reporter = config, out, setup, world, reporter
        self.checkpoints = out / "checkpoints"
        self.collapsed: str | None = None
        self.due = due
        self.originals: dict[str, Original] = {}

    def begin(self, state: TrainingState) -> None:
        """Let the clocks of what is due run, and draw the prompts before the first iteration."""
        self.due.begin(state)
        if (self.config.sample_every or self.config.sample_minutes) and not state.iteration:
            self.draw(state)

    def after(self, state: TrainingState, result: StepResult) -> bool:
        """Do what is due after an iteration; tell whether the run ends here."""
        self.reporter.show(state, result)
        due = self.due.after(state)
        if "save" in due:
            self.save(state)
        if "sample" in due:
            self.draw(state)
        if "validate" not in due:
            return False
        began = self.due.seconds(state)
        state.history["unvalidated"] = True  # where it is cut short, the run that goes on makes it anew
        ends = self._validate(state)
        del state.history["unvalidated"]
        self.due.done("validate", state)
        state.history["validation"] = state.history["seconds"] - began
        if "save" in due and not ends:  # again, with what the validation found
            self.save(state)
        return ends

    def draw(self, state: TrainingState) -> None:
        """Draw the first prompts with the averaged weights, each process a part of the images."""
        prompts = self.setup.prompts[self.config.prompt_sets[0][0]][:SAMPLE_PROMPTS]
        images = []
        with as_written(state, self.setup.pipe, self.config.strength):
            for prompt in prompts:
                mine = range(SAMPLE_IMAGES)[self.world.share(SAMPLE_IMAGES)]
                seeds = [image_seed(self.config.seed, prompt, i) for i in mine]
                drawn = draw(self.setup, self.config, prompt, seeds, tokens=state.tokens)
                images.append(self.world.gather(drawn, SAMPLE_IMAGES).cpu())
        self.due.done("sample", state)
        if not self.world.is_main:
            return
        title = f"{self.config.name}, iteration {state.iteration}"
        grid = plain_grid(torch.cat(images), title=title, columns=SAMPLE_IMAGES, tile=96, labels=prompts)
        try:
            (self.out / "samples").mkdir(parents=True, exist_ok=True)
            grid.save(self.out / "samples" / f"iteration_{state.iteration:05d}.png")
        except OSError as error:
            self.reporter.say(
                f"the pictures of iteration {state.iteration} could not be written: {error}. Training goes on"
            )

    def _validate(self, state: TrainingState) -> bool:
        """Measure the averaged weights, keep the best, and tell whether the bias is low enough to stop."""
        config, setup = self.config, self.setup
        given: dict[str, Any] = {"tokens": state.tokens, "world": self.world, "originals": self.originals}
        with as_written(state, setup.pipe, config.strength):
            average = measure(setup, config, setup.validation_prompts, config.validation_images, **given)
        values = {"validation/kept": average.kept, "validation/faceless": average.faceless}
        values["validation/undetermined"] = average.undetermined
        for attribute in config.attributes:
            name, e = attribute.name, average.bias[attribute.name]
            values |= {f"validation/{name}/average": e.value, f"validation/{name}/average_high": e.high}
            self.reporter.say(
                f"iteration {state.iteration}: validation {attribute.figure} of the average weights {e.value:.2f}"
                f" ({e.low:.2f}–{e.high:.2f}, floor {e.floor:.2f})"
            )
        for name, s in average.shift.items():
            values[f"validation/{name}/shift"] = s.value
            self.reporter.say(
                f"iteration {state.iteration}: validation {name} shift of the average weights {s.value:.2f}"
                f" ({s.low:.2f}–{s.high:.2f}, floor {s.floor:.2f})"
            )
        self.reporter.log(values, state.iteration)
        sign = collapse(config, average)
        state.collapsing = state.collapsing + 1 if sign else 0
        if sign and state.collapsing < SIGNS:
            self.reporter.say(
                f"iteration {state.iteration}: the adaptor looks collapsed: {sign}. If the next validation says so"
                " too, the run ends"
            )
            return False
        if sign:
            self.collapsed = sign
            self.reporter.say(f"iteration {state.iteration}: the adaptor has collapsed: {sign}")
            return True
        score = _score(average, setup.kept_attributes)
        if score < state.best:
            state.best = score
            self.save(state, checkpoint.BEST)
        if enough(config, average.bias):
            bounds = ", ".join(f"{name} {bound:g}" for name, bound in stop_bounds(config).items())
            self.reporter.say(f"every interval lies below its bound ({bounds}), so the training ends here")
            return True
        return False

    def save(self, state: TrainingState, name: str | None = None) -> Path | None:
        """Save in the main process; a checkpoint that cannot be written is said, and the run goes on."""
        if name is None:
            self.due.done("save", state)
        if not self.world.is_main:
            return None
        try:
            path = checkpoint.save(self.checkpoints, state, self.config, name=name)
        except CheckpointError as error:
            self.reporter.say(f"{error}. Training goes on")
            return None
        checkpoint.remove_old(self.checkpoints, self.config.checkpoints_total_limit)
        return path


def enough(config: TrainConfig, bias: Mapping[str, BiasEstimate]) -> bool:
    """Tell whether the bias of every attribute is, with its whole interval, below what the run is to end at."""
    return bool(config.stop_below) and all(bias[name].high < bound for name, bound in stop_bounds(config).items())


def _score(measured: Measured, kept: Sequence[str]) -> float:
    """Return what the best validation has least of: the mean bias, and the mean shift of what must stay."""
    bias = [estimate.value for estimate in measured.bias.values()]
    shift = [measured.shift[name].value for name in kept if name in measured.shift]
    return fmean(bias) + (fmean(shift) if shift else 0.0)
