"""How a card writes texts and figures: what is Markdown already, and what is a stranger's text."""

from collections.abc import Callable

from fair_adaptors.adaptor.results import Estimate
from fair_adaptors.evaluation.wording import number

Row = list[str]
"""Cells of a table."""


class Markdown(str):
    """Text that is Markdown already, and is printed as it is."""


def line(text: object) -> str:
    """Return a stranger's text as one line that can be shown."""
    return "".join(letter for letter in " ".join(str(text).split()) if letter.isprintable())[:2000]


def span(found: Estimate | None, say: Callable[[float], str] = number) -> Markdown:
    """Write a figure with its interval."""
    return Markdown("–" if found is None else f"{say(found.value)} ({say(found.low)} to {say(found.high)})")


def plain(value: object) -> Markdown:
    """Write what holds no stranger's text."""
    return Markdown(value)
