"""``load_fair_adaptor``: the only file that touches a pipeline.

An adaptor is added to the weights themselves, W = W₀ + Σᵢ wᵢ·BᵢAᵢ, in place, and W₀ is kept: generation costs what it
costs without, any sampler or pipeline that shares the modules sees the same model, and unloading is exact. Where
weights cannot be written, and where it is asked for, the adaptor is injected beside them instead.
"""

import threading
import weakref
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from fair_adaptors.adaptor.folder import read_adaptor
from fair_adaptors.adaptor.injected import set_beside, take_from_beside
from fair_adaptors.adaptor.match import match
from fair_adaptors.adaptor.patches import Change, WeightPatches, obstacles
from fair_adaptors.adaptor.record import AdaptorRecord
from fair_adaptors.adaptor.registry import default_for
from fair_adaptors.adaptor.tokens import set_prefix
from fair_adaptors.adaptor.writable import offloaded
from fair_adaptors.families.table import family_of
from fair_adaptors.hub.resolve import resolve

from .errors import FairAdaptorError

if TYPE_CHECKING:
    from torch import Tensor

_PATCHES = WeightPatches()
"""What is in force in any module: one truth for all pipelines that share it."""

_LOCK = threading.RLock()
"""Held by whoever changes weights or handles: two threads may load into pipelines that share modules."""


def load_fair_adaptor(
    pipe: Any,
    name: str | Path | None = None,
    *,
    weight: float | None = None,
    inject: bool = False,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> "FairAdaptor":
    """Make a Stable Diffusion pipeline show people fairly. Everything is checked before the pipeline is touched.

    Args:
        pipe: a diffusers pipeline of a known family (``fair_adaptors.families``): text-to-image, image-to-image or
            inpainting. It may be moved or cast before and after.
        name: a name of the registry (``fair-adaptors list``), a folder or a Hub repository; None for the registry's
            default for the pipeline's base.
        weight: strength; 0 is the original model, 1 the adaptor as trained, None its own default. Several adaptors add
            up. Loading one again only sets its weight and switches it on. Soft tokens belong to this pipeline alone;
            LoRAs to all pipelines that share the modules. A copy made while it is on (``deepcopy``,
            ``save_pretrained``) has it in its weights for good, and is marked so: unload first.
        inject: change what the layers return instead of their weights. Then ``set_weight`` takes no time, and every
            step of every image a little. Where weights are quantised, cast to 8 bits, or not in memory, it is always
            so. An adaptor that is in the weights is injected in their place if it is loaded again with this.
        revision, cache_dir, local_files_only, token: for the Hub, as in ``from_pretrained``.

    Returns:
        A handle to change the strength, to switch off and on, and to unload exactly.

    Raises:
        UnknownAdaptorError: nothing goes by that name.
        NotPublishedError: only a recipe is known.
        HubError: the Hub refuses, cannot be reached, or sends something else than it should.
        InvalidAdaptorError: the files are damaged or not ours.
        WrongBaseError: the adaptor was made for another base.
        FairAdaptorError: the adaptor is in the weights for good, or it can neither be added to the weights nor
            be injected.
    """
    family = family_of(pipe)  # or an error
    folder = resolve(
        name if name is not None else default_for(pipe).name,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        token=token,
    )
    files = read_adaptor(folder)
    strength = _checked(files.record.default_weight if weight is None else weight)
    change, tokens = match(pipe, files, inject=inject), files.tokens.get(family.token_encoder)
    with _LOCK:
        if _PATCHES.is_permanent(change):
            raise FairAdaptorError(
                f"the adaptor {change.name!r} is in the weights of this pipeline for good: it was fused, or the"
                " pipeline was copied or saved while it was loaded. Load the base afresh to change it, and unload"
                " adaptors before you copy or save"
            )
        known = (handle for handle in _HANDLES if handle._is_of(change, pipe))
        handle = next(known, None) or FairAdaptor(files.record, change, pipe, tokens)
        if inject and handle._change.layers:
            handle.disable()
            handle._change = change
        handle._put_in(strength)
        _HANDLES.add(handle)
    return handle


def in_force(pipe: Any) -> list[str]:
    """Return the names of the adaptors that change a pipeline now and can be taken out again."""
    import torch

    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    modules = {module for part in parts for module in part.modules()}
    with _LOCK:
        found = [
            handle.info.name
            for handle in _HANDLES
            if handle.enabled
            and (handle._pipe() is pipe if handle._pipe is not None else handle._change.modules & modules)
        ]
    return sorted(found)


class FairAdaptor:
    """Handle of a loaded adaptor. As a context manager it unloads at the end of the block, unless fused in it.

    Attributes:
        info: the adaptor's ``fair_adaptor.json``.
    """

    def __init__(self, info: AdaptorRecord, change: Change, pipe: Any, tokens: "Tensor | None"):
        self.info = info
        self._change = change
        self._pipe = weakref.ref(pipe) if tokens is not None else None
        self._tokens = tokens
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
        return bool(self._change.beside)

    def set_weight(self, weight: float) -> None:
        """Set the strength. While disabled it is only noted."""
        weight = _checked(weight)
        with _LOCK:
            self._check_loaded()
            if self.enabled:
                self._put_in(weight)
            else:
                self._weight = weight

    def disable(self) -> None:
        """Take the adaptor out of force: the weights are the original ones, bit for bit, if no other is loaded."""
        with _LOCK:
            self._check_loaded()
            self._apply(0.0)
            self._state = "disabled"

    def enable(self) -> None:
        """Put the adaptor into force again."""
        with _LOCK:
            self._check_loaded()
            self._put_in(self._weight)

    def unload(self) -> None:
        """Take the adaptor out for good. Unloading twice is not an error, unloading what is fused is."""
        with _LOCK:
            if self._state != "unloaded":
                self._check_loaded()
                self._apply(0.0)
                take_from_beside(self._change)
                self._close("unloaded")

    def fuse(self) -> None:
        """Make this adaptor a permanent part of the weights. Other adaptors stay as they are and can be taken out.

        It cannot be undone: the original weights are given up, and their memory too if no other adaptor is loaded.

        Raises:
            FairAdaptorError: it is disabled, has soft tokens, or is injected because weights cannot be written.
        """
        with _LOCK:
            self._check_loaded()
            if not self.enabled:
                raise FairAdaptorError(f"the adaptor {self._change.name!r} is disabled; enable it before fusing it")
            if self._tokens is not None:
                raise FairAdaptorError(
                    f"the adaptor {self._change.name!r} has soft tokens, which are no part of a weight"
                )
            whole = self._change.in_place()
            if problem := obstacles(whole, offloaded(whole.models)):
                raise FairAdaptorError(
                    f"the adaptor {self._change.name!r} cannot be fused: the model {problem}. Fuse adaptors before you"
                    " quantise, cast or offload a model"
                )
            _PATCHES.set(whole, self._weight)
            take_from_beside(self._change)
            _PATCHES.fuse(whole)
            self._close("fused")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.loaded:
            self.unload()

    def __repr__(self) -> str:
        return f"FairAdaptor({self._change.name!r}, weight={self._weight:g}, {self._state})"

    def _is_of(self, change: Change, pipe: Any) -> bool:
        """Tell whether this handle has an adaptor in these modules and, if there are soft tokens, this pipeline."""
        return (
            self.loaded
            and self._change.identity == change.identity
            and self._change.modules == change.modules  # by identity: modules have no other equality
            and (self._pipe is None or self._pipe() is pipe)
        )

    def _check_loaded(self) -> None:
        if not self.loaded:
            remedy = "load the base afresh to undo it" if self._state == "fused" else "load it again"
            raise FairAdaptorError(f"the adaptor {self._change.name!r} is {self._state}; {remedy}")

    def _close(self, state: Literal["unloaded", "fused"]) -> None:
        self._state = state
        self._change = Change(self._change.identity, self._change.name, [])  # lets go of modules and factors

    def _put_in(self, weight: float) -> None:
        self._apply(weight)
        self._weight, self._state = weight, "enabled"

    def _apply(self, weight: float) -> None:
        """Set this adaptor's share in weights and prompts; on any error it is what it was."""
        _PATCHES.set(self._change, weight)
        set_beside(self._change, weight)
        if self._tokens is not None and self._pipe is not None and (pipe := self._pipe()) is not None:
            set_prefix(pipe, self._change.identity, (weight, self._tokens) if weight else None)


_HANDLES: weakref.WeakSet[FairAdaptor] = weakref.WeakSet()
"""All handles in use, so that an adaptor that is loaded again has one handle."""


def _checked(weight: float) -> float:
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not abs(weight) < 100:
        raise FairAdaptorError(f"weight is {weight!r}; it must be a finite number, usually between 0 and 1")
    return float(weight)
