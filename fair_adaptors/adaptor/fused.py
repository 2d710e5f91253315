"""Projections that diffusers fused (``fuse_qkv_projections``): they are copies of weights that an adaptor changes."""

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

SOURCES: Mapping[str, tuple[str, ...]] = {"to_qkv": ("to_q", "to_k", "to_v"), "to_kv": ("to_k", "to_v")}
"""By the name of a fused projection, those of what it is made of."""


@dataclass(frozen=True, eq=False)
class FusedProjection:
    """One linear layer that stands for several of an attention layer.

    Attributes:
        attention: the layer that has it.
        layer: the fused one.
        sources: those that it was made from, which diffusers keeps, whether they are in use or not.
    """

    attention: "nn.Module"
    layer: "nn.Linear"
    sources: "tuple[nn.Linear, ...]"

    @property
    def in_use(self) -> bool:
        """Whether the attention layer calls it: diffusers leaves it where it is when it is not used any more."""
        return uses_fused(self.attention)

    def expected(self) -> "Tensor":
        """Return the sources' weights, one above the other: what its own should be."""
        import torch

        return torch.cat([source.weight.detach() for source in self.sources])

    def is_current(self) -> bool:
        """Tell whether it has the sources' weights."""
        import torch

        return torch.equal(self.layer.weight.detach(), self.expected())

    def renew(self) -> None:
        """Give it the sources' weights."""
        self.layer.weight.data.copy_(self.expected())


def fused_projections(models: "Collection[nn.Module]", modules: "Set[nn.Module]") -> list[FusedProjection]:
    """Return the fused projections in some models that were made from one of these modules."""
    found = []
    for attention in (module for model in models for module in model.modules()):
        children: dict[str, Any] = attention._modules
        for name in SOURCES:
            if (layer := children.get(name)) is not None:
                sources = tuple(_base(children[one]) for one in SOURCES[name])
                if not modules.isdisjoint(sources):
                    found.append(FusedProjection(attention, layer, sources))
    return found


def attentions_of(models: "Collection[nn.Module]", modules: "Collection[nn.Module]") -> "list[nn.Module]":
    """Return the attention layers in some models that have one of these modules as a projection to be fused."""
    names = {name for sources in SOURCES.values() for name in sources}
    return [
        module
        for model in models
        for module in model.modules()
        if any(_base(child) in modules for name, child in module._modules.items() if name in names)
    ]


def _base(module: Any) -> Any:
    """Return a module, or the one that a LoRA of peft is around."""
    return getattr(module, "base_layer", module)


def uses_fused(attention: Any) -> bool:
    """Tell whether an attention layer calls its fused projection."""
    return "Fused" in type(attention.processor).__name__
