"""One classifier of several: gender of one model, race of another, or what two say of both; and who shares a part."""

from collections.abc import Sequence

from fair_adaptors.errors import ConfigError

from .seeing import merged
from .types import Classifier

_AND = "+"


def join(classifiers: Sequence[Classifier]) -> Classifier:
    """Return one classifier that knows the attributes of all, see ``merged``.

    Its identity is made of theirs, see ``shared_classifier``.

    Raises:
        ConfigError: one of them comes twice.
    """
    classes: dict[str, tuple[str, ...]] = {}
    for number, one in enumerate(classifiers):
        if one.identity in [other.identity for other in classifiers[:number]]:
            raise ConfigError(f"{one.name} is given twice")
        classes = {**one.classes, **classes}
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
        f"the adaptor was trained against {evaluation.name}, so its figures by that classifier look better than they"
        " are. Measure with another one, trained on other data or of another kind"
    )
