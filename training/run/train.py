"""``train``: a training run from its configuration to the folder of an adaptor."""

import dataclasses
import logging
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.engine.loop import fit
from fair_adaptors.training.engine.processes import StopRequested, World
from fair_adaptors.training.engine.reference_images import ReferenceImages
from fair_adaptors.training.engine.state import TrainingState, attached
from fair_adaptors.training.setup import LOADED, load_setup
from fair_adaptors.training.sharding import check_shares
from rich.console import Console

from fair_adaptors.errors import CheckpointError, ConfigError

from . import checkpoint
from .distributed import join_world, this_device
from .due import Due
from .finish import finish, save_stopped
from .milestones import SAMPLE_IMAGES, Milestones
from .record import refuse_earlier_run, run_record, write_run
from .reporter import OnIteration, Reporter

logger = logging.getLogger(__name__)


def train(
    config: TrainConfig,
    out: Path,
    *,
    recipe: str | None = None,
    resume: str | None = None,
    overwrite: bool = False,
    images_per_prompt: int = 32,
    console: Console | None = None,
    on_iteration: OnIteration | None = None,
) -> bool:
    """Train an adaptor and leave its folder, with checkpoints, pictures of the way and trackers' logs in it.

    Every process of a distributed run calls this. SIGTERM or SIGINT end it after the present prompt, with a checkpoint
    of the last whole iteration.

    Args:
        out: the adaptor's folder; made if need be.
        recipe: what the configuration was made from, which the run's record says; None for its name.
        resume: ``latest``, or the path of a checkpoint of this run, to go on from.
        overwrite: delete the checkpoints of an earlier run in ``out``.
        images_per_prompt: for the numbers before and after, on the validation prompts and as many training prompts; 0
            for none.
        on_iteration: called with the iterations that are done and all there will be. Then nothing is printed: lines
            are logged.

    Returns:
        Whether the training was finished; not if it was told to stop.

    Raises:
        CheckpointError: nothing to resume from, or an earlier run is in the way.
    """
    world = join_world()
    if config.images_per_prompt < world.size:
        raise ConfigError(f"{world.size} processes for {config.images_per_prompt} images of a prompt: use fewer")
    drawn = {"images of the numbers before and after": images_per_prompt} if images_per_prompt else {}
    if config.sample_every or config.sample_minutes:
        drawn["images of the pictures of the progress"] = SAMPLE_IMAGES
    check_shares(config, world.size, **drawn)
    recipe, checkpoints, started = recipe or config.name, out / "checkpoints", time.perf_counter()
    reporter = Reporter(config, out, world, console or Console(quiet=on_iteration is not None), on_iteration)
    saved = _checkpoint_to_resume(config, checkpoints, resume, overwrite)
    with reporter.loading(len(LOADED)) as tell:
        setup = load_setup(config, this_device(), on_part=tell)
    due = Due(config, world, this_device(), started)
    if saved is None:
        world.wait()  # all have looked whether there is an earlier run
        if world.is_main:
            shutil.rmtree(checkpoints, ignore_errors=True)
            shutil.rmtree(out / "originals", ignore_errors=True)
    for warning in setup.warnings:
        reporter.say(warning)
    with stop_requests() as stop, attached(setup, config) as state:
        world = dataclasses.replace(world, told_to_stop=stop.is_set)
        if saved is not None:
            _go_on_from(saved, state, world)
            if world.is_main and resume != "latest":
                checkpoint.set_aside_later(checkpoints, state.iteration)
            reporter.say(f"resumed from {saved.path}, iteration {state.iteration}")
        milestones = Milestones(config, out, setup, world=world, reporter=reporter, due=due)
        reporter.start(state.iteration)
        if world.is_main:
            write_run(out, run_record(config, recipe, world.size))
        milestones.begin(state)
        references = ReferenceImages(out / "originals") if config.originals_pool else None
        try:
            with reporter.progress:
                fit(setup, config, state, world=world, references=references, on_step=milestones.after)
            world.may_stop(this_device())
        except StopRequested:
            save_stopped(milestones, state)
            finished = False
        else:
            stop.at_once = True  # the last checkpoint is written first, and to measure may take long
            finish(milestones, state, images_per_prompt)
            finished = True
        reporter.close()
        world.wait()
    return finished


class Stop(threading.Event):
    """Set when the run is to stop.

    Attributes:
        at_once: whether the next SIGINT interrupts.
    """

    at_once = False


@contextmanager
def stop_requests() -> Iterator[Stop]:
    """Within the block SIGTERM and SIGINT set an event; a second SIGINT interrupts at once."""
    stop = Stop()

    def request(number: int, frame: object) -> None:
        if number == signal.SIGINT:
            if stop.at_once:
                raise KeyboardInterrupt
            stop.at_once = True
            logger.warning("stopping after the present prompt, with a checkpoint. Ctrl-C again stops at once.")
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


def _go_on_from(saved: checkpoint.Checkpoint, state: TrainingState, world: World) -> None:
    """Put a checkpoint into the state, the same one in every process."""
    checkpoint.restore(state, saved)
    if world.sum(torch.tensor([float(state.iteration)], device=this_device())) != world.size * state.iteration:
        raise CheckpointError("the processes see different checkpoints: is the folder one that all of them share?")


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
