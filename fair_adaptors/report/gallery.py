"""The pictures of an evaluation: the same seeds without and with each adaptor, marked with what was seen in them."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from fair_adaptors.adaptor.results import Results
from fair_adaptors.evaluation.harm import not_aimed_at
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
    """A prompt with its pictures: a row per variant, a seed per column; ``worst`` is why it is shown, if it is."""

    label: str
    worst: bool
    prompt: str
    rows: list[tuple[str, Sequence[Picture]]]


class Thumbnail(NamedTuple):
    """A small picture as a ``data:`` address, with its size, so that nothing moves when it is shown."""

    address: str
    width: int
    height: int


def worst_prompts(results: Results) -> list[int]:
    """Return the prompts in which a variant changed something beside its aim, those where it changed most first.

    Those in which a class is erased come first. Then it is the total variation between before and after of what a
    variant is not aimed at and the prompt does not name, or the loss of what should stay, whichever is more.
    """
    changes: dict[int, float] = {}
    for variant in results.variants:
        gone = {one.prompt for one in variant.erasures}
        shifts = [
            (name, change)
            for name in not_aimed_at(results, variant)
            if (change := results.figures(variant, name).change)
        ]
        for p in range(len(results.labels)):
            found = [
                sum(abs(one.value) for one in change.prompts[p]) / 2
                for name, change in shifts
                if not results.named(name, p)
            ]
            if variant.kept_prompts and results.original.kept_prompts:
                found.append(results.original.kept_prompts[p].value - variant.kept_prompts[p].value)
            moved = max((value for value in found if value == value), default=0.0) + (p in gone)
            changes[p] = max(moved, changes.get(p, 0.0))
    return sorted((p for p in changes if changes[p] > 0), key=lambda p: -changes[p])


def chosen_prompts(results: Results, number: int) -> dict[int, bool]:
    """Choose the prompts to show, the first ones and the worst in turn; tell whether each is one of the worst."""
    worst = worst_prompts(results)[:number]
    in_turn = [p for pair in zip_longest(range(len(results.labels)), worst) for p in pair if p is not None]
    return {p: p in worst[: number // 2] for p in list(dict.fromkeys(in_turn))[:number]}


def find_pictures(out: Path, results: Results, prompts: Iterable[int], images: int) -> Pictures:
    """Find the first images of some prompts, and what was seen in them; nothing where they were not saved."""
    target = next(iter(results.targets.values()))
    number = len(target.classes)
    found: dict[tuple[str, int], list[Picture]] = {}
    for variant in results.variants:
        for prompt in prompts:
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
        ShownPrompt(
            results.labels[p],
            worst,
            results.settings.prompts[p],
            [(name, pictures[name, p]) for name in names if (name, p) in pictures],
        )
        for p, worst in chosen_prompts(results, number).items()
        if (names[0], p) in pictures
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
