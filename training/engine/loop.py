"""The training loop: ``fit`` loops over steps, ``apply_gradients`` moves the weights.

Everything random is a function of the seed and the iteration (see ``batches``), and the loop knows of other processes
only through ``World``: a resumed run, or one on other machines, is the same run.
"""

import math
from collections.abc import Callable, Sequence

import torch
from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.setup import Setup
from torch import nn

from fair_adaptors.errors import TrainingError

from .batches import batch_at
from .objective import LOSSES
from .processes import World
from .reference_images import ReferenceImages
from .state import TrainingState
from .step import LOSS_SCALE, StepResult, add_gradient, roll_out


def fit(
    setup: Setup,
    config: TrainConfig,
    state: TrainingState,
    *,
    world: World = World(),  # noqa: B008 (frozen)
    references: ReferenceImages | None = None,
    on_step: Callable[[TrainingState, StepResult], bool | None] = lambda state, result: None,
) -> None:
    """Train until ``config.iterations``, or until ``on_step`` returns True. It is called after every iteration.

    Raises:
        StopRequested: a process was told to stop. The iteration that has begun counts for nothing: the state is that
            after the one before.
        TrainingError: the gradient was not finite in more than ``max_skipped`` iterations in a row.
    """
    while state.iteration < config.iterations:
        rollouts = []
        for number in range(config.prompts_per_step):
            world.may_stop(next(iter(state.parameters.values())).device)
            batch = batch_at(config, setup.prompts, state.iteration, number, named=setup.named)
            rollouts.append(roll_out(setup, config, state, batch, references=references, world=world))
        for update in range(config.updates_per_rollout):
            for rollout in rollouts:
                add_gradient(setup, config, state, rollout, update=update)
            result = apply_gradients(state, config, [rollout.result for rollout in rollouts], world)
            if not result.applied:
                break
        state.iteration += 1
        if state.skipped_in_a_row > config.max_skipped:
            raise TrainingError(
                f"the gradient was not finite in {state.skipped_in_a_row} iterations in a row, up to"
                f" {state.iteration}: start anew with a lower learning_rate or another dtype than {config.dtype}"
            )
        if on_step(state, result):
            return


def apply_gradients(state: TrainingState, config: TrainConfig, results: list[StepResult], world: World) -> StepResult:
    """Sum the processes' gradients, and only then decide whether they are finite: so all processes decide alike."""
    parameters = list(state.parameters.values())
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    losses = [sum(result.losses[name] for result in results) for name in LOSSES]
    total = world.sum(torch.cat([parameters[0].new_tensor(losses), *(gradient.flatten() for gradient in gradients)]))
    finite = bool(total.isfinite().all())
    took_part = sum(result.took_part for result in results)
    total = total / len(results)
    parts = (total[len(LOSSES) :] / LOSS_SCALE.get(config.dtype, 1.0)).split([p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)
    norm = nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
    rate = learning_rate(state.iteration, config)
    if finite and took_part:
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.step()
        state.average.update()
    state.optimizer.zero_grad(set_to_none=True)
    state.skipped += not finite
    state.skipped_in_a_row = 0 if finite else state.skipped_in_a_row + 1
    state.empty += finite and not took_part
    bias = {name: mean_of([result.bias[name] for result in results if result.took_part]) for name in results[0].bias}
    return StepResult(
        {name: total[number].item() for number, name in enumerate(LOSSES)},
        bias,
        sum(result.images for result in results),
        took_part,
        finite and took_part > 0,
        finite,
        norm.item(),
        rate,
    )


def mean_of(values: Sequence[float]) -> float:
    """Return the mean of those that are not NaN; batches whose prompts name their classes have no bias."""
    found = [value for value in values if not math.isnan(value)]
    return sum(found) / len(found) if found else math.nan


def learning_rate(iteration: int, config: TrainConfig) -> float:
    """Return the learning rate of an iteration: warm-up times the schedule."""
    warm = min(1.0, (iteration + 1) / max(1, config.warmup))
    done = min(1.0, iteration / config.iterations)
    falls = {"constant": 1.0, "cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done}
    return config.learning_rate * warm * falls[config.schedule]
