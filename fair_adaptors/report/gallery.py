"""The pictures of an evaluation: the same seeds without and with each adaptor, marked with what was seen in them."""

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from fair_adaptors.evaluation.folder import IMAGES_FILE
from fair_adaptors.evaluation.metrics import CONFIDENCE
from fair_adaptors.evaluation.verdict import Results

from .tables import folded

PROMPTS, IMAGES, SHOWN = 6, 8, 2
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
        sure: whether the classifier is sure of it.
    """

    path: Path
    seen: int | None
    sure: bool


Pictures = Mapping[tuple[str, int], Sequence[Picture]]
"""By variant and prompt."""


def read_pictures(out: Path, results: Results, prompts: int, images: int) -> Pictures:
    """Find the first images of the first prompts; nothing where the images were not kept."""
    try:
        with (out / IMAGES_FILE).open(encoding="utf-8", newline="") as stream:
            rows = csv.reader(stream)
            columns = {name: index for index, name in enumerate(next(rows, ()))}
            chosen = [row for row in rows if int(row[1]) < prompts and int(row[2]) < images]
    except OSError:
        return {}
    found: dict[tuple[str, int], list[Picture]] = {}
    for row in chosen:
        file = row[columns["file"]]
        if file and (out / file).is_file():
            seen, sure = _seen(row, columns, results)
            name = row[0].removeprefix("'")  # see ``results.plain_cell``
            found.setdefault((name, int(row[1])), []).append(Picture(out / file, seen, sure))
    return found


def gallery(results: Results, pictures: Pictures) -> str:
    """Return the pictures of each prompt, a row per variant, a seed per column; later prompts unfold."""
    names = [variant["name"] for variant in results["variants"]][: BUDGET // IMAGES]
    prompts = max(1, min(PROMPTS, BUDGET // (IMAGES * len(names))))
    classes = next(iter(results["targets"].values()))["classes"]
    letters = marks(classes)
    figures = []
    for prompt, (label, text) in enumerate(zip(results["labels"], results["settings"]["prompts"], strict=True)):
        if prompt < prompts and (names[0], prompt) in pictures:
            rows = [(name, pictures[name, prompt]) for name in names if (name, prompt) in pictures]
            figures.append(_figure(label, text, rows, classes, letters))
    return folded(figures, SHOWN, "more prompts")


def mark_legend(results: Results) -> str:
    """Say what the marks on the pictures stand for."""
    name, target = next(iter(results["targets"].items()))
    letters = marks(target["classes"])
    shown = "".join(
        f"<span>{_mark(k, letters, True)}{escape(label)}</span>" for k, label in enumerate(target["classes"])
    )
    shown += f"<span>{_mark(None, letters, True)}no face</span>"
    doubt = f"<span>? less than {CONFIDENCE:.0%} sure</span>"
    return f'<div class="legend keys"><b>{escape(name)}</b>{shown}{doubt}</div>'


def marks(classes: Sequence[str]) -> list[str]:
    """Return a mark of one or two letters for each class, all different: initials where they do, else A, B, C, …"""
    initials = ["".join(word[0] for word in name.split()[:2]).upper() for name in classes]
    if all(initials) and len(set(initials)) == len(initials):
        return initials
    return [chr(ord("A") + k) if k < 26 else str(k) for k in range(len(classes))]


def _seen(row: Sequence[str], columns: Mapping[str, int], results: Results) -> tuple[int | None, bool]:
    """Return the class of the first target in a row of the CSV file, and whether the classifier is sure."""
    judge, target = results["classifiers"][0], next(iter(results["targets"].values()))
    combined, sure = 0, True
    for name in target["attributes"]:
        probs: list[float] = []
        while (column := f"{judge} {name} p{len(probs)}") in columns:
            probs.append(float(row[columns[column]]))
        combined = combined * len(probs) + int(row[columns[f"{judge} {name}"]])
        sure = sure and max(probs) >= CONFIDENCE
    return (combined if row[columns["face"]] == "1" else None), sure


def _figure(
    label: str, prompt: str, rows: Sequence[tuple[str, Sequence[Picture]]], classes: Sequence[str], letters: Any
) -> str:
    strips = []
    for name, pictures in rows:
        tiles = "".join(_tile(name, k, picture, classes, letters) for k, picture in enumerate(pictures))
        strips.append(f'<div class="strip"><span>{escape(name)}</span><div class="tiles">{tiles}</div></div>')
    below = "" if label == prompt else f" <small>{escape(prompt)}</small>"
    return (
        f'<figure class="card"><figcaption>{escape(label)}{below}</figcaption>'
        f'<div class="scroll" tabindex="0" role="group" aria-label="Pictures">{"".join(strips)}</div></figure>'
    )


def _tile(name: str, image: int, picture: Picture, classes: Sequence[str], letters: Sequence[str]) -> str:
    said = "no face" if picture.seen is None else classes[picture.seen] + ("" if picture.sure else ", not sure")
    return (
        f'<span class="tile"><img {_source(picture.path)} decoding="async"'
        f' alt="{escape(name)}, image {image}: {escape(said)}">{_mark(picture.seen, letters, picture.sure)}</span>'
    )


def _mark(seen: int | None, letters: Sequence[str], sure: bool) -> str:
    text = "–" if seen is None else letters[seen] + ("" if sure else "?")
    colour = "var(--faint)" if seen is None else f"var(--c{seen % 8})"
    return f'<b class="mark" aria-hidden="true" style="border-color:{colour}">{escape(text)}</b>'


def _source(path: Path) -> str:
    """Return a small JPEG of a picture, with its size, so that nothing moves when it is shown."""
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    small.save(buffer, "JPEG", quality=88, subsampling=0, optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'src="data:image/jpeg;base64,{data}" width="{small.width}" height="{small.height}"'
