"""A pipeline's scheduler as the engine runs it: its start, what the model sees, and what its output is to it."""

import copy
from typing import Any, Literal

import torch
from torch import Tensor

from fair_adaptors.errors import ConfigError, UnsupportedSchedulerError

from .denoisers import denoiser_for

Space = Literal["noise", "velocity", "image"]


def scheduler_for(pipe: Any, num_steps: int, *, device: torch.device | str = "cpu") -> Any:
    """Return a copy of a pipeline's scheduler at the start of T steps, as the pipeline itself starts it."""
    scheduler = copy.deepcopy(pipe.scheduler)
    denoiser_for(pipe).set_timesteps(scheduler, num_steps, device)
    return scheduler


def is_flow(scheduler: Any) -> bool:
    """Tell whether a scheduler takes the model's output for the velocity ε − x₀ of a straight flow."""
    kinds = [kind.__name__ for kind in type(scheduler).__mro__]
    return any("FlowMatch" in name for name in kinds) or scheduler.config.get("prediction_type") == "flow_prediction"


def check_scheduler(pipe: Any) -> None:
    """Refuse a pipeline whose scheduler takes the model's output for something else than what it is.

    Its pictures would be noise, and another scheduler in its place would be a guess.

    Raises:
        ConfigError: the model predicts a flow and the scheduler expects noise, or the other way round.
    """
    flow, given = denoiser_for(pipe).predicts_flow, type(pipe.scheduler).__name__
    if flow and not is_flow(pipe.scheduler):
        raise ConfigError(
            f"the base's model predicts a flow, and its scheduler, {given}, is for a model of noise: give the pipeline"
            " the scheduler that it was published with, such as FlowMatchEulerDiscreteScheduler"
        )
    if not flow and is_flow(pipe.scheduler):
        raise ConfigError(
            f"the base's model predicts noise or its velocity, and its scheduler, {given}, is for a model of a flow:"
            " give the pipeline the scheduler that it was published with, such as DPMSolverMultistepScheduler"
        )


def start(scheduler: Any, noise: Tensor) -> Tensor:
    """Return the latents before the first step, of standard normal noise."""
    return noise if is_flow(scheduler) else noise * scheduler.init_noise_sigma


def scaled(scheduler: Any, latents: Tensor, timestep: Tensor) -> Tensor:
    """Return what the model sees of latents."""
    return latents if is_flow(scheduler) else scheduler.scale_model_input(latents, timestep)


def change_per_output(scheduler: Any, space: Space) -> Tensor:
    """Return how noise, velocity or image follow the model's output at each step, its input fixed, float64 [T].

    The input is xₜ = α·x₀ + σ·ε. Of the velocity v = α·ε − σ·x₀ (Salimans & Ho 2022, appendix D), ∂(ε, v, x₀)/∂v is
    (α, 1, −σ), and it is the same of the v = ε − x₀ of a flow, where α = 1 − σ. Where the model predicts noise, each
    is divided by α.

    Args:
        scheduler: from ``scheduler_for``.

    Raises:
        UnsupportedSchedulerError: the model predicts something else.
    """
    alpha, sigma = signal_and_noise(scheduler, scheduler.timesteps)
    found = {"noise": alpha, "velocity": torch.ones_like(alpha), "image": -sigma}[space]
    kind = "flow_prediction" if is_flow(scheduler) else scheduler.config.get("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction", "flow_prediction"):
        raise UnsupportedSchedulerError(
            f"the scheduler expects prediction_type {kind!r}; only 'epsilon', 'v_prediction' and 'flow_prediction' are"
            " supported"
        )
    return found / alpha if kind == "epsilon" else found


def signal_and_noise(scheduler: Any, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """Return α and σ of the input xₜ = α·x₀ + σ·ε at each of T timesteps, float64 [T]."""
    if is_flow(scheduler):
        sigma = timesteps.double().cpu() / scheduler.config.num_train_timesteps
        return 1 - sigma, sigma
    bar = scheduler.alphas_cumprod.double()[timesteps.long().cpu()]
    return bar.sqrt(), (1 - bar).sqrt()
