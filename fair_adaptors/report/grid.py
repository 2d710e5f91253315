"""Picture grids: rows of images with labels, before and after one above the other."""

import bisect
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image, ImageFont
    from torch import Tensor

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

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
    draw.text((MARGIN, MARGIN), _fitted(title, _font(28), room), INK, _font(28), anchor="lt")
    draw.text((MARGIN, MARGIN + 38), _fitted(subtitle, _font(16), room), FAINT, _font(16), anchor="lt")
    for column in range(count):
        centre = left + column * (tile + GAP) + tile / 2
        draw.text((centre, head - 8), f"image {column}", FAINT, _font(13), anchor="mb")
    for p in range(prompts):
        top = head + p * block
        draw.line((MARGIN, top, width - MARGIN, top), RULE)
        draw.text((MARGIN, top + 12), _fitted(titles[p], _font(19), room), INK, _font(19), anchor="lt")
        for row, (word, colour, images) in enumerate((("before", BEFORE, before[p]), ("after", AFTER, after[p]))):
            y = top + 44 + row * (tile + GAP)
            note = notes[p][row] if notes else ""
            draw.rounded_rectangle((MARGIN, y + 6, MARGIN + 3, y + tile - 7), 1, colour)
            shift = 11 if note else 0
            draw.text((MARGIN + 16, y + tile / 2 - shift), word, colour, _font(17), anchor="lm")
            draw.text((MARGIN + 16, y + tile / 2 + shift), note, FAINT, _font(14), anchor="lm")
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
    if title:
        text = _fitted(title, _font(16), width - 2 * margin)
        draw.text((margin, margin + 4), text, INK, _font(16), anchor="lt")
    for row in range(rows):
        y = head + margin + above + row * (above + tile + GAP)
        if row < len(labels):
            text = _fitted(labels[row], _font(13), width - 2 * margin)
            draw.text((margin, y - 8), text, FAINT, _font(13), anchor="lb")
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


def _fitted(text: str, font: "Font", width: float) -> str:
    """Make text one line that is no wider than ``width`` pixels, with an ellipsis where it was cut."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    letters = bisect.bisect_right(range(len(text)), width, key=lambda end: font.getlength(text[:end] + "…"))
    return text[: max(0, letters - 1)].rstrip() + "…"


def _font(size: int) -> "Font":
    from PIL import ImageFont

    return ImageFont.load_default(size)
