"""The gradient of the loss on the images of one batch: they are made, and then steps of that are walked again."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.setup import Setup
from torch import Tensor

from . import lora
from .batches import Batch, by_prompt
from .gradients import accumulate_gradients, choose_steps
from .objective import LOSSES, ObservedImages, OriginalImages, losses, observe, observe_each
from .processes import World
from .reference_images import ReferenceImages
from .sampling import WITHOUT_GRADIENT, Trajectory, encode_prompts, initial_noise, sample
from .state import TrainingState
from .targets import Targets, assign_targets, joined, one_class, original_targets

LOSS_SCALE = {"float16": 2.0**12}
"""What a loss is multiplied by on its way through a base whose gradients would vanish in its dtype."""


@dataclass(frozen=True)
class StepResult:
    """What the images of an iteration showed.

    Attributes:
        losses: the mean of each, by name (``objective.LOSSES``).
        bias: of each attribute, the mean over prompts (paper §6), among the images that took part; NaN where every
            prompt names the class.
        images: how many were made.
        took_part: how many had a face and finite probabilities.
        applied: whether the weights moved; not if no image took part or the gradient was not finite.
        finite: whether the gradient was finite.
        gradient_norm: before clipping.
        learning_rate: of the step.
    """

    losses: dict[str, float]
    bias: dict[str, float]
    images: int
    took_part: int
    applied: bool = False
    finite: bool = True
    gradient_norm: float = math.nan
    learning_rate: float = math.nan

    @property
    def loss(self) -> float:
        """The whole loss."""
        return sum(self.losses.values())


@dataclass(frozen=True)
class Rollout:
    """A batch's images as they were made, and the gradient of their loss: what the gradient pass goes back through.

    Attributes:
        batch: whose images they are.
        mine: which of them are this process's.
        run: how these were sampled.
        latent_gradient: of the loss at their final latents [n, C, h, w]; None if no image of the batch took part.
        result: what the images showed; the losses are this process's part, the rest is the same in every process.
    """

    batch: Batch
    mine: slice
    run: Trajectory
    latent_gradient: Tensor | None
    result: StepResult


def train_step(
    setup: Setup,
    config: TrainConfig,
    state: TrainingState,
    batch: Batch,
    *,
    references: ReferenceImages | None = None,
    world: World = World(),  # noqa: B008 (frozen)
) -> StepResult:
    """Add to ``.grad`` this process's part of the gradient of the loss on the N images of a batch: ``roll_out``."""
    rollout = roll_out(setup, config, state, batch, references=references, world=world)
    add_gradient(setup, config, state, rollout)
    return rollout.result


def roll_out(
    setup: Setup,
    config: TrainConfig,
    state: TrainingState,
    batch: Batch,
    *,
    references: ReferenceImages | None = None,
    world: World = World(),  # noqa: B008 (frozen)
) -> Rollout:
    """Make the images of a batch without gradient; take their loss and its gradient at the final latents.

    Args:
        references: where the original model's images are kept, if they are.
    """
    pipe, count = setup.pipe, len(batch.seeds)
    mine = world.share(count)
    noise = initial_noise(pipe, batch.seeds[mine])
    original = (references or ReferenceImages()).of(setup, config, batch, world, noise)
    with torch.no_grad():
        embeds = encode_prompts(pipe, batch.prompts[mine], guidance_scale=batch.guidance_scale, tokens=state.tokens)
    run = sample(
        pipe,
        embeds,
        noise,
        num_steps=batch.num_steps,
        guidance_scale=batch.guidance_scale,
        images_per_call=WITHOUT_GRADIENT * config.images_per_call or None,
    )

    chunks = torch.arange(len(noise)).split(config.images_per_decode or len(noise))
    # Of one chunk the graph is kept; otherwise each is decoded again with gradient.
    whole = len(chunks) == 1 and setup.gradient_decoder is None
    parts = [run.latents[chunk] for chunk in chunks]
    observed = [observe(setup, parts[0])] if whole else observe_each(setup, parts)
    seen = _see(config, observed, world=world, count=count)
    targets = _targets(setup, config, seen, batch, world)
    took_part = int(seen.takes_part.sum())
    if not took_part:
        nothing = StepResult(dict.fromkeys(LOSSES, 0.0), {a.name: math.nan for a in config.attributes}, count, 0)
        return Rollout(batch, mine, run, None, nothing)

    kept = _kept_targets(setup, config, (observed, [original]), seen.takes_part, batch.prompts, world=world)
    gradients: list[Tensor] = []
    total = {name: torch.zeros((), device=noise.device) for name in LOSSES}
    for number, chunk in enumerate(chunks):
        images = observed[number]
        if not whole:
            images = observe(setup, parts[number], plain=images)
        here = chunk + mine.start
        local, stays = ({name: target.select(here) for name, target in each.items()} for each in (targets, kept))
        found = losses(setup, config, images, original.select(chunk), local, stays)
        found = {name: each / count for name, each in found.items()}
        total = {name: total[name] + found[name].detach() for name in LOSSES}
        # Scaled before the autoencoder's backward pass, in which gradients of single pixels would vanish first.
        whole_loss = torch.stack(list(found.values())).sum() * LOSS_SCALE.get(config.dtype, 1.0)
        gradients += torch.autograd.grad(whole_loss, images.latents)
    shown = {name: value.item() for name, value in total.items()}
    result = StepResult(shown, _bias(setup, seen, batch), count, took_part)
    return Rollout(batch, mine, run, torch.cat(gradients).float(), result)


def add_gradient(
    setup: Setup, config: TrainConfig, state: TrainingState, rollout: Rollout, *, update: int = 0
) -> None:
    """Walk steps of a rollout, and add their part of the gradient to ``.grad``.

    Args:
        update: which of the ``updates_per_rollout`` it is for. Each walks other steps: the places of an image in its
            parts of the run are shifted by the share of the updates that were before.
    """
    if rollout.latent_gradient is None:
        return
    batch, run = rollout.batch, rollout.run
    steps = None
    if config.gradient_steps:  # of the scheduler's calls, which may be more than T
        steps = choose_steps(
            len(run.timesteps),
            config.gradient_steps,
            len(batch.seeds),
            generator=torch.Generator().manual_seed(batch.draws + 1),
            shift=update / config.updates_per_rollout,
        )[:, rollout.mine]
    with lora.dropout_on(setup.pipe, batch.draws + update):
        accumulate_gradients(
            setup.pipe,
            run,
            rollout.latent_gradient,
            batch.prompts[rollout.mine],
            guidance_scale=batch.guidance_scale,
            weights=state.step_weights[batch.num_steps],
            unconditional=config.unconditional_gradient,
            steps=steps,
            images_per_call=config.images_per_call or None,
            tokens=state.tokens,
        )


_Known = ObservedImages | OriginalImages


@dataclass(frozen=True)
class _Seen:
    """What the classifier says of all images of a prompt [N, K], and which take part [N]: with a face, and finite."""

    probs: dict[str, Tensor]
    takes_part: Tensor


@torch.no_grad()
def _see(config: TrainConfig, observed: list[ObservedImages], *, world: World, count: int) -> _Seen:
    probs, found = _gather([attribute.name for attribute in config.attributes], observed, world=world, count=count)
    finite = torch.stack([each.isfinite().all(1) for each in probs.values()]).all(0)
    return _Seen(probs, found & finite)


def _gather(
    names: Sequence[str], observed: Sequence[_Known], *, world: World, count: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Return class probabilities [N, K] of each attribute, over all processes, and which images have a face [N]."""
    rows = []
    for each in observed:
        probs = [each.logits[name].float().softmax(1) for name in names]
        rows.append(torch.cat([*probs, each.found.to(probs[0])[:, None]], 1))
    every = world.gather(torch.cat(rows), count)
    sizes = [observed[0].logits[name].shape[1] for name in names]
    *parts, faces = every.split([*sizes, 1], 1)
    return dict(zip(names, parts, strict=True)), faces[:, 0] > 0


def _targets(setup: Setup, config: TrainConfig, seen: _Seen, batch: Batch, world: World) -> dict[str, Targets]:
    """Assign targets among the images of each prompt that take part; the others get none. The same in every process.

    Of an attribute that the prompt names, every image's target is the named class.
    """
    generator = torch.Generator().manual_seed(batch.draws)
    found: dict[str, list[tuple[Tensor, Targets]]] = {attribute.name: [] for attribute in config.attributes}
    for prompt, images in by_prompt(batch.prompts):
        index = images[seen.takes_part.cpu()[images]].to(seen.takes_part.device)
        named = setup.named.get(prompt, {})
        if not len(index):
            continue
        free = [attribute for attribute in config.attributes if attribute.name not in named]
        here = (
            assign_targets(
                {attribute.name: seen.probs[attribute.name][index] for attribute in free},
                {attribute.name: attribute.target for attribute in free},
                threshold=config.threshold,
                num_draws=config.num_draws,
                generator=generator,
                world=world,
            )
            if free
            else {}
        )
        for attribute in config.attributes:
            if attribute.name in named:
                here[attribute.name] = one_class(attribute.classes.index(named[attribute.name]), like=index)
            found[attribute.name].append((index, here[attribute.name]))
    return {name: joined(parts, len(batch.prompts)) for name, parts in found.items() if parts}


def _bias(setup: Setup, seen: _Seen, batch: Batch) -> dict[str, float]:
    """Return the bias of each attribute, as the mean over the batch's prompts that leave it free; NaN of none."""
    groups = [(prompt, images[seen.takes_part.cpu()[images]]) for prompt, images in by_prompt(batch.prompts)]
    result = {}
    for name, probs in seen.probs.items():
        free = [index for prompt, index in groups if len(index) and name not in setup.named.get(prompt, {})]
        found = [batch_bias(probs[index.to(probs.device)]) for index in free]
        result[name] = sum(found) / len(found) if found else math.nan
    return result


@torch.no_grad()
def _kept_targets(
    setup: Setup,
    config: TrainConfig,
    pairs: tuple[Sequence[_Known], Sequence[_Known]],
    takes_part: Tensor,
    prompts: Sequence[str],
    *,
    world: World,
) -> dict[str, Targets]:
    """Return targets of the attributes that must stay, of all processes' images; none where a face is missing.

    Args:
        pairs: images of the adaptor in training, and the original model's.
    """
    if not setup.kept_attributes:
        return {}
    count = len(takes_part)
    (probs, _), (original, found) = (_gather(setup.kept_attributes, each, world=world, count=count) for each in pairs)
    result = {}
    for name in setup.kept_attributes:
        clear = takes_part & found & probs[name].isfinite().all(1) & original[name].isfinite().all(1)
        parts = []
        for _, images in by_prompt(prompts):
            index = images[clear.cpu()[images]].to(clear.device)
            rows = probs[name][index], original[name][index]
            parts.append((index, original_targets(*rows, by=config.keep_by, threshold=config.keep_confidence)))
        result[name] = joined(parts, count)
    return result


def batch_bias(probs: Tensor) -> float:
    """Return the bias of one prompt's images: the mean over pairs of classes of |freq(i) − freq(j)|."""
    classes = probs.shape[1]
    frequencies = probs.argmax(1).bincount(minlength=classes) / len(probs)
    return (frequencies[:, None] - frequencies).abs().sum().item() / (classes * (classes - 1))
