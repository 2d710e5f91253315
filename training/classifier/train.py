"""Finetune a classifier of people's attributes on labelled images: ``fair-adaptors train-classifier``.

Plain supervised training. Classes are balanced by weight: in an attribute's loss an image counts inversely to how
often its class was seen so far, so that a stream needs not be read before it is learnt from. In the end each
attribute's logits are divided by a temperature (Guo et al. 2017), fitted on one half of the held-out images and
folded into the last layer; every number is of the other half.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor

from fair_adaptors.adaptor.record import CARD_FILE, RESULTS_FILE, library_versions
from fair_adaptors.errors import ConfigError, TrainingError
from fair_adaptors.files import public_name, refuse_existing, written_aside
from fair_adaptors.vision.types import MARGIN, margin_of

from .card import card, measure
from .data import Example, Labelled, batches, describe_source, find_source, pinned
from .model import Trainee, describe_model, load_trainee

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises; then it falls as a cosine."""
LEAST_HELD_OUT = 20
"""Held-out images below which no number is worth printing."""
PRIOR = 0.5
"""Standard deviation of a temperature's logarithm, before any image is seen."""

Labels = dict[str, Tensor]


@dataclass(frozen=True)
class ClassifierConfig:
    """What is asked for.

    Attributes:
        dataset: ``celeba``, ``fairface``, a folder, or a Hub id.
        attributes: what to tell apart.
        model: see ``load_trainee``.
        epochs: times that every image is seen.
        steps: batches, in the place of ``epochs``.
        batch_size: images at once.
        learning_rate: of AdamW, at its peak.
        seed: of everything random.
        limit: at most so many images of each split.
        margin: how much wider than the longer side of a face's box the pictures are; faces will be cut out so for it.
    """

    dataset: str
    attributes: tuple[str, ...]
    model: str
    epochs: int = 3
    steps: int | None = None
    batch_size: int = 64
    learning_rate: float = 1e-4
    seed: int = 0
    limit: int | None = None
    margin: float = MARGIN

    def __post_init__(self) -> None:
        if not self.attributes or len(set(self.attributes)) < len(self.attributes) or not all(self.attributes):
            raise ConfigError("`attributes` names what to tell apart, each once, such as gender,race")
        for name, least in (("epochs", 1), ("steps", 1), ("batch_size", 2), ("limit", LEAST_HELD_OUT)):
            if (value := getattr(self, name)) is not None and value < least:
                raise ConfigError(f"`{name}` is {value}; it must be at least {least}")
        margin_of(self.margin, "the pictures")
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"the learning rate is {self.learning_rate:g}; it must be above 0, usually 1e-5 to 1e-3")


def plan(config: ClassifierConfig) -> list[str]:
    """Say what a training would read and do, line by line; for it the Hub is asked for commits and licences alone."""
    source = pinned(find_source(config.dataset))
    amount = f"{config.steps} steps" if config.steps else f"{config.epochs} epochs"
    limit = f" of at most {config.limit} images" if config.limit else ""
    return [
        *describe_source(source),
        describe_model(config.model),
        f"training: {', '.join(config.attributes)}; {amount}{limit}, batches of {config.batch_size}, learning rate"
        f" {config.learning_rate:g}, seed {config.seed}",
    ]


def train_classifier(
    config: ClassifierConfig, out: Path, *, on_step: Callable[[int, int, float], None] = lambda step, total, loss: None
) -> dict[str, Any]:
    """Train, calibrate, measure, and leave a folder that ``transformers:`` or ``mobilenet:`` loads, with its card.

    Args:
        out: a new folder.
        on_step: called with the step, of how many, and the loss.

    Returns:
        What ``results.json`` says, see ``classifier_card.measure``.

    Raises:
        ConfigError: the data or the model cannot be used, or ``out`` exists.
        TrainingError: the loss is not finite, or the model cannot be calibrated.
    """
    refuse_existing(out)
    torch.manual_seed(config.seed)
    source = pinned(find_source(config.dataset))
    data = Labelled(source, config.attributes, seed=config.seed, limit=config.limit)
    if config.steps is None and data.num_train is None:
        raise ConfigError(
            f"{config.dataset} does not say how many images it has, so epochs cannot be counted: give `steps`"
        )
    data.check_size(LEAST_HELD_OUT)
    trainee = load_trainee(config.model, data.classes, config.margin)
    steps = _train(trainee, data, config, on_step)
    logits, labels = _see(trainee, data, config.batch_size)
    tune, test = _halves(len(next(iter(labels.values()))), config.seed)
    temperatures = {name: fit_temperature(logits[name][tune], labels[name][tune]) for name in logits}
    trainee.divide(temperatures, _inputs(trainee, next(batches(data.held_out(), 2))))
    results = {
        "data": {**dataclasses.asdict(source), "place": public_name(source.place)},
        "images": {"trained_on": data.num_train, "temperature": len(tune), "numbers": len(test)},
        "training": {
            **dataclasses.asdict(config),
            "dataset": public_name(config.dataset),
            "model": public_name(config.model),
            "steps": steps,
            "versions": library_versions(),
        },
        **measure(
            {name: values[test] for name, values in logits.items()},
            {name: values[test] for name, values in labels.items()},
            temperatures,
            data.classes,
        ),
    }
    with written_aside(out) as aside:
        trainee.save(aside)
        (aside / RESULTS_FILE).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        (aside / CARD_FILE).write_text(card(out.resolve().name, results), encoding="utf-8")
    return results


def _train(
    trainee: Trainee, data: Labelled, config: ClassifierConfig, on_step: Callable[[int, int, float], None]
) -> int:
    """Train, and return how many steps that took."""
    total = config.steps or config.epochs * math.ceil((data.num_train or 0) / config.batch_size)
    optimizer = torch.optim.AdamW(trainee.network.parameters(), lr=config.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, total))
    seen = {name: torch.ones(len(classes)) for name, classes in data.classes.items()}
    trainee.network.train()
    for step, (inputs, labels) in zip(range(1, total + 1), _training_batches(trainee, data, config), strict=False):
        loss = balanced_loss(trainee.split(trainee.logits(inputs)), labels, seen)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss of step {step} is not finite: learning_rate {config.learning_rate:g} is too high"
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainee.network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        on_step(step, total, float(loss.detach()))
    trainee.network.eval()
    return total


def balanced_loss(logits: Mapping[str, Tensor], labels: Mapping[str, Tensor], seen: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of the attributes' cross-entropies, in which every class of an attribute has equal weight.

    Args:
        logits: of each attribute, [N, K].
        labels: class indices, [N].
        seen: how often each class was seen, [K]; this batch is added to it.
    """
    losses = []
    for name, values in logits.items():
        seen[name].add_(torch.bincount(labels[name], minlength=len(seen[name])))
        weights = seen[name].sum() / (len(seen[name]) * seen[name])
        losses.append(F.cross_entropy(values, labels[name].to(values.device), weight=weights.to(values)))
    return torch.stack(losses).sum()


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return what to divide logits [N, K] by so that labels [N] are the most likely (Guo et al. 2017).

    Its logarithm has a normal prior around 0: a few images without a mistake do not make anybody infinitely sure.
    """
    exact = logits.double()

    def surprise(log: float) -> float:
        return float(F.cross_entropy(exact / math.exp(log), labels, reduction="sum")) + (log / PRIOR) ** 2 / 2

    return math.exp(minimize_scalar(surprise, bounds=(-3, 3), method="bounded").x)


def _rate(step: int, total: int) -> float:
    """Return the learning rate's factor."""
    return min(1.0, (step + 1) / max(1, WARM_UP * total)) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))


def _training_batches(trainee: Trainee, data: Labelled, config: ClassifierConfig) -> Iterator[tuple[Tensor, Labels]]:
    """Yield batches for ever, half of their images mirrored."""
    generator = torch.Generator().manual_seed(config.seed)
    epoch = 0
    while True:
        count = 0
        for examples in batches(data.train(epoch), config.batch_size):
            if len(examples) > 1:  # batch norm knows nothing of a single image
                inputs = _inputs(trainee, examples)
                mirrored = torch.rand(len(inputs), generator=generator).to(inputs.device) < 0.5
                yield torch.where(mirrored[:, None, None, None], inputs.flip(3), inputs), _labels(examples)
                count += 1
        if not count:
            raise ConfigError(f"{config.dataset} has too few images to train on")
        epoch += 1


def _see(trainee: Trainee, data: Labelled, batch_size: int) -> tuple[dict[str, Tensor], Labels]:
    """Return logits [N, K] and classes [N] of the held-out images, by attribute, on the CPU."""
    found: dict[str, list[Tensor]] = {name: [] for name in data.classes}
    truth: dict[str, list[Tensor]] = {name: [] for name in data.classes}
    with torch.no_grad():
        for examples in batches(data.held_out(), batch_size):
            for name, values in trainee.split(trainee.logits(_inputs(trainee, examples))).items():
                found[name].append(values.float().cpu())
            for name, labels in _labels(examples).items():
                truth[name].append(labels)
    return {name: torch.cat(rows) for name, rows in found.items()}, {n: torch.cat(rows) for n, rows in truth.items()}


def _halves(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw which of the held-out images are for the temperatures, and which for the numbers."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[: count // 2], order[count // 2 :]


def _inputs(trainee: Trainee, examples: list[Example]) -> Tensor:
    """Return the network's input of pictures of any size, as it is made when the classifier is used."""
    pixels = (torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255 for picture, _ in examples)
    return torch.cat([trainee.prepare(one) for one in pixels])


def _labels(examples: list[Example]) -> Labels:
    return {name: torch.tensor([labels[name] for _, labels in examples]) for name in examples[0][1]}
