"""The loop on tiny real models: it learns, it is repeatable, it leaves the base alone."""

import dataclasses
from typing import Any

import pytest
import torch
from fair_adaptors.training import lora
from fair_adaptors.training.config import Attribute, TrainConfig
from fair_adaptors.training.gradients import step_weights
from fair_adaptors.training.loop import StepResult, batch_bias, fit, image_seeds, train_step
from fair_adaptors.training.recipes import Setting
from torch import Tensor

from fair_adaptors.errors import UnsupportedSchedulerError
from tests.tiny import tiny_pipeline

CONFIG = TrainConfig(
    name="tiny",
    base="tiny",
    attributes=(Attribute("bright", ("dark", "bright"), (0.5, 0.5)),),
    rank=2,
    iterations=3,
    images_per_prompt=8,
    num_steps=3,
    guidance_scale=2.0,
    learning_rate=1e-2,
)


def brightness(images: Tensor) -> dict[str, Tensor]:
    """Logits of whether an image is brighter than most."""
    mean = images.mean((1, 2, 3))
    return {"bright": torch.stack([-40 * (mean - 0.45), 40 * (mean - 0.45)], 1)}


def setting() -> Setting:
    prompts = ("a nurse", "a guard")
    encoder = {"flat": lambda images: torch.nn.functional.normalize(images.flatten(1), dim=1)}
    return Setting(tiny_pipeline(), prompts, prompts, brightness, brightness, encoder)


def test_training_is_repeatable_and_leaves_the_base_as_it_was() -> None:
    place = setting()
    before = {key: value.clone() for key, value in place.pipe.text_encoder.state_dict().items()}
    one = fit(place, CONFIG)
    after = place.pipe.text_encoder.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    two = fit(place, CONFIG)
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    assert any(tensor.abs().max() > 0 for key, tensor in one.items() if "lora_B" in key)


def test_another_seed_is_another_adaptor() -> None:
    place = setting()
    one, two = fit(place, CONFIG), fit(place, dataclasses.replace(CONFIG, seed=1))
    assert any(not torch.equal(one[key], two[key]) for key in one)


def test_every_iteration_and_every_picture_is_announced() -> None:
    steps: list[tuple[int, StepResult]] = []
    pictures: list[int] = []
    config = dataclasses.replace(CONFIG, sample_every=2, prompts_per_step=2)
    fit(setting(), config, on_step=lambda i, r: steps.append((i, r)), on_sample=pictures.append)
    assert [iteration for iteration, _ in steps] == [0, 1, 2]
    assert all(0 <= result.bias["bright"] <= 1 and result.loss > 0 for _, result in steps)
    assert pictures == [0, 2, 3]


def test_a_solver_that_adds_noise_is_refused_before_anything_is_attached() -> None:
    from diffusers import DDPMScheduler

    place = setting()
    place.pipe.scheduler = DDPMScheduler()
    with pytest.raises(UnsupportedSchedulerError):
        fit(place, CONFIG)
    assert not [name for name, _ in place.pipe.text_encoder.named_modules() if "lora" in name]


def test_an_error_on_the_way_takes_the_adaptor_out() -> None:
    place = setting()

    def stop(iteration: int, result: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(place, CONFIG, on_step=stop)
    assert not [name for name, _ in place.pipe.text_encoder.named_modules() if "lora" in name]


def test_one_step_against_the_gradient_lowers_the_loss() -> None:
    place = setting()
    config = dataclasses.replace(CONFIG, preservation=0.0, parts=("unet",), step_weights="exact")
    torch.manual_seed(0)
    parameters = lora.attach(place.pipe, config.parts, rank=2)
    weights = step_weights(place.pipe.scheduler, config.num_steps, config.step_weights)
    losses = []
    for _ in range(4):
        generator = torch.Generator().manual_seed(0)
        result = train_step(place, config, "a nurse", list(range(8)), weights=weights, generator=generator)
        losses.append(result.loss)
        norm = torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()
        with torch.no_grad():
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter -= 0.05 * parameter.grad / norm
                    parameter.grad = None
    assert losses[-1] < losses[0]


def test_bias_of_a_batch_is_zero_when_even_and_largest_when_one_sided() -> None:
    assert batch_bias(torch.eye(2).repeat(4, 1)) == 0
    assert batch_bias(torch.tensor([[1.0, 0.0]]).repeat(4, 1)) == 1
    assert batch_bias(torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(4, 1)) == pytest.approx(0.5)


def test_seeds_differ_between_iterations_and_prompts() -> None:
    lists = [image_seeds(0, iteration, prompt, 4) for iteration in range(5) for prompt in range(3)]
    assert len({seed for seeds in lists for seed in seeds}) == 60
    assert image_seeds(0, 1, 2, 4) == image_seeds(0, 1, 2, 8)[:4]


def test_the_first_iterations_can_do_without_guidance(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def step(place: Setting, config: TrainConfig, *arguments: Any, **settings: Any) -> StepResult:
        seen.append(config.guidance_scale)
        return train_step(place, config, *arguments, **settings)

    monkeypatch.setattr("fair_adaptors.training.loop.train_step", step)
    fit(setting(), dataclasses.replace(CONFIG, unguided=2))
    assert seen == [1.0, 1.0, 2.0]
