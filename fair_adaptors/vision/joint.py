"""One classifier of several, as joint targets need: gender of one model, race of another; and who shares a part."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fair_adaptors.errors import ConfigError

from .types import Classifier, Logits

if TYPE_CHECKING:
    from torch import Tensor

_AND = "+"


def join(classifiers: Sequence[Classifier]) -> Classifier:
    """Return one classifier that knows the attributes of all; of an attribute that several know, the first one's.

    Its identity is made of theirs, see ``shared_classifier``.

    Raises:
        ConfigError: one of them adds no attribute.
    """
    classes: dict[str, tuple[str, ...]] = {}
    taken: list[tuple[Classifier, list[str]]] = []
    for one in classifiers:
        new = [name for name in one.classes if name not in classes]
        if not new:
            raise ConfigError(f"{one.name} adds no attribute: what comes before it knows {', '.join(classes)}")
        classes |= {name: one.classes[name] for name in new}
        taken.append((one, new))

    def of_all(images: "Tensor") -> Logits:
        found: dict[str, Tensor] = {}
        for one, names in taken:
            logits = one.logits(images)
            found |= {name: logits[name] for name in names}
        return found

    name = _AND.join(one.name for one in classifiers)
    return Classifier(name, _AND.join(one.identity for one in classifiers), classes, of_all)


def shared_classifier(training_identity: str, evaluation: Classifier) -> str | None:
    """Return a warning if an evaluation measures with a classifier, or a part of one, that was trained against.

    Args:
        training_identity: identity of the classifier of the training.
        evaluation: what an evaluation measures with.
    """
    if not set(training_identity.split(_AND)) & set(evaluation.identity.split(_AND)):
        return None
    return (
        f"{evaluation.name} is what the adaptor was trained to please, so the figures look better than they are:"
        " measure with another classifier, trained on other data or of another kind"
    )
