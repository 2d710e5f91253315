"""Models of a flow in the engine: what they draw, their gradients, and schedulers that do not fit."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    FlowMatchLCMScheduler,
)
from fair_adaptors.training import setup
from fair_adaptors.training.engine.denoisers import denoiser_for
from fair_adaptors.training.engine.families.flux import pack
from fair_adaptors.training.engine.gradients import step_weights
from fair_adaptors.training.engine.sampling import decode, encode_prompts, initial_noise, predict, sample
from fair_adaptors.training.engine.schedule import scheduler_for
from fair_adaptors.training.memory import memory, skeleton, trained_values
from fair_adaptors.training.recipes import get_recipe

from fair_adaptors.errors import ConfigError, UnsupportedSchedulerError
from fair_adaptors.families.table import family_of, guided
from tests.reference import agrees_with_the_whole_graph, per_step, taken, trained
from tests.tiny import tiny_pipeline
from tests.tiny_flow import FLOW_FAMILIES, SIDE, size, tiny_flux, tiny_klein
from tests.tiny_training import CONFIG

SCHEDULERS = {
    "Euler": FlowMatchEulerDiscreteScheduler(),
    "shifted": FlowMatchEulerDiscreteScheduler(shift=3.0),
    "shifted by size": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02),
    "DPM-Solver++": DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3),
}


NOT_DPM, NOT_SIZE = {"flux", "flux2", "z-image", "qwen-image"}, {"sana"}
"""Whose pipelines hand a shift to the scheduler, which DPM-Solver++ does not take; and whose hand it none."""
EVERY = [
    (family, name)
    for family in FLOW_FAMILIES
    for name in SCHEDULERS
    if family not in (NOT_DPM if "DPM" in name else NOT_SIZE if "size" in name else ())
]


def flow_pipeline(family: str, scheduler: str = "shifted") -> Any:
    pipe = FLOW_FAMILIES[family]()
    pipe.scheduler = SCHEDULERS[scheduler]
    pipe.default_sample_size = SIDE // 2  # the autoencoder's latents; Z-Image's own pipeline has no such attribute
    return pipe


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
@pytest.mark.parametrize(("family", "scheduler"), EVERY)
def test_sampling_is_what_the_pipeline_does(family: str, scheduler: str, guidance_scale: float) -> None:
    draws_as_its_pipeline(flow_pipeline(family, scheduler), guidance_scale)


@pytest.mark.parametrize("pipe", [tiny_flux(guidance=False), tiny_klein(distilled=True)], ids=["schnell", "klein"])
def test_a_model_of_few_steps_is_called_once_for_an_image(pipe: Any) -> None:
    pipe.default_sample_size = SIDE // 2
    assert denoiser_for(pipe).branches(4.0) == 1
    draws_as_its_pipeline(pipe, 4.0)


def test_guidance_is_in_each_pipeline_s_own_convention() -> None:
    """The output is affine in the conditional one, and the slope is what its gradient is multiplied by."""
    found = {name: denoiser_for(make()) for name, make in FLOW_FAMILIES.items()}
    slopes = {name: one.guide(0.0, 1.0, 4.0) for name, one in found.items() if one.affine_guidance}
    assert slopes["z-image"] == 5.0 and slopes["sd3"] == slopes["flux2"] == 4.0
    assert [found["z-image"].branches(scale) for scale in (0.0, 1.0)] == [1, 2] and "qwen-image" not in slopes


def draws_as_its_pipeline(pipe: Any, guidance_scale: float) -> None:
    expected = pipe(
        prompt="a nurse",
        generator=[torch.Generator().manual_seed(seed) for seed in (3, 4)],
        num_images_per_prompt=2,
        num_inference_steps=4,
        **guided(pipe, guidance_scale, 1),
        **size(pipe),
        output_type="pt",
    ).images
    with torch.no_grad():
        conditions = encode_prompts(pipe, ["a nurse"], guidance_scale=guidance_scale)
        run = sample(pipe, conditions, initial_noise(pipe, [3, 4]), num_steps=4, guidance_scale=guidance_scale)
        images = decode(pipe, run.latents).clamp(0, 1)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "scheduler", "kind"),
    [
        *(("sd3", scheduler, kind) for scheduler in SCHEDULERS for kind in ("noise", "velocity", "image")),
        *((family, scheduler, "exact") for family, scheduler in EVERY),
    ],
)
def test_per_step_gradients_are_those_of_the_whole_graph(family: str, scheduler: str, kind: Any) -> None:
    pipe = flow_pipeline(family, scheduler)
    reached = agrees_with_the_whole_graph(pipe, family_of(pipe).parts, kind, num_steps=4, guidance_scale=4.0)
    assert reached == (family != "qwen-image")  # whose last block has an output for text, which goes nowhere


def test_the_gradient_of_one_branch_alone_is_that_of_rescaled_guidance_with_the_other_fixed() -> None:
    pipe = flow_pipeline("qwen-image")
    parameters, noise = trained(pipe, ["transformer"]), initial_noise(pipe, [0, 1])
    v, weights = torch.randn_like(noise), step_weights(scheduler_for(pipe, 3))
    per_step(pipe, noise, v, 4.0, weights, unconditional=False)
    ours = taken(parameters)
    with torch.no_grad():
        rows = encode_prompts(pipe, ["a nurse"], guidance_scale=4.0)
    run = sample(pipe, rows, noise, num_steps=3, guidance_scale=4.0)
    for inputs, timestep, weight in zip(run.scaled_inputs, run.timesteps, weights, strict=True):
        plain, said = (
            predict(pipe, inputs, timestep, tuple(each[one : one + 1] for each in rows), guidance_scale=1.0)
            for one in (0, 1)
        )
        guided = denoiser_for(pipe).guide(plain.detach(), said, 4.0)
        assert torch.allclose(pack(guided).norm(dim=-1), pack(said).norm(dim=-1), rtol=1e-5)
        guided.backward(weight.to(v) * v)
    wanted = taken(parameters)
    assert (ours - wanted).norm() <= 1e-5 * wanted.norm() > 0


@pytest.mark.parametrize("scheduler", ["Euler", "shifted"])
def test_step_weights_of_a_flow_have_a_closed_form(scheduler: str) -> None:
    """With σ from 1 to 0: xₜ = (1 − σ)·x₀ + σ·ε and v = ε − x₀, so that ε = xₜ + (1 − σ)·v and x₀ = xₜ − σ·v."""
    pipe = flow_pipeline("sd3", scheduler)
    started = scheduler_for(pipe, 5)
    sigmas = started.sigmas.double()
    assert sigmas[0] == 1 and sigmas[-1] == 0
    wanted = {"noise": sigmas[:-1] - 1, "velocity": -torch.ones(5).double(), "image": -sigmas[:-1]}
    wanted |= {"uniform": wanted["velocity"], "exact": sigmas.diff()}
    for kind, expected in wanted.items():
        torch.testing.assert_close(step_weights(started, kind), expected, rtol=1e-6, atol=1e-6)  # type: ignore[arg-type]


def test_a_flow_that_adds_noise_is_refused_and_the_published_weights_are_not_for_it() -> None:
    pipe = FLOW_FAMILIES["sd3"]()
    for scheduler in (FlowMatchEulerDiscreteScheduler(stochastic_sampling=True), FlowMatchLCMScheduler()):
        pipe.scheduler = scheduler
        with pytest.raises(UnsupportedSchedulerError, match="without stochastic_sampling"):
            step_weights(scheduler_for(pipe, 4))
    pipe.scheduler = FlowMatchHeunDiscreteScheduler()
    assert step_weights(scheduler_for(pipe, 4)).isfinite().all()
    with pytest.raises(UnsupportedSchedulerError, match="no weights for a model of a flow"):
        step_weights(scheduler_for(pipe, 4), "published")


def test_a_base_has_its_own_scheduler_and_one_for_another_kind_of_model_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flow, noise = FLOW_FAMILIES["sd3"](), tiny_pipeline()
    config = dataclasses.replace(CONFIG, base="a/b")

    def load(pipe: Any) -> Any:
        monkeypatch.setattr(setup, "load_pipeline", lambda *base, **settings: pipe)
        return setup._load_pipeline(config, "cpu")

    before = flow.scheduler
    assert load(flow).scheduler is before
    flow.scheduler, noise.scheduler = noise.scheduler, flow.scheduler
    with pytest.raises(ConfigError, match="predicts a flow, and its scheduler, DPMSolverMultistepScheduler, is for"):
        load(flow)
    with pytest.raises(ConfigError, match="FlowMatchEulerDiscreteScheduler, is for a model of a flow"):
        load(noise)


@pytest.mark.parametrize("family", FLOW_FAMILIES)
def test_the_shapes_of_noise_conditions_and_pictures_are_those_that_are_said(family: str) -> None:
    pipe = flow_pipeline(family)
    denoiser = denoiser_for(pipe)
    channels, height, width = denoiser.latent_shape
    noise = initial_noise(pipe, [0])
    assert noise.shape == (1, channels, height, width) and noise.dtype == denoiser.latent_dtype
    side = size(pipe)["height"]
    assert (height * denoiser.scale, width * denoiser.scale) == (side, side)
    assert decode(pipe, noise).shape == (1, 3, side, side)
    rows = [tuple(each.shape[1:]) for each in denoiser.encode("a nurse")]
    said = denoiser.condition_shapes(pipe.tokenizer.model_max_length)
    assert said == tuple(rows[: len(said)])


@pytest.mark.parametrize(("family", "layer"), [("qwen-image", "resnets.0.conv1"), ("sana", "1.conv1")])
def test_an_overshoot_has_a_gradient_and_layers_are_computed_again_where_diffusers_cannot(
    family: str, layer: str
) -> None:
    pipe = flow_pipeline(family)
    leaf = initial_noise(pipe, [0]).requires_grad_(True)
    torch.nn.init.normal_(pipe.vae.decoder.conv_out.weight)
    calls: list[int] = []
    block = pipe.vae.decoder.up_blocks[-1 if family == "qwen-image" else 0]  # the last one
    block.get_submodule(layer).register_forward_pre_hook(lambda *_: calls.append(1))

    def gradient() -> torch.Tensor:
        pixels = decode(pipe, leaf)
        assert pixels.max() > 1.1
        return torch.autograd.grad(pixels[pixels > 1.1].sum(), leaf)[0]

    plain = gradient()
    setup.checkpoint_activations(pipe.transformer, pipe.vae)
    assert len(calls) == 1 and torch.equal(gradient(), plain) and plain.norm() > 0
    assert len(calls) == 3


@pytest.mark.parametrize("family", FLOW_FAMILIES)
def test_its_memory_is_planned_from_its_configurations_alone(family: str, tmp_path: Path) -> None:
    FLOW_FAMILIES[family]().save_pretrained(tmp_path)
    for file in tmp_path.rglob("*.safetensors"):
        file.unlink()
    config = get_recipe("gender", {"base": str(tmp_path), "parts": "transformer"})
    found = memory(config, skeleton(str(tmp_path)), 2, 2)
    assert trained_values(config, skeleton(str(tmp_path))) > 0 and min(found.passing.values()) > 0
