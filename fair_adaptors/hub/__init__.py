"""The Hub: publish adaptors, find them, and bring them here.

The public names are looked up on first use. No file is called as one of them, because a module takes the place of a
function of the same name as soon as it is imported.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .fetch import pull as pull
    from .find import search as search
    from .publish import push as push

_HOME_OF = {"push": "publish", "pull": "fetch", "search": "find"}

__all__ = ["pull", "push", "search"]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
