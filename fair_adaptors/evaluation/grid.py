"""Picture grids: rows of images with labels, before and after side by side."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

INK, FAINT, PAPER, RULE = "#1d2733", "#6b7785", "#ffffff", "#dde3ea"
MARGIN, GAP, LABEL = 28, 4, 92


def before_after_grid(
    before: "Tensor", after: "Tensor", titles: Sequence[str], *, title: str, tile: int = 96
) -> "Image.Image":
    """Draw one block per prompt: a row before and a row after, the same seed in each column.

    Args:
        before, after: images [P, n, 3, H, W] in [0, 1].
        titles: one per prompt.
        title: heading of the page.
        tile: side of an image in pixels.
    """
    from PIL import Image, ImageDraw

    prompts, count = before.shape[:2]
    block = 30 + 2 * tile + GAP + 22
    width = 2 * MARGIN + LABEL + count * (tile + GAP) - GAP
    sheet = Image.new("RGB", (width, 74 + prompts * block + 6), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 22), title, INK, _font(22))
    for p in range(prompts):
        top = 74 + p * block
        draw.line((MARGIN, top - 8, width - MARGIN, top - 8), RULE)
        draw.text((MARGIN, top), titles[p], INK, _font(15))
        for row, (label, images) in enumerate((("before", before[p]), ("after", after[p]))):
            y = top + 30 + row * (tile + GAP)
            draw.text((MARGIN, y + tile / 2), label, INK if row else FAINT, _font(15), anchor="lm")
            for column, picture in enumerate(_pictures(images, tile)):
                sheet.paste(picture, (MARGIN + LABEL + column * (tile + GAP), y))
    return sheet


def plain_grid(images: "Tensor", *, title: str = "", columns: int = 8, tile: int = 128) -> "Image.Image":
    """Draw images [N, 3, H, W] in [0, 1] in rows, under an optional title."""
    from PIL import Image, ImageDraw

    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    head = 44 if title else 0
    sheet = Image.new("RGB", (columns * (tile + GAP) + GAP, head + rows * (tile + GAP) + GAP), PAPER)
    if title:
        ImageDraw.Draw(sheet).text((GAP + 4, 12), title, INK, _font(16))
    for i, picture in enumerate(_pictures(images, tile)):
        row, column = divmod(i, columns)
        sheet.paste(picture, (GAP + column * (tile + GAP), head + GAP + row * (tile + GAP)))
    return sheet


def _pictures(images: "Tensor", tile: int) -> "list[Image.Image]":
    from PIL import Image

    pixels = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(array).resize((tile, tile), Image.Resampling.LANCZOS) for array in pixels]


def _font(size: int):  # type: ignore[no-untyped-def]  # Pillow returns one of two unrelated font classes
    from PIL import ImageFont

    return ImageFont.load_default(size)
