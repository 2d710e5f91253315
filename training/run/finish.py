"""The end of a run: the adaptor is written and measured, or the run is saved to go on with."""

import dataclasses
import sys
from typing import Any

import torch
from fair_adaptors.training.engine import lora
from fair_adaptors.training.engine.processes import World
from fair_adaptors.training.engine.state import TrainingState, as_written
from torch import Tensor

from fair_adaptors.adaptor.folder import write_adaptor
from fair_adaptors.adaptor.record import AttributeTarget
from fair_adaptors.errors import TrainingError
from fair_adaptors.families.table import family_of
from fair_adaptors.load import load_fair_adaptor
from fair_adaptors.pipelines import name_in_record, place_in_record

from . import checkpoint
from .milestones import Milestones
from .validation import numbers, numbers_table


def save_stopped(milestones: Milestones, state: TrainingState) -> None:
    """Save before the end of a run that was told to stop, and say so.

    Raises:
        CheckpointError: it could not be written.
    """
    config, world = milestones.config, milestones.world
    milestones.due.seconds(state)
    if world.is_main:
        path = checkpoint.save(milestones.checkpoints, state, config)
        checkpoint.remove_old(milestones.checkpoints, config.checkpoints_total_limit)
        milestones.reporter.say(
            f"stopped after iteration {state.iteration} of {config.iterations}; saved {path}, to resume from"
        )


def finish(milestones: Milestones, state: TrainingState, images_per_prompt: int) -> None:
    """Write the adaptor, measure it, and print the numbers before and after if they are wanted.

    Raises:
        TrainingError: the adaptor has collapsed, and no validation had been good before.
    """
    config, setup, reporter = milestones.config, milestones.setup, milestones.reporter
    world = World(milestones.world.rank, milestones.world.size)  # what is told to stop from now on ends by itself
    milestones.save(state)
    _go_back_to_best(milestones, state)
    before, after = None, None
    if images_per_prompt:
        follow = reporter.follow("numbers before training, prompts")
        with lora.switched_off(setup.pipe):  # here, not before the first iteration, which need not wait for it
            before = numbers(setup, config, images_per_prompt, world, follow=follow)
    with as_written(state, setup.pipe, config.strength):
        if images_per_prompt:
            follow = reporter.follow("numbers after training, prompts")
            after = numbers(setup, config, images_per_prompt, world, tokens=state.tokens, follow=follow)
        tensors = lora.extract(setup.pipe, config.parts)
        encoder = family_of(setup.pipe).token_encoder
        tokens = None if state.tokens is None else {encoder: state.tokens.detach().cpu().clone()}
    lora.detach(setup.pipe, config.parts)
    if world.is_main:
        out = milestones.out
        _write(milestones, state, tensors, tokens)
        load_fair_adaptor(setup.pipe, out, inject=config.shard_base).unload()  # what was written can be read
        if before and after:
            reporter.console.print(numbers_table(setup, config, before, after))
        minutes = state.history["seconds"] / 60
        reporter.say(f"{minutes:.1f} minutes. The adaptor is in {out}: load_fair_adaptor(pipe, {str(out)!r})")


def _go_back_to_best(milestones: Milestones, state: TrainingState) -> None:
    """Put back the weights of the best validation, if they are to be the adaptor."""
    config, best = milestones.config, milestones.checkpoints / checkpoint.BEST
    if milestones.collapsed and not best.is_file():
        raise TrainingError(
            f"the adaptor has collapsed before the first good validation: {milestones.collapsed}. Start anew with a"
            " lower learning_rate, a larger preservation, or a smaller validate_every"
        )
    if (config.keep == "best" or milestones.collapsed) and best.is_file():
        milestones.reporter.say(f"the adaptor is that of the best validation, {best}")
        history = state.history
        checkpoint.restore(state, checkpoint.load(best, config))
        state.history = history


def _write(milestones: Milestones, state: TrainingState, tensors: dict[str, Tensor], tokens: Any) -> None:
    config, setup = milestones.config, milestones.setup
    settings = dataclasses.asdict(config)
    del settings["attributes"]
    settings["base"] = place_in_record(config.base)
    write_adaptor(
        milestones.out,
        tensors,
        tokens=tokens,
        name=config.name,
        pipe=setup.pipe,
        base_model=name_in_record(config.base, setup.pipe),
        attributes={a.name: AttributeTarget(a.classes, a.target) for a in config.attributes},
        rank=config.rank,
        training={
            **settings,
            "finished_iterations": state.iteration,
            "skipped_iterations": state.skipped,
            "trained_against": setup.trained_against,
            "kept_attributes": list(setup.kept_attributes),
            "named_attributes": sorted({name for classes in setup.named.values() for name in classes}),
            "processes": milestones.world.size,
            "peak_megabytes": _peak_megabytes(),
            "seconds": round(state.history["seconds"], 1),
        },
    )


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
