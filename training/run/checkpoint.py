"""Checkpoints: one file each, complete or absent, that a run goes on from bit for bit.

A file holds the parameters, their average, the optimiser's state, the iteration and the counts, the configuration, and
a checksum of it all. What is random and the learning rate are functions of the iteration (``batches``, ``loop``), so
that the position is all there is to know of them.
"""

import dataclasses
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.engine.state import TrainingState
from torch import Tensor

from fair_adaptors.errors import CheckpointError

FORMAT = "fair-adaptors checkpoint 1"
BEST = "best.safetensors"
_COUNTS = ("iteration", "skipped", "skipped_in_a_row", "empty", "best", "collapsing", "history")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read: tensors by name, and the header."""

    path: Path
    tensors: dict[str, Tensor]
    header: dict[str, Any]


def save(folder: Path, state: TrainingState, config: TrainConfig, *, name: str | None = None) -> Path:
    """Write a checkpoint and return its path. It is written aside, synced, and then moved into place.

    Args:
        name: of the file; None for one that tells the iteration.

    Raises:
        CheckpointError: it could not be written (a full disk, say); earlier ones are as they were.
    """
    from safetensors.torch import save as serialise

    path = folder / (name or f"step_{state.iteration:08d}.safetensors")
    tensors = _tensors(state)
    counts = {key: getattr(state, key) for key in _COUNTS}
    run = {"config": dataclasses.asdict(config), "digest": config.digest, "place": state.place, "counts": counts}
    header = {"format": FORMAT, "run": json.dumps(run, sort_keys=True)}
    header["checksum"] = _checksum(tensors, header["run"])
    aside = folder / f".{path.name}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".*.safetensors.*"):  # of a run that was killed while it wrote
            left.unlink()
        with aside.open("wb") as file:
            file.write(serialise(tensors, header))
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        _sync(folder)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise CheckpointError(
            f"the checkpoint {path} could not be written: {error.strerror or error}. {_names(folder)}"
        ) from error
    return path


def set_aside_later(folder: Path, iteration: int) -> None:
    """Rename checkpoints after an iteration: a run that goes on from there leaves them behind, not lost."""
    for path in list_checkpoints(folder):
        if int(path.stem.removeprefix("step_")) > iteration:
            path.rename(path.with_name(f"abandoned_{path.name}"))


def remove_old(folder: Path, limit: int) -> None:
    """Remove all but the ``limit`` latest checkpoints; 0 keeps all. The best one is not counted."""
    for path in list_checkpoints(folder)[: -limit or None] if limit else []:
        path.unlink(missing_ok=True)


def list_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints of a folder by iteration, the latest last; whether they are sound is not looked at."""
    return sorted(path for path in folder.glob("step_*.safetensors") if re.fullmatch(r"step_\d{8,}", path.stem))


def load(path: Path, config: TrainConfig) -> Checkpoint:
    """Read a checkpoint of a run with this configuration.

    Raises:
        CheckpointError: absent, damaged, or of another run; it names the sound ones of the folder.
    """
    try:
        return _read(path, config)
    except CheckpointError as error:
        raise CheckpointError(f"{error}. {_names(path.parent, config)}") from error


def load_latest(folder: Path, config: TrainConfig) -> Checkpoint:
    """Read the latest checkpoint that is sound.

    Raises:
        CheckpointError: there is none.
    """
    problems = []
    for path in reversed(list_checkpoints(folder)):
        try:
            return _read(path, config)
        except CheckpointError as error:
            problems.append(str(error))
    said = "; ".join(problems) or f"{folder} has none"
    raise CheckpointError(f"there is no checkpoint to resume from: {said}. Leave out `resume` to start afresh")


def restore(state: TrainingState, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's content into a state of the same configuration.

    Raises:
        CheckpointError: the base's weights or the training prompts are not those that it was made with.
    """
    tensors, run = checkpoint.tensors, json.loads(checkpoint.header["run"])
    if run["place"] != state.place:
        raise CheckpointError(
            f"the checkpoint {checkpoint.path} was made with other weights of the base, or with other training prompts"
            " (has a file of prompts changed?). Put back what it was, or leave out `resume` to start afresh"
        )
    with torch.no_grad():
        for (name, parameter), mean in zip(state.parameters.items(), state.average.means, strict=True):
            parameter.copy_(tensors[f"parameter/{name}"])
            mean.copy_(tensors[f"average/{name}"])
    moments: dict[int, dict[str, Tensor]] = {}
    for number, name in enumerate(state.parameters):
        prefix = f"optimizer/{name}/"
        found = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
        if found:
            moments[number] = found
    state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": moments})
    counts = run["counts"]
    for key in _COUNTS:
        setattr(state, key, counts[key])
    state.average.updates = int(tensors["average_updates"].item())


def _tensors(state: TrainingState) -> dict[str, Tensor]:
    tensors = {"average_updates": torch.tensor(state.average.updates)}
    for (name, parameter), mean in zip(state.parameters.items(), state.average.means, strict=True):
        tensors[f"parameter/{name}"] = parameter
        tensors[f"average/{name}"] = mean
        for key, value in state.optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = torch.as_tensor(value)
    # Cloned, so that no two share memory, which safetensors refuses.
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in sorted(tensors.items())}


def _read(path: Path, config: TrainConfig) -> Checkpoint:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError, TypeError) as error:  # the last of a size that torch cannot hold
        raise CheckpointError(f"the checkpoint {path} is damaged: {error}") from error
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this version of fair-adaptors")
    if header.get("checksum") != _checksum(tensors, header.get("run", "")):
        raise CheckpointError(f"the checkpoint {path} is damaged: its checksum differs")
    run = json.loads(header["run"])
    if run["digest"] != config.digest:
        mine = json.loads(json.dumps(dataclasses.asdict(config)))
        other = [f"{k} was {v!r}" for k, v in run["config"].items() if k in mine and mine[k] != v]
        raise CheckpointError(f"the checkpoint {path} is of another run: {'; '.join(other) or 'other settings'}")
    return Checkpoint(path, tensors, header)


def _names(folder: Path, config: TrainConfig | None = None) -> str:
    sound = []
    for path in list_checkpoints(folder):
        try:
            if config is not None:
                _read(path, config)
            sound.append(path.name)
        except CheckpointError:
            continue
    return f"Checkpoints in {folder} that can be used: {', '.join(sound) or 'none'}"


def _checksum(tensors: dict[str, Tensor], run: str) -> str:
    digest = hashlib.sha256(run.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _sync(folder: Path) -> None:
    """Make the renaming in a folder durable, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
