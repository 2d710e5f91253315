"""The folder of an evaluation: what was seen in each image, where things lie, and whose evaluation it is.

Records are written as they come, whole or not at all, so that an interrupted evaluation goes on.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fair_adaptors.adaptor.modules import fingerprint
from fair_adaptors.adaptor.record import library_versions
from fair_adaptors.errors import ConfigError
from fair_adaptors.files import replacing

from .spec import Evaluation, Instruments
from .variants import Variant

SETTINGS_FILE, RESULTS_FILE, IMAGES_FILE, TIMING_FILE = "settings.json", "results.json", "images.csv", "timing.json"
REPORT_FILE, PLOTS = "report.html", "plots"
FORMAT = "fair-adaptors evaluation 1"

Array = NDArray[Any]


def settings_of(pipe: Any, evaluation: Evaluation, instruments: Instruments) -> dict[str, Any]:
    """Return all that an evaluation's images and numbers follow from, but the variants."""
    scheduler = {key: repr(value) for key, value in sorted(pipe.scheduler.config.items())}
    return {
        "format": FORMAT,
        "base": evaluation.base,
        "base_fingerprint": fingerprint(pipe.components),
        "prompt_set": evaluation.prompts.name,
        "prompts": list(evaluation.prompts.prompts),
        "labels": list(evaluation.prompts.labels),
        "images_per_prompt": evaluation.images_per_prompt,
        "seed": evaluation.seed,
        "num_steps": evaluation.num_steps,
        "guidance_scale": evaluation.guidance_scale,
        "batch_size": evaluation.batch_size,
        "keep_images": evaluation.keep_images,
        "scheduler": type(pipe.scheduler).__name__,
        "scheduler_config": hashlib.sha256(json.dumps(scheduler).encode()).hexdigest()[:16],
        "instruments": instruments.identity,
        "versions": library_versions(),
    }


class Named(Protocol):
    """What has a folder of its own: a variant, or its results."""

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    @property
    def identity(self) -> str:
        """What changes with anything that changes its images."""
        ...


def variant_folder(variant: Named) -> str:
    """Return the name of the folder of a variant's images: readable, and another one for other weights."""
    digest = hashlib.sha256(f"{variant.name}\n{variant.identity}".encode()).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', variant.name)[:60]}-{digest[:8]}"


def image_path(variant: Named, prompt: int, image: int) -> str:
    """Return where an image lies in an evaluation's folder."""
    return f"images/{variant_folder(variant)}/{prompt:04d}/{image:04d}.png"


def record_path(out: Path, variant: Named, prompt: int) -> Path:
    """Return where the record of a prompt's images lies."""
    return out / "records" / variant_folder(variant) / f"{prompt:04d}.safetensors"


def record_mark(settings: dict[str, Any], variant: Variant) -> str:
    """Return what a record has to carry to be one of this evaluation and this variant."""
    content = json.dumps([settings, variant.name, variant.identity], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def claim(out: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Note the settings in the folder, or check that it is of the same ones.

    Raises:
        ConfigError: it is of others, or of something else altogether, or cannot be made.
    """
    path = out / SETTINGS_FILE
    before = _read_settings(path)
    if before is not None and before != settings:
        if before.get("format") != FORMAT:
            raise ConfigError(f"{path} was not written by this version of fair-adaptors. Choose another folder")
        changed = [key for key in settings if before.get(key) != settings[key]]
        if not overwrite:
            raise ConfigError(
                f"{out} holds another evaluation, with different {', '.join(changed)}. Choose another folder, or"
                " delete it with `overwrite`"
            )
        for name in ("records", "images", PLOTS):
            _empty(out / name)
        for name in (RESULTS_FILE, IMAGES_FILE, TIMING_FILE, REPORT_FILE):
            (out / name).unlink(missing_ok=True)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{out} cannot be made a folder ({error.strerror}). Choose another `out`") from error
    write_json(path, settings)


def write_json(path: Path, content: Any) -> None:
    """Write JSON: whole, or not at all."""
    with replacing(path) as aside:
        aside.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _read_settings(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _empty(folder: Path) -> None:
    """Remove what is in a folder, which may be a link to one elsewhere."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


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


def save_record(path: Path, record: Record, mark: str) -> None:
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
    with replacing(path) as aside:
        save_file({name: np.ascontiguousarray(values) for name, values in arrays.items()}, aside, {"of": mark})


def load_record(path: Path, instruments: Instruments, mark: str) -> Record | None:
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
