"""The training loop: ``train_step`` makes the gradient of one prompt, ``train`` loops and leaves an adaptor folder."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from . import lora
from .config import TrainConfig
from .gradients import accumulate_gradients, choose_steps, step_weights
from .losses import PreservationScale, alignment_loss, must_change, preservation_loss, preservation_weights
from .recipes import Setting
from .sampling import decode, encode_prompt, initial_noise, sample
from .targets import assign_targets


@dataclass(frozen=True)
class StepResult:
    """What one prompt's images showed: mean losses, and the bias of each attribute (paper §6)."""

    alignment: float
    preservation: float
    bias: dict[str, float]

    @property
    def loss(self) -> float:
        """The whole loss."""
        return self.alignment + self.preservation


def train_step(
    setting: Setting,
    config: TrainConfig,
    prompt: str,
    seeds: list[int],
    *,
    weights: Tensor,
    generator: torch.Generator,
) -> StepResult:
    """Add the gradient of the loss on N images of one prompt to ``.grad`` of the adaptor's parameters.

    Samples without gradient, takes the loss and its gradient at the final latents, then walks the steps.

    Args:
        seeds: one seed per image.
        weights: of each step, from ``step_weights``.
        generator: source of the targets' draws and of the choice of steps.
    """
    pipe, guidance = setting.pipe, config.guidance_scale
    noise = initial_noise(pipe, seeds)
    with torch.no_grad():
        with lora.switched_off(pipe):
            embeds = encode_prompt(pipe, prompt, guidance_scale=guidance)
            run = sample(pipe, embeds, noise, num_steps=config.num_steps, guidance_scale=guidance)
            originals = decode(pipe, run.latents)
        original_classes = {name: logits.argmax(1) for name, logits in setting.classifier(originals).items()}
        embeds = encode_prompt(pipe, prompt, guidance_scale=guidance)
    run = sample(pipe, embeds, noise, num_steps=config.num_steps, guidance_scale=guidance)

    latents = run.latents.detach().requires_grad_(True)
    images = decode(pipe, latents)
    every = setting.classifier(images)
    logits = {attribute.name: every[attribute.name] for attribute in config.attributes}
    probs = {name: values.detach().softmax(1) for name, values in logits.items()}
    targets = assign_targets(
        probs,
        {attribute.name: attribute.target for attribute in config.attributes},
        threshold=config.threshold,
        num_draws=config.num_draws,
        generator=generator,
    )
    changing = must_change(targets, original_classes)
    scales = {a.name: PreservationScale(a.factor1, a.factor2) for a in config.attributes}
    image_weights, face_scale = preservation_weights(changing, scales, weight=config.preservation)
    alignment = alignment_loss(logits, targets).mean()
    preservation = preservation_loss(
        images, originals, setting.encoders, weights=image_weights, face_scale=face_scale
    ).mean()
    (latent_gradient,) = torch.autograd.grad(alignment + preservation, latents)
    steps = (
        choose_steps(config.num_steps, config.gradient_steps, generator=generator) if config.gradient_steps else None
    )
    accumulate_gradients(
        pipe,
        run,
        latent_gradient,
        prompt,
        guidance_scale=guidance,
        weights=weights,
        steps=steps,
        images_per_call=config.images_per_call or None,
    )
    return StepResult(alignment.item(), preservation.item(), {name: batch_bias(p) for name, p in probs.items()})


def batch_bias(probs: Tensor) -> float:
    """Return the bias of one prompt's images: the mean over pairs of classes of |freq(i) − freq(j)|."""
    classes = probs.shape[1]
    frequencies = probs.argmax(1).bincount(minlength=classes) / len(probs)
    return (frequencies[:, None] - frequencies).abs().sum().item() / (classes * (classes - 1))


def image_seeds(seed: int, iteration: int, prompt: int, count: int) -> list[int]:
    """Return the seeds of the images of one prompt of one iteration: the same in every process."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + iteration) * 1_009 + prompt)
    return torch.randint(2**62, (count,), generator=generator).tolist()


def fit(
    setting: Setting,
    config: TrainConfig,
    *,
    on_step: Callable[[int, StepResult], None] = lambda iteration, result: None,
    on_sample: Callable[[int], None] = lambda iteration: None,
) -> dict[str, Tensor]:
    """Train an adaptor on ``setting.pipe``, take it out again, and return its averaged tensors.

    Args:
        on_step: called after each iteration with the mean over its prompts.
        on_sample: called before the first and after every ``sample_every`` iterations, with the average in place.

    Raises:
        UnsupportedSchedulerError: the pipeline's scheduler is not affine in the model's output.
        FloatingPointError: the gradient is not finite.
    """
    weights = step_weights(setting.pipe.scheduler, config.num_steps, config.step_weights)
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    parameters = lora.attach(setting.pipe, config.parts, rank=config.rank)
    average = lora.ExponentialAverage(parameters, config.ema)
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, config))
    queue: list[int] = []
    try:
        for iteration in range(config.iterations):
            if config.sample_every and iteration % config.sample_every == 0:
                with average.applied():
                    on_sample(iteration)
            results = []
            now = dataclasses.replace(config, guidance_scale=1.0) if iteration < config.unguided else config
            for number in range(config.prompts_per_step):
                queue = queue or torch.randperm(len(setting.prompts), generator=generator).tolist()
                seeds = image_seeds(config.seed, iteration, number, config.images_per_prompt)
                prompt = setting.prompts[queue.pop()]
                results.append(train_step(setting, now, prompt, seeds, weights=weights, generator=generator))
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad /= config.prompts_per_step
            norm = nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
            if not torch.isfinite(norm):
                raise FloatingPointError(f"the gradient of iteration {iteration} is not finite; lower learning_rate")
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            average.update()
            on_step(iteration, _mean(results))
        with average.applied():
            if config.sample_every:
                on_sample(config.iterations)
            return lora.extract(setting.pipe, config.parts)
    finally:
        lora.detach(setting.pipe, config.parts)


def _rate(step: int, config: TrainConfig) -> float:
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / config.iterations)))


def _mean(results: list[StepResult]) -> StepResult:
    count = len(results)
    return StepResult(
        sum(result.alignment for result in results) / count,
        sum(result.preservation for result in results) / count,
        {name: sum(result.bias[name] for result in results) / count for name in results[0].bias},
    )
