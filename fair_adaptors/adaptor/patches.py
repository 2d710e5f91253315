"""Low-rank changes of weights, in place and with an exact way back: W = W₀ + Σᵢ wᵢ·BᵢAᵢ.

On the CPU W₀ stays where it is, and the parameter gets other memory, for W. A base that is mapped from its files, as
``from_pretrained`` leaves it, takes half the memory so, and less time: new memory is what costs most.
"""

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fair_adaptors.errors import FairAdaptorError

from .folder import is_finite
from .fused import FusedProjection, fused_projections
from .marks import mark, marks
from .writable import may_replace, obstacle, offloaded

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    Target = nn.Linear | nn.Conv2d
    Layer = tuple[Target, Tensor, Tensor]
    Summands = dict[str, tuple[float, Tensor, Tensor]]
    """By a change's identity: its strength, A and B."""


@dataclass(frozen=True, eq=False)
class Change:
    """What an adaptor adds to the weights of modules at strength 1: to each a product B·A.

    Attributes:
        identity: tells changes apart; loading the same files again gives the same one.
        name: of the adaptor, for messages.
        layers: modules whose weights are changed in place, with their A [rank, in, …] and B [out, rank, …].
        beside: likewise, those whose outputs are changed instead.
        models: the parts of a pipeline that have these modules.
    """

    identity: str
    name: str
    layers: "list[Layer]"
    beside: "list[Layer]" = field(default_factory=list)
    models: "tuple[nn.Module, ...]" = ()

    @property
    def modules(self) -> "set[Target]":
        """All modules that it changes."""
        return {module for module, _, _ in (*self.layers, *self.beside)}

    def in_place(self) -> "Change":
        """Return the change with all modules changed in place."""
        return replace(self, layers=[*self.layers, *self.beside], beside=[])


@dataclass
class _Record:
    """What is known of a module that was changed.

    Attributes:
        original: W₀ on the CPU, never in the memory that the module has now.
        summands: the changes in force, one at least.
        checksum: of the weight, as it was left.
    """

    original: "Tensor"
    summands: "Summands"
    checksum: int = 0


class WeightPatches:
    """All changes in force, by module: one object serves all pipelines, which may share modules.

    A module is known while it is in memory. One thread at a time may use this.
    """

    def __init__(self) -> None:
        self._records: weakref.WeakKeyDictionary[Target, _Record] = weakref.WeakKeyDictionary()
        self._left: dict[str, set[int]] = {}  # by identity, checksums of some weights with it

    def set(self, change: Change, weight: float) -> None:
        """Put a change into force with a strength, or take it out with 0. On any error every weight is what it was.

        Raises:
            FairAdaptorError: a weight is quantised or not in memory, was changed by something else since, or would
                not be finite; or a fused projection was made before it was changed.
        """
        held = offloaded(change.models)
        if problem := obstacles(change, held):
            raise FairAdaptorError(
                f"{change.name!r} cannot be changed: the model {problem}. Unload adaptors before you quantise, cast or"
                " offload a model, or load them with `inject=True`"
            )
        for module, _, _ in change.layers:
            if problem := self._foreign_change(module):
                raise FairAdaptorError(f"{change.name!r} cannot be changed: the model {problem}")
        fused, records = self._fused(change), {}
        try:
            for module, down, up in change.layers:
                summand = {change.identity: (weight, down, up)} if weight else {}
                known, movable = self._records.get(module), may_replace(module, held)
                if known is None:
                    known = _Record(module.weight.data if movable else module.weight.data.to("cpu", copy=True), {})
                others = {name: other for name, other in known.summands.items() if name != change.identity}
                records[module] = record = _Record(known.original, others | summand)
                _write(module, record, movable, is_original=module not in self._records)
                if not _stays_finite(module, record.summands):
                    raise FairAdaptorError(
                        f"{change.name!r} would make weights of the model infinite: load it with a lower `weight`"
                    )
                record.checksum = _checksum(module.weight)
            for projection in fused:
                projection.renew()
        except BaseException:
            for module, record in records.items():
                before = self._records.get(module) or _Record(record.original, {})
                _write(module, before, may_replace(module, held))
            for projection in fused:
                projection.renew()
            raise
        for module, record in records.items():
            if record.summands:
                self._records[module] = record
            else:
                self._records.pop(module, None)
        for module in _some(change) & records.keys() if weight else ():
            if (checksum := records[module].checksum) != _checksum(records[module].original):
                self._left.setdefault(change.identity, set()).add(checksum)
        for model in change.models:
            if not records.keys().isdisjoint(model.modules()):
                mark(model, change.identity, change.name if weight else None)

    def fuse(self, change: Change) -> None:
        """Make a change a part of the original weights. Where no other one is in force, their copies are given up."""
        fused: dict[Target, _Record] = {}
        for module, _, _ in change.layers:
            record = self._records.get(module)
            if record is None or change.identity not in record.summands:  # its strength is 0
                continue
            others = dict(record.summands)
            mine = {change.identity: others.pop(change.identity)}
            # Not rounded to the module's dtype while others are on top, so that the sum stays what it is.
            original = _total(record.original, mine, "cpu") if others else record.original
            fused[module] = _Record(original, others, record.checksum)
        for module, record in fused.items():
            if record.summands:
                self._records[module] = record
            else:
                del self._records[module]

    def is_permanent(self, change: Change) -> bool:
        """Tell whether a model has a change in its weights that cannot be taken out any more.

        That is so after ``fuse``, and where the model is a copy, or was saved, with the change in force. A copy whose
        configuration is another, such as the U-Net that AnimateDiff makes, is known by its weights, if it is of this
        process.
        """
        if any(self._is_copied(module, change.identity) for module in _some(change)):
            return True
        marked = [model for model in change.models if change.identity in marks(model)]
        return any(not any(self._has(module, change.identity) for module in model.modules()) for model in marked)

    def _is_copied(self, module: "Target", identity: str) -> bool:
        """Tell whether a module's own weight is one that another module had with a change."""
        left, record = self._left.get(identity), self._records.get(module)
        if left is None or self._has(module, identity) or obstacle(module):
            return False
        return _checksum(record.original if record else module.weight) in left

    def _has(self, module: "nn.Module", identity: str) -> bool:
        record = self._records.get(module)  # type: ignore[call-overload]
        return record is not None and identity in record.summands

    def _fused(self, change: Change) -> list[FusedProjection]:
        """Return the fused projections that are to follow a change."""
        found = fused_projections(change.models, {module for module, _, _ in change.layers})
        current = [projection for projection in found if projection.is_current()]
        if any(projection.in_use for projection in found if projection not in current):
            raise FairAdaptorError(
                f"{change.name!r} cannot be changed: something else changed weights after fuse_qkv_projections had"
                " copied them. Call unfuse_qkv_projections and fuse_qkv_projections again first"
            )
        return current

    def _foreign_change(self, module: "Target") -> str | None:
        """Say that something else has changed a weight since it was written; rounding to another dtype is not meant.

        Else it would be lost when the adaptor is taken out, and what put it there might later take it out once more.
        """
        known = self._records.get(module)
        if known is None or _checksum(module.weight) == known.checksum:
            return None
        weight = module.weight.detach()
        expected = _total(known.original, known.summands, weight.device)
        if bool(((weight.float() - expected).abs() <= 0.008 * expected.abs() + 1e-6).all()):
            return None
        return "was changed by something else (another fused LoRA?) while the adaptor is in it. Undo that first"


def obstacles(change: Change, held: "Mapping[nn.Module, bool]") -> str | None:
    """Say why a weight of a change cannot be changed in place; None if all can.

    Args:
        held: of the change's models, what ``offloaded`` returns.
    """
    texts = ("is offloaded to disk" if held.get(module) else obstacle(module) for module, _, _ in change.layers)
    return next(filter(None, texts), None)


def _some(change: Change) -> "set[Target]":
    """Return the first and the last module of a change: of two parts, where it changes two."""
    return {module for module, _, _ in (change.layers + change.beside)[:: max(1, len(change.modules) - 1)]}


def _write(module: "Target", record: _Record, movable: bool, *, is_original: bool = False) -> None:
    """Set a module's weight to ``_total``.

    Args:
        movable: whether it may be given other memory: W₀'s own where nothing is added.
        is_original: whether it is W₀ now.
    """
    import torch

    original, summands, weight = record.original, record.summands, module.weight.data
    alike = original.dtype == weight.dtype and original.stride() == weight.stride()
    if movable and not summands and alike:
        module.weight.data = original
        return
    if weight.data_ptr() == original.data_ptr():
        weight, is_original = torch.empty_like(original), False
    if weight.dtype != torch.float32 or not weight.is_contiguous():
        weight.copy_(_total(original, summands, weight.device))
    else:
        if not is_original:
            weight.copy_(original)
        for strength, *factors in _matrices(summands, weight.device):
            weight.flatten(1).addmm_(*factors, alpha=strength)
    module.weight.data = weight


def _stays_finite(module: "Target", summands: "Summands") -> bool:
    """Tell whether a weight with something added is finite, if it was before.

    No value of a product is larger than the product of its factors' norms. Where that says enough, the weight, which
    is much larger, is not read. Half precision overflows too early for that.
    """
    import torch

    def norm(factor: "Tensor") -> float:
        return float(torch.linalg.vector_norm(factor, dtype=torch.float32))

    most = sum(abs(strength) * norm(down) * norm(up) for strength, down, up in summands.values())
    return (module.weight.dtype != torch.float16 and most < 1e30) or is_finite(module.weight)


def _total(original: "Tensor", summands: "Summands", device: "torch.device | str") -> "Tensor":
    """Return W₀ + Σ w·BA, summed in float32; W₀ itself, in its own dtype, if nothing is added."""
    import torch

    if not summands:
        return original.to(device)
    total = original.to(device, torch.float32, copy=True, memory_format=torch.contiguous_format)
    for strength, *factors in _matrices(summands, device):
        total.flatten(1).addmm_(*factors, alpha=strength)
    return total


def _matrices(summands: "Summands", device: "torch.device | str") -> "Iterator[tuple[float, Tensor, Tensor]]":
    """Yield each change's strength, B and A as float32 matrices, in an order that does not depend on the loading."""
    for _, (strength, down, up) in sorted(summands.items()):
        yield strength, up.to(device).float().flatten(1), down.to(device).float().flatten(1)


def _checksum(weight: "Tensor") -> int:
    """Return the sum of a tensor's bits, read as integers: the same on every device, and another for other values.

    The tensor's own count of changes, ``_version``, would cost nothing, but misses what is written to ``weight.data``.
    """
    import torch

    flat = weight.detach().flatten()
    whole = flat.nbytes % 8 == 0 and flat.storage_offset() * flat.itemsize % 8 == 0
    return int(flat.view(torch.int64 if whole else torch.uint8).sum())
