"""Picture grids: rows of images with labels, before and after one above the other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .letters import write as _write

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

INK, FAINT, PAPER, RULE = "#1d2733", "#6b7785", "#ffffff", "#dde3ea"
BEFORE, AFTER = "#946b1f", "#2f5fa7"
MARGIN, GAP, LABEL = 40, 6, 132
CORNER = 0.06
"""Radius of a picture's corners, in parts of its side."""


def before_after_grid(
    before: "Tensor",
    after: "Tensor",
    titles: Sequence[str],
    *,
    title: str,
    subtitle: str = "",
    notes: Sequence[tuple[str, str]] = (),
    tile: int = 128,
) -> "Image.Image":
    """Draw one block per prompt: a row before and a row after, the same seed in each column.

    Args:
        before, after: images [P, n, 3, H, W] in [0, 1].
        titles: one per prompt.
        title: heading of the page.
        subtitle: a line below it.
        notes: per prompt, a few words on what was counted before and after; they stand beside the rows.
        tile: side of an image in pixels.
    """
    from PIL import Image, ImageDraw

    prompts, count = before.shape[:2]
    left = MARGIN + LABEL
    width = left + count * (tile + GAP) - GAP + MARGIN
    head = 100 + (30 if subtitle else 0)
    block = 44 + 2 * tile + GAP + 30
    sheet = Image.new("RGB", (width, head + prompts * block + MARGIN - 30), PAPER)
    draw = ImageDraw.Draw(sheet)
    room = width - 2 * MARGIN
    _write(draw, (MARGIN, MARGIN), title, 28, INK, "lt", room)
    _write(draw, (MARGIN, MARGIN + 38), subtitle, 16, FAINT, "lt", room)
    for column in range(count):
        centre = left + column * (tile + GAP) + tile / 2
        _write(draw, (centre, head - 8), f"image {column}", 13, FAINT, "mb")
    for p in range(prompts):
        top = head + p * block
        draw.line((MARGIN, top, width - MARGIN, top), RULE)
        _write(draw, (MARGIN, top + 12), titles[p], 19, INK, "lt", room)
        for row, (word, colour, images) in enumerate((("before", BEFORE, before[p]), ("after", AFTER, after[p]))):
            y = top + 44 + row * (tile + GAP)
            note = notes[p][row] if notes else ""
            draw.rounded_rectangle((MARGIN, y + 6, MARGIN + 3, y + tile - 7), 1, colour)
            shift = 11 if note else 0
            _write(draw, (MARGIN + 16, y + tile / 2 - shift), word, 17, colour, "lm")
            _write(draw, (MARGIN + 16, y + tile / 2 + shift), note, 14, FAINT, "lm")
            _paste_row(sheet, images, left, y, tile)
    return sheet


def plain_grid(
    images: "Tensor", *, title: str = "", columns: int = 8, tile: int = 128, labels: Sequence[str] = ()
) -> "Image.Image":
    """Draw images [N, 3, H, W] in [0, 1] in rows, under an optional title; each row under its label if it has one."""
    from PIL import Image, ImageDraw

    margin = 16
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    head = 40 if title else 0
    above = 24 if labels else 0
    width = columns * (tile + GAP) - GAP + 2 * margin
    sheet = Image.new("RGB", (width, head + rows * (above + tile + GAP) - GAP + 2 * margin), PAPER)
    draw = ImageDraw.Draw(sheet)
    _write(draw, (margin, margin + 4), title, 16, INK, "lt", width - 2 * margin)
    for row in range(rows):
        y = head + margin + above + row * (above + tile + GAP)
        if row < len(labels):
            _write(draw, (margin, y - 8), labels[row], 13, FAINT, "lb", width - 2 * margin)
        _paste_row(sheet, images[row * columns : (row + 1) * columns], margin, y, tile)
    return sheet


def pictures(images: "Tensor") -> "list[Image.Image]":
    """Turn images [N, 3, H, W] in [0, 1] into pictures of their own size."""
    from PIL import Image

    pixels = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(array) for array in pixels]


def _paste_row(sheet: "Image.Image", images: "Tensor", left: int, top: int, tile: int) -> None:
    """Put images [n, 3, H, W] in a row, each fitted into a tile, with rounded corners."""
    from PIL import Image

    for column, picture in enumerate(pictures(images)):
        scale = tile / max(picture.size)
        size = (round(picture.width * scale), round(picture.height * scale))
        fitted = picture.resize(size, Image.Resampling.LANCZOS)
        x = left + column * (tile + GAP) + (tile - size[0]) // 2
        sheet.paste(fitted, (x, top + (tile - size[1]) // 2), _rounded(size))


def _rounded(size: tuple[int, int]) -> "Image.Image":
    """Make the mask of a rectangle with smooth rounded corners."""
    from PIL import Image, ImageDraw

    fine = 4
    mask = Image.new("L", (size[0] * fine, size[1] * fine))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), CORNER * mask.width, 255)
    return mask.resize(size, Image.Resampling.LANCZOS)
