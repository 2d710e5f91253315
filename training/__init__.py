"""Training fair adaptors (installed as ``fair_adaptors.training``): ``train``, ``TrainConfig``, ``get_recipe``."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import TrainConfig
    from .recipes import get_recipe
    from .run.train import train

__all__ = ["TrainConfig", "get_recipe", "train"]

_PLACES = {"TrainConfig": ".config", "get_recipe": ".recipes", "train": ".run.train"}


def __getattr__(name: str) -> Any:
    """Import what is asked for, and only then: the package itself loads no torch."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name], __name__), name)
