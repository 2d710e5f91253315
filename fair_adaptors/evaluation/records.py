"""What was seen in the images of one prompt, kept on disk as it comes, so that an interrupted evaluation goes on."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .spec import Instruments

Array = NDArray[Any]


@dataclass(frozen=True)
class Record:
    """The n images of a prompt, or of P prompts, when every array has a further dimension in front.

    Attributes:
        seeds: of the images, [n].
        found: whether a face was found, [n].
        boxes: of the largest face, (left, top, right, bottom) in pixels, [n, 4].
        probabilities: by classifier and attribute, [n, K].
        features: by encoder, unit features [n, D].
        text: by encoder that knows text, the cosine of the image with the prompt, [n].
        right: 1 where what should stay is right, 0 where not, NaN for labels that say nothing of it, [n]; None if
            nothing can tell.
        seconds: time to make and to see them, [] or [P].
    """

    seeds: Array
    found: Array
    boxes: Array
    probabilities: dict[str, dict[str, Array]]
    features: dict[str, Array] = field(default_factory=dict)
    text: dict[str, Array] = field(default_factory=dict)
    right: Array | None = None
    seconds: Array = field(default_factory=lambda: np.zeros(()))

    def classes(self, classifier: str, attributes: Sequence[str]) -> Array:
        """Return the class of each image, [..., n], as one classifier sees it; K where there is no face.

        For several attributes the classes are the combinations, the last attribute's changing fastest.
        """
        seen = self.probabilities[classifier]
        combined, number = np.zeros(self.found.shape, np.int64), 1
        for name in attributes:
            classes = seen[name].shape[-1]
            combined, number = combined * classes + seen[name].argmax(-1), number * classes
        return np.where(self.found, combined, number)

    def undetermined(self, classifier: str, attributes: Sequence[str], confidence: float) -> Array:
        """Tell where the classifier is less sure than ``confidence`` of some attribute of a face, [..., n]."""
        sure = [self.probabilities[classifier][name].max(-1) >= confidence for name in attributes]
        return self.found & ~np.logical_and.reduce(sure)


def save(path: Path, record: Record, mark: str) -> None:
    """Write a record as safetensors: whole, or not at all. The mark tells what it is of."""
    from safetensors.numpy import save_file

    arrays = {
        "seeds": record.seeds, "found": record.found, "boxes": record.boxes, "seconds": record.seconds
    }  # fmt: skip
    for classifier, attributes in record.probabilities.items():
        arrays |= {f"probabilities/{classifier}/{name}": values for name, values in attributes.items()}
    arrays |= {f"features/{name}": values for name, values in record.features.items()}
    arrays |= {f"text/{name}": values for name, values in record.text.items()}
    if record.right is not None:
        arrays["right"] = record.right
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    save_file({name: np.ascontiguousarray(values) for name, values in arrays.items()}, aside, {"of": mark})
    os.replace(aside, path)


def load(path: Path, instruments: Instruments, mark: str) -> Record | None:
    """Read a record; None if it is not there, of something else, or cannot be read, and has to be made again."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            if (file.metadata() or {}).get("of") != mark:
                return None
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return Record(
            arrays["seeds"],
            arrays["found"],
            arrays["boxes"],
            {
                one.name: {name: arrays[f"probabilities/{one.name}/{name}"] for name in one.classes}
                for one in instruments.classifiers
            },
            {one.name: arrays[f"features/{one.name}"] for one in instruments.encoders},
            {one.name: arrays[f"text/{one.name}"] for one in instruments.encoders if one.encode_text},
            arrays["right"] if instruments.kept else None,
            arrays["seconds"],
        )
    except (OSError, SafetensorError, KeyError):
        return None


def read_seen(path: Path, classifier: str, attributes: Sequence[str]) -> Record | None:
    """Read of a record only what one classifier saw, whatever it is a record of; None if it cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            seeds, found, boxes = (file.get_tensor(name) for name in ("seeds", "found", "boxes"))
            seen = {name: file.get_tensor(f"probabilities/{classifier}/{name}") for name in attributes}
    except (OSError, SafetensorError):
        return None
    return Record(seeds, found, boxes, {classifier: seen})


def stack(records: Sequence[Record]) -> Record:
    """Put the records of P prompts into one, with P in front."""
    return _combined(records, np.stack)


def join(records: Sequence[Record]) -> Record:
    """Put the records of images of one prompt, one after the other, into one; its time is to be set."""
    return _combined([replace(one, seconds=np.atleast_1d(one.seconds)) for one in records], np.concatenate)


def _combined(records: Sequence[Record], combine: Callable[[list[Array]], Array]) -> Record:
    first = records[0]

    def by_name(field: str) -> dict[str, Array]:
        return {key: combine([getattr(one, field)[key] for one in records]) for key in getattr(first, field)}

    return Record(
        combine([one.seeds for one in records]),
        combine([one.found for one in records]),
        combine([one.boxes for one in records]),
        {
            classifier: {name: combine([one.probabilities[classifier][name] for one in records]) for name in seen}
            for classifier, seen in first.probabilities.items()
        },
        by_name("features"),
        by_name("text"),
        None if first.right is None else combine([one.right for one in records if one.right is not None]),
        combine([one.seconds for one in records]),
    )
