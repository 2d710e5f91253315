"""Low-rank changes of weights, in place and with an exact way back: W = W₀ + Σᵢ wᵢ·BᵢAᵢ."""

import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fair_adaptors.errors import FairAdaptorError

from .folder import is_finite

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
        original: W₀ on the CPU; empty where nothing is added, because the weight itself is W₀ then.
        summands: the changes in force.
        fused: identities of the changes that are a part of W₀ for good.
        checksum: of the weight, as it was left.
    """

    original: "Tensor"
    summands: "Summands"
    fused: frozenset[str] = frozenset()
    checksum: int = 0


class WeightPatches:
    """All changes in force, by module: one object serves all pipelines, which may share modules.

    A module is known while it is in memory. One thread at a time may use this.
    """

    def __init__(self) -> None:
        self._records: weakref.WeakKeyDictionary[Target, _Record] = weakref.WeakKeyDictionary()

    def set(self, change: Change, weight: float) -> None:
        """Put a change into force with a strength, or take it out with 0. On any error every weight is what it was.

        Raises:
            FairAdaptorError: a weight is quantised or not in memory, was changed by something else since, or would
                not be finite.
        """
        if problem := obstacles(change):
            raise FairAdaptorError(
                f"{change.name!r} cannot be changed: the model {problem}. Unload adaptors before you quantise, cast or"
                " offload a model, or load them with `inject=True`"
            )
        for module, _, _ in change.layers:
            if problem := self._foreign_change(module):
                raise FairAdaptorError(f"{change.name!r} cannot be changed: the model {problem}")
        records = {}
        try:
            for module, down, up in change.layers:
                summand = {change.identity: (weight, down, up)} if weight else {}
                records[module] = record = self._with_summand(module, change.identity, summand)
                _write(module, record.original, record.summands)
                if not is_finite(module.weight):
                    raise FairAdaptorError(f"with {change.name!r} a weight would not be finite: lower its weight")
                record.checksum = _checksum(module.weight)
        except BaseException:
            for module, record in records.items():
                known = self._records.get(module)
                _write(module, record.original, known.summands if known else {})
            raise
        for module, record in records.items():
            if record.summands or record.fused:
                self._records[module] = record
            else:
                self._records.pop(module, None)

    def fuse(self, change: Change) -> None:
        """Make a change a part of the original weights. Where no other one is in force, their copies are given up."""
        fused = {}
        for module, _, _ in change.layers:
            record = self._records.get(module)
            if record is None or change.identity not in record.summands:  # its strength is 0
                continue
            others = dict(record.summands)
            mine = {change.identity: others.pop(change.identity)}
            # Not rounded to the module's dtype while others are on top, so that the sum stays what it is.
            original = _total(record.original, mine, "cpu") if others else record.original.new_empty(0)
            fused[module] = _Record(original, others, record.fused | mine.keys(), record.checksum)
        self._records.update(fused)

    def is_fused(self, change: Change) -> bool:
        """Tell whether a change is a part of a module's original weight."""
        records = (self._records.get(module) for module, _, _ in change.layers)
        return any(record is not None and change.identity in record.fused for record in records)

    def _with_summand(self, module: "Target", identity: str, summand: "Summands") -> _Record:
        """Return a module's record with one change set, or taken out if ``summand`` is empty."""
        known = self._records.get(module)
        if known is None or not known.summands:
            original = module.weight.detach().to("cpu", copy=True)
            return _Record(original, summand, known.fused if known else frozenset())
        others = {name: other for name, other in known.summands.items() if name != identity}
        return _Record(known.original, others | summand, known.fused)

    def _foreign_change(self, module: "Target") -> str | None:
        """Say that something else has changed a weight since it was written; rounding to another dtype is not meant.

        Else it would be lost when the adaptor is taken out, and what put it there might later take it out once more.
        """
        known = self._records.get(module)
        if known is None or not known.summands or _checksum(module.weight) == known.checksum:
            return None
        weight = module.weight.detach()
        expected = _total(known.original, known.summands, weight.device)
        if bool(((weight.float() - expected).abs() <= 0.008 * expected.abs() + 1e-6).all()):
            return None
        return "was changed by something else (another fused LoRA?) while the adaptor is in it. Undo that first"


def obstacles(change: Change) -> str | None:
    """Say why a weight of a change cannot be changed in place; None if all can."""
    away = on_disk(change.models)
    texts = ("is offloaded to disk" if module in away else obstacle(module) for module, _, _ in change.layers)
    return next(filter(None, texts), None)


def obstacle(module: "Target") -> str | None:
    """Say why a module's weight cannot be changed in place; None if it can, unless it is ``on_disk``."""
    import torch

    weight = module.weight
    if weight.is_meta:
        return "is not in memory, as enable_sequential_cpu_offload leaves it (pipe.remove_all_hooks() brings it back)"
    if type(weight) is not torch.nn.Parameter or weight.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"is quantised, cast or sharded ({type(weight).__name__}, {weight.dtype})"
    return None


def on_disk(models: "Iterable[nn.Module]") -> "set[nn.Module]":
    """Return the modules of those models of which diffusers' group offloading keeps weights in files.

    What such a module has in memory is not read before it is read from there.
    """
    found: set[nn.Module] = set()
    for model in models:
        registries = [vars(module).get("_diffusers_hook") for module in model.modules()]
        hooks = [registry.get_hook("group_offloading") for registry in registries if registry is not None]
        if any(hook is not None and hook.group.offload_to_disk_path is not None for hook in hooks):
            found |= set(model.modules())
    return found


def _write(module: "Target", original: "Tensor", summands: "Summands") -> None:
    """Set a module's weight to ``_total``, without a second copy of it if it is float32 already."""
    import torch

    weight = module.weight.data
    if weight.dtype != torch.float32 or not weight.is_contiguous():
        weight.copy_(_total(original, summands, weight.device))
        return
    weight.copy_(original)
    for strength, *factors in _matrices(summands, weight.device):
        weight.flatten(1).addmm_(*factors, alpha=strength)


def _total(original: "Tensor", summands: "Summands", device: "torch.device | str") -> "Tensor":
    """Return W₀ + Σ w·BA, summed in float32; W₀ itself, in its own dtype, if nothing is added."""
    import torch

    total = original.to(device)
    for strength, *factors in _matrices(summands, device):
        total = torch.addmm(total.float().flatten(1), *factors, alpha=strength).view_as(total)
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
