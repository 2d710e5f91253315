"""Banks of faces made of labelled pictures."""

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np
import torch
from fair_adaptors.training.classifier.data import Labelled, batches
from PIL import Image
from torch import Tensor

from fair_adaptors.errors import ConfigError
from fair_adaptors.files import public_name
from fair_adaptors.vision.crops import align_faces
from fair_adaptors.vision.face_encoders import SIDE, FaceEncoder
from fair_adaptors.vision.types import FaceDetector

from .bank import FaceBank

MOST_PIXELS = 640
"""Longer side that pictures are shrunk to. An aligned face has 112."""
LEAST_SIDE = 40
"""Pixels of the longer side of a face's box, of a picture so shrunk. Aligned, a smaller one is mostly guessed."""
LEAST_SCORE = 0.7
"""How sure the detector must be. An evaluation is content with less: there, who is left out is counted."""
_BATCH = 32

NO_FACE, TOO_SMALL, UNSURE = "no face", f"a face smaller than {LEAST_SIDE} pixels", "a face that is not clear"
"""What pictures that are left out show."""


def build_face_bank(
    data: Labelled,
    encoder: FaceEncoder,
    detector: FaceDetector,
    *,
    on_pictures: Callable[[int, int], None] = lambda seen, faces: None,
) -> tuple[FaceBank, dict[str, int]]:
    """Find, align and encode the faces of a data set's training pictures.

    Args:
        on_pictures: called now and then with how many pictures were seen and how many faces were taken.

    Returns:
        The bank, and how many pictures were left out by the reason: ``NO_FACE``, ``TOO_SMALL``, ``UNSURE``.

    Raises:
        ConfigError: a picture cannot be read, or no face is left.
    """
    features: list[Tensor] = []
    labels: dict[str, list[int]] = {name: [] for name in data.classes}
    left_out, seen = dict.fromkeys((NO_FACE, TOO_SMALL, UNSURE), 0), 0
    for batch in batches(data.train(0), _BATCH):
        for picture, _ in batch:
            picture.thumbnail((MOST_PIXELS, MOST_PIXELS))
        for _, same in groupby(sorted(batch, key=lambda one: one[0].size), key=lambda one: one[0].size):
            pictures, classes = zip(*same, strict=True)
            reasons, units = _encode(pictures, encoder, detector)
            features.append(units)
            for name, values in labels.items():
                values += [one[name] for one, reason in zip(classes, reasons, strict=True) if reason is None]
            for reason in filter(None, reasons):
                left_out[reason] += 1
        seen += len(batch)
        on_pictures(seen, sum(map(len, features)))
    if not sum(map(len, features)):
        why = ", ".join(f"{reason} in {count}" for reason, count in left_out.items() if count)
        raise ConfigError(f"{data.source.place}: none of the {seen} pictures can be used: {why}")
    bank = FaceBank(
        torch.cat(features),
        {name: torch.tensor(values, dtype=torch.uint8) for name, values in labels.items()},
        data.classes,
        encoder.identity,
        " ".join(filter(None, (public_name(data.source.place), data.source.config, data.source.revision))),
        data.source.licence,
    )
    return bank, left_out


@torch.no_grad()
def _encode(
    pictures: Sequence[Image.Image], encoder: FaceEncoder, detector: FaceDetector
) -> tuple[list[str | None], Tensor]:
    """Return why pictures of one size are left out, None if not, and the features of the others, float16 [n, D]."""
    images = torch.stack([torch.from_numpy(np.array(picture)) for picture in pictures]).permute(0, 3, 1, 2) / 255
    faces = detector.find(images)
    sides = (faces.boxes[:, 2:] - faces.boxes[:, :2]).amax(1)
    reasons = [
        NO_FACE if not found else TOO_SMALL if side < LEAST_SIDE else UNSURE if score < LEAST_SCORE else None
        for found, side, score in zip(faces.found.tolist(), sides.tolist(), faces.scores.tolist(), strict=True)
    ]
    taken = torch.tensor([reason is None for reason in reasons])
    aligned = align_faces(images[taken], faces.landmarks[taken], SIDE)
    if not len(aligned):
        return reasons, torch.zeros(0, *encoder.encode(torch.zeros(1, 3, SIDE, SIDE)).shape[1:]).half()
    return reasons, encoder.encode(aligned).half().cpu()
