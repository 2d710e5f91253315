"""Bias and shift on the way: the same images of the same prompts every time, split over the processes."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.engine import lora
from fair_adaptors.training.engine.denoisers import denoiser_for
from fair_adaptors.training.engine.processes import World
from fair_adaptors.training.engine.sampling import WITHOUT_GRADIENT, decode, encode_prompts, initial_noise, sample
from fair_adaptors.training.setup import Setup
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor

from fair_adaptors.adaptor.results import Shift
from fair_adaptors.evaluation.beside import pairs_of, shift
from fair_adaptors.evaluation.estimates import BiasEstimate, estimate_bias
from fair_adaptors.seeds import image_seed

BATCH = 32
Classes = Mapping[str, NDArray[np.int64]]
"""Of each attribute the class index of every image [P, n]; the number of classes stands for one without a face."""


@dataclass(frozen=True)
class Measured:
    """What images of the adaptor in training show.

    Attributes:
        bias: of each attribute to make fair; where its target is uneven, the distance from that.
        undetermined: share of images without a face, or whose class the validation classifier is not sure of.
        faceless: share of images without a face; 0 where the whole image is taken for one.
        kept: mean cosine, over images and encoders, to the original model's images from the same noise; NaN if it was
            not asked for.
        faceless_before: share of these without a face; NaN likewise.
        classes: of each attribute beside those to make fair, what the images show.
        shift: of each of these, how far it is from the original model; empty if it was not asked for.
    """

    bias: dict[str, BiasEstimate]
    undetermined: float
    faceless: float
    kept: float = math.nan
    faceless_before: float = math.nan
    classes: Classes = field(default_factory=dict)
    shift: Mapping[str, Shift] = field(default_factory=dict)


@dataclass(frozen=True)
class Original:
    """What is known of the original model's images of a prompt.

    Attributes:
        probabilities: of each attribute that the validation classifier knows, of all processes' images [N, K].
        features: of each encoder, of this process's images [n, D].
    """

    probabilities: Mapping[str, Tensor]
    features: Sequence[Tensor]


@torch.no_grad()
def measure(
    setup: Setup,
    config: TrainConfig,
    prompts: Iterable[str],
    images_per_prompt: int,
    *,
    tokens: Tensor | None = None,
    world: World = World(),  # noqa: B008 (frozen)
    originals: dict[str, Original] | None = None,
) -> Measured:
    """Measure the adaptor on prompts, with the validation classifier. The same in every process.

    Raises:
        StopRequested: a process was told to stop.

    Args:
        originals: what earlier measurements of as many images found of the original model's, by prompt; what is
            missing is made and added. With it is measured how much of them is kept, and how far what is not to change
            has moved.
    """
    aimed = [attribute.name for attribute in config.attributes]
    found: dict[str, list[Tensor]] = {name: [] for name in (*aimed, *setup.beside)}
    before: dict[str, list[Tensor]] = {name: [] for name in found}
    cosines = []
    for prompt in prompts:
        world.may_stop(denoiser_for(setup.pipe).model.device)
        mine = range(images_per_prompt)[world.share(images_per_prompt)]
        seeds = [image_seed(config.seed, prompt, i) for i in mine]
        images = draw(setup, config, prompt, seeds, tokens=tokens)
        looks = _looks(setup, images, world=world, count=images_per_prompt)
        for name, each in found.items():
            each.append(looks[name])
        if originals is None:
            continue
        if prompt not in originals:
            with lora.switched_off(setup.pipe):
                references = draw(setup, config, prompt, seeds)
            shown = _looks(setup, references, world=world, count=images_per_prompt)
            originals[prompt] = Original(shown, [encode(references) for encode in setup.encoders.values()])
        original = originals[prompt]
        for name, each in before.items():
            each.append(original.probabilities[name])
        if setup.encoders:
            pairs = zip(setup.encoders.values(), original.features, strict=True)
            alike = [(encode(images) * features).sum(1) for encode, features in pairs]
            cosines.append(world.gather(torch.stack(alike, 1), images_per_prompt))
    probabilities = {name: torch.stack(found[name]).cpu().numpy() for name in aimed}
    bias = {one.name: estimate_bias(probabilities[one.name], target=one.target) for one in config.attributes}
    classes = {name: _classes(found[name]) for name in setup.beside}
    compared = originals is not None
    return Measured(
        bias,
        max(estimate.undetermined for estimate in bias.values()),
        _faceless(found[aimed[0]]),
        torch.cat(cosines).mean().item() if cosines else math.nan,
        _faceless(before[aimed[0]]) if compared else math.nan,
        classes,
        shifts(setup, {name: _classes(before[name]) for name in setup.beside}, classes) if compared else {},
    )


@torch.no_grad()
def _looks(setup: Setup, images: Tensor, *, world: World, count: int) -> dict[str, Tensor]:
    """Return the class probabilities [N, K] of all processes' images."""
    return {name: world.gather(rows, count) for name, rows in _probabilities(setup, images).items()}


def _faceless(probabilities: Sequence[Tensor]) -> float:
    return torch.stack(list(probabilities)).isnan().any(-1).float().mean().item()


def _classes(probabilities: Sequence[Tensor]) -> NDArray[np.int64]:
    probs = torch.stack(list(probabilities))
    return torch.where(probs.isnan().any(-1), probs.shape[-1], probs.argmax(-1)).cpu().numpy()


def shifts(setup: Setup, before: Classes, after: Classes) -> dict[str, Shift]:
    """Return how far each attribute beside the aim moved, from the images that both have: their noise is the same."""
    found = {}
    for name, was in before.items():
        count = min(was.shape[1], after[name].shape[1])
        found[name] = shift(pairs_of(was[:, :count], after[name][:, :count], len(setup.beside[name])))
    return found


def _probabilities(setup: Setup, images: Tensor) -> dict[str, Tensor]:
    """Return class probabilities [N, K] of each attribute; NaN where there is no face."""
    boxes: tuple[Tensor, ...] = ()
    nobody = torch.zeros(len(images), 1, dtype=torch.bool, device=images.device)
    if setup.faces is not None and len(images):
        faces = setup.faces.find(images)
        boxes = (faces.boxes,) if setup.faces.crops else ()
        nobody = ~faces.found[:, None].to(images.device)
    return {
        name: logits.to(images.device).float().softmax(1).masked_fill(nobody, math.nan)
        for name, logits in setup.validation_classifier(images, *boxes).items()
    }


def collapse(config: TrainConfig, now: Measured) -> str | None:
    """Say how an adaptor looks collapsed, if it does: its images are other ones, or show nobody any more."""
    if now.kept < config.least_kept:
        return f"only {now.kept:.2f} of the original images is kept, and least_kept is {config.least_kept:g}"
    if now.faceless > now.faceless_before + config.most_faceless:
        return (
            f"{now.faceless:.0%} of the images show no face, and {now.faceless_before:.0%} did before;"
            f" most_faceless allows {config.most_faceless:.0%} more"
        )
    return None


@dataclass(frozen=True)
class Numbers:
    """What images of training and of validation prompts show.

    Attributes:
        bias: by prompts ("training" or "validation") and attribute to make fair.
        classes: by prompts, of each attribute beside these.
    """

    bias: Mapping[tuple[str, str], BiasEstimate]
    classes: Mapping[str, Classes]


def numbers(
    setup: Setup,
    config: TrainConfig,
    count: int,
    world: World,
    *,
    tokens: Tensor | None = None,
    follow: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> Numbers:
    """Measure training and validation prompts.

    Args:
        count: images per prompt.
        follow: goes through the prompts one by one, such as a progress bar.
    """
    training = setup.prompts[config.prompt_sets[0][0]]
    few = min(len(setup.validation_prompts), len(training))
    spread = [training[i] for i in np.linspace(0, len(training) - 1, few).round().astype(int)]
    bias: dict[tuple[str, str], BiasEstimate] = {}
    classes = {}
    every = iter(follow([*spread, *setup.validation_prompts]))
    for split, prompts in (("training", spread), ("validation", setup.validation_prompts)):
        found = measure(setup, config, islice(every, len(prompts)), count, tokens=tokens, world=world)
        bias |= {(split, name): estimate for name, estimate in found.bias.items()}
        classes[split] = found.classes
    return Numbers(bias, classes)


def numbers_table(setup: Setup, config: TrainConfig, before: Numbers, after: Numbers) -> Table:
    """Return a table of the bias before and after training, and of how far what was not to change has moved."""
    table = Table("prompts", "figure", "before", "after (95 % interval)", "noise floor", "undetermined")
    figures = {attribute.name: attribute.figure for attribute in config.attributes}
    for (split, name), now in after.bias.items():
        was = before.bias[split, name]
        said, undetermined = _in_interval(was), f"{was.undetermined:.0%} → {now.undetermined:.0%}"
        table.add_row(split, figures[name], said, _in_interval(now), f"{now.floor:.2f}", undetermined)
    for split, classes in after.classes.items():
        for name, moved in shifts(setup, before.classes[split], classes).items():
            kept = "must stay" if name in setup.kept_attributes else "not kept"
            table.add_row(split, f"{name} shift ({kept})", "0", _in_interval(moved), f"{moved.floor:.2f}", "")
    return table


def _in_interval(estimate: BiasEstimate | Shift) -> str:
    return f"{estimate.value:.2f} ({estimate.low:.2f}–{estimate.high:.2f})"


@torch.no_grad()
def draw(
    setup: Setup, config: TrainConfig, prompt: str, seeds: Sequence[int], *, tokens: Tensor | None = None
) -> Tensor:
    """Draw a prompt with the adaptor in training: images [N, 3, H, W] in [0, 1], as ``pipe`` would."""
    pipe, guidance = setup.pipe, config.guidance_scale
    embeds = encode_prompts(pipe, [prompt], guidance_scale=guidance, tokens=tokens)
    drawn = min(BATCH, WITHOUT_GRADIENT * config.images_per_call or BATCH)
    decoded = min(BATCH, config.images_per_decode or BATCH)
    images = []
    for start in range(0, len(seeds), drawn):
        noise = initial_noise(pipe, seeds[start : start + drawn])
        run = sample(pipe, embeds, noise, num_steps=config.num_steps, guidance_scale=guidance)
        images += [decode(pipe, latents).float().clamp(0, 1) for latents in run.latents.split(decoded)]
    return torch.cat(images) if images else torch.empty(0, 3, *_size(pipe), device=denoiser_for(pipe).model.device)


def _size(pipe: Any) -> tuple[int, int]:
    denoiser = denoiser_for(pipe)
    height, width = denoiser.latent_shape[1:]
    return height * denoiser.scale, width * denoiser.scale
