"""What the losses see of images: pixels, faces, what the classifier says of them; and the losses themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.setup import Setting
from torch import Tensor

from fair_adaptors.vision.crops import align_faces, crop_faces, face_masks, square_boxes
from fair_adaptors.vision.types import Faces

from .losses import (
    PreservationScale,
    alignment_loss,
    face_loss,
    keeps_original_face,
    must_change,
    preservation_loss,
    preservation_weights,
)
from .sampling import decode
from .targets import Targets


@dataclass(frozen=True)
class Portraits:
    """N images of one prompt.

    Attributes:
        latents: what they were decoded from [N, C, h, w]; a leaf of the graph if there is a gradient.
        images: [N, 3, H, W], float32.
        faces: the largest face of each; None where the whole image is taken for one.
        logits: the classifier's, of each attribute [N, K].
    """

    latents: Tensor
    images: Tensor
    faces: Faces | None
    logits: Mapping[str, Tensor]

    @property
    def found(self) -> Tensor:
        """Whether an image has a face, bool [N]."""
        if self.faces is None:
            return torch.ones(len(self.images), dtype=torch.bool, device=self.images.device)
        return self.faces.found


def portray(setting: Setting, latents: Tensor, *, faces: Faces | None = None) -> Portraits:
    """Decode latents and look at the images, such that a gradient reaches the latents.

    Args:
        faces: where they are, if that is known.
    """
    leaf = latents.detach().requires_grad_(True)
    images = decode(setting.pipe, leaf).float()
    if faces is None and setting.faces is not None:
        faces = setting.faces.find(images.detach().clamp(0, 1))
    return _seen(setting, leaf, images, faces)


@torch.no_grad()
def portray_each(setting: Setting, latents: Sequence[Tensor]) -> list[Portraits]:
    """Decode chunks of latents without gradient; their faces are looked for while the next chunk is decoded."""
    drawn = []
    for chunk in latents:
        images = decode(setting.pipe, chunk).float()
        faces = None if setting.faces is None else setting.faces.find_later(images.clamp(0, 1))
        drawn.append((chunk, images, faces))
    return [_seen(setting, chunk, images, None if faces is None else faces.result()) for chunk, images, faces in drawn]


def _seen(setting: Setting, latents: Tensor, images: Tensor, faces: Faces | None) -> Portraits:
    alone = faces is not None and setting.faces is not None and setting.faces.crops
    people = crop_faces(images, faces.boxes) if alone and faces is not None else images
    logits = {name: each.to(images.device) for name, each in setting.classifier(people).items()}  # it may be elsewhere
    return Portraits(latents, images, faces, logits)


def losses(
    setting: Setting,
    config: TrainConfig,
    portraits: Portraits,
    originals: Portraits,
    targets: Mapping[str, Targets],
) -> Tensor:
    """Return the sums over images of alignment, preservation and face loss, [3] (paper §2)."""
    classes = {name: originals.logits[name].argmax(1) for name in targets}
    scales = {a.name: PreservationScale(a.factor1, a.factor2) for a in config.attributes}
    weights, face_scale = preservation_weights(must_change(targets, classes), scales, weight=config.preservation)
    alignment = alignment_loss({name: portraits.logits[name] for name in targets}, targets)
    preservation = preservation_loss(
        portraits.images,
        originals.images,
        setting.encoders,
        weights=weights,
        face_scale=face_scale,
        face_mask=_face_mask(portraits, originals),
    )
    face = torch.zeros_like(preservation)
    if config.face_weight and setting.face_encoder is not None and portraits.faces is not None:
        face = config.face_weight * _face_losses(setting, config, portraits, originals, targets)
    return torch.stack([alignment.sum(), preservation.sum(), face.sum()])


def _face_mask(portraits: Portraits, originals: Portraits) -> Tensor | None:
    one, other = portraits.faces, originals.faces
    if one is None or other is None:
        return None
    height, width = portraits.images.shape[-2:]
    boxes = square_boxes(one.boxes), square_boxes(other.boxes)
    return face_masks(*boxes, one.found, other.found, height=height, width=width)


def _face_losses(
    setting: Setting, config: TrainConfig, portraits: Portraits, originals: Portraits, targets: Mapping[str, Targets]
) -> Tensor:
    """Return how unlike each face is to the original's, or to the nearest real one of its target class, [N]."""
    encode, new, old = setting.face_encoder, portraits.faces, originals.faces
    assert encode is not None and new is not None and old is not None
    features = encode(align_faces(portraits.images, new.landmarks))
    with torch.no_grad():
        original = encode(align_faces(originals.images, old.landmarks))
    probabilities = {name: originals.logits[name].softmax(1) for name in targets}
    keep = keeps_original_face(targets, probabilities, old.found, confidence=config.face_confidence)
    has_goal = keep if setting.face_bank is None else torch.ones_like(keep)
    real = original if setting.face_bank is None else setting.face_bank.nearest(features.nan_to_num(), targets)
    return face_loss(features, original, real, keep_original=keep, takes_part=new.found & has_goal)
