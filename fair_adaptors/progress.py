"""Bars at the terminal, with the time left; none where only errors are to be shown."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def hidden() -> bool:
    """Tell whether bars are to be hidden: the logger ``fair_adaptors`` lets errors through alone."""
    return not logging.getLogger("fair_adaptors").isEnabledFor(logging.WARNING)


@contextmanager
def bar(
    what: str = "images", console: "Console | None" = None, *, transient: bool = False
) -> "Iterator[tuple[Progress, Callable[[int, int | None], None]]]":
    """Show a bar of what is done and what is to be done, with the time left; by default on stderr.

    Args:
        transient: leave nothing of it.

    Yields:
        The bar, and what moves it: to be called with the number that is done and all there will be, or None.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = console or Console(stderr=True)
    with Progress(*columns, console=shown, transient=transient, disable=hidden()) as progress:
        task = progress.add_task(what, total=None)
        yield progress, lambda done, total: progress.update(task, completed=done, total=total)
