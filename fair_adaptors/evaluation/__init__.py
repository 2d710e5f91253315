"""Measuring what a text-to-image model shows: ``evaluate`` an ``Evaluation``.

The public names are looked up on first use, so that importing the package loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fair_adaptors.vision.types import Classifier as Classifier
    from fair_adaptors.vision.types import Encoder as Encoder

    from .run import evaluate as evaluate
    from .spec import Evaluation as Evaluation
    from .spec import Target as Target

_HOME_OF = {
    "Classifier": "fair_adaptors.vision.types",
    "Encoder": "fair_adaptors.vision.types",
    "Evaluation": "fair_adaptors.evaluation.spec",
    "Target": "fair_adaptors.evaluation.spec",
    "evaluate": "fair_adaptors.evaluation.run",
}

__all__ = ["Classifier", "Encoder", "Evaluation", "Target", "evaluate"]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)
