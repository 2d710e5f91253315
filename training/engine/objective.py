"""What the losses see of images: pixels, faces, what the classifier says of them; and the losses themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.setup import Setup
from torch import Tensor

from fair_adaptors.vision.crops import align_faces, face_masks, square_boxes
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

LOSSES = ("alignment", "keep", "preservation", "face")
"""What is minimised is their sum."""


@dataclass(frozen=True)
class ObservedImages:
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
        return _found(self.logits, self.faces)


def _found(logits: Mapping[str, Tensor], faces: Faces | None) -> Tensor:
    if faces is not None:
        return faces.found
    rows = next(iter(logits.values()))
    return torch.ones(len(rows), dtype=torch.bool, device=rows.device)


@dataclass(frozen=True)
class OriginalImages:
    """What the losses know of N images of the original model, from the same noises; nothing of it has a gradient.

    Attributes:
        logits: the classifier's, of each attribute [N, K].
        features: unit features of each encoder [N, D].
        faces: the largest face of each; None where the whole image is taken for one.
        face_features: of each face, unit length [N, D]; None without a face loss.
    """

    logits: Mapping[str, Tensor]
    features: Mapping[str, Tensor]
    faces: Faces | None
    face_features: Tensor | None

    @property
    def found(self) -> Tensor:
        """Whether an image has a face, bool [N]."""
        return _found(self.logits, self.faces)

    def tensors(self) -> dict[str, Tensor]:
        """Return all of it under flat names, each with a row per image."""
        flat = {f"logits.{name}": rows for name, rows in self.logits.items()}
        flat |= {f"features.{name}": rows for name, rows in self.features.items()}
        if self.faces is not None:
            flat |= {f"faces.{name}": rows for name, rows in vars(self.faces).items()}
        return flat if self.face_features is None else flat | {"face_features": self.face_features}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "OriginalImages":
        """Return what ``tensors`` gave."""
        rooms: dict[str, dict[str, Tensor]] = {"logits": {}, "features": {}, "faces": {}}
        for name, rows in tensors.items():
            room, _, inner = name.partition(".")
            if inner:
                rooms[room][inner] = rows
        faces = Faces(**rooms["faces"]) if rooms["faces"] else None
        return cls(rooms["logits"], rooms["features"], faces, tensors.get("face_features"))

    def select(self, images: Tensor) -> "OriginalImages":
        """Return what is known of some of the images."""
        return self.of({name: rows[images.to(rows.device)] for name, rows in self.tensors().items()})


@torch.no_grad()
def describe(setup: Setup, observed: Sequence[ObservedImages]) -> OriginalImages:
    """Return what the losses need to know of the original model's images, of which each of ``observed`` is a part."""
    rows: dict[str, list[Tensor]] = {}
    for each in observed:
        encoded = {name: encode(each.images) for name, encode in setup.encoders.items()}
        face = None
        if setup.face_encoder is not None and each.faces is not None:
            face = setup.face_encoder(align_faces(each.images, each.faces.landmarks))
        for name, part in OriginalImages(each.logits, encoded, each.faces, face).tensors().items():
            rows.setdefault(name, []).append(part)
    return OriginalImages.of({name: torch.cat(parts) for name, parts in rows.items()})


def observe(setup: Setup, latents: Tensor, *, plain: ObservedImages | None = None) -> ObservedImages:
    """Decode latents and look at the images, such that a gradient reaches the latents.

    Args:
        plain: what was seen of them without gradient: the faces are where they were. With a ``gradient_decoder`` the
            pixels too are what they were, and only their gradient is that decoder's.
    """
    leaf = latents.detach().requires_grad_(True)
    if plain is not None and setup.gradient_decoder is not None:
        small = setup.gradient_decoder(leaf).float()
        images = plain.images + (small - small.detach())
    else:
        images = decode(setup.pipe, leaf).float()
    faces = None if plain is None else plain.faces
    if faces is None and setup.faces is not None:
        faces = setup.faces.find(images.detach().clamp(0, 1))
    return _seen(setup, leaf, images, faces)


@torch.no_grad()
def observe_each(setup: Setup, latents: Sequence[Tensor]) -> list[ObservedImages]:
    """Decode chunks of latents without gradient; their faces are looked for while the next chunk is decoded."""
    drawn = []
    for chunk in latents:
        images = decode(setup.pipe, chunk).float()
        faces = None if setup.faces is None else setup.faces.find_later(images.clamp(0, 1))
        drawn.append((chunk, images, faces))
    return [_seen(setup, chunk, images, None if faces is None else faces.result()) for chunk, images, faces in drawn]


def _seen(setup: Setup, latents: Tensor, images: Tensor, faces: Faces | None) -> ObservedImages:
    alone = faces is not None and setup.faces is not None and setup.faces.crops
    found = setup.classifier(images, faces.boxes) if alone and faces is not None else setup.classifier(images)
    logits = {name: each.to(images.device) for name, each in found.items()}  # it may be elsewhere
    return ObservedImages(latents, images, faces, logits)


def losses(
    setup: Setup,
    config: TrainConfig,
    observed: ObservedImages,
    original: OriginalImages,
    targets: Mapping[str, Targets],
    kept: Mapping[str, Targets],
) -> dict[str, Tensor]:
    """Return the sum over images of each of ``LOSSES`` (paper §2; ``keep`` is ours).

    Args:
        observed: images of the adaptor in training.
        original: what is known of the original model's, of the same noises.
        targets: of these images, of the attributes to make fair.
        kept: of these images, of the attributes that must stay (``original_targets``).
    """
    classes = {name: original.logits[name].argmax(1) for name in targets}
    scales = {a.name: PreservationScale(a.factor1, a.factor2) for a in config.attributes}
    changing = must_change(targets, classes, faceless=~original.found, unassigned=_unassigned(config, observed))
    weights, face_scale = preservation_weights(changing, scales, weight=config.preservation)
    alignment = alignment_loss({name: observed.logits[name] for name in targets}, targets)
    preservation = preservation_loss(
        observed.images,
        original.features,
        setup.encoders,
        weights=weights,
        face_scale=face_scale,
        face_mask=_face_mask(observed, original),
    )
    keep, face = torch.zeros_like(alignment), torch.zeros_like(preservation)
    if kept:
        keep = config.keep_weight * alignment_loss({name: observed.logits[name] for name in kept}, kept)
    if config.face_weight and setup.face_encoder is not None and observed.faces is not None:
        face = config.face_weight * _face_losses(setup, config, observed, original, targets)
    found = {"alignment": alignment, "keep": keep, "preservation": preservation, "face": face}
    return {name: each.sum() for name, each in found.items()}


def _unassigned(config: TrainConfig, observed: ObservedImages) -> Tensor | bool:
    """Tell which images count as changing where they have no target: with ``reduced``, as in the published code.

    There an image without a face keeps the full weight if one attribute is made fair, but not if several are.
    """
    if config.preserve_unassigned == "full":
        return False
    return observed.found if len(config.attributes) == 1 else True


def _face_mask(observed: ObservedImages, original: OriginalImages) -> Tensor | None:
    one, other = observed.faces, original.faces
    if one is None or other is None:
        return None
    height, width = observed.images.shape[-2:]
    boxes = square_boxes(one.boxes), square_boxes(other.boxes)
    return face_masks(*boxes, one.found, other.found, height=height, width=width)


def _face_losses(
    setup: Setup,
    config: TrainConfig,
    observed: ObservedImages,
    original: OriginalImages,
    targets: Mapping[str, Targets],
) -> Tensor:
    """Return how unlike each face is to the original's, or to the nearest real one of its target class, [N]."""
    encode, new, unchanged = setup.face_encoder, observed.faces, original.face_features
    assert encode is not None and new is not None and unchanged is not None
    features = encode(align_faces(observed.images, new.landmarks))
    probabilities = {name: original.logits[name].softmax(1) for name in targets}
    keep = keeps_original_face(targets, probabilities, original.found, confidence=config.face_confidence)
    has_goal = keep if setup.face_bank is None else torch.ones_like(keep)
    real = unchanged if setup.face_bank is None else setup.face_bank.nearest(features.nan_to_num(), targets)
    return face_loss(features, unchanged, real, keep_original=keep, takes_part=new.found & has_goal)
