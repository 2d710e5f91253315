"""Image classifiers of transformers that tell people's attributes."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .heads import read_labels, split_logits
from .pretrained import identity, loaded, name, preparation
from .types import FACE_MARGIN, MARGIN, Classifier, margin_of

if TYPE_CHECKING:
    from torch import Tensor


def image_classifier(source: str) -> Classifier:
    """Return a transformers image classifier of one attribute or several.

    Args:
        source: folder or Hub id, such as of a classifier trained on FairFace: its labels are classes of gender, race
            or age, or parts of them, whose probabilities are added; or a folder of ``train-classifier``.

    Raises:
        ConfigError: it cannot be loaded, or its labels belong to no known attribute.
    """
    model, prepare, how = load_image_model(source)
    labels = [str(model.config.id2label[index]) for index in range(model.config.num_labels)]
    heads = read_labels(source, labels)

    def logits(images: "Tensor") -> "dict[str, Tensor]":
        return split_logits(model(pixel_values=prepare(images)).logits, heads)

    classes = {attribute: head.classes for attribute, head in heads.items()}
    margin = margin_of(getattr(model.config, FACE_MARGIN, MARGIN), source)
    return Classifier(name("transformers", source), identity(model, how, str(labels)), classes, logits, margin)


def load_image_model(source: str, **head: Any) -> "tuple[Any, Callable[[Tensor], Tensor], str]":
    """Return an image classifier of transformers, frozen, what makes its input of images, and that in words.

    Args:
        head: settings of another head than its own, as ``from_pretrained`` takes them.

    Raises:
        ConfigError: it cannot be loaded.
    """
    from transformers import AutoModelForImageClassification

    model = loaded(AutoModelForImageClassification, source, **head)
    return model, *preparation(source, model.device)
