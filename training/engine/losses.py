"""The losses of distributional alignment and of preservation (Shen et al. 2024, §4.1 and appendix)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .targets import Targets


@dataclass(frozen=True)
class PreservationScale:
    """Factors on the preservation weight of an image whose class must change: outside the face, then inside it too."""

    factor1: float
    factor2: float


def alignment_loss(logits: Mapping[str, Tensor], targets: Mapping[str, Targets]) -> Tensor:
    """Return Σ_attr 1[kept] · CE(h(x⁽ⁱ⁾), y⁽ⁱ⁾) of each image, [N]; the loss of the batch is its mean.

    Args:
        logits: classifier logits of each attribute, [N, K].
        targets: from ``assign_targets``.
    """
    losses = [
        torch.where(target.keep, F.cross_entropy(logits[name], target.labels, reduction="none"), 0.0)
        for name, target in targets.items()
    ]
    return torch.stack(losses).sum(0)


def must_change(
    targets: Mapping[str, Targets],
    original: Mapping[str, Tensor],
    *,
    faceless: Tensor | bool = False,
    unassigned: Tensor | bool = False,
) -> dict[str, Tensor]:
    """Tell for each attribute which images have a kept target that is not the original image's class, bool [N].

    Args:
        targets: from ``assign_targets``.
        original: the original images' classes, [N] of each attribute.
        faceless: whose original image shows nobody, and so is of no class, bool [N] or one for all.
        unassigned: which images without a kept target count among them, bool [N] or one for all.
    """
    return {
        name: torch.where(target.keep, (target.labels != original[name]) | faceless, unassigned)
        for name, target in targets.items()
    }


def preservation_weights(
    changing: Mapping[str, Tensor], scales: Mapping[str, PreservationScale], *, weight: float
) -> tuple[Tensor, Tensor]:
    """Return the weights of the image-preservation loss in its three regimes.

    λ₁ = ``weight`` where the class stays; λ₂ = factor1·λ₁ where it must change; inside the face the gradient is scaled
    by factor2 once more, λ₃ = factor2·λ₂. Of several changing attributes the smallest factor counts.

    Args:
        changing: from ``must_change``.
        scales: the two factors of each attribute.

    Returns:
        Weight of the image's loss [N], and the scale of the gradient inside its face [N].
    """
    outside = torch.stack([torch.where(mask, scales[name].factor1, 1.0) for name, mask in changing.items()]).amin(0)
    inside = torch.stack([torch.where(mask, scales[name].factor2, 1.0) for name, mask in changing.items()]).amin(0)
    return weight * outside, inside


def preservation_loss(
    images: Tensor,
    wanted: Mapping[str, Tensor],
    encoders: Mapping[str, Callable[[Tensor], Tensor]],
    *,
    weights: Tensor,
    face_scale: Tensor,
    face_mask: Tensor | None = None,
) -> Tensor:
    """Return w⁽ⁱ⁾ · Σ_encoders (1 − cos(f(x⁽ⁱ⁾), f(o⁽ⁱ⁾))) of each image, [N].

    Args:
        images: x, [N, 3, H, W].
        wanted: f(o), features of the original images from the same noise and prompt, by encoder, [N, D].
        encoders: functions from images to unit features [N, D].
        weights, face_scale: from ``preservation_weights``.
        face_mask: [N, 1, H, W], one inside the face; None takes the whole image as face.
    """
    if not encoders:
        return torch.zeros_like(weights)
    scale = face_scale[:, None, None, None]
    if face_mask is not None:
        scale = 1 + face_mask * (scale - 1)
    images = scale_gradient(images, scale)
    losses = [1 - (encode(images) * wanted[name]).sum(1) for name, encode in encoders.items()]
    return weights * torch.stack(losses).sum(0)


def keeps_original_face(
    targets: Mapping[str, Targets], original: Mapping[str, Tensor], found: Tensor, *, confidence: float
) -> Tensor:
    """Tell which images should keep the face of the original image, bool [N].

    Those whose target is the original's class in every attribute, kept, with a classifier that is sure of that class.

    Args:
        original: class probabilities of the original images, [N, K] of each attribute.
        found: whether the original image has a face, bool [N].
        confidence: least probability of the original's class; in the paper .9 for gender, .8 for gender and race, .75
            with age.
    """
    keeps = found.clone()
    for name, target in targets.items():
        sure, classes = original[name].max(1)
        keeps &= target.keep & (target.labels == classes) & (sure >= confidence)
    return keeps


def face_loss(
    features: Tensor, original_features: Tensor, bank_features: Tensor, *, keep_original: Tensor, takes_part: Tensor
) -> Tensor:
    """Return 1 − cos(f(x⁽ⁱ⁾), f(g⁽ⁱ⁾)) of each image, [N]: how unlike its face is to a real or unchanged one.

    The goal g is the face of the original image where that is kept, otherwise the nearest real one. Where there is no
    face the loss and its gradient are zero, whatever the features say.

    Args:
        features: of the faces, [N, D], unit length.
        original_features: of the original images' faces, [N, D]; a constant.
        bank_features: from ``FaceBank.nearest``, [N, D]; a constant.
        keep_original: from ``keeps_original_face``, bool [N].
        takes_part: whether there is a face, and a goal for it, bool [N].
    """
    goals = torch.where(keep_original[:, None], original_features, bank_features).detach()
    features, goals = (torch.where(takes_part[:, None], faces, 0.0) for faces in (features, goals))
    return torch.where(takes_part, 1 - (features * goals).sum(1), 0.0)


def scale_gradient(x: Tensor, scale: Tensor | float) -> Tensor:
    """Return ``x`` unchanged; multiply its gradient by ``scale``."""
    return x.detach() + scale * (x - x.detach())
