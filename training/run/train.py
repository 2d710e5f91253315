"""A training run as a user sees it: progress, checkpoints, validation, numbers before and after, an adaptor folder."""

import dataclasses
import json
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.engine import lora
from fair_adaptors.training.engine.loop import fit
from fair_adaptors.training.engine.reference_images import ReferenceImages
from fair_adaptors.training.engine.state import TrainingState, attached
from fair_adaptors.training.engine.step import StepResult
from fair_adaptors.training.engine.world import World
from fair_adaptors.training.setup import Setup, load_setup
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from fair_adaptors.adaptor.folder import write_adaptor
from fair_adaptors.errors import CheckpointError, ConfigError, TrainingError
from fair_adaptors.evaluation.estimates import BiasEstimate
from fair_adaptors.hub.client import split_revision
from fair_adaptors.load import load_fair_adaptor
from fair_adaptors.report.grid import plain_grid
from fair_adaptors.seeds import image_seed

from . import checkpoint
from .distributed import join_world, this_device
from .record import RUN_FILE, refuse_earlier_run, run_record
from .trackers import Trackers
from .validation import collapse, draw, measure, numbers, numbers_table

SAMPLE_PROMPTS, SAMPLE_IMAGES = 4, 8


def train(
    config: TrainConfig,
    out: Path,
    *,
    recipe: str | None = None,
    resume: str | None = None,
    overwrite: bool = False,
    images_per_prompt: int = 32,
    console: Console | None = None,
) -> bool:
    """Train an adaptor and leave its folder, with checkpoints, pictures of the way and trackers' logs in it.

    Every process of a distributed run calls this. SIGTERM or SIGINT end it after the present iteration, with a
    checkpoint.

    Args:
        out: the adaptor's folder; made if need be.
        recipe: what the configuration was made from, for the command to go on; None for its name.
        resume: ``latest``, or the path of a checkpoint of this run, to go on from.
        overwrite: give up the checkpoints of an earlier run in ``out``.
        images_per_prompt: for the numbers before and after, on the validation prompts and as many training prompts.

    Returns:
        Whether the training was finished; not if it was told to stop.

    Raises:
        CheckpointError: nothing to resume from, or an earlier run is in the way.
    """
    world = join_world()
    if config.images_per_prompt < world.size:
        raise ConfigError(f"{world.size} processes for {config.images_per_prompt} images of a prompt: use fewer")
    run = _Run(config, out, recipe or config.name, world, console or Console())
    saved = _checkpoint_to_resume(config, run.checkpoints, resume, overwrite)
    setup = load_setup(config, this_device())
    if saved is None:
        world.wait()  # all have looked whether there is an earlier run
        if world.is_main:
            shutil.rmtree(run.checkpoints, ignore_errors=True)
            shutil.rmtree(out / "originals", ignore_errors=True)
    for warning in setup.warnings:
        run.say(warning)
    before = numbers(setup, config, images_per_prompt, world) if saved is None else None
    with stop_requests() as stop, attached(setup, config) as state:
        if saved is not None:
            checkpoint.restore(state, saved)
            if world.sum(torch.tensor([float(state.iteration)], device=this_device())) != world.size * state.iteration:
                raise CheckpointError(
                    "the processes see different checkpoints: is the folder one that all of them share?"
                )
            if world.is_main and resume != "latest":
                checkpoint.set_aside_later(run.checkpoints, state.iteration)
            run.say(f"resumed from {saved.path}, iteration {state.iteration}")
        else:
            state.history["before"] = [[*key, dataclasses.asdict(value)] for key, value in (before or {}).items()]
        run.begin(setup, state)
        with run.progress:
            fit(
                setup,
                config,
                state,
                world=world,
                references=ReferenceImages(out / "originals") if config.originals_pool else None,
                on_step=lambda state, result: run.after(setup, state, result, stop),
            )
        if stop.is_set():
            run.save(setup, state)
            run.trackers.close()
            return False
        run.finish(setup, state, images_per_prompt)
    return True


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Within the block SIGTERM and SIGINT set an event; a second SIGINT interrupts at once."""
    stop = threading.Event()

    def request(number: int, frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield stop
        return
    before = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _checkpoint_to_resume(
    config: TrainConfig, folder: Path, resume: str | None, overwrite: bool
) -> checkpoint.Checkpoint | None:
    """Read the checkpoint to go on from, if any, before anything is loaded."""
    if resume == "latest":
        return checkpoint.load_latest(folder, config)
    if resume is not None:
        return checkpoint.load(Path(resume), config)
    if not overwrite:
        refuse_earlier_run(folder)
    return None


class _Run:
    """What surrounds the loop: what is printed, tracked, measured and saved, and when."""

    def __init__(self, config: TrainConfig, out: Path, recipe: str, world: World, console: Console):
        self.config, self.out, self.recipe, self.world = config, out, recipe, world
        self.console = console if world.is_main else Console(quiet=True)
        self.checkpoints = out / "checkpoints"
        self.recent: list[StepResult] = []
        self.counted = time.perf_counter()
        self.collapsed: str | None = None
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("loss {task.fields[loss]:.2f}  bias {task.fields[bias]}"),
            console=self.console,
        )

    def say(self, text: str) -> None:
        """Print a line, in the main process."""
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def begin(self, setup: Setup, state: TrainingState) -> None:
        """Write down what the run is, start the trackers, draw the first pictures."""
        config = self.config
        self.task: TaskID = self.progress.add_task(
            config.name, total=config.iterations, completed=state.iteration, loss=float("nan"), bias="–"
        )
        tracked = config if self.world.is_main else dataclasses.replace(config, trackers=())
        self.trackers = Trackers(tracked, self.out, warn=self.say)
        if self.world.is_main:
            self.out.mkdir(parents=True, exist_ok=True)
            aside = self.out / f".{RUN_FILE}"
            aside.write_text(
                json.dumps(run_record(config, self.recipe, self.world.size), indent=2) + "\n", encoding="utf-8"
            )
            os.replace(aside, self.out / RUN_FILE)
            if config.sample_every and not state.iteration:
                self._draw(setup, state)

    def after(self, setup: Setup, state: TrainingState, result: StepResult, stop: threading.Event) -> bool:
        """Do what is due after an iteration; tell whether the run ends here."""
        config, done = self.config, state.iteration
        self._show(state, result)
        if config.save_every and done % config.save_every == 0:
            self._save(state)
        if config.sample_every and self.world.is_main and _due(done, config.sample_every, config.iterations):
            self._draw(setup, state)
        enough = False
        if config.validate_every and _due(done, config.validate_every, config.iterations):
            enough = self._validate(setup, state)
        if self.world.any(stop.is_set(), this_device()):
            stop.set()
            return True
        return enough

    def _show(self, state: TrainingState, result: StepResult) -> None:
        if result.applied:
            self.recent = [*self.recent[-9:], result]
        elif not result.finite:
            self.say(f"iteration {state.iteration}: the gradient is not finite; skipped ({state.skipped} so far)")
        else:
            self.say(f"iteration {state.iteration}: no image took part; empty ({state.empty} so far)")
        count = max(1, len(self.recent))
        bias = {name: sum(r.bias[name] for r in self.recent) / count for name in result.bias}
        loss = sum(r.loss for r in self.recent) / count
        said = " ".join(f"{name} {value:.2f}" for name, value in bias.items())
        self.progress.update(self.task, completed=state.iteration, loss=loss, bias=said)
        values = {f"loss/{name}": value for name, value in result.losses.items()} | {
            "gradient_norm": result.gradient_norm,
            "learning_rate": result.learning_rate,
            "images/took_part": result.took_part / result.images,
            "iterations/skipped": state.skipped,
            "iterations/empty": state.empty,
        }
        self.trackers.log(values | {f"bias/{name}": value for name, value in result.bias.items()}, state.iteration)

    def _draw(self, setup: Setup, state: TrainingState) -> None:
        prompts = setup.prompts[self.config.prompt_sets[0][0]][:SAMPLE_PROMPTS]
        seeds = {prompt: [image_seed(self.config.seed, prompt, i) for i in range(SAMPLE_IMAGES)] for prompt in prompts}
        with state.average.applied():
            images = [draw(setup, self.config, p, seeds[p], tokens=state.tokens) for p in prompts]
        title = f"{self.config.name}, iteration {state.iteration}"
        grid = plain_grid(torch.cat(images), title=title, columns=SAMPLE_IMAGES, tile=96, labels=prompts)
        try:
            (self.out / "samples").mkdir(parents=True, exist_ok=True)
            grid.save(self.out / "samples" / f"iteration_{state.iteration:05d}.png")
        except OSError as error:
            self.say(f"the pictures of iteration {state.iteration} could not be written: {error}. Training goes on")

    def _validate(self, setup: Setup, state: TrainingState) -> bool:
        """Measure raw and averaged weights, keep the best, and tell whether the bias is low enough to stop."""
        config, prompts = self.config, setup.validation_prompts
        count, tokens, world = config.validation_images, state.tokens, self.world
        found = {"raw": measure(setup, config, prompts, count, tokens=tokens, world=world)}
        with state.average.applied():
            average = found["average"] = measure(setup, config, prompts, count, tokens=tokens, world=world, kept=True)
        values = {"validation/kept": average.kept, "validation/unclear": average.undetermined}
        for kind, measured in found.items():
            for name, e in measured.bias.items():
                values |= {f"validation/{name}/{kind}": e.value, f"validation/{name}/{kind}_high": e.high}
                self.say(
                    f"iteration {state.iteration}: validation {name} bias of the {kind} weights {e.value:.2f}"
                    f" ({e.low:.2f}–{e.high:.2f}, floor {e.floor:.2f})"
                )
        self.trackers.log(values, state.iteration)
        before = [row[2]["undetermined"] for row in state.history.get("before", []) if row[0] == "validation"]
        self.collapsed = collapse(config, average, max(before, default=0.0))
        if self.collapsed:
            self.say(f"iteration {state.iteration}: the adaptor has collapsed: {self.collapsed}")
            return True
        mean = sum(e.value for e in average.bias.values()) / len(average.bias)
        if mean < state.best:
            state.best = mean
            self._save(state, checkpoint.BEST)
        if config.stop_below and all(e.high < config.stop_below for e in average.bias.values()):
            self.say(f"the upper end of every interval is below {config.stop_below:g}: enough")
            return True
        return False

    def _save(self, state: TrainingState, name: str | None = None) -> Path | None:
        """Save in the main process; a checkpoint that cannot be written is said, and the run goes on."""
        self._count_time(state)
        if not self.world.is_main:
            return None
        try:
            path = checkpoint.save(self.checkpoints, state, self.config, name=name)
        except CheckpointError as error:
            self.say(f"{error}. Training goes on")
            return None
        checkpoint.remove_old(self.checkpoints, self.config.checkpoints_total_limit)
        return path

    def _count_time(self, state: TrainingState) -> None:
        now = time.perf_counter()
        state.history["seconds"] = state.history.get("seconds", 0.0) + now - self.counted
        self.counted = now

    def save(self, setup: Setup, state: TrainingState) -> None:
        """Save before the end of a run that was told to stop, and say how to go on.

        Raises:
            CheckpointError: it could not be written.
        """
        self._count_time(state)
        if self.world.is_main:
            path = checkpoint.save(self.checkpoints, state, self.config)
            checkpoint.remove_old(self.checkpoints, self.config.checkpoints_total_limit)
            processes = f" --num-processes {self.world.size}" if self.world.size > 1 else ""
            again = f"{shlex.quote(self.recipe)} --out {shlex.quote(str(self.out))} --resume{processes}"
            self.say(
                f"stopped after iteration {state.iteration} of {self.config.iterations}; saved {path}. To go on:\n"
                f"  fair-adaptors train {again}"
            )
        self.world.wait()

    def finish(self, setup: Setup, state: TrainingState, images_per_prompt: int) -> None:
        """Write the adaptor, measure it, and print the numbers before and after."""
        config, best = self.config, self.checkpoints / checkpoint.BEST
        self._save(state)
        if self.collapsed and not best.is_file():
            raise TrainingError(
                f"the adaptor has collapsed before the first good validation: {self.collapsed}. Start anew with a"
                " lower learning_rate, a larger preservation, or a smaller validate_every"
            )
        if (config.keep == "best" or self.collapsed) and best.is_file():
            self.say(f"the adaptor is that of the best validation, {best}")
            history = state.history
            checkpoint.restore(state, checkpoint.load(best, config))
            state.history = history
        with state.average.applied():
            after = numbers(setup, config, images_per_prompt, self.world, state.tokens)
            tensors = lora.extract(setup.pipe, config.parts)
            tokens = None if state.tokens is None else {"text_encoder": state.tokens.detach().cpu().clone()}
        lora.detach(setup.pipe, config.parts)
        if self.world.is_main:
            self._write(setup, state, tensors, tokens)
            load_fair_adaptor(setup.pipe, self.out).unload()  # what was written can be read
            before = {(a, b): BiasEstimate(**e) for a, b, e in state.history.get("before", [])}
            self.console.print(numbers_table(before, after))
            minutes = state.history["seconds"] / 60
            self.say(
                f"{minutes:.1f} minutes. The adaptor is in {self.out}: load_fair_adaptor(pipe, {str(self.out)!r})"
            )
        self.trackers.close()
        self.world.wait()

    def _write(self, setup: Setup, state: TrainingState, tensors: Any, tokens: Any) -> None:
        config = self.config
        settings = dataclasses.asdict(config)
        del settings["attributes"]
        write_adaptor(
            self.out,
            tensors,
            tokens=tokens,
            name=config.name,
            pipe=setup.pipe,
            base_model=split_revision(config.base)[0],
            attributes={a.name: {"classes": list(a.classes), "target": list(a.target)} for a in config.attributes},
            rank=config.rank,
            training={
                **settings,
                "finished_iterations": state.iteration,
                "skipped_iterations": state.skipped,
                "trained_against": setup.trained_against,
                "processes": self.world.size,
                "peak_megabytes": _peak_megabytes(),
                "seconds": round(state.history["seconds"], 1),
            },
        )


def _due(done: int, every: int, last: int) -> bool:
    return done % every == 0 or done == last


def _peak_megabytes() -> int | None:
    """Return the most memory that this process has had: of its GPU, else of the machine where that can be asked."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() // 1_000_000
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 1_000_000
