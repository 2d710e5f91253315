"""What can go wrong on the way, each on demand and as often as asked for."""

import threading
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "500", "502", "503", "429", "hang", "drop", "cut", "lost", "wrong bytes", "truncated", "garbage", "stall",
    "endless",
]  # fmt: skip
"""``hang``: no answer. ``drop``: closed before one. ``cut``: closed in its middle. ``lost``: done, but not answered.
``wrong bytes``: as many, others. ``truncated``: fewer, and said so. ``garbage``: the page of some captive portal.
``stall``: half of an answer, then silence. ``endless``: far more than was said."""


@dataclass
class Faults:
    """The faults that are waiting for their request."""

    _waiting: list[tuple[str, str, Kind, int]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, repo_id: str, request: str, kind: Kind, *, times: int = 1) -> None:
        """Let the next requests of that name for a repository go wrong."""
        with self._lock:
            self._waiting.append((repo_id, request, kind, times))

    def take(self, repo_id: str | None, request: str) -> Kind | None:
        """Return the fault of this request, and count it."""
        with self._lock:
            for i, (owner, name, kind, times) in enumerate(self._waiting):
                if owner == repo_id and name == request:
                    self._waiting[i : i + 1] = [(owner, name, kind, times - 1)] if times > 1 else []
                    return kind
        return None

    def clear(self, repo_id: str) -> None:
        """Let the requests for a repository go well again."""
        with self._lock:
            self._waiting = [fault for fault in self._waiting if fault[0] != repo_id]
