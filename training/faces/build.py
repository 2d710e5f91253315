"""Where face banks come from: labelled pictures, or the features that the paper's authors published."""

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from fair_adaptors.training.classifier.data import Labelled, batches, public_name
from PIL import Image
from torch import Tensor

from fair_adaptors.attributes import labels as known_labels
from fair_adaptors.errors import ConfigError
from fair_adaptors.vision.crops import align_faces
from fair_adaptors.vision.face_encoders import SIDE, FaceEncoder
from fair_adaptors.vision.types import FaceDetector

from .bank import FaceBank

MOST_PIXELS = 640
"""Longer side that pictures are shrunk to. An aligned face has 112."""
_BATCH = 32

PUBLISHED_LAYOUTS: Mapping[int, tuple[str, ...]] = {3: ("gender",), 5: ("gender", "race")}
"""Attributes of the authors' ``face_feats.pkl`` by the length of its tuple: features [M, D], then of each attribute
the classes [M] and the logits (``FaceFeatsModel`` of their exp-1 and exp-3)."""


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


def convert_published_bank(path: Path, encoder: FaceEncoder) -> FaceBank:
    """Read the authors' ``face_feats.pkl`` without running what may be in it.

    Args:
        path: the file.
        encoder: the one that the features are of; the file does not tell. The authors' is SphereFace-R of opensphere.

    Raises:
        ConfigError: it is not of that layout, or the encoder's features are of another width.
    """
    try:
        with path.open("rb") as file:
            parts = _OnlyTensors(file).load()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # damage and malice make pickle and torch raise nearly anything
        raise ConfigError(f"{path} is no pickle of tensors alone: {' '.join(str(error).split())[:200]}") from error
    names = PUBLISHED_LAYOUTS.get(len(parts)) if isinstance(parts, tuple | list) else None
    if names is None or not isinstance(parts[0], Tensor) or parts[0].ndim != 2:
        raise ConfigError(
            f"{path} is not as the authors' face_feats.pkl: features, then classes and logits, in a tuple"
        )
    if parts[0].nbytes > path.stat().st_size:  # of a tensor whose strides are 0, before anything is done with it
        raise ConfigError(f"{path} is smaller than the features that it says to have")
    features = F.normalize(parts[0].float(), dim=1)
    with torch.no_grad():
        width = encoder.encode(torch.zeros(1, 3, SIDE, SIDE)).shape[1]
    if features.shape[1] != width:
        raise ConfigError(f"{path} has features of {features.shape[1]} numbers; those of {encoder.name} have {width}")
    classes = {name: tuple(known_labels()[name]) for name in names}
    labels = {
        name: _classes(path, name, values, len(features)) for name, values in zip(names, parts[1::2], strict=True)
    }
    return FaceBank(features.half(), labels, classes, encoder.identity, path.name, "as its authors say")


def _classes(path: Path, name: str, values: Any, count: int) -> Tensor:
    """Return the classes that a file has for an attribute, uint8 [count]."""
    try:
        labels = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{path}: the classes of {name} are no numbers") from error
    if labels.shape != (count,) or not ((labels >= 0) & (labels < len(known_labels()[name]))).all():
        raise ConfigError(f"{path}: {name} is no list of {count} classes")
    return labels.to(torch.uint8)


class _OnlyTensors(pickle.Unpickler):
    """Reads a pickle of plain tensors, and nothing else; see "Restricting Globals" in the documentation of pickle."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle of a tensor names.

        Raises:
            pickle.UnpicklingError: it names anything else.
        """
        allowed = {
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
            # Its own loads these bytes as one more pickle that may run anything.
            "torch.storage._load_from_bytes": _load_storage,
        }
        if f"{module}.{name}" not in allowed:
            raise pickle.UnpicklingError(f"it would run {module}.{name}")
        return allowed[f"{module}.{name}"]


def _load_storage(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
