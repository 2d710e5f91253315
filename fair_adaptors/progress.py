"""Bars and lines at the terminal, with the time left; none where only errors are to be shown."""

import json
import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from .files import cache_folder, replacing

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

WAITS = "waits.json"
"""In the cache's folder: how many seconds each wait took last time, which tells how long it will take."""
REFRESHES, REMEMBERED = 2, 1800.0
"""How often a bar is drawn in a second: more takes time from the work. And for how many seconds it remembers how fast
things went: by default 30, so that a bar whose steps take longer could never tell the time left."""
LONG, KEPT = 2.0, 40
"""Waits of fewer seconds are not noted, and no more waits than this."""


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
    with Progress(
        *columns,
        console=shown,
        transient=transient,
        disable=hidden(),
        refresh_per_second=REFRESHES,
        speed_estimate_period=REMEMBERED,
    ) as progress:
        task = progress.add_task(what, total=None)
        yield progress, lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def waiting(what: str) -> Iterator[Callable[[str], None]]:
    """Within the block stderr, if it is a terminal, shows what is going on, for how long, and how long it will take.

    That is what it took last time; the first time it is not known. The line goes away at the end, and as soon as
    something else is written to stderr, such as the bar of a download.

    Yields:
        What renames the line.
    """
    if hidden() or not sys.stderr.isatty():
        yield lambda text: None
        return
    terminal, began, usual = sys.stderr, time.monotonic(), _waits().get(what, 0.0)
    names: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def show() -> None:
        name: str | None = what
        while name is not None:
            took = time.monotonic() - began
            left = f", about {usual - took:.0f} s left" if usual > took else ""
            terminal.write(f"\r\033[K{name} … {took:.0f} s{left}\r")
            terminal.flush()
            try:
                name = names.get(timeout=0.5)
            except queue.Empty:
                pass
        terminal.write("\r\033[K")
        terminal.flush()

    line = threading.Thread(target=show, daemon=True)

    def give_way() -> None:
        names.put(None)
        line.join()

    line.start()
    sys.stderr = _Shared(terminal, give_way)
    try:
        yield names.put
    finally:
        sys.stderr = terminal
        give_way()
    _note(what, time.monotonic() - began)


class _Shared:
    """Stands for stderr while a line is shown, which gives way to whoever else writes."""

    def __init__(self, terminal: IO[str], give_way: Callable[[], None]):
        self._terminal, self._give_way = terminal, give_way

    def write(self, text: str) -> int:
        self._give_way()
        return self._terminal.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._terminal, name)


def _waits() -> dict[str, float]:
    try:
        return {name: float(seconds) for name, seconds in json.loads((cache_folder() / WAITS).read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):  # none yet, or damaged
        return {}


def _note(what: str, seconds: float) -> None:
    if seconds < LONG:
        return
    others = {name: took for name, took in _waits().items() if name != what}
    noted = dict(list({**others, what: round(seconds, 1)}.items())[-KEPT:])
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        with replacing(cache_folder() / WAITS) as path:
            path.write_text(json.dumps(noted))
    except OSError:  # a cache that cannot be written is no reason to stop
        pass
