"""``train_step``: the gradient of the loss on the images of one prompt."""

import math
from dataclasses import dataclass

import torch
from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.setup import Setting
from torch import Tensor

from . import lora
from .batches import Batch
from .gradients import accumulate_gradients, choose_steps
from .objective import Portraits, losses, portray, portray_each
from .reference_images import Originals
from .sampling import WITHOUT_GRADIENT, encode_prompt, initial_noise, sample
from .state import TrainingState
from .targets import Targets, assign_targets
from .world import World

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


def train_step(
    setting: Setting,
    config: TrainConfig,
    state: TrainingState,
    batch: Batch,
    *,
    originals: Originals | None = None,
    world: World = World(),  # noqa: B008 (frozen)
) -> StepResult:
    """Add to ``.grad`` this process's part of the gradient of the loss on the N images of one prompt.

    Samples without gradient, takes the loss and its gradient at the final latents, then walks the steps. The losses of
    the result are this process's part too; the rest is the same in every process.

    Args:
        originals: where the original model's images are kept, if they are.
    """
    pipe, count = setting.pipe, len(batch.seeds)
    mine = world.share(count)
    noise = initial_noise(pipe, batch.seeds[mine])
    few = WITHOUT_GRADIENT * config.images_per_call or None
    kept = (originals or Originals()).latents(pipe, batch, batch.seeds[mine], noise, images_per_call=few)
    with torch.no_grad():
        embeds = encode_prompt(pipe, batch.prompt, guidance_scale=batch.guidance_scale, tokens=state.tokens)
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
            weights=state.step_weights[batch.num_steps],
            steps=steps,
            images_per_call=config.images_per_call or None,
            tokens=state.tokens,
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
