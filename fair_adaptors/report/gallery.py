"""The pictures of an evaluation: the same seeds without and with each adaptor, marked with what was seen in them."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fair_adaptors.adaptor.results import Results
from fair_adaptors.evaluation.metrics import CONFIDENCE
from fair_adaptors.evaluation.store import image_path, read_seen, record_path

PROMPTS, IMAGES, OPEN_PROMPTS = 6, 8, 2
"""Prompts with pictures, images of each, and prompts whose pictures are shown at once."""
BUDGET = 600
"""Pictures in the page; where variants are many there are fewer prompts, of one at least, and then fewer variants."""
SIDE = 128
"""Pixels of a picture's longer side."""


@dataclass(frozen=True)
class Picture:
    """An image and what the first classifier saw in it.

    Attributes:
        path: of the PNG file.
        seen: class of the first target; None where no face was found.
        undetermined: whether the classifier gives the likeliest class too little.
    """

    path: Path
    seen: int | None
    undetermined: bool


Pictures = Mapping[tuple[str, int], Sequence[Picture]]
"""By variant and prompt."""


class ShownPrompt(NamedTuple):
    """A prompt with its pictures: a row per variant, a seed per column."""

    label: str
    prompt: str
    rows: list[tuple[str, Sequence[Picture]]]


class Thumbnail(NamedTuple):
    """A small picture as a ``data:`` address, with its size, so that nothing moves when it is shown."""

    address: str
    width: int
    height: int


def find_pictures(out: Path, results: Results, prompts: int, images: int) -> Pictures:
    """Find the first images of the first prompts, and what was seen in them; nothing where they were not saved."""
    target = next(iter(results.targets.values()))
    number = len(target.classes)
    found: dict[tuple[str, int], list[Picture]] = {}
    for variant in results.variants:
        for prompt in range(min(prompts, len(results.labels))):
            record = read_seen(record_path(out, variant, prompt), results.classifier, target.attributes)
            if record is None:
                continue
            classes = record.classes(results.classifier, target.attributes)[:images]
            doubtful = record.undetermined(results.classifier, target.attributes, CONFIDENCE)
            paths = [out / image_path(variant, prompt, image) for image in range(len(classes))]
            pictures = [
                Picture(path, int(seen) if seen < number else None, bool(doubt))
                for path, seen, doubt in zip(paths, classes, doubtful[:images], strict=True)
                if path.is_file()
            ]
            if pictures:
                found[variant.name, prompt] = pictures
    return found


def shown_prompts(results: Results, pictures: Pictures) -> list[ShownPrompt]:
    """Return the prompts whose pictures the page has room for."""
    names = [variant.name for variant in results.variants][: BUDGET // IMAGES]
    number = max(1, min(PROMPTS, BUDGET // (IMAGES * len(names))))
    return [
        ShownPrompt(label, prompt, [(name, pictures[name, p]) for name in names if (name, p) in pictures])
        for p, (label, prompt) in enumerate(zip(results.labels, results.settings.prompts, strict=True))
        if p < number and (names[0], p) in pictures
    ]


def marks(classes: Sequence[str]) -> list[str]:
    """Return a mark of one or two letters for each class, all different: initials where they do, else A, B, C, …"""
    initials = ["".join(word[0] for word in name.split()[:2]).upper() for name in classes]
    if all(initials) and len(set(initials)) == len(initials):
        return initials
    return [chr(ord("A") + k) if k < 26 else str(k) for k in range(len(classes))]


def thumbnail(path: Path) -> Thumbnail:
    """Return a small JPEG of a picture."""
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    small.save(buffer, "JPEG", quality=88, subsampling=0, optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return Thumbnail(f"data:image/jpeg;base64,{data}", small.width, small.height)
