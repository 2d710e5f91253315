"""The handle of a loaded adaptor: its strength, off and on, and out; what that does, each kind of adaptor says."""

import threading
import weakref
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from fair_adaptors.errors import FairAdaptorError

from .record import AdaptorRecord

if TYPE_CHECKING:
    from torch import nn

LOCK = threading.RLock()
"""Held by whoever changes weights or handles: two threads may load into pipelines that share modules."""


class FairAdaptor(ABC):
    """Handle of a loaded adaptor. As a context manager it unloads at the end of the block, unless fused in it.

    Attributes:
        info: the adaptor's ``fair_adaptor.json``.
    """

    def __init__(self, info: AdaptorRecord):
        self.info = info
        self._state: Literal["enabled", "disabled", "unloaded", "fused"] = "disabled"
        self._weight = 0.0

    @property
    def weight(self) -> float:
        """Strength; kept while disabled."""
        return self._weight

    @property
    def loaded(self) -> bool:
        """Whether the adaptor can still be changed: neither unloaded nor fused."""
        return self._state in ("enabled", "disabled")

    @property
    def enabled(self) -> bool:
        """Whether the adaptor is in force and can be taken out."""
        return self._state == "enabled"

    @property
    def injected(self) -> bool:
        """Whether some of it works beside the weights, not in them."""
        return False

    def set_weight(self, weight: float) -> None:
        """Set the strength. While disabled it is only noted."""
        weight = self.checked(weight)
        with LOCK:
            self._check_loaded()
            if self.enabled:
                self.put_in(weight)
            else:
                self._weight = weight

    def disable(self) -> None:
        """Take the adaptor out of force: the pipeline is the original one, bit for bit, if no other is loaded."""
        with LOCK:
            self._check_loaded()
            self._apply(0.0)
            self._state = "disabled"

    def enable(self) -> None:
        """Put the adaptor into force again."""
        with LOCK:
            self._check_loaded()
            self.put_in(self._weight)

    def unload(self) -> None:
        """Take the adaptor out for good. Unloading twice is not an error, unloading what is fused is."""
        with LOCK:
            if self._state != "unloaded":
                self._check_loaded()
                self._apply(0.0)
                self._close("unloaded")

    def fuse(self) -> None:
        """Make this adaptor a permanent part of the weights.

        Raises:
            FairAdaptorError: it cannot be.
        """
        raise FairAdaptorError(f"the adaptor {self.info.name!r} is not in the weights, so it cannot be fused")

    def put_in(self, weight: float) -> None:
        """Put the adaptor into force with a strength that was checked, and be counted among the handles in use."""
        self._apply(weight)
        self._weight, self._state = weight, "enabled"
        HANDLES.add(self)

    def checked(self, weight: float) -> float:
        """Return a strength as a number.

        Raises:
            FairAdaptorError: it is none.
        """
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not abs(weight) < 100:
            raise FairAdaptorError(f"`weight` is {weight!r}; it must be a finite number, usually between 0 and 1")
        return float(weight)

    @abstractmethod
    def changes(self, pipe: Any, modules: "set[nn.Module]") -> bool:
        """Tell whether it is loaded into a pipeline, which has these modules."""

    @abstractmethod
    def _apply(self, weight: float) -> None:
        """Set what this adaptor does to the pipeline, nothing for 0; on any error it is what it was."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.loaded:
            self.unload()

    def __repr__(self) -> str:
        return f"FairAdaptor({self.info.name!r}, weight={self._weight:g}, {self._state})"

    def _check_loaded(self) -> None:
        if not self.loaded:
            remedy = "load the base afresh to undo it" if self._state == "fused" else "load it again"
            raise FairAdaptorError(f"the adaptor {self.info.name!r} is {self._state}; {remedy}")

    def _close(self, state: Literal["unloaded", "fused"]) -> None:
        self._state = state


HANDLES: weakref.WeakSet[FairAdaptor] = weakref.WeakSet()
"""All handles in use, so that an adaptor that is loaded again has one handle."""
