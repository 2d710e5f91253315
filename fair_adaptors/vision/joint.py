"""One classifier of several, as joint targets need: gender of one model, race of another; and who shares a part."""

from collections.abc import Sequence

from fair_adaptors.errors import ConfigError

from .seeing import merged
from .types import Classifier

_AND = "+"


def join(classifiers: Sequence[Classifier]) -> Classifier:
    """Return one classifier that knows the attributes of all; of an attribute that several know, the first one's.

    Its identity is made of theirs, see ``shared_classifier``.

    Raises:
        ConfigError: one of them adds no attribute.
    """
    classes: dict[str, tuple[str, ...]] = {}
    for one in classifiers:
        new = {name: each for name, each in one.classes.items() if name not in classes}
        if not new:
            raise ConfigError(f"{one.name} adds no attribute: what comes before it knows {', '.join(classes)}")
        classes |= new
    parts = tuple(part for one in classifiers for part in one.parts or (one,))
    return Classifier(
        _AND.join(one.name for one in classifiers),
        _AND.join(one.identity for one in classifiers),
        classes,
        lambda images: merged(parts, lambda one: one.logits(images)),
        parts=parts,
    )


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
