"""Fonts of this machine: found by the letters that they have, as no font has all."""

import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import ImageFont

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_found: list[str] = []
"""Paths of fonts that had a letter which the usual ones lack."""
_hopeless: set[str] = set()
"""Scripts of which no font here has letters."""

USUAL = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arial.ttf")
"""Fonts of many letters that Linux, macOS and Windows come with; Pillow looks for them where the system has fonts."""
MOST = 1000
"""Files that are looked into for the letters of a script."""
UNFIT = ("lastresort", "adobeblank", "color", "bold", "italic", "oblique", "black", "condensed", "mono")
"""Parts of names of fonts that have boxes for all letters, or are not for plain text."""
GROUPS = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "HANGUL": "CJK", "IDEOGRAPHIC": "CJK"}
"""Scripts whose letters are in the fonts of others."""
SIGNS = "SIGNS"
"""What stands for a script where a letter is none: emoji, arrows and the like."""
PACKAGES = {"CJK": "fonts-noto-cjk", SIGNS: "fonts-symbola"}
"""The package of Debian and Ubuntu that has the letters, where it is not ``fonts-noto-core``."""
_TRIED = 16
"""The size at which fonts are looked into."""


def name_for(text: str) -> tuple[str | None] | None:
    """Return, in a tuple, the name of the first font that has every letter of a text; None if no single one has.

    The name of Pillow's own font is None.
    """
    for name in (*_usual(), *_found):
        if all(has(name, letter) for letter in set(text)):
            return (name,)
    return None


@cache
def name_with(letter: str) -> tuple[str | None] | None:
    """Return, in a tuple, the name of a font that has a letter; None if this machine has none."""
    if known := name_for(letter):
        return known
    script = script_of(letter)
    found = None if script in _hopeless else _file_with(letter, script.lower())
    if found is None:
        _hopeless.add(script)
        return None
    _found.append(found)
    return (found,)


@cache
def font_named(name: str | None, size: int) -> "Font":
    """Return a font by its name or path; None is the one that Pillow comes with."""
    from PIL import ImageFont

    return ImageFont.load_default(size) if name is None else ImageFont.truetype(name, size)


@cache
def has(name: str | None, letter: str) -> bool:
    """Tell whether a font draws a letter as anything else than what it has for those that it lacks."""
    return letter.isspace() or _drawn(name, letter) != _drawn(name, "\U0010fffd")


def script_of(letter: str) -> str:
    """Return the script of a letter as its name in Unicode begins, such as ``DEVANAGARI``; ``SIGNS`` for others."""
    word = unicodedata.name(letter, SIGNS).split()[0].split("-")[0]
    group = GROUPS.get(word, word)
    return group if group == "CJK" or unicodedata.category(letter)[0] in "LMN" else SIGNS


def advice(script: str) -> str:
    """Say what to install for the letters of a script."""
    package = PACKAGES.get(script, "fonts-noto-core")
    return (
        f"Install a font that has them: on Debian and Ubuntu `sudo apt install {package}`, elsewhere from"
        " https://fonts.google.com/noto"
    )


@cache
def _drawn(name: str | None, letter: str) -> bytes:
    """Return the pixels of a letter by itself: the layout of words would draw a circle for a mark to stand on."""
    from PIL import ImageFont

    if name is None:
        return bytes(ImageFont.load_default(_TRIED).getmask(letter))
    return bytes(ImageFont.truetype(name, _TRIED, layout_engine=ImageFont.Layout.BASIC).getmask(letter))


@cache
def _usual() -> tuple[str | None, ...]:
    """Return Pillow's own font and those of many letters that are here, one that comes with matplotlib too."""
    from PIL import ImageFont

    matplotlib = find_spec("matplotlib")
    own = Path(matplotlib.origin or "").parent / "mpl-data" / "fonts" / "ttf" if matplotlib else None
    here: list[str | None] = [None]
    for name in (*([str(own / USUAL[0])] if own else []), *USUAL):
        try:
            ImageFont.truetype(name, 10)
        except OSError:
            continue
        here.append(name)
    return tuple(here)


def _file_with(letter: str, hint: str) -> str | None:
    """Return the path of a font that has a letter, looking first into those that have ``hint`` in their name."""

    def order(path: Path) -> tuple[bool, bool, bool, str]:
        name = path.name.lower()
        return hint not in name, "sans" not in name, "regular" not in name, str(path)

    for path in sorted(_files(), key=order)[:MOST]:
        with suppress(OSError):  # not a font, or one that is not drawn in any size
            if has(str(path), letter):
                return str(path)
    return None


@cache
def _files() -> tuple[Path, ...]:
    every = (path for folder in _folders() for path in folder.rglob("*"))
    fonts = (path for path in every if path.suffix.lower() in (".ttf", ".otf", ".ttc"))
    return tuple(path for path in fonts if not any(word in path.name.lower() for word in UNFIT))


def _folders() -> Iterator[Path]:
    """Yield where systems keep fonts."""
    home = Path.home()
    if sys.platform == "win32":
        yield Path(os.environ.get("WINDIR", r"C:\Windows")) / "Fonts"
        yield home / "AppData" / "Local" / "Microsoft" / "Windows" / "Fonts"
    elif sys.platform == "darwin":
        yield from (Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library" / "Fonts")
    else:
        shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
        own = os.environ.get("XDG_DATA_HOME") or str(home / ".local" / "share")
        yield from (Path(folder) / "fonts" for folder in (own, *shared.split(":")))
        yield home / ".fonts"
