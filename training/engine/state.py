"""What changes in a run: parameters, their average, the optimiser, and how far it has come."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.setup import Setup
from torch import Tensor, nn

from fair_adaptors.errors import missing_extra

from . import lora
from .gradients import step_weights
from .schedule import scheduler_for


@dataclass
class TrainingState:
    """All that a run is: with the configuration, enough to go on from here (see ``checkpoint``).

    Attributes:
        parameters: what is trained, by name.
        average: its average over the iterations.
        optimizer: of the parameters.
        step_weights: of the gradient, [T] for each number of steps that a batch may have.
        place: fingerprint of the setup that the run takes place in.
        iteration: how many are done.
        skipped: how many of them had a gradient that was not finite; in a row, those of them that came last.
        empty: how many had no image that took part.
        best: the least bias and shift of a validation so far.
        collapsing: how many validations in a row found the adaptor collapsed.
        history: what is told at the end of a run: its numbers before, and the seconds that it took.
    """

    parameters: dict[str, nn.Parameter]
    average: lora.ExponentialAverage
    optimizer: torch.optim.Optimizer
    step_weights: Mapping[int, Tensor]
    place: str = ""
    iteration: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    empty: int = 0
    best: float = math.inf
    collapsing: int = 0
    history: dict[str, Any] = field(default_factory=dict)

    @property
    def tokens(self) -> Tensor | None:
        """The soft tokens [n, D], if they are trained."""
        return self.parameters.get(lora.TOKENS)


@contextmanager
def as_written(state: TrainingState, pipe: Any, strength: float) -> Iterator[None]:
    """Put the adaptor into force as it would be written: the averaged weights, at their strength."""
    with state.average.applied(), lora.strengthened(pipe, strength):
        yield


@contextmanager
def attached(setup: Setup, config: TrainConfig) -> Iterator[TrainingState]:
    """Attach what is trained to ``setup.pipe`` and yield the state before the first iteration; take it out again.

    Raises:
        UnsupportedSchedulerError: the pipeline's scheduler is not affine in the model's output.
        MissingExtraError: the optimiser's package is not installed.
    """
    numbers_of_steps = range(config.num_steps, max(config.num_steps, config.max_steps) + 1)
    weights = {n: step_weights(scheduler_for(setup.pipe, n), config.step_weights) for n in numbers_of_steps}
    place = setup.fingerprint
    torch.manual_seed(config.seed)
    parameters = lora.attach(
        setup.pipe,
        config.parts,
        rank=config.rank,
        alpha=config.alpha,
        dropout=config.dropout,
        target_modules=config.target_modules,
        num_tokens=config.num_tokens,
    )
    try:
        values = list(parameters.values())
        average, optimizer = lora.ExponentialAverage(values, config.ema), _optimizer(values, config)
        yield TrainingState(parameters, average, optimizer, weights, place)
    finally:
        lora.detach(setup.pipe, config.parts)


def _optimizer(parameters: list[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    settings: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **settings)
    try:
        import bitsandbytes
    except ImportError as error:
        raise missing_extra("bitsandbytes, which optimizer adamw8bit needs,", "8bit") from error
    return bitsandbytes.optim.AdamW8bit(parameters, **settings)
