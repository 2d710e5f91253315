"""Per-step adjusted gradients: the gradient of adjusted direct finetuning in memory that does not grow with the steps.

The exact gradient of the sampler is ∂z₀/∂θ = Σᵢ −Aᵢ·Bᵢ·∂ε⁽ⁱ⁾/∂θ. The method sets Bᵢ := I, that is, the U-Net's input
is cut from the graph, and Aᵢ := 1 (Shen et al. 2024, §4.2). With the input cut, z₀ is an affine function of the
predicted noises, so after a run without gradient each step's part is one U-Net call and one backward, in any order.
"""

import copy
import inspect
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fair_adaptors.errors import UnsupportedSchedulerError

from .denoisers import denoiser_for
from .sampling import Trajectory, encode_prompts, predict
from .schedule import Space, change_per_output, is_flow, scaled

StepWeights = Literal["uniform", "noise", "velocity", "image", "published", "exact"]


def affine_coefficients(scheduler: Any) -> Tensor:
    """Return cᵢ = ∂z₀/∂o⁽ⁱ⁾ of a scheduler with the model's input cut from the graph, float64 [T]; o is its output.

    Found by running a copy of the scheduler on scalars: once on zeros and once with a one in each step's noise, all
    rows of one batch. The result is then tried on random noises of ordinary and of large size.

    Args:
        scheduler: at the start of T steps, from ``scheduler_for``.

    Raises:
        UnsupportedSchedulerError: z₀ is not an affine function of the noises (thresholding, clipping), or differs from
            run to run (stochastic).
    """
    steps = len(scheduler.timesteps)
    probes = torch.cat([torch.zeros(steps, 1), torch.eye(steps)], 1).double()
    outputs = _run(scheduler, probes)
    coefficients = outputs[1:] - outputs[0]
    generator = torch.Generator().manual_seed(0)
    for size in (1.0, 100.0):
        noises = size * torch.randn(steps, 8, dtype=torch.float64, generator=generator)
        expected = outputs[0] + coefficients @ noises
        error = (_run(scheduler, noises) - expected).abs().max() / expected.abs().max()
        if not error < 1e-4:
            usable = (
                "FlowMatchEulerDiscreteScheduler without stochastic_sampling"
                if is_flow(scheduler)
                else "DDIM with eta 0 or DPM-Solver++ without thresholding, e.g."
                " DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)"
            )
            raise UnsupportedSchedulerError(
                f"{type(scheduler).__name__} is not affine in the model's output (relative error {error:.0e} on probes"
                f" of size {size:g}): it clips, thresholds or adds noise. Use {usable}"
            )
    return coefficients


def _run(scheduler: Any, noises: Tensor) -> Tensor:
    """Run a copy of ``scheduler`` on scalars: noises [T, R] give z₀ [R]."""
    scheduler = copy.deepcopy(scheduler)
    generator = torch.Generator().manual_seed(noises.shape[1])  # a stochastic step gives each row noise of its own
    latents = torch.ones(noises.shape[1], 1, 1, 1, dtype=torch.float64)
    extra = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for timestep, noise in zip(scheduler.timesteps, noises, strict=True):
        scaled(scheduler, latents, timestep)
        latents = scheduler.step(noise[:, None, None, None], timestep, latents, return_dict=False, **extra)[0]
    return latents.flatten()


def published_factors(scheduler: Any) -> Tensor:
    """Return gᵢ = √ᾱ·√(1−ᾱ)/(1−αₜ) over its geometric mean, [T]: what the published code's hook multiplies by.

    ᾱ is the training schedule's cumulative product at the step's timestep t, αₜ = ᾱₜ/ᾱₜ₋₁.

    Raises:
        UnsupportedSchedulerError: the schedule is a flow's, which has no such product.
    """
    if is_flow(scheduler):
        raise UnsupportedSchedulerError(
            "the published code has no weights for a model of a flow; choose others for `step_weights`"
        )
    timesteps = scheduler.timesteps.long()
    alphas_bar = scheduler.alphas_cumprod.double()
    previous = torch.cat([alphas_bar.new_ones(1), alphas_bar[:-1]])
    alpha_bar, one_minus_alpha = alphas_bar[timesteps], 1 - (alphas_bar / previous)[timesteps]
    factors = alpha_bar.sqrt() * (1 - alpha_bar).sqrt() / one_minus_alpha
    return factors / factors.log().mean().exp()


def step_weights(scheduler: Any, kind: StepWeights = "uniform") -> Tensor:
    """Return wᵢ [T] such that the gradient is Σᵢ wᵢ·vᵀ·∂o⁽ⁱ⁾/∂θ with v = ∂L/∂z₀ and o the model's output.

    ``noise`` is the paper's A := 1: z₀ is taken to follow each step's predicted noise with a slope of −1. ``velocity``
    has that slope for the predicted velocity, and ``image`` a slope of 1 for the predicted image. Each is multiplied
    by how its quantity follows the model's output; a call that z₀ does not depend on has weight 0. ``uniform`` is
    ``velocity`` for a model of a flow, and ``noise`` for any other. ``published`` are the effective coefficients of
    the published code, gᵢ·cᵢ. ``exact`` is cᵢ alone (only B := I).

    Args:
        scheduler: at the start of T steps, from ``scheduler_for``.

    Raises:
        UnsupportedSchedulerError: as ``affine_coefficients``, ``published_factors`` and ``change_per_output``.
    """
    usual: Space = "velocity" if is_flow(scheduler) else "noise"
    named: dict[StepWeights, Space] = {"noise": "noise", "velocity": "velocity", "image": "image"}
    space = named.get(kind, usual)
    change = change_per_output(scheduler, space)
    coefficients = affine_coefficients(scheduler)
    if kind == "published":
        return coefficients * published_factors(scheduler)
    if kind == "exact":
        return coefficients
    return torch.where(coefficients == 0, 0.0, change if space == "image" else -change)


def choose_steps(num_steps: int, count: int, images: int, *, generator: torch.Generator, shift: float = 0.0) -> Tensor:
    """Choose K of T steps for each image, [K, N], ascending: one from each K-th part of the run, ⌊(k + uᵢ)·T/K⌋.

    Every image has a place uᵢ in [0, 1) of its own, and the places of all images are spread evenly. So each step is
    used by as many images as any other, and a single image's steps lie T/K apart. Whatever the other images do, uᵢ is
    uniform: with weight T/K the gradient's mean is that of all steps.

    Args:
        num_steps: T.
        count: K.
        images: N.
        generator: the source of the places.
        shift: in [0, 1), goes on from each place by this part of T/K steps, and round to the start of the same part of
            the run: with the same places, other steps.
    """
    places = torch.randperm(images, generator=generator) + torch.rand(images, generator=generator, dtype=torch.float64)
    chosen = (torch.arange(count)[:, None] + (places / images + shift) % 1) * (num_steps / count)
    return chosen.long().clamp(max=num_steps - 1)


def accumulate_gradients(
    pipe: Any,
    trajectory: Trajectory,
    latent_gradient: Tensor,
    prompts: Sequence[str],
    *,
    guidance_scale: float,
    weights: Tensor,
    unconditional: bool = True,
    steps: Sequence[int] | Tensor | None = None,
    images_per_call: int | None = None,
    tokens: Tensor | None = None,
) -> None:
    """Add the adjusted gradient of a loss to ``.grad`` of all trainable parameters of text encoders, U-Net and tokens.

    The text encoders run once: each step's gradient is collected at their output and taken through them at the end.

    Args:
        trajectory: what ``sample`` returned for N images of ``prompts``.
        latent_gradient: v = ∂L/∂z₀ [N, C, h, w].
        prompts: one for all images, or one for each of N.
        weights: from ``step_weights``, [T].
        unconditional: whether the gradient goes through the unconditional branch of guidance too. Without, that branch
            is not even called where the output is affine in the conditional one: its slope is constant.
        steps: the steps to use, [K], or [K, N] with steps of its own for each image; None for all. Their weights are
            multiplied by T/K.
        images_per_call: rows of one call of the U-Net. Fewer than N split a step and need less memory; more let steps
            share a call, which is faster for small models. None takes N, a step at a time.
        tokens: soft tokens before the prompt, as for ``encode_prompts``.
    """
    total = len(trajectory.timesteps)
    chosen = torch.arange(total) if steps is None else torch.as_tensor(steps)
    scale, images = total / len(chosen), len(latent_gradient)
    denoiser = denoiser_for(pipe)
    if not unconditional and denoiser.affine_guidance and denoiser.branches(guidance_scale) > 1:
        scale, guidance_scale = denoiser.guide(0.0, 1.0, guidance_scale) * scale, 0.0
    if chosen.ndim == 1:
        chosen = chosen[:, None].expand(-1, images)
    pairs = torch.stack([chosen.flatten(), torch.arange(images).repeat(len(chosen))], 1)
    with torch.enable_grad():
        conditions = encode_prompts(pipe, prompts, guidance_scale=guidance_scale, tokens=tokens)
        # Sums over steps lose bits in half precision.
        leaves = [rows.detach().float().requires_grad_(rows.requires_grad) for rows in conditions]
        for step, image in (call.unbind(1) for call in pairs.split(images_per_call or images)):
            inputs, timesteps = trajectory.scaled_inputs[step, image], trajectory.timesteps[step]
            given = tuple(leaf.to(rows.dtype) for leaf, rows in zip(leaves, conditions, strict=True))
            output = predict(
                pipe,
                inputs,
                timesteps,
                given,
                guidance_scale=guidance_scale,
                images=image,
                unconditional=unconditional,
            )
            factors = (scale * weights[step]).to(output)[:, None, None, None]
            output.backward(factors * latent_gradient[image].to(output))
        reached = [(rows, leaf.grad) for rows, leaf in zip(conditions, leaves, strict=True) if leaf.grad is not None]
        if reached:
            torch.autograd.backward([rows for rows, _ in reached], [grad.to(rows.dtype) for rows, grad in reached])
