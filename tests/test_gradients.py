import copy
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
)
from fair_adaptors.training.engine.gradients import affine_coefficients, choose_steps, published_factors, step_weights
from fair_adaptors.training.engine.sampling import encode_prompts, initial_noise, predict, sample
from fair_adaptors.training.engine.schedule import change_per_output

from fair_adaptors.errors import UnsupportedSchedulerError
from tests.reference import agrees_with_the_whole_graph, per_step, taken, trained
from tests.tiny import FAMILIES, tiny_pipeline

SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
DDIM = DDIMScheduler(**SCHEDULE, clip_sample=False)
DPM = DPMSolverMultistepScheduler(**SCHEDULE)


def at(scheduler: Any, num_steps: int) -> Any:
    """A copy of a scheduler at the start of a run."""
    copied = copy.deepcopy(scheduler)
    copied.set_timesteps(num_steps)
    return copied


def with_adaptor(scheduler: Any, part: str) -> tuple[Any, list[torch.nn.Parameter]]:
    pipe = tiny_pipeline()
    pipe.scheduler = scheduler
    return pipe, trained(pipe, [part])


@pytest.mark.parametrize("kind", ["uniform", "published", "exact"])
@pytest.mark.parametrize("guidance_scale", [1.0, 7.5])
@pytest.mark.parametrize("scheduler", [DDIM, DPM], ids=["DDIM", "DPM-Solver++"])
@pytest.mark.parametrize("part", ["text_encoder", "unet"])
def test_per_step_gradients_are_those_of_the_whole_graph(
    part: str, scheduler: Any, guidance_scale: float, kind: Any
) -> None:
    pipe = tiny_pipeline()
    pipe.scheduler = scheduler
    assert agrees_with_the_whole_graph(pipe, [part], kind, num_steps=6, guidance_scale=guidance_scale)


OTHERS = {"SD 2.x": ("text_encoder", "unet"), "SDXL": ("text_encoder", "text_encoder_2", "unet")}


@pytest.mark.parametrize(("family", "part"), [(family, part) for family, parts in OTHERS.items() for part in parts])
@pytest.mark.parametrize("kind", ["uniform", "exact"])
def test_the_gradients_of_every_family_are_those_of_the_whole_graph(family: str, part: str, kind: Any) -> None:
    agrees_with_the_whole_graph(FAMILIES[family](), [part], kind, num_steps=5, guidance_scale=5.0)


@pytest.mark.parametrize("part", ["text_encoder", "unet"])
def test_without_the_unconditional_branch_the_gradient_is_that_of_the_conditional_one(part: str) -> None:
    """Of the guided output whose unconditional prediction is a constant, as if it was kept from the rollout."""
    pipe, parameters = with_adaptor(DPM, part)
    noise, guidance = initial_noise(pipe, [0, 1]), 7.5
    v, weights = torch.randn_like(noise), step_weights(at(DPM, 3))
    rows: list[int] = []
    hook = pipe.unet.register_forward_pre_hook(lambda _, inputs: rows.append(torch.is_grad_enabled() * len(inputs[0])))
    per_step(pipe, noise, v, guidance, weights, unconditional=False)
    ours = taken(parameters)
    hook.remove()
    assert rows == [0] * 3 + [len(noise)] * 3
    with torch.no_grad():
        both = encode_prompts(pipe, ["a nurse"], guidance_scale=guidance)
    run = sample(pipe, both, noise, num_steps=3, guidance_scale=guidance)
    for step, weight in enumerate(weights):
        own = encode_prompts(pipe, ["a nurse"], guidance_scale=1.0)
        inputs, timestep = run.scaled_inputs[step], run.timesteps[step]
        with torch.no_grad():
            kept = predict(pipe, inputs, timestep, tuple(each[:1] for each in both), guidance_scale=1.0)
        output = kept + guidance * (predict(pipe, inputs, timestep, own, guidance_scale=1.0) - kept)
        output.backward(weight.to(v) * v)
    wanted = taken(parameters)
    assert (ours - wanted).norm() <= 1e-5 * wanted.norm() > 0
    per_step(pipe, noise, v, guidance, weights)
    assert (taken(parameters) - wanted).norm() > 0.01 * wanted.norm(), "the other branch has a gradient, too"


@pytest.mark.parametrize("images_per_call", [1, 3, 4, 99])
@pytest.mark.parametrize("part", ["text_encoder", "unet"])
def test_how_images_and_steps_share_calls_changes_nothing(part: str, images_per_call: int) -> None:
    pipe, parameters = with_adaptor(DPM, part)
    noise = initial_noise(pipe, [0, 1])
    v, weights = torch.randn_like(noise), step_weights(at(DPM, 5))
    per_step(pipe, noise, v, 7.5, weights)
    one_by_one = taken(parameters)
    per_step(pipe, noise, v, 7.5, weights, images_per_call=images_per_call)
    assert (taken(parameters) - one_by_one).norm() <= 1e-5 * one_by_one.norm()


@pytest.mark.parametrize("each_its_own", [False, True])
def test_all_subsets_of_the_steps_average_to_the_whole_gradient(each_its_own: bool) -> None:
    """Two of four steps, for two images: the same for both; or one gets two, and the other one the rest."""
    pipe, parameters = with_adaptor(DDIM, "unet")
    noise = initial_noise(pipe, [0, 1])
    v, weights = torch.randn_like(noise), step_weights(at(DDIM, 4))
    per_step(pipe, noise, v, 1.0, weights)
    whole = taken(parameters)
    subsets = list(torch.combinations(torch.arange(4), 2))
    if each_its_own:
        generator = torch.Generator().manual_seed(0)
        drawn = [choose_steps(4, 2, 2, generator=generator) for _ in range(20)]
        assert all(sorted(chosen.T.tolist()) == [[0, 2], [1, 3]] for chosen in drawn)
        subsets = list({tuple(chosen[0].tolist()): chosen for chosen in drawn}.values())
        assert len(subsets) == 2
    for subset in subsets:
        per_step(pipe, noise, v, 1.0, weights, steps=subset)
    assert (taken(parameters) / len(subsets) - whole).norm() <= 1e-5 * whole.norm()


@pytest.mark.parametrize(("steps", "count", "shift"), [(20, 5, 0.0), (7, 3, 0.0), (7, 3, 0.6), (5, 5, 0.0)])
def test_every_step_is_chosen_as_often_for_every_image(steps: int, count: int, shift: float) -> None:
    generator = torch.Generator().manual_seed(0)
    chosen = torch.stack([choose_steps(steps, count, 3, generator=generator, shift=shift) for _ in range(3_000)])
    assert (chosen.diff(dim=1) > 0).all()
    for image in range(3):
        shares = chosen[:, :, image].flatten().bincount(minlength=steps) / 3_000
        assert (shares - count / steps).abs().max() < 0.04


def test_shifted_places_are_other_steps_of_the_same_parts_of_the_run() -> None:
    """Four updates of five steps each: every image has each of twenty steps once."""
    each = [choose_steps(20, 5, 7, generator=torch.Generator().manual_seed(0), shift=u / 4) for u in range(4)]
    assert torch.equal(torch.cat(each).sort(0).values, torch.arange(20)[:, None].expand(-1, 7))
    assert all(torch.equal(steps // 4, torch.arange(5)[:, None].expand(-1, 7)) for steps in each)


def test_the_images_of_a_batch_share_the_steps_evenly() -> None:
    chosen = choose_steps(20, 2, 30, generator=torch.Generator().manual_seed(0))
    assert chosen.flatten().bincount(minlength=20).tolist() == [3] * 20


def test_ddim_coefficients_have_a_closed_form() -> None:
    """z₀ = Σᵢ [Πⱼ>ᵢ √(ᾱⱼ₊₁/ᾱⱼ)] (√(1−ᾱᵢ₊₁) − √(ᾱᵢ₊₁/ᾱᵢ)·√(1−ᾱᵢ)) εᵢ + … (Song et al. 2021, eq. 12 with σ = 0)."""
    DDIM.set_timesteps(7)
    alphas = torch.cat([DDIM.alphas_cumprod[DDIM.timesteps], DDIM.final_alpha_cumprod[None]]).double()
    stretch = (alphas[1:] / alphas[:-1]).sqrt()
    own = (1 - alphas[1:]).sqrt() - stretch * (1 - alphas[:-1]).sqrt()
    later = torch.cat([stretch.flip(0).cumprod(0).flip(0)[1:], torch.ones(1).double()])
    assert torch.allclose(affine_coefficients(at(DDIM, 7)), own * later, rtol=1e-5)


@pytest.mark.parametrize("scheduler", [PNDMScheduler, EulerDiscreteScheduler])
def test_any_deterministic_solver_has_coefficients(scheduler: type) -> None:
    coefficients = affine_coefficients(at(scheduler.from_config(DPM.config), 8))
    assert coefficients.isfinite().all() and coefficients.sum() < 0


@pytest.mark.parametrize(
    "scheduler",
    [
        DDIMScheduler(**SCHEDULE, clip_sample=True),
        DDIMScheduler(**SCHEDULE, clip_sample=False, thresholding=True),
        DPMSolverMultistepScheduler(**SCHEDULE, thresholding=True),
        DDPMScheduler(beta_start=0.00085, beta_end=0.012, clip_sample=False),
        EulerAncestralDiscreteScheduler(**SCHEDULE),
        DPMSolverMultistepScheduler(**SCHEDULE, algorithm_type="sde-dpmsolver++"),
    ],
    ids=["clipping", "thresholding", "DPM thresholding", "DDPM", "Euler ancestral", "SDE"],
)
def test_a_solver_that_clips_or_adds_noise_is_refused(scheduler: Any) -> None:
    with pytest.raises(UnsupportedSchedulerError, match="not affine"):
        affine_coefficients(at(scheduler, 6))


@pytest.mark.parametrize("solver", [DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler])
def test_a_model_of_velocity_moves_as_the_same_model_of_noise_would(solver: type) -> None:
    """With ε = √ᾱ·v + √(1−ᾱ)·xₜ, a change of v changes ε by √ᾱ, and what the step makes as that change of ε does."""
    noise = solver.from_config(DPM.config, clip_sample=False)
    velocity = solver.from_config(DPM.config, clip_sample=False, prediction_type="v_prediction")
    by_chain_rule = affine_coefficients(at(noise, 1)) * change_per_output(at(velocity, 1), "noise")
    assert torch.allclose(affine_coefficients(at(velocity, 1)), by_chain_rule, rtol=1e-4)
    assert torch.equal(step_weights(at(velocity, 7)), -change_per_output(at(velocity, 7), "noise"))


def test_a_model_that_predicts_the_image_is_refused() -> None:
    with pytest.raises(UnsupportedSchedulerError, match="'sample'"):
        step_weights(at(DDIMScheduler(**SCHEDULE, clip_sample=False, prediction_type="sample"), 6))


def test_uniform_weights_are_the_papers() -> None:
    assert torch.equal(step_weights(at(DPM, 9)), -torch.ones(9).double())


def test_published_weights_are_flat_but_for_both_ends() -> None:
    """At 20 steps down to the smallest noise level, as the published code had it, the last step weighs 5.35 (§3)."""
    weights = step_weights(at(DPMSolverMultistepScheduler(**SCHEDULE, final_sigmas_type="sigma_min"), 20), "published")
    relative = weights / weights[1:15].mean()
    assert (relative[1:15] - 1).abs().max() < 0.04
    expected = torch.tensor([0.55, 0.92, 0.64, -0.33, -0.75, 5.35]).double()
    assert torch.allclose(relative[[0, 15, 16, 17, 18, 19]], expected, atol=0.006)


def test_published_factors_have_geometric_mean_one() -> None:
    assert published_factors(at(DPM, 20)).log().mean().abs() < 1e-9
