"""``load_fair_adaptor``: the only file that touches a pipeline.

An adaptor is added to the weights themselves, W = W₀ + Σᵢ wᵢ·BᵢAᵢ, in place, and W₀ is kept: generation costs what it
costs without, any sampler or pipeline that shares the modules sees the same model, and unloading is exact.
"""

import weakref
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .errors import FairAdaptorError, WrongBaseError
from .formats import PARTS, module_name, read_adaptor, shape_signature
from .registry import default_for
from .weights import resolve

if TYPE_CHECKING:
    from torch import Tensor, nn

    Target = nn.Linear | nn.Conv2d


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
            up. Loading one again only sets its weight.
        revision, cache_dir, local_files_only, token: for the Hub, as in ``from_pretrained``.

    Returns:
        A handle to change the strength, to switch off and on, and to unload exactly.

    Raises:
        UnknownAdaptorError: nothing goes by that name.
        NotPublishedError: only a recipe is known.
        InvalidAdaptorError: the files are damaged or not ours.
        WrongBaseError: the adaptor was made for another base.
    """
    missing = [part for part in PARTS if getattr(pipe, part, None) is None]
    if missing:
        raise WrongBaseError(
            f"{type(pipe).__name__} has no {' and no '.join(missing)}; a Stable Diffusion pipeline has"
        )
    folder = resolve(
        name if name is not None else default_for(pipe).name,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        token=token,
    )
    files = read_adaptor(folder)
    layers = _match(pipe, files.tensors, files.config)
    strength = _checked(files.config["default_weight"] if weight is None else weight)
    identity = files.config["files"]["pytorch_lora_weights.safetensors"]["sha256"]
    return FairAdaptor(files.config, identity, layers, strength)


@dataclass
class _Layer:
    """One module's original weight, and the low-rank changes that are in force, by adaptor."""

    original: "Tensor"
    changes: "dict[str, tuple[float, Tensor, Tensor]]" = field(default_factory=dict)


_CHANGED: "weakref.WeakKeyDictionary[Target, _Layer]" = weakref.WeakKeyDictionary()
"""What every changed module was: one truth for all pipelines that share it."""


class FairAdaptor:
    """Handle of a loaded adaptor. As a context manager it unloads at the end of the block."""

    def __init__(
        self,
        info: dict[str, Any],
        identity: str,
        layers: "list[tuple[Target, Tensor, Tensor]]",
        weight: float,
    ):
        self.info = info
        self._identity = identity
        self._layers: list[tuple[Target, Tensor, Tensor]] | None = layers
        self._weight = weight
        self._enabled = True
        self._apply(weight)

    @property
    def weight(self) -> float:
        """Strength; kept while disabled."""
        return self._weight

    @property
    def enabled(self) -> bool:
        """Whether the adaptor is in force."""
        return self._enabled and self._layers is not None

    def set_weight(self, weight: float) -> None:
        """Set the strength. While disabled it is only noted."""
        weight = _checked(weight)
        if self._enabled:
            self._apply(weight)
        self._weight = weight

    def disable(self) -> None:
        """Take the adaptor out of force: the weights are the original ones, bit for bit, if no other is loaded."""
        self._apply(None)
        self._enabled = False

    def enable(self) -> None:
        """Put the adaptor into force again."""
        self._apply(self._weight)
        self._enabled = True

    def unload(self) -> None:
        """Take the adaptor out for good. Unloading twice is no error."""
        if self._layers is not None:
            self._apply(None)
            self._layers = None

    def fuse(self) -> None:
        """Make the model as it now is the new original, with every adaptor in it, and free the memory of the old one.

        No handle on these modules can undo anything after that.
        """
        for module, _, _ in self._open():
            _CHANGED.pop(module, None)
        self._layers = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unload()

    def __repr__(self) -> str:
        state = "unloaded" if self._layers is None else "enabled" if self._enabled else "disabled"
        return f"FairAdaptor({self.info['name']!r}, weight={self._weight:g}, {state})"

    def _open(self) -> "list[tuple[Target, Tensor, Tensor]]":
        if self._layers is None:
            raise FairAdaptorError(f"the adaptor {self.info['name']!r} is unloaded or fused; load it again")
        return self._layers

    def _apply(self, weight: float | None) -> None:
        """Set this adaptor's share in every layer; None takes it out. Nothing is written before all of it is made."""
        layers = self._open()
        records = []
        for module, down, up in layers:
            known = _CHANGED.get(module)
            record = (
                _Layer(known.original, dict(known.changes)) if known else _Layer(module.weight.detach().cpu().clone())
            )
            record.changes.pop(self._identity, None)
            if weight:
                record.changes[self._identity] = (weight, down, up)
            records.append((module, record, _merged(module, record)))
        for module, record, merged in records:
            module.weight.data.copy_(merged)
            if record.changes:
                _CHANGED[module] = record
            else:
                _CHANGED.pop(module, None)


def _merged(module: "Target", record: _Layer) -> "Tensor":
    """Return W₀ + Σ w·BA, summed in float32, on the module's device in its dtype; W₀ itself if nothing is added."""
    device, dtype = module.weight.device, module.weight.dtype
    if not record.changes:
        return record.original.to(device, dtype)
    total = record.original.to(device).float()
    for identity in sorted(record.changes):  # the order of loading must not change a bit
        weight, down, up = record.changes[identity]
        delta = up.to(device).float().flatten(1) @ down.to(device).float().flatten(1)
        total = total + weight * delta.view_as(total)
    return total.to(dtype)


def _match(pipe: Any, tensors: "dict[str, Tensor]", config: dict[str, Any]) -> "list[tuple[Target, Tensor, Tensor]]":
    """Pair each module with its two factors.

    Raises:
        WrongBaseError: a module is missing, of another shape, or cannot be changed in place.
    """
    from torch import nn

    modules: dict[str, Target] = {}
    for part in PARTS:
        for name, module in getattr(pipe, part).named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d) and ".lora_" not in name:
                modules[module_name(part, name).replace(".base_layer", "")] = module
    layers, problems = [], []
    for key in sorted(key for key in tensors if key.endswith(".lora_A.weight")):
        stem = key.removesuffix(".lora_A.weight")
        down, up = tensors[key], tensors[stem + ".lora_B.weight"]
        target = modules.get(stem)
        if target is None:
            problems.append(f"no module {stem}")
            continue
        weight = target.weight
        if (up.shape[0], down.shape[1]) != tuple(weight.shape[:2]) or down.ndim != weight.ndim:
            problems.append(f"{stem} is {list(weight.shape)}, the adaptor's {[up.shape[0], down.shape[1]]}")
        elif weight.ndim == 4 and (weight.shape[2:] != down.shape[2:] or up.shape[2:] != (1, 1)):
            problems.append(f"{stem} is a convolution of another kernel")
        elif weight.is_meta or not weight.is_floating_point():
            problems.append(f"{stem} is {'not in memory' if weight.is_meta else f'quantised ({weight.dtype})'}")
        else:
            layers.append((target, down, up))
    signature = shape_signature(pipe)
    parts = [part for part in config["trained_parts"] if config["base_signature"].get(part) != signature[part]]
    if problems or parts or not layers:
        details = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        origin = pipe.config.get("_name_or_path") or type(pipe).__name__
        raise WrongBaseError(
            f"the adaptor {config['name']!r} was made for {config['base_model']}, and this pipeline ({origin}) is"
            f" another model: {details or 'the shapes of its ' + ' and '.join(parts) + ' differ'}. Nothing was changed"
        )
    return layers


def _checked(weight: float) -> float:
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not abs(weight) < 100:
        raise FairAdaptorError(f"weight is {weight!r}; it must be a finite number, usually between 0 and 1")
    return float(weight)
