"""Low-rank changes beside the weights: a layer's output y becomes y + w·B(Ax), and its weights are not touched.

That works where weights cannot be written, be they quantised or out of memory: only a layer's input and output count.
It computes what peft's layers do, but in a hook, and the layer stays in its place. LoRAs of diffusers can come, be
fused and go beside it; as one of peft's adapters it would be switched off by the next one that is loaded.
"""

from typing import TYPE_CHECKING, Any

from .patches import Change

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .patches import Target


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
    added = False
    for module, down, up in change.beside:
        hook = next((hook for _, hook in _hooks(module, change.identity)), None)
        if hook is not None:
            hook.strength = weight
        elif weight:
            module.register_forward_hook(_Beside(change.identity, weight, (down, up)))
            added = True
    if added:
        _forget_compiled()


def take_from_beside(change: Change) -> None:
    """Take a change out of its ``beside`` layers."""
    for module, _, _ in change.beside:
        for key, _ in _hooks(module, change.identity):
            del module._forward_hooks[key]
    if change.beside:
        _forget_compiled()


def _hooks(module: "Target", identity: str) -> list[tuple[int, _Beside]]:
    hooks = module._forward_hooks.items()
    return [(key, hook) for key, hook in hooks if isinstance(hook, _Beside) and hook.identity == identity]


def _forget_compiled() -> None:
    """Let what was compiled be compiled anew: compiled code does not see that a layer has another hook."""
    import torch

    torch.compiler.reset()
