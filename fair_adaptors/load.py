"""``load_fair_adaptor``: the only file that touches a pipeline.

An adaptor is added to the weights themselves, W = W₀ + Σᵢ wᵢ·BᵢAᵢ, in place, and W₀ is kept: generation costs what it
costs without, any sampler or pipeline that shares the modules sees the same model, and unloading is exact. Where
weights cannot be written, and where it is asked for, the adaptor is injected beside them instead. Adaptors without
weights, which change what the pipeline is called with, are in ``steering``.
"""

import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fair_adaptors.adaptor.folder import read_adaptor
from fair_adaptors.adaptor.handle import HANDLES, LOCK, FairAdaptor
from fair_adaptors.adaptor.injected import set_beside, take_from_beside
from fair_adaptors.adaptor.match import match
from fair_adaptors.adaptor.patches import Change, WeightPatches, obstacles
from fair_adaptors.adaptor.record import AdaptorRecord, read_record
from fair_adaptors.adaptor.registry import default_for
from fair_adaptors.adaptor.tokens import set_prefix
from fair_adaptors.adaptor.writable import offloaded
from fair_adaptors.families.table import family_of
from fair_adaptors.hub.resolve import resolve
from fair_adaptors.steering.directions import read_directions
from fair_adaptors.steering.handle import steer
from fair_adaptors.steering.words import Words, is_words, read_words

from .errors import FairAdaptorError

if TYPE_CHECKING:
    from torch import Tensor, nn

_PATCHES = WeightPatches()
"""What is in force in any module: one truth for all pipelines that share it."""


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
) -> FairAdaptor:
    """Make a text-to-image pipeline show people fairly. Everything is checked before the pipeline is touched.

    Args:
        pipe: a diffusers pipeline of a known family (``fair_adaptors.families``): text-to-image, image-to-image or
            inpainting. You can move or cast it before and after.
        name: a name from ``fair-adaptors list``, a folder or a Hub repository. None takes the first one listed for
            the pipeline's base. ``words:gender=0.5,0.5`` needs no files: for each image a class is drawn and named in
            its prompt, in any text-to-image pipeline (docs/steering.md).
        weight: strength. 0 is the original model, 1 the adaptor as trained, None the adaptor's own default. Several
            adaptors add up. Loading the same one again sets its weight and switches it on. Soft tokens belong to this
            pipeline alone, LoRAs to all pipelines that share the modules. Unload before you copy or save a pipeline
            (``deepcopy``, ``save_pretrained``): a copy keeps what is in its weights for good, and is marked so.
        inject: leave the weights alone and change what the layers return. ``set_weight`` then takes no time, and every
            step takes a little longer. This always happens where weights are quantised, cast to 8 bits, or not in
            memory. If the adaptor is in the weights already, it is moved beside them.
        revision: branch, tag or commit on the Hub.
        cache_dir: cache folder, as in ``from_pretrained``.
        local_files_only: ask nobody; use what is in the cache.
        token: for the Hub, as in ``from_pretrained``.

    Returns:
        A handle to change the strength, to switch off and on, and to unload exactly.

    Raises:
        UnknownAdaptorError: there is no adaptor of that name.
        NotPublishedError: the name is a recipe whose weights nobody has published.
        HubError: the Hub refuses, cannot be reached, or sends something unexpected.
        InvalidAdaptorError: the files are damaged, or not an adaptor.
        WrongBaseError: the adaptor was made for another base.
        FairAdaptorError: the adaptor is in the weights for good, or it can neither be added to the weights nor
            be injected.
    """
    if is_words(name):
        return steer(pipe, read_words(str(name)), weight)
    family = family_of(pipe)  # or an error
    folder = resolve(
        name if name is not None else default_for(pipe).name,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        token=token,
    )
    files = read_adaptor(folder)
    if files.record.trained_parts == ("directions",):
        return steer(pipe, read_directions(files, pipe), weight)
    if "words" in files.record.trained_parts:
        return steer(pipe, Words.of(files.record), weight)
    change, tokens = match(pipe, files, inject=inject), files.tokens.get(family.token_encoder)
    with LOCK:
        if _PATCHES.is_permanent(change):
            raise FairAdaptorError(
                f"the adaptor {change.name!r} is in the weights of this pipeline for good: it was fused, or the"
                " pipeline was copied or saved while it was loaded. Load the base afresh to change it, and unload"
                " adaptors before you copy or save"
            )
        known = (one for one in HANDLES if isinstance(one, _WeightsHandle) and one.is_of(change, pipe))
        handle = next(known, None) or _WeightsHandle(files.record, change, pipe, tokens)
        strength = handle.checked(files.record.default_weight if weight is None else weight)
        if inject and handle._change.layers:
            handle.disable()
            handle._change = change
        handle.put_in(strength)
    return handle


def record_of(name: str | Path) -> AdaptorRecord:
    """Return the record of an adaptor that ``load_fair_adaptor`` takes by this name, without loading it."""
    return read_words(str(name)).record if is_words(name) else read_record(resolve(name))


def in_force(pipe: Any) -> list[str]:
    """Return the names of the adaptors that change a pipeline now and can be taken out again."""
    import torch

    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    modules = {module for part in parts for module in part.modules()}
    with LOCK:
        found = [handle.info.name for handle in HANDLES if handle.enabled and handle.changes(pipe, modules)]
    return sorted(found)


class _WeightsHandle(FairAdaptor):
    """Handle of LoRAs in the weights or beside them, and of soft tokens."""

    def __init__(self, info: AdaptorRecord, change: Change, pipe: Any, tokens: "Tensor | None"):
        super().__init__(info)
        self._change = change
        self._pipe = weakref.ref(pipe) if tokens is not None else None
        self._tokens = tokens

    @property
    def injected(self) -> bool:
        """Whether some of it works beside the weights, not in them."""
        return bool(self._change.beside)

    def fuse(self) -> None:
        """Make this adaptor a permanent part of the weights. Other adaptors stay as they are and can be taken out.

        This cannot be undone. The original weights are dropped, and their memory is freed if no other adaptor is
        loaded.

        Raises:
            FairAdaptorError: it is disabled, has soft tokens, or is injected because weights cannot be written.
        """
        with LOCK:
            self._check_loaded()
            if not self.enabled:
                raise FairAdaptorError(f"the adaptor {self._change.name!r} is disabled; enable it before fusing it")
            if self._tokens is not None:
                raise FairAdaptorError(
                    f"the adaptor {self._change.name!r} has soft tokens, which are not part of a weight"
                )
            whole = self._change.in_place()
            if problem := obstacles(whole, offloaded(whole.models)):
                raise FairAdaptorError(
                    f"the adaptor {self._change.name!r} cannot be fused: the model {problem}. Fuse adaptors before you"
                    " quantise, cast or offload a model"
                )
            _PATCHES.set(whole, self._weight)
            _PATCHES.fuse(whole)
            self._close("fused")

    def changes(self, pipe: Any, modules: "set[nn.Module]") -> bool:
        """Tell whether it is loaded into a pipeline, which has these modules."""
        return self._pipe() is pipe if self._pipe is not None else bool(self._change.modules & modules)

    def is_of(self, change: Change, pipe: Any) -> bool:
        """Tell whether this handle has an adaptor in these modules and, if there are soft tokens, this pipeline."""
        return (
            self.loaded
            and self._change.identity == change.identity
            and self._change.modules == change.modules  # by identity: modules have no other equality
            and (self._pipe is None or self._pipe() is pipe)
        )

    def _close(self, state: Literal["unloaded", "fused"]) -> None:
        take_from_beside(self._change)
        self._change = Change(self._change.identity, self._change.name, [])  # lets go of modules and factors
        super()._close(state)

    def _apply(self, weight: float) -> None:
        """Set this adaptor's share in weights and prompts; on any error it is what it was."""
        _PATCHES.set(self._change, weight)
        set_beside(self._change, weight)
        if self._tokens is not None and self._pipe is not None and (pipe := self._pipe()) is not None:
            set_prefix(pipe, self._change.identity, (weight, self._tokens) if weight else None)
