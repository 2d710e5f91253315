"""Adaptors that make text-to-image models show people fairly: `load_fair_adaptor(pipe)`.

The public names are looked up on first use, so that importing the package loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fair_adaptors.errors import CheckpointError as CheckpointError
    from fair_adaptors.errors import ConfigError as ConfigError
    from fair_adaptors.errors import FairAdaptorError as FairAdaptorError
    from fair_adaptors.errors import HubError as HubError
    from fair_adaptors.errors import HubUnreachableError as HubUnreachableError
    from fair_adaptors.errors import InvalidAdaptorError as InvalidAdaptorError
    from fair_adaptors.errors import MissingExtraError as MissingExtraError
    from fair_adaptors.errors import NotPublishedError as NotPublishedError
    from fair_adaptors.errors import TrainingError as TrainingError
    from fair_adaptors.errors import UnknownAdaptorError as UnknownAdaptorError
    from fair_adaptors.errors import UnsupportedSchedulerError as UnsupportedSchedulerError
    from fair_adaptors.errors import WrongBaseError as WrongBaseError
    from fair_adaptors.load import FairAdaptor as FairAdaptor
    from fair_adaptors.load import load_fair_adaptor as load_fair_adaptor
    from fair_adaptors.registry import AdaptorInfo as AdaptorInfo
    from fair_adaptors.registry import list_adaptors as list_adaptors

__version__ = "0.1.0"

_HOME_OF = {
    "load_fair_adaptor": "load",
    "FairAdaptor": "load",
    "AdaptorInfo": "registry",
    "list_adaptors": "registry",
    "FairAdaptorError": "errors",
    "UnknownAdaptorError": "errors",
    "NotPublishedError": "errors",
    "WrongBaseError": "errors",
    "InvalidAdaptorError": "errors",
    "UnsupportedSchedulerError": "errors",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "MissingExtraError": "errors",
    "TrainingError": "errors",
    "HubError": "errors",
    "HubUnreachableError": "errors",
}

__all__ = ["__version__", *_HOME_OF]  # noqa: F822 (ruff does not follow __getattr__)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
