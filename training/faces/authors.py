"""The face banks of the paper's authors: pickles of features, read without running what may be in them."""

import io
import pickle
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from fair_adaptors.training.config import Attribute
from torch import Tensor

from fair_adaptors.attributes import labels as known_labels
from fair_adaptors.devices import accelerator
from fair_adaptors.errors import ConfigError
from fair_adaptors.hub.parts import KIND, Part, find_part, unpacked
from fair_adaptors.vision.authors_faces import RECOGNISER
from fair_adaptors.vision.face_encoders import SIDE, FaceEncoder

from .bank import FaceBank, load_face_bank

PUBLISHED_LAYOUTS: Mapping[int, tuple[str, ...]] = {3: ("gender",), 5: ("gender", "race")}
"""Attributes of the authors' ``face_feats.pkl`` by the length of its tuple: features [M, D], then of each attribute
the classes [M] and the logits (``FaceFeatsModel`` of their exp-1 and exp-3)."""


@dataclass(frozen=True)
class AuthorsBank(Part):
    """A bank of the authors'.

    Attributes:
        attributes: whose classes it has.
    """

    attributes: tuple[str, ...]


_FEATURES = "3-face-features"

AUTHORS_BANKS: Mapping[str, AuthorsBank] = {
    "celeba": AuthorsBank(f"{_FEATURES}/CelebA_MobileNetLarge_08240859/face_feats.pkl", "CelebA", ("gender",)),
    "fairface": AuthorsBank(
        f"{_FEATURES}/FairFace_MobileNetLarge_GenderRace4_09041634/face_feats.pkl", "FairFace", ("gender", "race")
    ),
}
"""By the name behind ``authors:``."""


def find_bank(name: str, encoder: str) -> AuthorsBank:
    """Return a row of the table of banks.

    Args:
        encoder: the face encoder's name, which has to be theirs: features of another network mean something else.

    Raises:
        ConfigError: there is no such bank, or the encoder is another.
    """
    row = find_part(AUTHORS_BANKS, name, of="face bank")
    if encoder != f"{KIND}:{RECOGNISER}":
        raise ConfigError(
            f"face_bank is {KIND}:{name}: its features are of the authors' own network, and mean nothing to {encoder}."
            f" Set face_encoder={KIND}:{RECOGNISER}"
        )
    return row


def load_bank(spec: str, encoder: FaceEncoder, attributes: Iterable[Attribute]) -> FaceBank:
    """Load a bank that has faces for these attributes.

    Args:
        spec: ``authors:NAME`` for one of the authors', or a file of ``fair-adaptors face-bank``.
        attributes: those to make fair. The authors' banks know no age: with them a face may be of any.

    Raises:
        ConfigError: as ``load_authors_bank``, ``load_face_bank`` and ``FaceBank.check``.
        ArchiveError: as ``load_authors_bank``.
    """
    kind, _, name = spec.partition(":")
    theirs = kind == KIND
    bank = load_authors_bank(name, encoder) if theirs else load_face_bank(Path(spec).expanduser(), encoder=encoder)
    bank.check({one.name: one.classes for one in attributes if not theirs or one.name in bank.classes})
    return bank


def load_authors_bank(name: str, encoder: FaceEncoder) -> FaceBank:
    """Load a bank of the authors', onto the accelerator if there is one.

    Raises:
        ConfigError: as ``find_bank``, and as ``convert_published_bank``.
        ArchiveError: their archive cannot be had.
    """
    row = find_bank(name, encoder.name)
    bank = convert_published_bank(unpacked(row), encoder)
    device = accelerator()
    return replace(
        bank,
        features=bank.features.to(device),
        labels={name: labels.to(device) for name, labels in bank.labels.items()},
        source=f"{row.what}, by the paper's authors",
    )


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
        raise ConfigError(f"{path} is not a pickle of tensors alone: {' '.join(str(error).split())[:200]}") from error
    names = PUBLISHED_LAYOUTS.get(len(parts)) if isinstance(parts, tuple | list) else None
    if names is None or not isinstance(parts[0], Tensor) or parts[0].ndim != 2:
        raise ConfigError(
            f"{path} does not look like the authors' face_feats.pkl: features, then classes and logits, in a tuple"
        )
    if parts[0].nbytes > path.stat().st_size:  # of a tensor whose strides are 0, before anything is done with it
        raise ConfigError(f"{path} is cut off: it is smaller than the features that it describes")
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
        raise ConfigError(f"{path}: the classes of {name} are not numbers") from error
    if labels.shape != (count,) or not ((labels >= 0) & (labels < len(known_labels()[name]))).all():
        raise ConfigError(f"{path}: {name} is not a list of {count} classes")
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
