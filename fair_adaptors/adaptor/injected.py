"""Low-rank changes beside the weights: a layer's output y becomes y + w·B(Ax), and its weights are not touched.

That works where weights cannot be written, be they quantised or out of memory: only a layer's input and output count.
It computes what peft's layers do, but in a hook, and the layer stays in its place. LoRAs of diffusers can come, be
fused and go beside it; as one of peft's adapters it would be switched off by the next one that is loaded.
"""

from typing import TYPE_CHECKING, Any

from fair_adaptors.errors import FairAdaptorError

from .fused import SOURCES, attentions_of, fused_projections, uses_fused
from .patches import Change

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .patches import Layer, Target


class _Beside:
    """What a layer calls with its input and output; a copy of the layer has a copy of it.

    Attributes:
        identity: of the change.
        strength: w.
    """

    def __init__(self, identity: str, strength: float, factors: "tuple[Tensor, Tensor]"):
        self.identity, self.strength = identity, strength
        self._given = self._cast = factors

    def __call__(self, module: "nn.Module", arguments: tuple[Any, ...], output: "Tensor") -> "Tensor":
        import torch
        from torch.nn import functional

        if not self.strength:
            return output
        down, up = self._cast
        if down.dtype != output.dtype or down.device != output.device:
            down, up = self._cast = self._given[0].to(output), self._given[1].to(output)
        given = arguments[0].to(output)
        if isinstance(module, torch.nn.Conv2d):
            inner = functional.conv2d(given, down, None, module.stride, module.padding, module.dilation)
            return output + self.strength * functional.conv2d(inner, up)
        return output + self.strength * functional.linear(functional.linear(given, down), up)


def misfit_beside(module: "Target", down: "Tensor", up: "Tensor") -> str | None:
    """Say why a change cannot stand beside a module; None if it can."""
    import torch

    if isinstance(module, torch.nn.Conv2d) and (module.groups > 1 or module.padding_mode != "zeros"):
        return f"is a convolution in {module.groups} groups, padded by {module.padding_mode}"
    norms = [float(torch.linalg.vector_norm(factor, dtype=torch.float32)) for factor in (down, up)]
    return None if norms[0] * norms[1] * 100 < 3e38 else "would not return finite values"


def set_beside(change: Change, weight: float) -> None:
    """Put the ``beside`` layers of a change into force with a strength; with 0 they return what they would alone."""
    if not change.beside:
        return
    added = False
    for module, down, up in (*change.beside, *_fused_layers(change)):
        hook = next((hook for hook in module._forward_hooks.values() if _is_of(hook, change.identity)), None)
        if isinstance(hook, _Beside):
            hook.strength = weight
        elif weight:
            module.register_forward_hook(_Beside(change.identity, weight, (down, up)))
            added = True
    if added:
        for attention in attentions_of(change.models, {module for module, _, _ in change.beside}):
            if not any(_is_of(hook, change.identity) for hook in attention._forward_pre_hooks.values()):
                attention.register_forward_pre_hook(_Guard(change.identity, change.name))
        _forget_compiled()


def take_from_beside(change: Change) -> None:
    """Take a change out of its ``beside`` layers."""
    if not change.beside:
        return
    for module in {module for model in (*change.models, *change.modules) for module in model.modules()}:
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if _is_of(hook, change.identity)]:
                del hooks[key]
    _forget_compiled()


class _Guard:
    """What an attention layer calls first, so that projections fused after an adaptor was injected do not hide it."""

    def __init__(self, identity: str, name: str):
        self.identity, self.name = identity, name

    def __call__(self, attention: "nn.Module", arguments: tuple[Any, ...]) -> None:
        if uses_fused(attention):
            fused = [attention._modules[name] for name in SOURCES if attention._modules.get(name) is not None]
            hooks = [hook for layer in fused if layer is not None for hook in layer._forward_hooks.values()]
            if not any(_is_of(hook, self.identity) for hook in hooks):
                raise FairAdaptorError(
                    f"fuse_qkv_projections was called after {self.name!r} was loaded, so the fused layers lack it."
                    " Load it again with `inject=True`"
                )


def _is_of(hook: object, identity: str) -> bool:
    return isinstance(hook, _Beside | _Guard) and hook.identity == identity


def _fused_layers(change: Change) -> "list[Layer]":
    """Return the fused projections of the ``beside`` layers, each with the factors of its sources in one pair."""
    import torch

    factors = {module: (down, up) for module, down, up in change.beside}
    found: list[Layer] = []
    for projection in fused_projections(change.models, factors.keys()):
        downs, ups = [], []
        for source in projection.sources:
            down, up = factors.get(source, (torch.zeros(0, source.in_features), torch.zeros(source.out_features, 0)))
            downs.append(down)
            ups.append(up)
        found.append((projection.layer, torch.cat(downs), torch.block_diag(*ups)))
    return found


def _forget_compiled() -> None:
    """Let what was compiled be compiled anew: compiled code does not see that a layer has another hook."""
    import torch

    torch.compiler.reset()
