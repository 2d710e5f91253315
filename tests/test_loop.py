"""The loop on tiny real models: it learns, it is repeatable, it leaves the base alone."""

import dataclasses
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.engine import gradients, lora, step
from fair_adaptors.training.engine.gradients import affine_coefficients
from fair_adaptors.training.engine.loop import fit, learning_rate
from fair_adaptors.training.engine.reference_images import ReferenceImages
from fair_adaptors.training.engine.state import TrainingState, attached
from fair_adaptors.training.engine.step import StepResult
from fair_adaptors.training.setup import Setup
from safetensors.torch import load_file, save_file
from torch import Tensor

from fair_adaptors.errors import ConfigError, MissingExtraError, TrainingError, UnsupportedSchedulerError
from tests.tiny_training import CONFIG, tiny_setup


def trained(place: Setup, config: TrainConfig = CONFIG, **settings: Any) -> dict[str, Tensor]:
    """Train and return the averaged values."""
    with attached(place, config) as state:
        fit(place, config, state, **settings)
        return {name: mean.clone() for name, mean in zip(state.parameters, state.average.means, strict=True)}


def loras(place: Setup) -> list[str]:
    return [name for name, _ in place.pipe.text_encoder.named_modules() if "lora" in name]


def test_training_is_repeatable_and_leaves_the_base_as_it_was() -> None:
    place = tiny_setup()
    before = {key: value.clone() for key, value in place.pipe.text_encoder.state_dict().items()}
    one = trained(place)
    after = place.pipe.text_encoder.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    two = trained(place)
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    assert any(tensor.abs().max() > 0 for key, tensor in one.items() if "lora_B" in key)


def test_another_seed_is_another_adaptor() -> None:
    place = tiny_setup()
    one, two = trained(place), trained(place, dataclasses.replace(CONFIG, seed=1))
    assert any(not torch.equal(one[key], two[key]) for key in one)


def test_every_iteration_is_announced_and_can_be_the_last() -> None:
    steps: list[tuple[int, StepResult]] = []

    def look(state: TrainingState, result: StepResult) -> bool:
        steps.append((state.iteration, result))
        return state.iteration == 2

    trained(tiny_setup(), dataclasses.replace(CONFIG, prompts_per_step=2), on_step=look)
    assert [iteration for iteration, _ in steps] == [1, 2]
    assert all(0 <= result.bias["bright"] <= 1 and result.loss > 0 and result.applied for _, result in steps)
    assert all(result.images == result.took_part == 16 for _, result in steps)


def test_a_rollout_can_serve_several_updates_each_of_other_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as many steps of the optimiser, with images made once, and in all every step of theirs."""
    place, config = tiny_setup(), dataclasses.replace(CONFIG, num_steps=4, gradient_steps=2, updates_per_rollout=2)
    walked: list[tuple[Any, Tensor]] = []

    def note(pipe: Any, run: Any, *arguments: Any, steps: Tensor, **settings: Any) -> None:
        walked.append((run, steps))
        gradients.accumulate_gradients(pipe, run, *arguments, steps=steps, **settings)

    monkeypatch.setattr(step, "accumulate_gradients", note)
    with attached(place, config) as state:
        fit(place, config, state)
        assert {int(each["step"]) for each in state.optimizer.state.values()} == {6} and state.average.updates == 6
    assert [walked[i][0] is walked[i + 1][0] for i in range(5)] == [True, False, True, False, True]
    for (_, first), (_, second) in zip(walked[::2], walked[1::2], strict=True):
        assert torch.equal(torch.cat([first, second]).sort(0).values, torch.arange(4)[:, None].expand(-1, 8))


def test_step_weights_are_computed_once_for_each_number_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(scheduler: Any) -> Tensor:
        calls.append(len(scheduler.timesteps))
        return affine_coefficients(scheduler)

    monkeypatch.setattr(gradients, "affine_coefficients", counted)
    trained(tiny_setup(), dataclasses.replace(CONFIG, max_steps=4, iterations=4, prompts_per_step=2))
    assert sorted(calls) == [3, 4]


def test_a_solver_that_adds_noise_is_refused_before_anything_is_attached() -> None:
    from diffusers import DDPMScheduler

    place = tiny_setup()
    place.pipe.scheduler = DDPMScheduler()
    with pytest.raises(UnsupportedSchedulerError):
        trained(place)
    assert not loras(place)


def test_an_error_on_the_way_takes_the_adaptor_out() -> None:
    place = tiny_setup()

    def stop(state: TrainingState, result: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(place, on_step=stop)
    assert not loras(place)


@pytest.mark.parametrize("parts", [("text_encoder",), ("unet",), ("text_encoder", "unet"), ("tokens",)])
def test_every_part_can_be_trained(parts: tuple[str, ...]) -> None:
    config = dataclasses.replace(CONFIG, parts=parts, num_tokens=2)
    place = tiny_setup()
    with attached(place, config) as state:
        before = {name: parameter.detach().clone() for name, parameter in state.parameters.items()}
        assert {name.partition(".")[0] for name in before} == set(parts)
        fit(place, config, state)
        for part in parts:
            moved = [n for n, p in state.parameters.items() if n.startswith(part) and not torch.equal(p, before[n])]
            assert moved, part


def test_no_more_images_than_asked_for_are_decoded_or_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss's side of the memory does not grow with the images of a prompt."""
    place = tiny_setup()
    sizes: dict[str, list[int]] = {"decoded": [], "encoded": [], "classified": []}

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(rows: Tensor, *arguments: Any, **named: Any) -> Any:
            sizes[name].append(len(rows))
            return call(rows, *arguments, **named)

        return counting

    monkeypatch.setattr(place.pipe.vae, "decode", counted("decoded", place.pipe.vae.decode))
    place = dataclasses.replace(
        place,
        classifier=counted("classified", place.classifier),
        encoders={name: counted("encoded", encode) for name, encode in place.encoders.items()},
    )
    trained(place, dataclasses.replace(CONFIG, iterations=1, images_per_decode=3))
    assert all(found and max(found) == 3 for found in sizes.values()), sizes


def test_an_alpha_is_folded_into_the_file() -> None:
    place = tiny_setup()
    config = dataclasses.replace(CONFIG, alpha=4)
    with attached(place, config) as state:
        fit(place, config, state)
        tensors = lora.extract(place.pipe, config.parts)
        key = next(name for name in state.parameters if name.endswith("lora_B.fair.weight"))
        name = "text_encoder.text_model." + key.removeprefix("text_encoder.").removeprefix("text_model.")
        assert torch.equal(tensors[name.replace(".fair.", ".")], 2 * state.parameters[key])


def test_layers_that_are_not_there_are_named_and_nothing_is_left() -> None:
    place = tiny_setup()
    with (
        pytest.raises(ConfigError, match="nonsense"),
        attached(place, dataclasses.replace(CONFIG, target_modules=("nonsense",))),
    ):
        pass
    assert not loras(place)


def test_a_model_with_a_lora_of_its_own_is_refused() -> None:
    place = tiny_setup()
    lora.attach(place.pipe, ["text_encoder"], rank=2)
    with pytest.raises(ConfigError, match="LoRA already"), attached(place, CONFIG):
        pass
    assert loras(place)


def test_without_bitsandbytes_the_optimiser_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtraError, match="bitsandbytes"):
        trained(tiny_setup(), dataclasses.replace(CONFIG, optimizer="adamw8bit"))


@pytest.mark.parametrize("updates", [1, 2])
def test_a_gradient_that_is_not_finite_is_skipped_and_counted_and_ends_the_run_in_the_end(updates: int) -> None:
    place = tiny_setup()
    bad = {"nan": lambda images: torch.nn.functional.normalize(images.flatten(1), dim=1) * math.nan}
    place = dataclasses.replace(place, encoders=bad)
    config = dataclasses.replace(CONFIG, max_skipped=1, updates_per_rollout=updates)
    with attached(place, config) as state:
        before = {name: parameter.detach().clone() for name, parameter in state.parameters.items()}
        results: list[StepResult] = []
        with pytest.raises(TrainingError, match="not finite in 2 iterations"):
            fit(place, config, state, on_step=lambda state, result: results.append(result))
        assert [result.finite for result in results] == [False]
        assert state.skipped == 2
        assert all(torch.equal(parameter, before[name]) for name, parameter in state.parameters.items())


def test_reference_images_of_a_pool_come_from_disk_and_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, config = tiny_setup(), dataclasses.replace(CONFIG, originals_pool=1, iterations=6)
    without = trained(place, config)
    kept = ReferenceImages(tmp_path)
    assert all(
        torch.equal(a, b)
        for a, b in zip(without.values(), trained(place, config, references=kept).values(), strict=True)
    )
    assert len(list(tmp_path.iterdir())) == 2  # one batch of each prompt
    calls = []
    monkeypatch.setattr("fair_adaptors.training.engine.reference_images.sample", lambda *a, **k: calls.append(a))
    again = trained(place, config, references=kept)
    assert not calls and all(torch.equal(without[name], again[name]) for name in without)


@pytest.mark.parametrize(
    "damage",
    [
        lambda tensors: {},
        lambda tensors: {"latents": torch.zeros(8, 4, 8, 8)},  # of another version
        lambda tensors: {name: rows[:3] for name, rows in tensors.items()},
        lambda tensors: {name: rows for name, rows in tensors.items() if not name.startswith("features")},
        lambda tensors: tensors | {"faces.boxes": torch.zeros(8, 4)},
        lambda tensors: tensors | {"nobody.knows": torch.zeros(8)},
    ],
)
def test_a_damaged_file_of_originals_is_made_again(tmp_path: Path, damage: Callable[[Any], Any]) -> None:
    place, config = tiny_setup(), dataclasses.replace(CONFIG, originals_pool=1)
    without = trained(place, config, references=ReferenceImages(tmp_path))
    first, second = tmp_path.iterdir()
    first.write_bytes(first.read_bytes()[:50])
    save_file(damage(load_file(second)), second)
    again = trained(place, config, references=ReferenceImages(tmp_path))
    assert all(torch.equal(without[name], again[name]) for name in without)


def test_learning_rates_warm_up_and_fall() -> None:
    for schedule, middle, end in (("constant", 1.0, 1.0), ("linear", 0.5, 0.01), ("cosine", 0.5, 0.0)):
        config = dataclasses.replace(CONFIG, iterations=100, warmup=10, schedule=schedule, learning_rate=1.0)
        rates = [learning_rate(i, config) for i in range(100)]
        assert rates[0] == pytest.approx(0.1, rel=0.02) and rates[50] == pytest.approx(middle, abs=0.01)
        assert rates[99] == pytest.approx(end, abs=0.01)
