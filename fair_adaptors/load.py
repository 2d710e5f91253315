"""``load_fair_adaptor``: the only file that touches a pipeline.

An adaptor is added to the weights themselves, W = W₀ + Σᵢ wᵢ·BᵢAᵢ, in place, and W₀ is kept: generation costs what it
costs without, any sampler or pipeline that shares the modules sees the same model, and unloading is exact.
"""

import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar

from fair_adaptors.adaptor.folder import AdaptorFiles, is_finite, read_adaptor
from fair_adaptors.adaptor.modules import PARTS, linear_modules, shape_signature
from fair_adaptors.adaptor.registry import default_for
from fair_adaptors.adaptor.tokens import set_prefix
from fair_adaptors.hub.resolve import resolve

from .errors import FairAdaptorError, WrongBaseError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    Target = nn.Linear | nn.Conv2d
    Pairs = list[tuple[Target, Tensor, Tensor]]


def load_fair_adaptor(
    pipe: Any,
    name: str | Path | None = None,
    *,
    weight: float | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> "FairAdaptor":
    """Make a Stable Diffusion pipeline show people fairly. Everything is checked before the pipeline is touched.

    Args:
        pipe: a diffusers pipeline with ``text_encoder`` and ``unet``: text-to-image, image-to-image or inpainting.
            It may be moved or cast before and after.
        name: a name of the registry (``fair-adaptors list``), a folder or a Hub repository; None for the registry's
            default for the pipeline's base.
        weight: strength; 0 is the original model, 1 the adaptor as trained, None its own default. Several adaptors add
            up. Loading one again only sets its weight and switches it on. Soft tokens belong to this pipeline alone;
            LoRAs to all pipelines that share the modules. A copy made while it is on (``deepcopy``,
            ``save_pretrained``) has it in its weights for good: unload first.
        revision, cache_dir, local_files_only, token: for the Hub, as in ``from_pretrained``.

    Returns:
        A handle to change the strength, to switch off and on, and to unload exactly.

    Raises:
        UnknownAdaptorError: nothing goes by that name.
        NotPublishedError: only a recipe is known.
        HubError: the Hub refuses, cannot be reached, or sends something else than it should.
        InvalidAdaptorError: the files are damaged or not ours.
        WrongBaseError: the adaptor was made for another base.
        FairAdaptorError: the weights are quantised or not in memory, or the adaptor is already fused into them.
    """
    if missing := [part for part in ("text_encoder", "unet") if getattr(pipe, part, None) is None]:
        raise WrongBaseError(f"{type(pipe).__name__} has no {' or '.join(missing)}; a Stable Diffusion pipeline has")
    folder = resolve(
        name if name is not None else default_for(pipe).name,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        token=token,
    )
    files = read_adaptor(folder)
    strength = _checked(files.config["default_weight"] if weight is None else weight)
    layers = _match(pipe, files)
    with _LOCK:
        return _put_in(pipe, files, layers, strength)


def _put_in(pipe: Any, files: AdaptorFiles, layers: "Pairs", strength: float) -> "FairAdaptor":
    identity = files.identity
    if any(identity in _CHANGED[module].fused for module, _, _ in layers if module in _CHANGED):
        raise FairAdaptorError(
            f"the adaptor {files.config['name']!r} is fused into this pipeline; load the base afresh to change it"
        )
    tokens = files.tokens.get("text_encoder")
    handle = next((known for known in _HANDLES if known._is_of(identity, layers, pipe)), None)
    if handle is None:
        handle = FairAdaptor(files.config, identity, layers, strength, pipe, tokens)
        _HANDLES.add(handle)
    else:
        handle._weight = handle._apply(strength)
        handle._state = "enabled"
    return handle


@dataclass
class _Layer:
    """One module's original weight, the low-rank changes in force by adaptor, and the adaptors that are permanent."""

    original: "Tensor"
    changes: "dict[str, tuple[float, Tensor, Tensor]]" = field(default_factory=dict)
    fused: frozenset[str] = frozenset()


_CHANGED: "weakref.WeakKeyDictionary[Target, _Layer]" = weakref.WeakKeyDictionary()
"""What every changed module was: one truth for all pipelines that share it."""

_HANDLES: "weakref.WeakSet[FairAdaptor]" = weakref.WeakSet()
"""All handles in use, so that an adaptor that is loaded again has one handle."""

_LOCK = threading.RLock()
"""Held by whoever changes weights: two threads may load into pipelines that share modules."""


_P = ParamSpec("_P")
_T = TypeVar("_T")


def _exclusive(method: Callable[_P, _T]) -> Callable[_P, _T]:
    @wraps(method)
    def locked(*arguments: _P.args, **named: _P.kwargs) -> _T:
        with _LOCK:
            return method(*arguments, **named)

    return locked


class FairAdaptor:
    """Handle of a loaded adaptor. As a context manager it unloads at the end of the block, unless fused in it.

    Attributes:
        info: the adaptor's ``fair_adaptor.json``.
    """

    def __init__(
        self,
        info: dict[str, Any],
        identity: str,
        layers: "Pairs",
        weight: float,
        pipe: Any = None,
        tokens: "Tensor | None" = None,
    ):
        self.info = info
        self._pipe = weakref.ref(pipe) if tokens is not None else None
        self._tokens = tokens
        self._identity = identity
        self._layers = layers
        self._state: Literal["enabled", "disabled", "unloaded", "fused"] = "enabled"
        self._weight = self._apply(weight)

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

    @_exclusive
    def set_weight(self, weight: float) -> None:
        """Set the strength. While disabled it is only noted."""
        weight = _checked(weight)
        self._check_loaded()
        self._weight = self._apply(weight) if self.enabled else weight

    @_exclusive
    def disable(self) -> None:
        """Take the adaptor out of force: the weights are the original ones, bit for bit, if no other is loaded."""
        self._check_loaded()
        self._apply(0.0)
        self._state = "disabled"

    @_exclusive
    def enable(self) -> None:
        """Put the adaptor into force again."""
        self._check_loaded()
        self._apply(self._weight)
        self._state = "enabled"

    @_exclusive
    def unload(self) -> None:
        """Take the adaptor out for good. Unloading twice is no error, unloading what is fused is."""
        if self._state != "unloaded":
            self._check_loaded()
            self._apply(0.0)
            self._close("unloaded")

    @_exclusive
    def fuse(self) -> None:
        """Make this adaptor a permanent part of the weights. Other adaptors stay as they are and can be taken out.

        It cannot be undone: the original weights are given up, and their memory too if no other adaptor is loaded.
        """
        self._check_loaded()
        if not self.enabled:
            raise FairAdaptorError(f"the adaptor {self.info['name']!r} is disabled; enable it before fusing it")
        if self._tokens is not None:
            raise FairAdaptorError(f"the adaptor {self.info['name']!r} has soft tokens, which are no part of a weight")
        fused = []
        for module, _, _ in self._layers:
            record = _CHANGED.get(module)
            if record is None:  # its weight is 0: there is nothing to make permanent
                continue
            others = {name: change for name, change in record.changes.items() if name != self._identity}
            mine = {name: change for name, change in record.changes.items() if name == self._identity}
            # Not rounded to the module's dtype while others are on top, so that the sum stays what it is.
            original = _total(_Layer(record.original, mine), "cpu") if others else record.original.new_empty(0)
            fused.append((module, _Layer(original, others, record.fused | mine.keys())))
        for module, new in fused:
            _CHANGED[module] = new
        self._close("fused")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.loaded:
            self.unload()

    def __repr__(self) -> str:
        return f"FairAdaptor({self.info['name']!r}, weight={self._weight:g}, {self._state})"

    def _is_of(self, identity: str, layers: "Pairs", pipe: Any) -> bool:
        """Tell whether this handle has an adaptor in these modules and, if there are soft tokens, this pipeline."""
        mine, theirs = ([module for module, _, _ in pairs] for pairs in (self._layers, layers))
        return (
            self.loaded
            and self._identity == identity
            and len(mine) == len(theirs)
            and all(one is other for one, other in zip(mine, theirs, strict=True))
            and (self._pipe is None or self._pipe() is pipe)
        )

    def _check_loaded(self) -> None:
        if not self.loaded:
            remedy = "load the base afresh to undo it" if self._state == "fused" else "load it again"
            raise FairAdaptorError(f"the adaptor {self.info['name']!r} is {self._state}; {remedy}")

    def _close(self, state: Literal["unloaded", "fused"]) -> None:
        self._state = state
        self._layers = []

    def _apply(self, weight: float) -> float:
        """Set this adaptor's share in every layer and return it; on any error every weight is what it was."""
        problems = [
            problem for module, _, _ in self._layers if (problem := _obstacle(module) or _foreign_change(module))
        ]
        if problems:
            raise FairAdaptorError(f"{self.info['name']!r} cannot be changed: the model {problems[0]}")
        records = []
        try:
            for module, down, up in self._layers:
                record = _with_change(module, self._identity, (weight, down, up) if weight else None)
                records.append((module, record))
                _write(record, module)
                if not is_finite(module.weight):
                    raise FairAdaptorError(
                        f"with {self.info['name']!r} a weight would not be finite: lower its weight"
                    )
        except BaseException:
            for module, record in records:
                _write(_CHANGED.get(module) or _Layer(record.original), module)
            raise
        for module, record in records:
            if record.changes or record.fused:
                _CHANGED[module] = record
            else:
                _CHANGED.pop(module, None)
        if self._tokens is not None and self._pipe is not None and (pipe := self._pipe()) is not None:
            set_prefix(pipe, self._identity, (weight, self._tokens) if weight else None)
        return weight


def _with_change(module: "Target", identity: str, change: "tuple[float, Tensor, Tensor] | None") -> _Layer:
    """Return the module's record with one adaptor's change set, or taken out if None."""
    known = _CHANGED.get(module)
    changes = dict(known.changes) if known else {}
    changes.pop(identity, None)
    # What is permanent and has nothing on top keeps no copy: the weight itself is the original.
    original = known.original if known and known.changes else module.weight.detach().to("cpu", copy=True)
    return _Layer(original, changes | ({identity: change} if change else {}), known.fused if known else frozenset())


def _write(record: _Layer, module: "Target") -> None:
    """Set a module's weight to ``_total``, without a second copy of it if it is float32 already."""
    import torch

    weight = module.weight.data
    if weight.dtype != torch.float32 or not weight.is_contiguous():
        weight.copy_(_total(record, weight.device))
        return
    weight.copy_(record.original)
    for scale, *factors in _summands(record, weight.device):
        weight.flatten(1).addmm_(*factors, alpha=scale)


def _total(record: _Layer, device: "torch.device | str") -> "Tensor":
    """Return W₀ + Σ w·BA, summed in float32; W₀ itself, in its own dtype, if nothing is added."""
    import torch

    total = record.original.to(device)
    for weight, *factors in _summands(record, device):
        total = torch.addmm(total.float().flatten(1), *factors, alpha=weight).view_as(total)
    return total


def _summands(record: _Layer, device: "torch.device | str") -> "Iterator[tuple[float, Tensor, Tensor]]":
    """Yield each change's strength, B and A, as matrices in float32, in an order that loading does not change."""
    for identity in sorted(record.changes):
        weight, down, up = record.changes[identity]
        down, up = (factor.to(device).float().flatten(1) for factor in (down, up))
        yield weight, up, down


def _match(pipe: Any, files: AdaptorFiles) -> "Pairs":
    """Pair each module with its two factors; soft tokens are checked to fit.

    Raises:
        WrongBaseError: a module is missing or of another shape.
        FairAdaptorError: a module cannot be changed in place.
    """
    tensors, config = files.tensors, files.config
    modules = {name: module for part in PARTS for name, module in linear_modules(pipe, part).items()}
    layers, problems = [], []
    for key in sorted(key for key in tensors if key.endswith(".lora_A.weight")):
        stem = key.removesuffix(".lora_A.weight")
        down, up = tensors[key], tensors[stem + ".lora_B.weight"]
        target = modules.get(stem)
        if target is None:
            problems.append(f"no module {stem}")
            continue
        if obstacle := _obstacle(target):
            raise FairAdaptorError(f"{config['name']!r} cannot be loaded: {stem} {obstacle}. Nothing was changed")
        shape = tuple(target.weight.shape)
        if (up.shape[0], down.shape[1]) != shape[:2] or down.ndim != len(shape):
            problems.append(f"{stem} is {list(shape)}, the adaptor's {[up.shape[0], down.shape[1]]}")
        elif len(shape) == 4 and (shape[2:] != down.shape[2:] or up.shape[2:] != (1, 1)):
            problems.append(f"{stem} is a convolution of another kernel")
        else:
            layers.append((target, down, up))
    if files.tokens and getattr(pipe, "text_encoder_2", None) is not None:
        problems.append("it has two text encoders, the adaptor tokens for one")
    for part, rows in files.tokens.items():
        room = getattr(pipe, part).config.max_position_embeddings - 2
        width = getattr(pipe, part).config.hidden_size
        if rows.shape[1] != width or len(rows) > room:
            problems.append(f"{part} takes up to {room} tokens of {width}, the adaptor has {list(rows.shape)}")
    signature = shape_signature(pipe)
    trained = {"text_encoder" if part == "tokens" else part for part in config["trained_parts"]}
    parts = [part for part in sorted(trained) if config["base_signature"].get(part) != signature.get(part)]
    if problems or parts:
        details = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        origin = pipe.config.get("_name_or_path") or type(pipe).__name__
        raise WrongBaseError(
            f"the adaptor {config['name']!r} was made for {config['base_model']}, and this pipeline ({origin}) is"
            f" another model: {details or 'the shapes of its ' + ' and '.join(parts) + ' differ'}. Nothing was changed"
        )
    return layers


def _obstacle(module: "Target") -> str | None:
    """Say why a module's weight cannot be changed in place; None if it can."""
    import torch

    weight = module.weight
    if weight.is_meta:
        return (
            "is not in memory, as enable_sequential_cpu_offload leaves it. Use enable_model_cpu_offload, or first turn"
            " it off with pipe.remove_all_hooks()"
        )
    if type(weight) is not torch.nn.Parameter or weight.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"is quantised or sharded ({type(weight).__name__}, {weight.dtype}). Load the base in a floating dtype"
    return None


def _foreign_change(module: "Target") -> str | None:
    """Say that something else has changed a weight since an adaptor was put in; rounding to another dtype is not.

    Else it would be lost when the adaptor is taken out, and what put it there might later take it out once more.
    """
    known = _CHANGED.get(module)
    if known is None or not known.changes:
        return None
    weight = module.weight.detach()
    expected = _total(known, weight.device).to(weight.dtype)
    difference = (weight.float() - expected.float()).abs()
    if bool((difference <= 0.008 * expected.float().abs() + 1e-6).all()):
        return None
    return "was changed by something else (another fused LoRA?) while the adaptor is in it. Undo that first"


def _checked(weight: float) -> float:
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not abs(weight) < 100:
        raise FairAdaptorError(f"weight is {weight!r}; it must be a finite number, usually between 0 and 1")
    return float(weight)
