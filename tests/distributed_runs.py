"""What the processes of a distributed run on tiny models do.

Under torchrun, ``python -m tests.distributed_runs FOLDER``, one of them dies.
"""

import dataclasses
import math
import os
import signal
import sys
import time
from pathlib import Path

import torch
from fair_adaptors.training.engine.batches import batch_at
from fair_adaptors.training.engine.loop import fit
from fair_adaptors.training.engine.processes import World
from fair_adaptors.training.engine.state import attached
from fair_adaptors.training.engine.step import train_step
from fair_adaptors.training.run import checkpoint
from fair_adaptors.training.run.distributed import join_world
from fair_adaptors.training.run.due import Due
from fair_adaptors.training.run.milestones import Milestones
from fair_adaptors.training.run.reporter import Reporter
from fair_adaptors.training.run.train import stop_requests
from fair_adaptors.training.run.validation import measure
from fair_adaptors.training.setup import Setup
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor

from fair_adaptors.errors import FairAdaptorError
from tests.tiny_training import CONFIG, tiny_setup

LONG = dataclasses.replace(
    CONFIG,
    parts=("text_encoder", "unet", "tokens"),
    images_per_prompt=7,
    iterations=20,
    max_steps=4,
    gradient_steps=2,
    updates_per_rollout=2,
    keep_by="prompt",
    keep_confidence=0.6,
)


def same_result(folder: Path) -> None:
    """The gradient of one batch, 10 steps, and the rest of a run that one process began; an attribute must stay."""
    world = join_world()
    place = tiny_setup("warm")
    found: dict[str, Tensor] = {}
    with attached(place, LONG) as state:
        for parameter in state.parameters.values():
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
        result = train_step(place, LONG, state, batch_at(LONG, place.prompts, 0, 0), world=world)
        found["took_part"] = torch.tensor(result.took_part)
        for name, parameter in state.parameters.items():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            found[f"gradient/{name}"] = world.sum(gradient)
        now = measure(place, LONG, place.validation_prompts, 5, tokens=state.tokens, world=world, kept=True)
        found["validation"] = torch.tensor([now.bias["bright"].value, now.shift["warm"].value])
    for begin in (0, 10):
        with attached(place, LONG) as state:
            if begin:
                checkpoint.restore(state, checkpoint.load_latest(folder.parent / "begun", LONG))
            fit(place, LONG, state, world=world, on_step=lambda state, result, end=begin + 10: state.iteration == end)
            if world.size == 1 and not begin:
                checkpoint.save(folder.parent / "begun", state, LONG)
            found |= {f"{begin + 10}/{name}": p.detach().clone() for name, p in state.parameters.items()}
    found |= milestones_of(folder, world)
    if world.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in found.items()}, folder / "found.safetensors")


def milestones_of(folder: Path, world: World) -> dict[str, Tensor]:
    """How many processes say that a checkpoint is due by the main process's clock, and by another's alone; pictures.

    Of these, how many rows the main process decoded.
    """
    place, config = tiny_setup(), dataclasses.replace(LONG, save_minutes=1.0, trackers=())
    rows: list[int] = []
    place.pipe.vae.decoder.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    found = {}
    with attached(place, config) as state:
        for name, is_late in (("main", world.is_main), ("other", not world.is_main)):
            due = Due(config, world, "cpu", time.perf_counter())
            state.history.clear()
            due.begin(state)
            due.counted -= 100 * is_late
            found[f"due by {name}"] = world.sum(torch.tensor(float("save" in due.after(state))))
        reporter = Reporter(config, folder, world, Console(quiet=True))
        Milestones(config, folder, place, world=world, reporter=reporter, due=due).draw(state)
    return found | {"rows": torch.tensor(sum(rows))}


def not_finite(folder: Path) -> None:
    """The loss of one process's images is not finite in the second iteration: all skip it, and agree."""
    world = join_world()
    place, calls = tiny_setup(), 0

    def encoder(images: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        features = torch.nn.functional.normalize(images.flatten(1), dim=1)
        return features * math.nan if world.rank == world.size - 1 and calls in (3, 4) else features

    place = dataclasses.replace(place, encoders={"flat": encoder})
    with attached(place, CONFIG) as state:
        finite: list[bool] = []
        fit(place, CONFIG, state, world=world, on_step=lambda state, result: finite.append(result.finite))
        values = torch.cat([p.detach().flatten() for p in state.parameters.values()])
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"finite": torch.tensor(finite), "values": values}, folder / f"rank{world.rank}.safetensors")


def dies(folder: Path, world: World) -> None:
    """One process is killed in the third iteration; the others have to notice."""

    def look(state: object, result: object) -> None:
        if world.rank == 1 and state.iteration == 2:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGKILL)

    place: Setup = tiny_setup()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # As in a real run: torchrun tells the others to end, and must not cut them off before they have said why.
        with stop_requests(), attached(place, LONG) as state:
            fit(place, LONG, state, world=world, on_step=look)
    except FairAdaptorError as error:
        (folder / f"rank{world.rank}.txt").write_text(str(error))
        raise


if __name__ == "__main__":
    dies(Path(sys.argv[1]), join_world())
