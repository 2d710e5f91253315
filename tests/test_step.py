"""One step of training: the gradient of a batch, and which images take part in it."""

import dataclasses
import math
from typing import Any, Literal

import pytest
import torch
from fair_adaptors.training.config import Attribute, TrainConfig
from fair_adaptors.training.engine import objective, step
from fair_adaptors.training.engine.batches import Batch
from fair_adaptors.training.engine.loop import apply_gradients, fit
from fair_adaptors.training.engine.objective import ObservedImages
from fair_adaptors.training.engine.processes import World
from fair_adaptors.training.engine.state import attached
from fair_adaptors.training.engine.step import LOSS_SCALE, StepResult, _kept_targets, batch_bias, train_step
from fair_adaptors.training.setup import Setup
from torch import Tensor

from fair_adaptors.vision.types import FaceDetector, Faces
from tests.tiny_training import CONFIG, brightness, tiny_setup


def faces_in_the_first(count: int) -> FaceDetector:
    """A detector that finds a face all over the first images, and none in the others."""

    def find(images: Tensor) -> Faces:
        found = torch.arange(len(images)) < count
        boxes = torch.tensor([0.0, 0, images.shape[-1], images.shape[-2]]).repeat(len(images), 1) * found[:, None]
        return Faces(boxes, torch.zeros(len(images), 5, 2), found.float(), found)

    return FaceDetector("stub", "stub", find)


def batch(**changes: Any) -> Batch:
    return dataclasses.replace(Batch(("a nurse",) * 8, tuple(range(8)), 3, 2.0, 0), **changes)


def test_one_step_against_the_gradient_lowers_the_loss() -> None:
    place = tiny_setup()
    config = dataclasses.replace(CONFIG, preservation=0.0, parts=("unet",), step_weights="exact")
    losses = []
    with attached(place, config) as state:
        for _ in range(4):
            result = train_step(place, config, state, batch())
            losses.append(result.loss)
            norm = torch.stack([p.grad.norm() for p in state.parameters.values() if p.grad is not None]).norm()
            with torch.no_grad():
                for parameter in state.parameters.values():
                    if parameter.grad is not None:
                        parameter -= 0.05 * parameter.grad / norm
                        parameter.grad = None
    assert losses[-1] < losses[0]


def test_bias_of_a_batch_is_zero_when_even_and_largest_when_one_sided() -> None:
    assert batch_bias(torch.eye(2).repeat(4, 1)) == 0
    assert batch_bias(torch.tensor([[1.0, 0.0]]).repeat(4, 1)) == 1
    assert batch_bias(torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(4, 1)) == pytest.approx(0.5)


def gradient(place: Setup, config: TrainConfig, one: Batch | None = None) -> Tensor:
    """The gradient of one batch, with second factors that are not zero."""
    with attached(place, config) as state:
        for parameter in state.parameters.values():
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
        train_step(place, config, state, one or batch())
        return torch.cat([p.grad.flatten() for p in state.parameters.values() if p.grad is not None])


@pytest.mark.parametrize("by", ["image", "prompt"])
def test_decoding_in_chunks_changes_nothing(by: Literal["image", "prompt"]) -> None:
    """Neither to the attribute that is made fair, nor to the one that must stay, which has a gradient of its own."""
    config = dataclasses.replace(CONFIG, keep_by=by, keep_confidence=0.6)
    whole = gradient(tiny_setup("warm"), config)
    chunked = gradient(tiny_setup("warm"), dataclasses.replace(config, images_per_decode=3))
    assert torch.allclose(whole, chunked, rtol=1e-4, atol=1e-7)
    assert (whole - gradient(tiny_setup(), config)).abs().max() > 1e-3


def test_activation_checkpointing_changes_nothing() -> None:
    place = tiny_setup()
    config = dataclasses.replace(CONFIG, parts=("unet",))
    calls: list[int] = []
    place.pipe.unet.up_blocks[-1].resnets[-1].register_forward_pre_hook(lambda *_: calls.append(1))
    plain, before = gradient(place, config), len(calls)
    place.pipe.unet.enable_gradient_checkpointing()
    assert torch.equal(plain, gradient(place, config))
    assert len(calls) - before > before, "the blocks are computed again in the backward pass"


def test_dropout_acts_in_the_gradient_only_and_is_repeatable() -> None:
    place, config = tiny_setup(), dataclasses.replace(CONFIG, dropout=0.5)
    one, two, none = gradient(place, config), gradient(place, config), gradient(place, CONFIG)
    assert torch.equal(one, two) and not torch.equal(one, none)
    with attached(place, config) as state:
        dropped = train_step(place, config, state, batch()).loss
    with attached(place, CONFIG) as state:
        assert dropped == train_step(place, CONFIG, state, batch()).loss


@pytest.mark.parametrize(
    ("dtype", "side", "alike"),
    [("bfloat16", 8, 0.98), ("float16", 8, 0.99999), pytest.param("float16", 20, 0.99999, marks=pytest.mark.slow)],
)
def test_a_base_in_half_precision_has_nearly_the_same_gradient(dtype: str, side: int, alike: float) -> None:
    """A pixel's gradient is near the smallest number of float16, the nearer the larger the image: the scale helps."""
    place = tiny_setup()
    place.pipe.unet.register_to_config(sample_size=side)
    exact = gradient(place, CONFIG)
    place.pipe.to(dtype=getattr(torch, dtype))
    config = dataclasses.replace(CONFIG, dtype=dtype)
    rough = gradient(place, config) / LOSS_SCALE.get(dtype, 1.0)
    assert rough.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(exact.double(), rough.double(), dim=0) > alike


def test_all_calls_of_a_solver_with_more_calls_than_steps_are_chosen_from(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import PNDMScheduler

    place = tiny_setup()
    place.pipe.scheduler = PNDMScheduler(skip_prk_steps=True)
    seen: set[int] = set()

    def note(*arguments: Any, steps: Tensor, **settings: Any) -> None:
        seen.update(steps.flatten().tolist())

    monkeypatch.setattr("fair_adaptors.training.engine.step.accumulate_gradients", note)
    config = dataclasses.replace(CONFIG, gradient_steps=1)
    with attached(place, config) as state:
        for draws in range(40):
            train_step(place, config, state, batch(draws=draws))
    assert seen == {0, 1, 2, 3}


def test_images_of_a_prompt_that_names_a_class_are_to_show_that_class(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(step, "losses", lambda *parts: given.append(parts[4]) or objective.losses(*parts))
    place = tiny_setup()
    for named in ({"a nurse": {"bright": "dark"}}, {"a guard": {"bright": "bright"}}):
        with attached(place, CONFIG) as state:
            result = train_step(dataclasses.replace(place, named=named), CONFIG, state, batch())
        assert math.isnan(result.bias["bright"]) == ("a nurse" in named)
    told, free = (each["bright"] for each in given)
    assert told.labels.tolist() == [0] * 8 and told.keep.all() and (told.confidence == 1).all()
    assert sorted(free.labels.tolist()) == [0] * 4 + [1] * 4


def test_other_attributes_of_a_prompt_that_names_a_class_are_made_fair(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(step, "losses", lambda *parts: given.append(parts[4]) or objective.losses(*parts))
    config = dataclasses.replace(
        CONFIG, attributes=(*CONFIG.attributes, Attribute("warm", ("cold", "warm"), (0.5, 0.5)))
    )
    place = dataclasses.replace(tiny_setup(), named={"a nurse": {"warm": "warm"}})
    with attached(place, config) as state:
        train_step(place, config, state, batch())
    (found,) = given
    assert list(found) == ["bright", "warm"] and (found["warm"].labels == 1).all()
    assert sorted(found["bright"].labels.tolist()) == [0] * 4 + [1] * 4


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
def test_a_batch_of_several_prompts_is_the_mean_of_their_batches(guidance_scale: float) -> None:
    place = tiny_setup("warm")
    place = dataclasses.replace(place, named={"a guard": {"bright": "dark"}})
    config = dataclasses.replace(CONFIG, parts=("text_encoder", "unet", "tokens"), gradient_steps=0, images_per_call=1)
    every = batch(prompts=("a nurse",) * 4 + ("a guard",) * 4, guidance_scale=guidance_scale)
    alone = [
        dataclasses.replace(every, prompts=every.prompts[half], seeds=every.seeds[half])
        for half in (slice(0, 4), slice(4, 8))
    ]
    found = []
    with attached(place, config) as state:
        for one in (every, *alone):
            result = train_step(place, config, state, one)
            gradient = torch.cat([p.grad.flatten() for p in state.parameters.values() if p.grad is not None])
            for parameter in state.parameters.values():
                parameter.grad = None
            found.append((gradient, result))
    (whole, together), (first, free), (second, named) = found
    assert torch.nn.functional.cosine_similarity(first, second, dim=0) < 0.9
    torch.testing.assert_close(whole, (first + second) / 2, rtol=1e-3, atol=1e-5 * whole.abs().max().item())
    assert together.loss == pytest.approx((free.loss + named.loss) / 2, rel=1e-4)
    assert together.bias == free.bias and math.isnan(named.bias["bright"])


def test_a_bias_of_an_iteration_is_that_of_the_prompts_that_name_no_class() -> None:
    place = tiny_setup()
    with attached(place, CONFIG) as state:
        result = train_step(place, CONFIG, state, batch())
        named = dataclasses.replace(result, bias={"bright": math.nan})
        assert apply_gradients(state, CONFIG, [result, named], World()).bias == result.bias
        assert math.isnan(apply_gradients(state, CONFIG, [named], World()).bias["bright"])


def test_no_face_in_any_image_is_an_empty_step() -> None:
    place = dataclasses.replace(tiny_setup(), faces=faces_in_the_first(0))
    with attached(place, CONFIG) as state:
        before = {name: parameter.detach().clone() for name, parameter in state.parameters.items()}
        results: list[StepResult] = []
        fit(place, CONFIG, state, on_step=lambda state, result: results.append(result))
        assert state.empty == 3 and not state.skipped and not any(result.applied for result in results)
        assert all(torch.equal(parameter, before[name]) for name, parameter in state.parameters.items())


def test_images_without_a_face_get_no_target() -> None:
    place = tiny_setup()
    one = dataclasses.replace(place, faces=faces_in_the_first(5))
    with attached(place, CONFIG) as state:
        result = train_step(one, dataclasses.replace(CONFIG, preservation=0.0), state, batch())
    assert (result.images, result.took_part) == (8, 5)


@pytest.mark.parametrize("by", ["image", "prompt"])
def test_what_must_stay_has_a_target_only_where_both_images_show_a_face_and_the_original_is_sure(
    by: Literal["image", "prompt"],
) -> None:
    """The images: both have a face · only the original · only the new one · the original is unsure · one is broken."""
    surest, sure, unsure, broken = [5.0, 0.0], [3.0, 0.0], [0.5, 0.0], [math.nan, 0.0]

    def images(found: list[bool], *logits: list[float]) -> list[ObservedImages]:
        there = torch.tensor(found)
        faces = Faces(torch.zeros(6, 4), torch.zeros(6, 5, 2), there.float(), there)
        return [ObservedImages(torch.zeros(6, 1), torch.zeros(6, 1), faces, {"warm": torch.tensor(logits)})]

    new = images([True, False, True, True, True, True], sure, surest, surest, unsure, surest, broken)
    old = images([True, True, False, True, True, True], sure, surest, surest, unsure, broken, surest)
    config, taking_part = dataclasses.replace(CONFIG, keep_by=by), new[0].found
    found = _kept_targets(tiny_setup("warm"), config, (new, old), taking_part, ("a nurse",) * 6, world=World())
    assert found["warm"].keep.tolist() == [True, *[False] * 5]
    assert _kept_targets(tiny_setup(), config, (new, old), taking_part, ("a nurse",) * 6, world=World()) == {}


def test_images_that_are_not_finite_take_no_part_in_the_targets() -> None:
    place = tiny_setup()

    def broken(images: Tensor) -> dict[str, Tensor]:
        logits = brightness(images)["bright"].clone()
        logits[0] = math.nan
        return {"bright": logits}

    with attached(place, CONFIG) as state:
        result = train_step(dataclasses.replace(place, classifier=broken), CONFIG, state, batch())
        applied = apply_gradients(state, CONFIG, [result], World())
    assert result.took_part == 7 and applied.finite and applied.applied


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # dynamo's own
def test_the_unet_can_be_compiled() -> None:
    place = tiny_setup()
    plain = gradient(place, CONFIG)
    place.pipe.unet.compile(backend="eager")
    assert torch.allclose(plain, gradient(place, CONFIG), rtol=1e-4, atol=1e-7)
