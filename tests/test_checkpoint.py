"""A checkpoint is complete or absent, and a run that goes on from one is the run that was not interrupted."""

import dataclasses
import errno
import json
import os
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.engine.loop import fit
from fair_adaptors.training.engine.state import TrainingState, attached
from fair_adaptors.training.run import checkpoint
from fair_adaptors.training.run.record import RUN_FILE, read_run, refuse_earlier_run, was_restarted
from fair_adaptors.training.run.train import _go_on_from

from fair_adaptors.errors import CheckpointError
from tests.tiny_training import CONFIG, tiny_setup

LONG = dataclasses.replace(CONFIG, iterations=20, dropout=0.1, gradient_steps=2, max_steps=4, images_per_prompt=4)


PLACE = tiny_setup()


def values(state: TrainingState) -> list[torch.Tensor]:
    return [*(p.detach().clone() for p in state.parameters.values()), *(m.clone() for m in state.average.means)]


def run(config: TrainConfig, folder: Path, *, until: int = 10**9, resume: bool = False) -> list[torch.Tensor]:
    with attached(PLACE, config) as state:
        if resume:
            checkpoint.restore(state, checkpoint.load_latest(folder, config))
        fit(PLACE, config, state, on_step=lambda state, result: state.iteration == until)
        checkpoint.save(folder, state, config)
        return values(state)


EIGHT_BIT = {"optimizer": "adamw8bit", "rank": 256}  # the moments of small matrices have 32 bits


TWICE = {"parts": ("text_encoder", "unet"), "updates_per_rollout": 2}


@pytest.mark.parametrize("settings", [TWICE, {"parts": ("tokens",)}, EIGHT_BIT])
def test_twenty_steps_are_ten_and_ten_bit_for_bit(tmp_path: Path, settings: dict[str, Any]) -> None:
    config = dataclasses.replace(LONG, **settings)
    whole = run(config, tmp_path / "whole")
    run(config, tmp_path / "halves", until=10)
    halves = run(config, tmp_path / "halves", resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole, halves, strict=True))


def save_some(folder: Path, count: int = 2) -> list[Path]:
    paths = []
    with attached(PLACE, CONFIG) as state:
        for iteration in range(1, count + 1):
            state.iteration = iteration
            paths.append(checkpoint.save(folder, state, CONFIG))
    return paths


def test_old_ones_are_removed_but_not_the_best(tmp_path: Path) -> None:
    save_some(tmp_path, 5)
    (tmp_path / checkpoint.BEST).write_bytes(b"best")
    checkpoint.remove_old(tmp_path, 2)
    assert [p.name for p in checkpoint.list_checkpoints(tmp_path)] == [f"step_{i:08d}.safetensors" for i in (4, 5)]
    assert (tmp_path / checkpoint.BEST).exists()
    checkpoint.remove_old(tmp_path, 0)
    assert len(checkpoint.list_checkpoints(tmp_path)) == 2


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


def rewritten(data: bytes, change: Callable[[dict[str, Any], dict[str, str]], None]) -> bytes:
    """Change the header of a safetensors file: the tensors' rows, or the metadata."""
    end = 8 + int.from_bytes(data[:8], "little")
    rows = json.loads(data[8:end])
    change(rows, rows["__metadata__"])
    text = json.dumps(rows).encode()
    return len(text).to_bytes(8, "little") + text + data[end:]


def counted_otherwise(data: bytes) -> bytes:
    def change(rows: dict[str, Any], metadata: dict[str, str]) -> None:
        metadata["run"] = metadata["run"].replace('"skipped": 0', '"skipped": 1')

    return rewritten(data, change)


def shaped_otherwise(data: bytes) -> bytes:
    def change(rows: dict[str, Any], metadata: dict[str, str]) -> None:
        row = next(row for key, row in rows.items() if key.startswith("parameter/"))
        row["shape"] = row["shape"][::-1]

    return rewritten(data, change)


def too_large(data: bytes) -> bytes:
    text = json.dumps({"a": {"dtype": "F32", "shape": [2**63, 0], "data_offsets": [0, 0]}}).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        flipped,
        counted_otherwise,
        shaped_otherwise,
        too_large,
        lambda data: b"",
        lambda data: b"PK\x03\x04" + data,
    ],
)
def test_a_damaged_one_is_refused_with_the_names_of_good_ones_and_the_latest_good_one_is_used(
    tmp_path: Path, damage: Any
) -> None:
    good, bad = save_some(tmp_path)
    bad.write_bytes(damage(bad.read_bytes()))
    with pytest.raises(CheckpointError, match=rf"damaged.*can be used: {good.name}$"):
        checkpoint.load(bad, CONFIG)
    assert checkpoint.load_latest(tmp_path, CONFIG).path == good


def test_the_latest_is_taken_and_other_files_are_left_alone(tmp_path: Path) -> None:
    saved = save_some(tmp_path, 3)
    for name in ("step_one.safetensors", "step_00000009 (copy).safetensors", "step_00000009.safetensors.part"):
        (tmp_path / name).write_bytes(b"")
    assert checkpoint.list_checkpoints(tmp_path) == saved
    assert checkpoint.load_latest(tmp_path, CONFIG).path == saved[-1]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that cannot be read")
def test_one_that_the_system_does_not_read_is_passed_over(tmp_path: Path) -> None:
    (good,) = save_some(tmp_path, 1)
    (tmp_path / "step_00000002.safetensors").symlink_to("/proc/self/mem")
    assert checkpoint.load_latest(tmp_path, CONFIG).path == good


def test_a_missing_one_names_the_good_ones(tmp_path: Path) -> None:
    good, other = save_some(tmp_path)
    with pytest.raises(CheckpointError, match=f"no checkpoint .*: {good.name}, {other.name}"):
        checkpoint.load(tmp_path / "step_00000009.safetensors", CONFIG)
    with pytest.raises(CheckpointError, match="has none.*Leave out `resume`"):
        checkpoint.load_latest(tmp_path / "nowhere", CONFIG)


def test_one_of_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    save_some(tmp_path)
    with pytest.raises(CheckpointError, match=r"another run: learning_rate was 0\.01"):
        checkpoint.load_latest(tmp_path, dataclasses.replace(CONFIG, learning_rate=0.5))
    checkpoint.load_latest(tmp_path, dataclasses.replace(CONFIG, save_every=7))


def test_a_run_with_a_constant_rate_can_be_made_longer(tmp_path: Path) -> None:
    save_some(tmp_path)
    checkpoint.load_latest(tmp_path, dataclasses.replace(CONFIG, iterations=99))
    with pytest.raises(CheckpointError):
        checkpoint.load_latest(tmp_path, dataclasses.replace(CONFIG, iterations=99, schedule="cosine"))


def test_a_foreign_file_is_no_checkpoint(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "step_00000001.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="not a checkpoint of this version"):
        checkpoint.load(path, CONFIG)


def test_a_full_disk_leaves_the_earlier_checkpoint_and_nothing_half_written(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the write really fails midway."""
    (good,) = save_some(tmp_path, 1)
    before = good.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with attached(PLACE, CONFIG) as state:
        state.iteration = 2
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
        try:
            with pytest.raises(CheckpointError, match=f"could not be written: File too large.*{good.name}"):
                checkpoint.save(tmp_path, state, CONFIG)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == [good.name] and good.read_bytes() == before


def test_what_a_killed_run_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    tmp_path.joinpath(".step_00000001.safetensors.123").write_bytes(b"half")
    save_some(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001.safetensors"]


def test_the_file_is_synced_before_it_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    handles, sizes = [], []
    fsync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        order.append("fsync")
        handles.append(handle)
        sizes.append(os.fstat(handle).st_size)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), replace(a, b))[1])
    (path,) = save_some(tmp_path, 1)
    assert order == ["fsync", "replace", "fsync"] and sizes[0] == path.stat().st_size
    for handle in handles:  # and none is left open
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(handle)


def test_an_error_while_syncing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_some(tmp_path, 1)
    assert not list(tmp_path.iterdir())


def test_going_on_from_an_earlier_one_sets_the_later_ones_aside(tmp_path: Path) -> None:
    save_some(tmp_path, 3)
    checkpoint.set_aside_later(tmp_path, 1)
    assert [path.name for path in checkpoint.list_checkpoints(tmp_path)] == ["step_00000001.safetensors"]
    assert len(list(tmp_path.glob("abandoned_step_*"))) == 2


def test_a_process_is_one_that_torchrun_restarted_if_its_run_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "first")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not was_restarted(tmp_path)
    (tmp_path / RUN_FILE).write_text('{"launch": "first"}')
    assert not was_restarted(tmp_path)
    save_some(tmp_path / "checkpoints", 1)
    assert was_restarted(tmp_path)
    for name, value in (("RUN_ID", "second"), ("RESTART_COUNT", "0")):
        with monkeypatch.context() as other:
            other.setenv(f"TORCHELASTIC_{name}", value)
            assert not was_restarted(tmp_path)
    (tmp_path / RUN_FILE).write_text("{")
    assert not was_restarted(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"recipe": "tiny"}', '{"recipe": "tiny", "config": {}}'])
def test_a_run_whose_record_cannot_be_read_is_not_gone_on_with(tmp_path: Path, text: str) -> None:
    (tmp_path / RUN_FILE).write_text(text)
    with pytest.raises(CheckpointError, match="no run to resume"):
        read_run(tmp_path, "tiny")


def test_a_folder_with_an_earlier_run_is_refused(tmp_path: Path) -> None:
    refuse_earlier_run(tmp_path / "nowhere")
    save_some(tmp_path, 1)
    with pytest.raises(CheckpointError, match="earlier run"):
        refuse_earlier_run(tmp_path)


def test_a_run_does_not_go_on_with_other_prompts_or_another_base(tmp_path: Path) -> None:
    save_some(tmp_path, 1)
    saved = checkpoint.load_latest(tmp_path, CONFIG)
    others = dataclasses.replace(PLACE, prompts={"train": ("another prompt",)}), tiny_setup()
    with torch.no_grad():
        others[1].pipe.unet.conv_in.weight.mul_(1.01)
    for place in others:
        with attached(place, CONFIG) as state, pytest.raises(CheckpointError, match="other weights of the base, or"):
            checkpoint.restore(state, saved)
    with attached(tiny_setup(), CONFIG) as state:
        checkpoint.restore(state, saved)


def test_processes_that_see_different_checkpoints_do_not_go_on(tmp_path: Path) -> None:
    save_some(tmp_path, 3)
    saved = checkpoint.load_latest(tmp_path, CONFIG)
    alike, other = (SimpleNamespace(size=2, sum=partial(torch.add, other=iteration)) for iteration in (3, 2))
    with attached(PLACE, CONFIG) as state:
        _go_on_from(saved, state, alike)
        with pytest.raises(CheckpointError, match="see different checkpoints"):
            _go_on_from(saved, state, other)
