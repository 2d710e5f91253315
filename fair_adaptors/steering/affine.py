"""Affine maps of low rank that turn a text's states into those of the same text with a word more, by least squares."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

RIDGE = 0.01
"""Of the mean square of the states' numbers, how much is added to each: of what few texts show, less is believed."""


@dataclass(frozen=True)
class Affine:
    """x ↦ what is to be added to it for class k: d_k + (x − μ)·A·B_k.

    Attributes:
        mean: μ, [D].
        offset: d, [K, D]: the mean difference of a class.
        down: A, [D, R].
        up: B, [K, R, D].
    """

    mean: "Tensor"
    offset: "Tensor"
    down: "Tensor"
    up: "Tensor"

    def __call__(self, states: "Tensor", kind: int) -> "Tensor":
        """Return what is to be added to states [..., D] for a class."""
        return self.offset[kind] + (states - self.mean) @ self.down @ self.up[kind]

    def tensors(self, prefix: str) -> "dict[str, Tensor]":
        """Return it under the names of a file."""
        return {f"{prefix}.{name}": getattr(self, name) for name in ("mean", "offset", "down", "up")}


def fit(states: "Tensor", wanted: "Tensor", *, rank: int, ridge: float = RIDGE) -> Affine:
    """Return the map of at most this rank with the least squared error, plus ``ridge`` for large maps.

    It is reduced-rank ridge regression: of the full map only what explains the most of its own answers is kept.

    Args:
        states: N texts' states x, [N, D].
        wanted: what is to be added to each of them for each class, [K, N, D].
    """
    import torch

    mean, offset = states.mean(0), wanted.mean(1)
    x = (states - mean).double()
    y = (wanted - offset[:, None]).double().permute(1, 0, 2).flatten(1)  # [N, K·D]
    left, sizes, right = torch.linalg.svd(x, full_matrices=False)  # no larger than the fewer of texts and numbers
    added = ridge * sizes.square().sum() / x.shape[1] + 1e-12
    scale = (sizes.square() + added).rsqrt()[:, None]
    whitened = scale * sizes[:, None] * (left.T @ y)  # its squares are what the map explains
    _, vectors = torch.linalg.eigh(whitened @ whitened.T)
    best = vectors[:, -min(rank, len(vectors)) :].flip(1)
    down = right.T @ (scale * best)
    up = (best.T @ whitened).view(best.shape[1], *wanted.shape[::2]).permute(1, 0, 2)
    return Affine(mean, offset, down.float().contiguous(), up.float().contiguous())
