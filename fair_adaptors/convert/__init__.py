"""Between this package's adaptors and the files of other programs: ``convert`` reads theirs, ``export`` writes them.

Both names are looked up on first use, so that importing the package loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .exporting import export as export
    from .importing import convert as convert

_HOME_OF = {"convert": "importing", "export": "exporting"}

__all__ = ["convert", "export"]  # noqa: F822 (ruff does not follow __getattr__)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
