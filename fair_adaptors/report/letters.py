"""Text in pictures, in a font that has its letters: Pillow's own, else one of the machine's."""

import bisect
import math
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "Arial Unicode.ttf",
    "arial.ttf",
    "NotoSansCJK-Regular.ttc",
    "PingFang.ttc",
    "msyh.ttc",
    "YuGothM.ttc",
    "malgun.ttf",
    "NotoSansArabic-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "Nirmala.ttf",
)
"""Fonts of Linux, macOS and Windows, by the names of their files; Pillow looks for them where the system has fonts."""


def write(
    draw: "ImageDraw.ImageDraw",
    place: tuple[float, float],
    text: str,
    size: int,
    colour: str,
    anchor: str,
    room: float = math.inf,
) -> None:
    """Write one line, cut with an ellipsis where it is wider than ``room`` pixels.

    Args:
        anchor: Pillow's two letters for where ``place`` is on the line.
    """
    font = font_for(text, size)
    draw.text(place, fitted(text, font, room), colour, font, anchor=anchor)


def fitted(text: str, font: "Font", width: float) -> str:
    """Make text one line that is no wider than ``width`` pixels, with an ellipsis where it was cut."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    letters = bisect.bisect_right(range(len(text)), width, key=lambda end: font.getlength(text[:end] + "…"))
    return text[: max(0, letters - 1)].rstrip() + "…"


def font_for(text: str, size: int) -> "Font":
    """Return the first font that has every letter of a text; if none has, the one that lacks the fewest."""
    best, fewest = _font(None, size), math.inf
    for name in (None, *_found()):
        font = _font(name, size)
        missing = sum(not has(font, letter) for letter in set(text))
        if missing < fewest:
            best, fewest = font, missing
        if not missing:
            break
    return best


@cache
def has(font: "Font", letter: str) -> bool:
    """Tell whether a font draws a letter as anything else than what it has for those that it lacks."""
    from PIL import ImageFont

    if not isinstance(font, ImageFont.FreeTypeFont):
        return letter.isascii()
    return letter.isspace() or bytes(font.getmask(letter)) != bytes(font.getmask("\U0010fffd"))


@cache
def _font(name: str | None, size: int) -> "Font":
    from PIL import ImageFont

    return ImageFont.load_default(size) if name is None else ImageFont.truetype(name, size)


def _found() -> Iterator[str]:
    """Yield the fonts that are here, one that comes with matplotlib too."""
    from PIL import ImageFont

    matplotlib = find_spec("matplotlib")
    own = Path(matplotlib.origin or "").parent / "mpl-data" / "fonts" / "ttf" if matplotlib else None
    for name in (*([str(own / FONTS[0])] if own else []), *FONTS):
        try:
            ImageFont.truetype(name, 10)
        except OSError:
            continue
        yield name
