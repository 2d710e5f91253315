"""Targets of the distributional alignment loss: which class each image of a batch should move to (paper §4.1)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import binom
from torch import Tensor

from .processes import World


@dataclass(frozen=True)
class Targets:
    """Targets for the N images of one prompt and one attribute.

    Attributes:
        labels: target classes y⁽ⁱ⁾ [N].
        confidence: probability of that class under the optimal assignments, c⁽ⁱ⁾ [N].
        keep: bool [N], c⁽ⁱ⁾ ≥ C: only these images are pulled towards their target.
    """

    labels: Tensor
    confidence: Tensor
    keep: Tensor

    def select(self, index: Tensor) -> "Targets":
        """Return the targets of some of the images."""
        index = index.to(self.labels.device)
        return Targets(self.labels[index], self.confidence[index], self.keep[index])


def joined(parts: Sequence[tuple[Tensor, Targets]], count: int) -> Targets:
    """Return the targets of ``count`` images: each part is those of the images [n] beside it, the rest not kept."""
    index = torch.cat([images for images, _ in parts])
    found = []
    for name in ("labels", "confidence", "keep"):
        values = torch.cat([getattr(targets, name) for _, targets in parts])
        found.append(values.new_zeros(count).index_copy(0, index, values))
    return Targets(*found)


def assign_targets(
    probs: Mapping[str, Tensor],
    targets: Mapping[str, Sequence[float]],
    *,
    threshold: float = 0.8,
    num_draws: int = 1000,
    generator: torch.Generator | None = None,
    world: World = World(),  # noqa: B008 (frozen)
) -> dict[str, Targets]:
    """Choose the class each image should move to, so that the batch follows the target distribution.

    For iid draws u⁽¹⁾…u⁽ᴺ⁾ from the target, the images are matched to the draws at the least total Euclidean distance;
    q⁽ⁱ⁾ is the mean class that image i is matched to. Attributes are matched jointly, by √Σ_attr ‖p − u‖², as draws of
    independent attributes. One attribute of two classes has a closed form, and so has a single image: its q is the
    target. All else takes ``num_draws`` draws.

    Args:
        probs: class probabilities of each attribute, [N, K] each.
        targets: target distribution of each attribute, K numbers that sum to one.
        threshold: least confidence C of a kept target.
        num_draws: S, for the cases without closed form. Of 32 images, gender and race, 1,000 take .2 s, and about one
            target is another than that of many more draws; with 100 up to five are.
        generator: source of the draws; None seeds a new one with zero.
        world: processes that all call this with the same values, and match a part of the draws each.

    Raises:
        ValueError: attributes, classes or image counts do not fit, or a target is not a distribution.
    """
    _check(probs, targets)
    if len(probs) == 1 and (only := next(iter(probs))) and len(targets[only]) == 2:
        shares = {only: two_class_shares(probs[only][:, 1], targets[only][1])}
    elif all(len(rows) == 1 for rows in probs.values()):
        shares = {name: rows.new_tensor([targets[name]], dtype=torch.float64) for name, rows in probs.items()}
    else:
        shares = drawn_shares(probs, targets, num_draws=num_draws, generator=generator, world=world)
    result = {}
    for name, share in shares.items():
        confidence, labels = share.max(1)
        result[name] = Targets(labels, confidence, confidence >= threshold)
    return result


def one_class(label: int, *, like: Tensor) -> Targets:
    """Return targets that are one class for every image, as where a prompt names it; as many as ``like`` has rows."""
    count = len(like)
    return Targets(like.new_full((count,), label), like.new_ones(count, dtype=torch.float64), like.new_ones(count) > 0)


def original_targets(probs: Tensor, original: Tensor, *, by: Literal["image", "prompt"], threshold: float) -> Targets:
    """Return targets that leave an attribute as the original model shows it.

    By image, each image's target is the class of the original image from the same noise. By prompt, the images are
    matched to the original images' classes at the least total Euclidean distance, so that the prompt shows as many of
    each class as before, while who is of which class may change. Within a class the image that is nearest to it is
    matched to the original that the classifier is surest of, and so on.

    Args:
        probs: class probabilities of the images of one prompt, [N, K].
        original: those of the original images from the same noises, [N, K].
        by: ``image`` or ``prompt``.
        threshold: a target is kept where the classifier gives the class of its original this probability at least.
    """
    confidence, labels = original.max(1)
    if by == "prompt":
        distance, classes = np.sqrt(_squared_distances(probs)), labels.cpu().numpy()
        images, matched = linear_sum_assignment(distance[:, classes])
        wanted = classes[matched]
        nearest = torch.as_tensor(np.lexsort((distance[images, wanted], wanted)), device=labels.device)
        surest = torch.as_tensor(np.lexsort((-confidence.double().cpu().numpy(), classes)), device=labels.device)
        chosen = torch.empty_like(nearest)
        chosen[nearest] = surest
        confidence, labels = confidence[chosen], labels[chosen]
    return Targets(labels, confidence, confidence >= threshold)


def two_class_shares(prob_of_class_1: Tensor, share: float) -> Tensor:
    """Return q [N, 2] in closed form for two classes.

    The image of ascending rank r (from 0) in P(class 1) is matched to class 1 exactly if more than n − r − 1 of n
    draws are: q(1) = 1 − BinomCDF(n − r − 1; n, share).
    """
    count = len(prob_of_class_1)
    rank = prob_of_class_1.argsort(stable=True).argsort()
    q_1 = torch.as_tensor(binom.sf(count - rank.cpu().numpy() - 1, count, share), device=rank.device)
    return torch.stack([1 - q_1, q_1], 1)


def drawn_shares(
    probs: Mapping[str, Tensor],
    targets: Mapping[str, Sequence[float]],
    *,
    num_draws: int,
    generator: torch.Generator | None = None,
    world: World = World(),  # noqa: B008 (frozen)
) -> dict[str, Tensor]:
    """Return q [N, K] of each attribute as the mean over draws, each matched exactly, and by one process.

    The sums are of whole numbers: how many processes there are changes no bit.
    """
    generator = generator or torch.Generator().manual_seed(0)
    count = len(next(iter(probs.values())))
    totals = {name: np.zeros((count, len(target))) for name, target in targets.items()}
    draws = {
        name: torch.multinomial(
            torch.tensor(targets[name], dtype=torch.float64), num_draws * count, replacement=True, generator=generator
        )
        .view(num_draws, count)
        .numpy()
        for name in probs
    }
    distances = {name: _squared_distances(p) for name, p in probs.items()}
    images = np.arange(count)
    for s in range(num_draws)[world.share(num_draws)]:
        cost = sum(distances[name][:, draws[name][s]] for name in probs)
        _, matched = linear_sum_assignment(np.sqrt(cost))
        for name in probs:
            totals[name][images, draws[name][s][matched]] += 1
    return {
        name: world.sum(torch.as_tensor(total, device=probs[name].device)) / num_draws
        for name, total in totals.items()
    }


def _squared_distances(probs: Tensor) -> np.ndarray:
    """Return ‖p⁽ⁱ⁾ − e_k‖², [N, K]."""
    p = probs.detach().double().cpu().numpy()
    return np.maximum((p**2).sum(1, keepdims=True) - 2 * p + 1, 0)


def _check(probs: Mapping[str, Tensor], targets: Mapping[str, Sequence[float]]) -> None:
    if not probs or set(probs) != set(targets):
        raise ValueError(
            f"attributes with probabilities {sorted(probs)} and with targets {sorted(targets)} must match"
        )
    if len({len(p) for p in probs.values()}) != 1:
        raise ValueError("the attributes' probabilities are of different numbers of images")
    for name, target in targets.items():
        if probs[name].shape[1:] != (len(target),):
            raise ValueError(f"{name}: probabilities {list(probs[name].shape)} for {len(target)} target classes")
        if min(target) < 0 or not math.isclose(sum(target), 1, abs_tol=1e-6):
            raise ValueError(f"{name}: the target {list(target)} is not a distribution: shares ≥ 0 that sum to 1")
