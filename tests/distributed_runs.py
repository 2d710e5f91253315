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
from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.engine.batches import batch_at
from fair_adaptors.training.engine.loop import fit
from fair_adaptors.training.engine.processes import StopRequested, World
from fair_adaptors.training.engine.reference_images import ReferenceImages
from fair_adaptors.training.engine.state import TrainingState, attached
from fair_adaptors.training.engine.step import train_step
from fair_adaptors.training.engine.targets import drawn_shares
from fair_adaptors.training.run import checkpoint
from fair_adaptors.training.run import train as run_module
from fair_adaptors.training.run.distributed import join_world
from fair_adaptors.training.run.due import Due
from fair_adaptors.training.run.milestones import Milestones
from fair_adaptors.training.run.reporter import Reporter
from fair_adaptors.training.run.train import stop_requests
from fair_adaptors.training.run.validation import measure
from fair_adaptors.training.setup import Setup, _load_pipeline
from fair_adaptors.training.sharding import sharded_parts
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor

from fair_adaptors.errors import FairAdaptorError, PeersLostError
from tests.tiny_training import CONFIG, tiny_setup

LONG = dataclasses.replace(
    CONFIG,
    parts=("text_encoder", "unet", "tokens"),
    images_per_prompt=7,
    iterations=10,
    max_steps=4,
    gradient_steps=2,
    updates_per_rollout=2,
    keep_by="prompt",
    keep_confidence=0.6,
    prompt_sets=(("train", 3.0), ("named", 1.0)),
    named_images=1,
    originals_pool=1,
    unconditional_gradient=False,
)
"""With all that makes an update cheap."""
SHARDED = dataclasses.replace(
    LONG,
    parts=("text_encoder", "text_encoder_2", "unet"),
    images_per_prompt=4,
    iterations=3,
    activation_checkpointing=True,
    validate_every=2,
    validation_images=2,
    trackers=(),
)


def with_named(place: Setup) -> Setup:
    """Add a set of prompts that name a class."""
    named = {f"a {name} {who}": {"bright": name} for who in ("nurse", "guard", "judge") for name in ("dark", "bright")}
    return dataclasses.replace(place, prompts={**place.prompts, "named": tuple(named)}, named=named)


def same_result(folder: Path) -> None:
    """The gradient of two batches, 5 steps, and the rest of a run that one process began; an attribute must stay."""
    world = join_world()
    place = with_named(tiny_setup("warm"))
    originals = ReferenceImages(folder / "originals")
    batches = [batch_at(LONG, place.prompts, iteration, 0, named=place.named) for iteration in range(8)]
    pair = [next(b for b in batches if (b.prompts[0] in place.named) is named) for named in (False, True)]
    found: dict[str, Tensor] = {}
    with attached(place, LONG) as state:
        for parameter in state.parameters.values():
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
        for kind, dtype in (("gradient", torch.float32), ("half", torch.bfloat16)):
            for part in (place.pipe.unet, place.pipe.vae):  # the text encoder, which is trained, stays in float32
                part.to(dtype)
            for name, parameter in state.parameters.items():
                if ".lora_" in name:
                    parameter.data = parameter.data.float()
            took_part = [
                train_step(place, LONG, state, batch, references=originals, world=world).took_part for batch in pair
            ]
            found[f"took part/{kind}"] = torch.tensor(took_part)
            for name, parameter in state.parameters.items():
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                found[f"{kind}/{name}"] = world.sum(gradient)
                parameter.grad = None
        place.pipe.unet.float(), place.pipe.vae.float()
        now = measure(place, LONG, place.validation_prompts, 5, tokens=state.tokens, world=world, originals={})
        found["validation"] = torch.tensor([now.bias["bright"].value, now.shift["warm"].value])
    for begin in (0, 5):
        with attached(place, LONG) as state:
            if begin:
                checkpoint.restore(state, checkpoint.load_latest(folder.parent / "begun", LONG))
            end = begin + 5
            on_step = lambda state, result: state.iteration == end  # noqa: B023, E731
            fit(place, LONG, state, world=world, references=originals, on_step=on_step)
            if world.size == 1 and not begin:
                checkpoint.save(folder.parent / "begun", state, LONG)
            found |= {f"{end}/{name}": p.detach().clone() for name, p in state.parameters.items()}
    rows = torch.rand(7, 3, generator=torch.Generator().manual_seed(0)).softmax(1)
    found["shares"] = drawn_shares({"a": rows}, {"a": [0.2, 0.3, 0.5]}, num_draws=100, world=world)["a"]
    found["stopped"] = world.sum(torch.tensor(float(stops(place, world))))
    found |= milestones_of(folder, world)
    if world.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in found.items()}, folder / "found.safetensors")


def stops(place: Setup, world: World) -> bool:
    """Tell the last process alone to stop; return whether this one does, before the first prompt."""
    told = dataclasses.replace(world, told_to_stop=lambda: world.rank == world.size - 1)
    with attached(place, LONG) as state:
        try:
            fit(place, LONG, state, world=told)
        except StopRequested:
            return not state.iteration
    return False


def milestones_of(folder: Path, world: World) -> dict[str, Tensor]:
    """How many processes say that a checkpoint is due by the main process's clock, and by another's alone; pictures.

    Of these, how many rows the main process decoded.
    """
    place, config = with_named(tiny_setup()), dataclasses.replace(LONG, save_minutes=1.0, trackers=())
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


def sharded(folder: Path) -> None:
    """Two iterations of a run on the base beside the folder, and one after they were resumed; split if we are several.

    Each process tells how many bytes it holds of what is split.
    """
    world = join_world()
    config = dataclasses.replace(SHARDED, base=str(folder.parent / "base"), shard_base=world.size > 1)
    held: list[int] = []

    def load_setup(config: TrainConfig, device: torch.device, on_part: object) -> Setup:
        place = dataclasses.replace(with_named(tiny_setup("warm")), pipe=_load_pipeline(config, device))
        parts = [getattr(place.pipe, part) for part in sharded_parts(place.pipe)]
        weights = [weight for part in parts for weight in part.parameters()]
        held.append(sum((w.to_local() if config.shard_base else w).nbytes for w in weights))  # type: ignore[operator]
        return place

    run_module.load_setup = load_setup  # type: ignore[assignment]
    for end, resume in ((2, None), (3, "latest")):
        one = dataclasses.replace(config, iterations=end)
        run_module.train(one, folder, resume=resume, images_per_prompt=2, console=Console(quiet=True))
    (folder / f"held by {world.rank}").write_text(str(held[0]))


def fails(folder: Path) -> None:
    """One process has no memory left in the third iteration; the others have to notice."""
    world = join_world()

    def look(state: TrainingState, result: object) -> None:
        if world.rank == 1 and state.iteration == 2:
            raise torch.OutOfMemoryError("no memory left")

    place = tiny_setup()
    with attached(place, CONFIG) as state:
        try:
            fit(place, CONFIG, state, world=world, on_step=look)
        except PeersLostError as error:
            (folder / "lost.txt").write_text(str(error))


def dies(folder: Path, world: World) -> None:
    """One process is killed in the third iteration; the others have to notice."""

    def look(state: object, result: object) -> None:
        if world.rank == 1 and state.iteration == 2:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGKILL)

    place = with_named(tiny_setup())
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
