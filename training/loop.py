"""The training loop: ``train_step`` makes the gradient of one prompt, ``fit`` loops.

Everything random is a function of the seed and the iteration (see ``batches``), and the loop knows of other processes
only through ``World``: a resumed run, or one on other machines, is the same run.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fair_adaptors.errors import MissingExtraError, TrainingError

from . import lora
from .batches import Batch, batch_at
from .config import TrainConfig
from .distributed import World
from .gradients import accumulate_gradients, choose_steps, step_weights
from .originals import Originals
from .portraits import Portraits, losses, portray, portray_each
from .sampling import WITHOUT_GRADIENT, encode_prompt, initial_noise, sample
from .setting import Setting
from .targets import Targets, assign_targets

LOSS_SCALE = {"float16": 2.0**12}
"""What a loss is multiplied by on its way through a base whose gradients would vanish in its dtype."""


@dataclass(frozen=True)
class StepResult:
    """What the images of an iteration showed.

    Attributes:
        alignment, preservation, face: mean losses.
        bias: of each attribute, the mean over prompts (paper §6), among the images that took part.
        images: how many were made.
        took_part: how many had a face and finite probabilities.
        applied: whether the weights moved; not if no image took part or the gradient was not finite.
        finite: whether the gradient was finite.
        gradient_norm: before clipping.
        learning_rate: of the step.
    """

    alignment: float
    preservation: float
    bias: dict[str, float]
    images: int
    took_part: int
    face: float = 0.0
    applied: bool = False
    finite: bool = True
    gradient_norm: float = math.nan
    learning_rate: float = math.nan

    @property
    def loss(self) -> float:
        """The whole loss."""
        return self.alignment + self.preservation + self.face


@dataclass
class TrainingState:
    """All that a run is: with the configuration, enough to go on from here (see ``checkpoint``).

    ``place`` is the fingerprint of the setting that the run takes place in.
    """

    parameters: dict[str, nn.Parameter]
    average: lora.ExponentialAverage
    optimizer: torch.optim.Optimizer
    place: str = ""
    iteration: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    empty: int = 0
    best: float = math.inf
    history: dict[str, Any] = field(default_factory=dict)

    @property
    def tokens(self) -> Tensor | None:
        """The soft tokens [n, D], if they are trained."""
        return self.parameters.get(lora.TOKENS)


def train_step(
    setting: Setting,
    config: TrainConfig,
    batch: Batch,
    *,
    tokens: Tensor | None = None,
    originals: Originals | None = None,
    world: World = World(),  # noqa: B008 (frozen)
) -> StepResult:
    """Add to ``.grad`` this process's part of the gradient of the loss on the N images of one prompt.

    Samples without gradient, takes the loss and its gradient at the final latents, then walks the steps. The losses of
    the result are this process's part too; the rest is the same in every process.

    Args:
        tokens: soft tokens, if they are trained.
        originals: where the original model's images are kept, if they are.
    """
    pipe, count = setting.pipe, len(batch.seeds)
    mine = world.share(count)
    noise = initial_noise(pipe, batch.seeds[mine])
    few = WITHOUT_GRADIENT * config.images_per_call or None
    kept = (originals or Originals()).latents(pipe, batch, batch.seeds[mine], noise, images_per_call=few)
    with torch.no_grad():
        embeds = encode_prompt(pipe, batch.prompt, guidance_scale=batch.guidance_scale, tokens=tokens)
    run = sample(
        pipe,
        embeds,
        noise,
        num_steps=batch.num_steps,
        guidance_scale=batch.guidance_scale,
        images_per_call=few,
    )

    chunks = torch.arange(len(noise)).split(config.images_per_decode or len(noise))
    whole = len(chunks) == 1  # then the graph is kept, otherwise each chunk is decoded again with gradient
    parts = [run.latents[chunk] for chunk in chunks]
    portraits = [portray(setting, parts[0])] if whole else portray_each(setting, parts)
    seen = _see(config, portraits, world=world, count=count)
    targets = _targets(config, seen, batch.draws)
    took_part = int(seen.takes_part.sum())
    if not took_part:
        return StepResult(0.0, 0.0, {a.name: math.nan for a in config.attributes}, count, 0)

    unchanged = portray_each(setting, [kept[chunk] for chunk in chunks])
    gradients: list[Tensor] = []
    total = torch.zeros(3, device=noise.device)
    for number, chunk in enumerate(chunks):
        portrait = portraits[number]
        if not whole:
            portrait = portray(setting, parts[number], faces=portrait.faces)
        local = {name: target.select(chunk + mine.start) for name, target in targets.items()}
        found = losses(setting, config, portrait, unchanged[number], local) / count
        total += found.detach()
        # Scaled before the autoencoder's backward pass, in which gradients of single pixels would vanish first.
        gradients += torch.autograd.grad(found.sum() * LOSS_SCALE.get(config.dtype, 1.0), portrait.latents)
    latent_gradient = torch.cat(gradients).float()

    steps = None
    if config.gradient_steps:  # of the scheduler's calls, which may be more than T
        generator = torch.Generator().manual_seed(batch.draws + 1)
        steps = choose_steps(len(run.timesteps), config.gradient_steps, generator=generator)
    with lora.dropout_on(pipe, batch.draws):
        accumulate_gradients(
            pipe,
            run,
            latent_gradient,
            batch.prompt,
            guidance_scale=batch.guidance_scale,
            weights=step_weights(pipe.scheduler, batch.num_steps, config.step_weights),
            steps=steps,
            images_per_call=config.images_per_call or None,
            tokens=tokens,
        )
    bias = {name: batch_bias(probs[seen.takes_part]) for name, probs in seen.probs.items()}
    return StepResult(total[0].item(), total[1].item(), bias, count, took_part, total[2].item())


@dataclass(frozen=True)
class _Seen:
    """What the classifier says of all images of a prompt [N, K], and which take part [N]: with a face, and finite."""

    probs: dict[str, Tensor]
    takes_part: Tensor


@torch.no_grad()
def _see(config: TrainConfig, portraits: list[Portraits], *, world: World, count: int) -> _Seen:
    rows = []
    for portrait in portraits:
        probs = [portrait.logits[attribute.name].float().softmax(1) for attribute in config.attributes]
        rows.append(torch.cat([*probs, portrait.found.to(portrait.images)[:, None]], 1))
    every = world.gather(torch.cat(rows), count)
    sizes = [len(attribute.classes) for attribute in config.attributes]
    *parts, faces = every.split([*sizes, 1], 1)
    probs_by_name = {attribute.name: part for attribute, part in zip(config.attributes, parts, strict=True)}
    return _Seen(probs_by_name, (faces[:, 0] > 0) & every.isfinite().all(1))


def _targets(config: TrainConfig, seen: _Seen, draws: int) -> dict[str, Targets]:
    """Assign targets among the images that take part; the others get none. The same in every process."""
    index = seen.takes_part.nonzero()[:, 0]
    if not len(index):
        return {}
    found = assign_targets(
        {name: probs[index] for name, probs in seen.probs.items()},
        {attribute.name: attribute.target for attribute in config.attributes},
        threshold=config.threshold,
        num_draws=config.num_draws,
        generator=torch.Generator().manual_seed(draws),
    )
    return {name: target.spread(index, len(seen.takes_part)) for name, target in found.items()}


def batch_bias(probs: Tensor) -> float:
    """Return the bias of one prompt's images: the mean over pairs of classes of |freq(i) − freq(j)|."""
    classes = probs.shape[1]
    frequencies = probs.argmax(1).bincount(minlength=classes) / len(probs)
    return (frequencies[:, None] - frequencies).abs().sum().item() / (classes * (classes - 1))


@contextmanager
def attached(setting: Setting, config: TrainConfig) -> Iterator[TrainingState]:
    """Attach what is trained to ``setting.pipe`` and yield the state before the first iteration; take it out again.

    Raises:
        UnsupportedSchedulerError: the pipeline's scheduler is not affine in the model's output.
        MissingExtraError: the optimiser's package is not installed.
    """
    for num_steps in range(config.num_steps, max(config.num_steps, config.max_steps) + 1):
        step_weights(setting.pipe.scheduler, num_steps, config.step_weights)
    place = setting.fingerprint
    torch.manual_seed(config.seed)
    parameters = lora.attach(
        setting.pipe,
        config.parts,
        rank=config.rank,
        alpha=config.alpha,
        dropout=config.dropout,
        target_modules=config.target_modules,
        num_tokens=config.num_tokens,
    )
    try:
        values = list(parameters.values())
        yield TrainingState(parameters, lora.ExponentialAverage(values, config.ema), _optimizer(values, config), place)
    finally:
        lora.detach(setting.pipe, config.parts)


def fit(
    setting: Setting,
    config: TrainConfig,
    state: TrainingState,
    *,
    world: World = World(),  # noqa: B008 (frozen)
    originals: Originals | None = None,
    on_step: Callable[[TrainingState, StepResult], bool | None] = lambda state, result: None,
) -> None:
    """Train until ``config.iterations``, or until ``on_step`` returns True. It is called after every iteration.

    Raises:
        TrainingError: the gradient was not finite in more than ``max_skipped`` iterations in a row.
    """
    while state.iteration < config.iterations:
        batches = [
            batch_at(config, setting.prompts, state.iteration, number) for number in range(config.prompts_per_step)
        ]
        results = [
            train_step(setting, config, batch, tokens=state.tokens, originals=originals, world=world)
            for batch in batches
        ]
        result = apply_gradients(state, config, results, world)
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
    losses = [sum(kind) for kind in zip(*((r.alignment, r.preservation, r.face) for r in results), strict=True)]
    total = world.sum(torch.cat([parameters[0].new_tensor(losses), *(gradient.flatten() for gradient in gradients)]))
    finite = bool(total.isfinite().all())
    took_part = sum(result.took_part for result in results)
    total = total / len(results)
    parts = (total[3:] / LOSS_SCALE.get(config.dtype, 1.0)).split([p.numel() for p in parameters])
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
    full = [result for result in results if result.took_part]
    bias = {name: sum(r.bias[name] for r in full) / len(full) if full else math.nan for name in results[0].bias}
    return StepResult(
        total[0].item(),
        total[1].item(),
        bias,
        sum(result.images for result in results),
        took_part,
        total[2].item(),
        finite and took_part > 0,
        finite,
        norm.item(),
        rate,
    )


def learning_rate(iteration: int, config: TrainConfig) -> float:
    """Return the learning rate of an iteration: warm-up times the schedule."""
    warm = min(1.0, (iteration + 1) / max(1, config.warmup))
    done = min(1.0, iteration / config.iterations)
    falls = {"constant": 1.0, "cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done}
    return config.learning_rate * warm * falls[config.schedule]


def _optimizer(parameters: list[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    settings: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **settings)
    try:
        import bitsandbytes
    except ImportError as error:
        raise MissingExtraError("optimizer adamw8bit needs bitsandbytes: pip install bitsandbytes") from error
    return bitsandbytes.optim.AdamW8bit(parameters, **settings)
