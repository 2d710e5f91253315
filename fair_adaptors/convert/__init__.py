"""Between this package's adaptors and the files of other programs: ``convert`` reads theirs, ``export`` writes them.

Both names are looked up on first use, so that importing the package loads no torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .exporting import export as export
    from .importing import convert as convert

__all__ = ["convert", "export"]  # noqa: F822 (ruff does not follow __getattr__)


def __getattr__(name: str) -> Any:
    if name == "convert":
        from .importing import convert

        return convert
    if name == "export":
        from .exporting import export

        return export
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
