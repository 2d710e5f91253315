"""Adaptors that make text-to-image models show people fairly: `load_fair_adaptor(pipe)`.

The public names are looked up on first use, so that importing the package loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fair_adaptors.adaptor.handle import FairAdaptor as FairAdaptor
    from fair_adaptors.adaptor.registry import AdaptorInfo as AdaptorInfo
    from fair_adaptors.adaptor.registry import list_adaptors as list_adaptors
    from fair_adaptors.hub.fetch import pull as pull
    from fair_adaptors.hub.find import search as search
    from fair_adaptors.hub.publish import push as push
    from fair_adaptors.training.start import train as train

    from .audit import EvaluationResult as EvaluationResult
    from .audit import evaluate as evaluate
    from .errors import ArchiveError as ArchiveError
    from .errors import CheckpointError as CheckpointError
    from .errors import ConfigError as ConfigError
    from .errors import FairAdaptorError as FairAdaptorError
    from .errors import HubError as HubError
    from .errors import HubUnreachableError as HubUnreachableError
    from .errors import InvalidAdaptorError as InvalidAdaptorError
    from .errors import MissingExtraError as MissingExtraError
    from .errors import NotPublishedError as NotPublishedError
    from .errors import TrainingError as TrainingError
    from .errors import UnknownAdaptorError as UnknownAdaptorError
    from .errors import UnsupportedSchedulerError as UnsupportedSchedulerError
    from .errors import WrongBaseError as WrongBaseError
    from .load import load_fair_adaptor as load_fair_adaptor
    from .making import make as make

__version__ = "0.1.0"

_HOME_OF = {
    "load_fair_adaptor": "load",
    "FairAdaptor": "adaptor.handle",
    "evaluate": "audit",
    "EvaluationResult": "audit",
    "make": "making",
    "train": "training.start",
    "pull": "hub.fetch",
    "push": "hub.publish",
    "search": "hub.find",
    "AdaptorInfo": "adaptor.registry",
    "list_adaptors": "adaptor.registry",
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
    "ArchiveError": "errors",
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
