"""The embedded base: a small drawn world with a known bias. ``load_sandbox_pipeline`` is looked up on first use."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pipeline import load_sandbox_pipeline as load_sandbox_pipeline

__all__ = ["load_sandbox_pipeline"]


def __getattr__(name: str) -> Any:
    if name == "load_sandbox_pipeline":
        from .pipeline import load_sandbox_pipeline

        return load_sandbox_pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
