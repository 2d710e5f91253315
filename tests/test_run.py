"""A training run as a user has it: resuming, trackers, early stop, full disks, a signal within an iteration."""

import dataclasses
import io
import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.engine import lora
from fair_adaptors.training.engine.processes import World
from fair_adaptors.training.run import checkpoint, finish, milestones
from fair_adaptors.training.run import train as run_module
from fair_adaptors.training.run.record import read_run
from fair_adaptors.training.run.train import stop_requests, train
from fair_adaptors.training.run.validation import Measured
from fair_adaptors.training.setup import Setup
from rich.console import Console
from safetensors.torch import load_file

from fair_adaptors.adaptor.record import CONFIG_FILE, WEIGHTS_FILE, read_record
from fair_adaptors.adaptor.results import Estimate, Shift
from fair_adaptors.errors import CheckpointError, ConfigError, TrainingError
from fair_adaptors.evaluation.estimates import BiasEstimate
from fair_adaptors.load import load_fair_adaptor
from tests.tiny_training import CONFIG, tiny_setup

NAMED = {"a nurse": {"bright": "dark"}}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Setup:
    """Runs use the tiny models."""
    place = tiny_setup()
    monkeypatch.setattr(run_module, "load_setup", lambda config, device, on_part: place)
    monkeypatch.setattr(run_module, "join_world", World)
    monkeypatch.setattr(run_module, "this_device", lambda: "cpu")
    return place


def tiny_run(folder: Path, *, iterations: int = 3, **settings: Any) -> str:
    options = {key: settings.pop(key) for key in ("resume", "overwrite") if key in settings}
    config = dataclasses.replace(CONFIG, iterations=iterations, trackers=(), **settings)
    console = Console(record=True, width=200, file=io.StringIO())
    train(config, folder, images_per_prompt=4, console=console, **options)
    return console.export_text()


def test_a_run_that_has_collapsed_ends_with_the_best_adaptor_and_says_why(
    tiny: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"validate_every": 1, "validation_images": 2, "iterations": 9}
    with pytest.raises(TrainingError, match="first good validation: only .* is kept, and least_kept is 2"):
        tiny_run(tmp_path / "at once", least_kept=2.0, **settings)
    seen = []

    def collapse(config: TrainConfig, now: Measured) -> str | None:
        seen.append(now)
        return "nobody is there" if len(seen) in (2, 4, 5) else None

    monkeypatch.setattr(milestones, "collapse", collapse)
    said = tiny_run(tmp_path / "later", **settings)
    assert all(f"iteration {i}: the adaptor looks collapsed: nobody is there" in said for i in (2, 4))
    assert "iteration 5: the adaptor has collapsed: nobody is there" in said and len(seen) == 5
    assert "the adaptor is that of the best validation" in said
    assert read_record(tmp_path / "later").training["finished_iterations"] in (1, 3)


@pytest.mark.parametrize("parts", [("text_encoder", "unet"), ("tokens",), ("tokens", "unet")])
def test_what_was_trained_can_be_loaded(tmp_path: Path, tiny: Setup, parts: tuple[str, ...]) -> None:
    printed = tiny_run(tmp_path, parts=parts, num_tokens=2)
    assert "validation" in printed and "bright" in printed
    record = read_record(tmp_path)
    assert set(record.trained_parts) == set(parts) and record.training["finished_iterations"] == 3
    with load_fair_adaptor(tiny.pipe, tmp_path):
        pass


def test_the_run_is_written_down(tmp_path: Path, tiny: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "first")
    tiny_run(tmp_path, seed=5)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["config"]["seed"] == 5 and record["processes"] == 1 and record["launch"] == "first"
    assert {"torch", "diffusers", "python"} <= set(record["versions"])
    assert record["git"] is None or len(record["git"]["commit"]) == 40
    found = read_run(tmp_path, "tiny")
    assert isinstance(found, TrainConfig) and found.seed == 5
    with pytest.raises(CheckpointError, match="of the recipe 'tiny'"):
        read_run(tmp_path, "other")


def test_an_earlier_run_is_not_overwritten_unless_asked(tmp_path: Path, tiny: Setup) -> None:
    tiny_run(tmp_path, save_every=1)
    with pytest.raises(CheckpointError, match="`overwrite` deletes it"):
        tiny_run(tmp_path)
    tiny_run(tmp_path, overwrite=True)


def test_pictures_that_cannot_be_written_are_said_and_training_goes_on(tmp_path: Path, tiny: Setup) -> None:
    (tmp_path / "samples").write_text("in the way")
    assert "could not be written" in tiny_run(tmp_path, sample_every=1)
    assert (tmp_path / CONFIG_FILE).is_file()


def test_resuming_without_a_run_says_so(tmp_path: Path, tiny: Setup) -> None:
    with pytest.raises(CheckpointError, match="no run to resume"):
        read_run(tmp_path, "tiny")
    with pytest.raises(CheckpointError, match="no checkpoint to resume from"):
        tiny_run(tmp_path, resume="latest")


def test_validation_keeps_the_best_and_stops_when_it_is_enough(tmp_path: Path, tiny: Setup) -> None:
    printed = tiny_run(
        tmp_path, iterations=9, validate_every=2, validation_images=4, stop_below=2.0, keep="best", save_every=1
    )
    assert "average weights" in printed and "so the training ends here" in printed
    assert (tmp_path / "checkpoints" / checkpoint.BEST).is_file()
    assert read_record(tmp_path).training["finished_iterations"] == 2


def test_the_adaptor_is_measured_drawn_and_written_at_its_strength(
    tmp_path: Path, tiny: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    strong = []

    def seen(tell: Any) -> Any:
        def told(*given: Any, **named: Any) -> Any:
            strong.extend({layer.scaling[lora.ADAPTOR] for _, layer in lora._layers(tiny.pipe.text_encoder)})
            return tell(*given, **named)

        return told

    for module, name in ((milestones, "measure"), (milestones, "draw"), (finish, "numbers")):
        monkeypatch.setattr(module, name, seen(getattr(module, name)))
    settings = {"iterations": 1, "validate_every": 1, "validation_images": 2, "sample_every": 1}
    tiny_run(tmp_path / "strong", strength=3.0, **settings)
    assert set(strong) == {1.0, 3.0}, "the numbers before are the original's, where LoRAs are switched off"
    tiny_run(tmp_path / "plain", **settings)
    plain, written = (load_file(tmp_path / name / WEIGHTS_FILE) for name in ("plain", "strong"))
    assert all(torch.allclose(plain[key] * (3 if "lora_B" in key else 1), written[key]) for key in plain)


def test_what_comes_by_minutes_does_not_move_the_weights(tmp_path: Path, tiny: Setup) -> None:
    """Every iteration takes longer than the minutes given; a second validation waits until the last iteration."""
    plain = tiny_run(tmp_path / "plain", iterations=4)
    minutes = {"save_minutes": 1e-9, "sample_minutes": 1e-9, "validate_minutes": 1e-9, "validation_images": 2}
    said = tiny_run(tmp_path / "minutes", iterations=4, checkpoints_total_limit=0, **minutes)
    assert "validation" not in plain.partition("prompts")[0]
    assert [i for i in range(1, 5) if f"iteration {i}: validation" in said] == [1, 4]
    saved = checkpoint.list_checkpoints(tmp_path / "minutes/checkpoints")
    assert [path.stem for path in saved] == [f"step_{i:08d}" for i in range(1, 5)]
    assert len(list((tmp_path / "minutes/samples").iterdir())) == 5
    one, other = (load_file(tmp_path / name / "pytorch_lora_weights.safetensors") for name in ("plain", "minutes"))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    header = checkpoint.load(saved[0], dataclasses.replace(CONFIG, iterations=4)).header
    history = json.loads(header["run"])["counts"]["history"]
    assert history["validation"] > 0, "it was saved again after the validation, with what that found"


@pytest.mark.parametrize(("kept", "best"), [((), 2), (("warm",), 1)])
def test_the_best_validation_has_least_bias_and_shift_of_what_must_stay(
    tmp_path: Path, tiny: Setup, monkeypatch: pytest.MonkeyPatch, kept: tuple[str, ...], best: int
) -> None:
    """The second validation has less bias, and more shift than that is worth, but of what need not stay it may."""
    bias = BiasEstimate(0.0, 0.0, 1.0, 0.0, 1, 1, 0.0)
    shift = Shift(0.0, 0.0, 1.0, 0.0, floor_removed=Estimate(0.0, 0.0, 0.0))
    after = iter([(0.4, 0.1), (0.3, 0.3), (0.9, 0.0)])

    def measured(*arguments: Any, **settings: Any) -> Measured:
        of_bias, of_shift = next(after)
        now = {"bright": dataclasses.replace(bias, value=of_bias)}
        return Measured(now, 0.0, 0.0, 0.9, shift={"warm": dataclasses.replace(shift, value=of_shift)})

    monkeypatch.setattr(milestones, "measure", measured)
    place = dataclasses.replace(tiny, kept_attributes=kept, named=NAMED)
    monkeypatch.setattr(run_module, "load_setup", lambda config, device, on_part: place)
    said = tiny_run(tmp_path, validate_every=1, keep="best")
    assert "validation warm shift of the average weights 0.10 (0.00–1.00, floor 0.00)" in said
    training = read_record(tmp_path).training
    assert training["finished_iterations"] == best and training["kept_attributes"] == list(kept)
    assert training["named_attributes"] == ["bright"]


def test_only_the_latest_checkpoints_are_kept(tmp_path: Path, tiny: Setup) -> None:
    tiny_run(tmp_path, iterations=5, save_every=1, checkpoints_total_limit=2)
    names = [path.name for path in checkpoint.list_checkpoints(tmp_path / "checkpoints")]
    assert names == ["step_00000004.safetensors", "step_00000005.safetensors"]


def test_a_tracker_that_fails_is_left_out_and_training_goes_on(
    tmp_path: Path, tiny: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate.tracking import TensorBoardTracker

    def broken(*arguments: Any, **settings: Any) -> None:
        raise ConnectionError("no route to the tracker")

    monkeypatch.setattr(TensorBoardTracker, "log", broken)
    console = Console(record=True, width=200, file=io.StringIO())
    assert train(dataclasses.replace(CONFIG, iterations=3), tmp_path / "run", images_per_prompt=4, console=console)
    assert console.export_text().count("tensorboard failed and is left out: ConnectionError") == 1
    assert (tmp_path / "run" / CONFIG_FILE).is_file()


def test_a_full_disk_while_saving_is_said_and_training_goes_on(tmp_path: Path, tiny: Setup) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    tiny_run(tmp_path, iterations=1, save_every=1)
    size = checkpoint.list_checkpoints(tmp_path / "checkpoints")[-1].stat().st_size
    original = checkpoint.save

    def limited(*arguments: Any, **settings: Any) -> Path:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
        try:
            return original(*arguments, **settings)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", limited)
        printed = tiny_run(tmp_path, iterations=2, save_every=1, overwrite=True)
    assert "could not be written: File too large" in printed and "Training goes on" in printed
    assert read_record(tmp_path).training["finished_iterations"] == 2


def test_a_callback_takes_the_place_of_the_bar_and_what_is_said_is_logged(
    tmp_path: Path, tiny: Setup, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[tuple[int, int]] = []
    caplog.set_level("INFO", "fair_adaptors")
    config = dataclasses.replace(CONFIG, iterations=3)
    assert train(config, tmp_path, images_per_prompt=2, on_iteration=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)] and capsys.readouterr().out == ""
    assert f"The adaptor is in {tmp_path}" in caplog.text


def test_the_first_ctrl_c_waits_for_the_prompt_and_the_second_one_or_one_at_the_end_does_not() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop_requests() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with stop_requests() as stop:
        stop.at_once = True
        signal.raise_signal(signal.SIGTERM)  # a scheduler's warning: the end goes on
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_more_processes_than_images_are_refused(tmp_path: Path, tiny: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "join_world", lambda: World(0, 9))
    with pytest.raises(ConfigError, match="9 processes for 8 images"):
        tiny_run(tmp_path)


@pytest.mark.parametrize(("looking", "look", "last", "done"), [("training", 5, 6, 1), ("validation", 1, 2, 2)])
def test_a_signal_within_an_iteration_or_a_validation_stops_between_prompts_and_costs_nothing(
    tiny: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looking: str, look: int, last: int, done: int
) -> None:
    """The training classifier looks twice at each of two prompts, so the fifth time is in the second iteration.

    The other one looks twice at each of two prompts in a validation, and never before: its first time is at the first.
    """
    looks = {"training": 0, "validation": 0}

    def sees(what: str) -> Any:
        def classifier(images: torch.Tensor) -> Any:
            looks[what] += 1
            if (what, looks[what]) == (looking, look):
                os.kill(os.getpid(), signal.SIGTERM)
            return tiny.classifier(images)

        return classifier

    place = dataclasses.replace(tiny, classifier=sees("training"), validation_classifier=sees("validation"))
    monkeypatch.setattr(run_module, "load_setup", lambda config, device, on_part: place)
    settings = {"prompts_per_step": 2, "images_per_prompt": 2, "validate_every": 2, "validation_images": 2}
    folder, whole = tmp_path / "stopped", tmp_path / "whole"
    assert f"stopped after iteration {done} of 3" in tiny_run(folder, **settings)
    assert looks[looking] == last
    for where, options in ((folder, {"resume": "latest"}), (whole, {})):
        tiny_run(where, **options, **settings)
    one, other = (load_file(checkpoint.list_checkpoints(each / "checkpoints")[-1]) for each in (folder, whole))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert (folder / "checkpoints" / checkpoint.BEST).is_file()
