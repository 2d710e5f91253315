"""Features of real faces, by class: what a face should be like that may not stay as it was (paper §2)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from fair_adaptors.training.engine.targets import Targets
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fair_adaptors.devices import accelerator
from fair_adaptors.errors import ConfigError
from fair_adaptors.vision.face_encoders import FaceEncoder

FORMAT = "fair-adaptors face bank 1"
_LABELS = "labels."
_BLOCK = 8_192  # faces that are compared at once
_LENGTH_ERROR = 5e-3  # of a unit vector in float16: five times what rounding explains


@dataclass(frozen=True)
class FaceBank:
    """M real faces.

    Attributes:
        features: unit length, [M, D], float16 or float32.
        labels: class index of each attribute, uint8 [M].
        classes: of each attribute, in index order.
        encoder: identity of the encoder the features are of.
        source, licence: of the pictures.
    """

    features: Tensor
    labels: Mapping[str, Tensor]
    classes: Mapping[str, tuple[str, ...]]
    encoder: str
    source: str
    licence: str

    def counts(self) -> dict[tuple[str, ...], int]:
        """Return how many faces there are of each joint class, for the classes there are."""
        names = list(self.classes)
        rows, counts = torch.stack([self.labels[name] for name in names], 1).unique(dim=0, return_counts=True)
        return {
            tuple(self.classes[name][index] for name, index in zip(names, row, strict=True)): count
            for row, count in zip(rows.tolist(), counts.tolist(), strict=True)
        }

    def check(self, attributes: Mapping[str, Sequence[str]]) -> None:
        """Check that there is a face for each joint class that an image may have to change to.

        Args:
            attributes: names and classes, as a recipe has them.

        Raises:
            ConfigError: an attribute or its classes are not those of the bank, or a joint class has no face.
        """
        for name, classes in attributes.items():
            if tuple(classes) != self.classes.get(name):
                known = "; ".join(f"{each} ({', '.join(names)})" for each, names in self.classes.items())
                raise ConfigError(f"the face bank knows {known}; the recipe wants {name} ({', '.join(classes)})")
        chosen = replace(self, classes={name: tuple(classes) for name, classes in attributes.items()})
        counts = chosen.counts()
        wanted = torch.cartesian_prod(*(torch.arange(len(classes)) for classes in attributes.values()))
        for row in wanted.reshape(-1, len(attributes)).tolist():
            joint = tuple(classes[index] for classes, index in zip(chosen.classes.values(), row, strict=True))
            if joint not in counts:
                raise ConfigError(
                    f"the face bank of {self.source} has no face of {' '.join(joint)}; make a larger one"
                )

    @torch.no_grad()
    def nearest(self, features: Tensor, targets: Mapping[str, Targets]) -> Tensor:
        """Return for each face the most similar one of its target class, unit features [N, D].

        Attributes whose target is not kept, and those unknown to the bank, may be of any class. The published code
        takes the nearest face of all, whatever its class.

        Args:
            features: unit length, [N, D].
            targets: of each attribute, for N images.

        Raises:
            ConfigError: there is no face of a target class; ``check`` says so before.
        """
        best = torch.full((len(features),), -torch.inf, device=features.device)
        places = torch.zeros(len(features), dtype=torch.long, device=features.device)
        for start in range(0, len(self.features), _BLOCK):
            block = slice(start, start + _BLOCK)
            cosines = features.float() @ self.features[block].float().T
            cosines.masked_fill_(~self._allowed(block, targets), -torch.inf)
            cosine, place = cosines.max(1)
            places = torch.where(cosine > best, start + place, places)
            best = torch.maximum(best, cosine)
        if not best.isfinite().all():
            raise ConfigError(f"the face bank of {self.source} has no face of a class that an image must change to")
        return F.normalize(self.features[places].float(), dim=1)

    def _allowed(self, block: slice, targets: Mapping[str, Targets]) -> Tensor:
        """Tell which faces of a block are of the target classes, bool [N or 1, block]."""
        allowed = torch.ones_like(self.features[block, 0], dtype=torch.bool)[None]
        for name, target in targets.items():
            if name in self.labels:
                allowed = allowed & ((self.labels[name][block] == target.labels[:, None]) | ~target.keep[:, None])
        return allowed


def save_face_bank(bank: FaceBank, path: Path) -> None:
    """Write a bank as a safetensors file."""
    tensors = {"features": bank.features} | {_LABELS + name: labels for name, labels in bank.labels.items()}
    metadata = {
        "format": FORMAT,
        "encoder": bank.encoder,
        "source": bank.source,
        "licence": bank.licence,
        "classes": json.dumps(bank.classes),
    }
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path, metadata)


def load_face_bank(path: Path, *, encoder: FaceEncoder | None) -> FaceBank:
    """Read a bank and check it, onto the accelerator if there is one.

    Args:
        path: a file of ``fair-adaptors face-bank``.
        encoder: what the faces of the images will be encoded by; None if that is not loaded, and not compared.

    Raises:
        ConfigError: no such file, damaged, or of another encoder.
    """
    again = "make it again with `fair-adaptors face-bank`"
    try:
        with safe_open(path, "pt", accelerator()) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if metadata.get("format") != FORMAT:
            raise ConfigError(f"{path} is not a face bank; {again}")
        classes = {name: tuple(each) for name, each in json.loads(metadata["classes"]).items()}
        labels = {name: tensors[_LABELS + name] for name in classes}
        bank = FaceBank(
            tensors["features"], labels, classes, metadata["encoder"], metadata["source"], metadata["licence"]
        )
    except OSError as error:
        raise ConfigError(f"the face bank {path} cannot be read: {error.strerror or error}") from error
    except (SafetensorError, KeyError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"the face bank {path} is damaged: {error}; {again}") from error
    if fault := _fault(bank):
        raise ConfigError(f"the face bank {path} is damaged: {fault}; {again}")
    if encoder is not None and bank.encoder != encoder.identity:
        raise ConfigError(f"the face bank {path} was made by another encoder than {encoder.name}: {again}")
    return bank


def _fault(bank: FaceBank) -> str | None:
    """Return what is wrong with a bank's tensors; None if nothing is."""
    features = bank.features
    if features.dtype not in (torch.float16, torch.float32) or features.ndim != 2 or not len(features):
        return f"its features are {features.dtype} {list(features.shape)}"
    for name, labels in bank.labels.items():
        if labels.dtype != torch.uint8 or labels.shape != features.shape[:1]:
            return f"its labels of {name} are {labels.dtype} {list(labels.shape)}, for {len(features)} faces"
        if labels.max() >= len(bank.classes[name]):
            return f"a face is of class {labels.max()} of {name}, which has {len(bank.classes[name])}"
    for block in features.split(_BLOCK):
        if not ((block.float().norm(dim=1) - 1).abs() <= _LENGTH_ERROR).all():
            return "its features have not unit length"
    return None
