"""Banks of faces made of labelled pictures."""

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np
import torch
from fair_adaptors.training.classifier.data import Labelled, batches, public_name
from PIL import Image
from torch import Tensor

from fair_adaptors.errors import ConfigError
from fair_adaptors.vision.crops import align_faces
from fair_adaptors.vision.face_encoders import SIDE, FaceEncoder
from fair_adaptors.vision.types import FaceDetector

from .bank import FaceBank

MOST_PIXELS = 640
"""Longer side that pictures are shrunk to. An aligned face has 112."""
_BATCH = 32


def build_face_bank(
    data: Labelled,
    encoder: FaceEncoder,
    detector: FaceDetector,
    *,
    on_pictures: Callable[[int, int], None] = lambda seen, faces: None,
) -> FaceBank:
    """Find, align and encode the faces of a data set's training pictures; those without a face are left out.

    Args:
        on_pictures: called now and then with how many pictures were seen and how many faces were found.

    Raises:
        ConfigError: a picture cannot be read, or none has a face.
    """
    features: list[Tensor] = []
    labels: dict[str, list[int]] = {name: [] for name in data.classes}
    seen = 0
    for batch in batches(data.train(0), _BATCH):
        for picture, _ in batch:
            picture.thumbnail((MOST_PIXELS, MOST_PIXELS))
        for _, same in groupby(sorted(batch, key=lambda one: one[0].size), key=lambda one: one[0].size):
            pictures, classes = zip(*same, strict=True)
            found, units = _encode(pictures, encoder, detector)
            features.append(units)
            for name, values in labels.items():
                values += [one[name] for one, there in zip(classes, found.tolist(), strict=True) if there]
        seen += len(batch)
        on_pictures(seen, sum(map(len, features)))
    if not sum(map(len, features)):
        raise ConfigError(f"{data.source.place}: {detector.name} found no face in {seen} pictures")
    return FaceBank(
        torch.cat(features),
        {name: torch.tensor(values, dtype=torch.uint8) for name, values in labels.items()},
        data.classes,
        encoder.identity,
        " ".join(filter(None, (public_name(data.source.place), data.source.config, data.source.revision))),
        data.source.licence,
    )


@torch.no_grad()
def _encode(pictures: Sequence[Image.Image], encoder: FaceEncoder, detector: FaceDetector) -> tuple[Tensor, Tensor]:
    """Return which pictures of one size have a face, bool [N], and the features of these faces, float16 [n, D]."""
    images = torch.stack([torch.from_numpy(np.array(picture)) for picture in pictures]).permute(0, 3, 1, 2) / 255
    faces = detector.find(images)
    aligned = align_faces(images[faces.found], faces.landmarks[faces.found], SIDE)
    if not len(aligned):
        return faces.found, torch.zeros(0, *encoder.encode(torch.zeros(1, 3, SIDE, SIDE)).shape[1:]).half()
    return faces.found, encoder.encode(aligned).half().cpu()
