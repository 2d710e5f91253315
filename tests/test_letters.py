"""Text in pictures: every letter is drawn, or readable text stands for it; there is never a box."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fair_adaptors.report import fonts, letters
from fair_adaptors.report.fonts import font_named, has, name_for, name_with
from fair_adaptors.report.letters import drawable, fitted, write

SCRIPTS = {
    "CJK": "看護師の肖像",
    "Arabic": "صورة ممرضة",
    "Devanagari": "नर्स की तस्वीर",
    "Hangul": "간호사",
    "Hebrew": "אחות",
    "Thai": "พยาบาล",
}


@pytest.fixture
def fresh() -> Iterator[Callable[[], None]]:
    """Let the next text look for fonts anew."""

    def forget() -> None:
        for one in (fonts.name_with, fonts.has, fonts._drawn, fonts._usual, fonts._files, letters._warn):
            one.cache_clear()
        fonts._found.clear()
        fonts._hopeless.clear()

    forget()
    yield forget
    forget()


@pytest.fixture
def only_pillow(fresh: Callable[[], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without any font, and without matplotlib."""
    monkeypatch.setattr(fonts, "USUAL", ())
    monkeypatch.setattr(fonts, "_folders", lambda: iter([tmp_path]))
    monkeypatch.setattr(fonts, "find_spec", lambda name: None)


def ink(text: str, size: int = 24) -> np.ndarray:
    sheet = Image.new("L", (900, 60), 255)
    write(ImageDraw.Draw(sheet), (450, 30), text, size, "#000000", "mm")
    return np.asarray(sheet)


@pytest.mark.parametrize("text", ["a nurse", "une infirmière à Genève", "Медсестра", "ممرضة", "naïve “Straße” – 30 €"])
def test_what_dejavu_has_is_written_as_it_is(text: str) -> None:
    """DejaVu comes with matplotlib, so that it is wherever plots are drawn."""
    assert drawable(text) == text
    name = name_for(text)
    assert name is not None and all(has(name[0], letter) for letter in text)


@pytest.mark.parametrize(("text", "shown"), [
    ("une infirmière, Grüße aus Łódź", "une infirmiere, Grusse aus Lodz"),
    ("ĳs ２０ − 3 → “x”", "ijs 20 - 3 -> “x”"),
    ("e\u0301te\u0301", "ete"), ("看x護", r"\u770bx\u8b77"), ("👩\u200d⚕️", r"\U0001f469\u2695"),
])  # fmt: skip
def test_with_the_font_of_pillow_alone_what_is_read_stands_for_what_it_lacks(
    only_pillow: None, text: str, shown: str
) -> None:
    assert drawable(text) == shown
    assert all(has(None, letter) for letter in shown)
    assert (ink(text) == ink(shown)).all()


def test_it_is_said_once_which_font_to_install(only_pillow: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fair_adaptors"):
        drawable("Grüße")
        assert not caplog.messages, "it can be read"
        for _ in range(2):
            drawable("看護、の 간 नर्स")
    assert [message.partition(". Install")[0] for message in caplog.messages] == [
        f"no font on this machine has {script} letters, so pictures show their numbers"
        for script in ("CJK", "Devanagari")
    ]
    assert "`sudo apt install fonts-noto-cjk`" in caplog.messages[0]
    assert "`sudo apt install fonts-noto-core`" in caplog.messages[1]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_written_in_its_own_letters_where_a_font_has_them(script: str) -> None:
    text = SCRIPTS[script]
    if drawable(text) != text:
        pytest.skip(f"no font on this machine has {script} letters: that they are drawn is not tested here")
    names = [name_with(letter) for letter in text]
    assert all(name is not None and has(name[0], letter) for name, letter in zip(names, text, strict=True))
    assert (ink(text) < 128).sum() > 100


def test_a_font_of_the_system_is_found_by_its_letters_whatever_it_is_called(
    fresh: Callable[[], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from matplotlib import get_data_path

    dejavu = Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    monkeypatch.setattr(fonts, "USUAL", ())
    monkeypatch.setattr(fonts, "find_spec", lambda name: None)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "nothing"))
    monkeypatch.setattr(fonts.sys, "platform", "linux")
    folder = tmp_path / "fonts" / "deep"
    folder.mkdir(parents=True)
    (folder / "broken.ttf").write_bytes(b"no font")
    assert drawable("ж") == r"\u0436"
    fresh()
    (folder / "whatever.ttf").write_bytes(dejavu.read_bytes())
    assert drawable("ж") == "ж" and name_with("ж") == (str(folder / "whatever.ttf"),)


def test_letters_of_two_fonts_stand_side_by_side_on_one_line(
    fresh: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a machine had one font with Latin and another with Cyrillic letters alone."""
    monkeypatch.setattr(fonts, "has", lambda name, letter: letter == " " or (letter in "жД") == (name is not None))
    monkeypatch.setattr(letters, "has", fonts.has)
    parts = letters._runs("a жД b", 24)
    assert [part for part, _ in parts] == ["a ", "жД ", "b"]
    columns = np.flatnonzero((ink("a жД b") < 128).any(0))
    whole = sum(font.getlength(part) for part, font in parts)
    assert whole * 0.8 < columns[-1] - columns[0] <= whole
    assert abs((columns[0] + columns[-1]) / 2 - 450) < 6, "it stands in the middle, as was asked"


def test_a_mark_of_a_script_that_no_font_has_is_no_box(
    fresh: Callable[[], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By itself a mark may be drawn on a dotted circle, in DejaVu too, which has no letter of Devanagari."""
    monkeypatch.setattr(fonts, "USUAL", ("DejaVuSans.ttf",))
    monkeypatch.setattr(fonts, "_folders", lambda: iter([tmp_path]))
    assert drawable("é र्") == r"é \u0930\u094d"


def test_what_is_too_long_is_cut_with_an_ellipsis() -> None:
    font = font_named(None, 16)
    assert fitted("short", 16, 200) == "short" and fitted(" two\nlines ", 16, 200) == "two lines"
    cut = fitted("long " * 50, 16, 200)
    assert cut.endswith("…") and 150 < font.getlength(cut) <= 200
