"""Text in pictures: each letter in a font that has it, and what stands for it where no font has."""

import bisect
import logging
import math
import unicodedata
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING

from .fonts import SIGNS, advice, font_named, has, name_for, name_with, script_of

if TYPE_CHECKING:
    from PIL import ImageDraw

    from .fonts import Font

logger = logging.getLogger(__name__)
ASCII = {
    "ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L",
    "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ı": "i", "–": "-", "—": "-", "−": "-", "×": "x",
    "→": "->", "…": "...", "‘": "'", "’": "'", "‚": ",", "“": '"', "”": '"', "„": '"', "€": "EUR",
}  # fmt: skip
"""What is read for letters and signs that are not made of a plain letter and a mark."""


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
    runs = _runs(fitted(drawable(text), size, room), size)
    if len(runs) < 2:
        for part, font in runs:
            draw.text(place, part, colour, font, anchor=anchor)
        return
    x = place[0] - {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]] * sum(font.getlength(part) for part, font in runs)
    boxes = [font.getbbox(part, anchor="ls") for part, font in runs]
    top, bottom = min(box[1] for box in boxes), max(box[3] for box in boxes)
    line = place[1] - {"t": top, "m": (top + bottom) / 2, "b": bottom}[anchor[1]]
    for part, font in runs:
        draw.text((x, line), part, colour, font, anchor="ls")
        x += font.getlength(part)


def fitted(text: str, size: int, width: float) -> str:
    """Make text one line that is no wider than ``width`` pixels, with an ellipsis where it was cut."""

    def length(shown: str) -> float:
        return sum(font.getlength(part) for part, font in _runs(shown, size))

    text = " ".join(text.split())
    if length(text) <= width:
        return text
    letters = bisect.bisect_right(range(len(text)), width, key=lambda end: length(text[:end] + "…"))
    return text[: max(0, letters - 1)].rstrip() + "…"


def drawable(text: str) -> str:
    """Return a text with what stands for the letters that no font of this machine has; a warning says what to install.

    It is the letter without its marks, such as e for é, what is read for it, such as ss for ß, or else its number in
    Unicode, such as ``\\u770b``.
    """
    text = unicodedata.normalize("NFC", text)
    missing = {letter for letter in set(text) if not _is_drawn(letter)}
    for script in sorted({script_of(letter) for letter in missing if _stands_for(letter).startswith("\\")}):
        _warn(script)
    return "".join(_stands_for(letter) if letter in missing else letter for letter in text)


def _is_drawn(letter: str) -> bool:
    return letter.isspace() or name_with(letter) is not None


def _stands_for(letter: str) -> str:
    if unicodedata.category(letter) == "Cf" or unicodedata.name(letter, "").startswith(("COMBINING", "VARIATION")):
        return ""  # joins or marks others, and is nothing by itself
    plain = ASCII.get(letter) or "".join(
        part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part)
    )
    if plain and all(map(_is_drawn, plain)):
        return plain
    return letter.encode("ascii", "backslashreplace").decode()


def _runs(text: str, size: int) -> "list[tuple[str, Font]]":
    """Split a text into parts, each with a font that has its letters; one part wherever one font has them all."""
    if whole := name_for(text):
        return [(text, font_named(whole[0], size))]
    names: list[str | None] = []
    for letter in text:
        if not names or not has(names[-1], letter):
            names.append((name_with(letter) or (None,))[0])
        else:
            names.append(names[-1])
    parts = groupby(zip(names, text, strict=True), key=lambda pair: pair[0])
    return [("".join(letter for _, letter in pairs), font_named(name, size)) for name, pairs in parts]


@cache
def _warn(script: str) -> None:
    what = "these signs" if script == SIGNS else f"{script if script == 'CJK' else script.capitalize()} letters"
    logger.warning(f"no font on this machine has {what}, so pictures show their numbers. {advice(script)}")
