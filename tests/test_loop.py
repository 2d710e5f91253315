"""The loop on tiny real models: it learns, it is repeatable, it leaves the base alone."""

import dataclasses
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from fair_adaptors.training.config import Attribute, TrainConfig
from fair_adaptors.training.engine import gradients, lora, objective, step
from fair_adaptors.training.engine.batches import Batch
from fair_adaptors.training.engine.gradients import affine_coefficients
from fair_adaptors.training.engine.loop import apply_gradients, fit, learning_rate
from fair_adaptors.training.engine.objective import ObservedImages
from fair_adaptors.training.engine.processes import World
from fair_adaptors.training.engine.reference_images import ReferenceImages
from fair_adaptors.training.engine.state import TrainingState, attached
from fair_adaptors.training.engine.step import LOSS_SCALE, StepResult, _kept_targets, batch_bias, train_step
from fair_adaptors.training.setup import Setup
from safetensors.torch import load_file, save_file
from torch import Tensor

from fair_adaptors.errors import ConfigError, MissingExtraError, TrainingError, UnsupportedSchedulerError
from fair_adaptors.vision.types import FaceDetector, Faces
from tests.tiny_training import CONFIG, brightness, tiny_setup


def faces_in_the_first(count: int) -> FaceDetector:
    """A detector that finds a face all over the first images, and none in the others."""

    def find(images: Tensor) -> Faces:
        found = torch.arange(len(images)) < count
        boxes = torch.tensor([0.0, 0, images.shape[-1], images.shape[-2]]).repeat(len(images), 1) * found[:, None]
        return Faces(boxes, torch.zeros(len(images), 5, 2), found.float(), found)

    return FaceDetector("stub", "stub", find)


def trained(place: Setup, config: TrainConfig = CONFIG, **settings: Any) -> dict[str, Tensor]:
    """Train and return the averaged values."""
    with attached(place, config) as state:
        fit(place, config, state, **settings)
        return {name: mean.clone() for name, mean in zip(state.parameters, state.average.means, strict=True)}


def loras(place: Setup) -> list[str]:
    return [name for name, _ in place.pipe.text_encoder.named_modules() if "lora" in name]


def batch(**changes: Any) -> Batch:
    return dataclasses.replace(Batch(("a nurse",) * 8, tuple(range(8)), 3, 2.0, 0), **changes)


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

    def counted(scheduler: Any, num_steps: int) -> Tensor:
        calls.append(num_steps)
        return affine_coefficients(scheduler, num_steps)

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


@pytest.mark.parametrize("by", ["image", "prompt"])
def test_decoding_in_chunks_changes_nothing(by: Literal["image", "prompt"]) -> None:
    """Neither to the attribute that is made fair, nor to the one that must stay, which has a gradient of its own."""
    config = dataclasses.replace(CONFIG, keep_by=by, keep_confidence=0.6)
    whole = gradient(tiny_setup("warm"), config)
    chunked = gradient(tiny_setup("warm"), dataclasses.replace(config, images_per_decode=3))
    assert torch.allclose(whole, chunked, rtol=1e-4, atol=1e-7)
    assert (whole - gradient(tiny_setup(), config)).abs().max() > 1e-3


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
    [
        ("bfloat16", 8, 0.98),
        ("float16", 8, 0.99999),
        pytest.param("float16", 20, 0.99999, marks=pytest.mark.slow),
    ],
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


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # dynamo's own
def test_the_unet_can_be_compiled() -> None:
    place = tiny_setup()
    plain = gradient(place, CONFIG)
    place.pipe.unet.compile(backend="eager")
    assert torch.allclose(plain, gradient(place, CONFIG), rtol=1e-4, atol=1e-7)
