"""Several attributes in one row of logits: which columns belong to which class, in a classifier's labels and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fair_adaptors.attributes import labels as known_labels
from fair_adaptors.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Head:
    """An attribute's part of the logits.

    Attributes:
        classes: names, in index order.
        columns: of each class, its columns; of several the probabilities are added.
    """

    classes: tuple[str, ...]
    columns: tuple[tuple[int, ...], ...]


def split_logits(logits: "Tensor", heads: Mapping[str, Head]) -> "dict[str, Tensor]":
    """Return each attribute's log-probabilities [N, K] from logits [N, C]; columns of no head count for nothing."""
    import torch

    found = {}
    for attribute, head in heads.items():
        every = [column for columns in head.columns for column in columns]
        total = logits[:, every].logsumexp(1)
        found[attribute] = torch.stack([logits[:, columns].logsumexp(1) - total for columns in head.columns], 1)
    return found


def class_of(attribute: str, label: str) -> str | None:
    """Return the class of gender, race or age that a label belongs to, however it is written; None if to none."""
    plain = label.lower().replace("_", " ").strip()
    return next((name for name, known in known_labels()[attribute].items() if plain in known), None)


def write_labels(classes: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a label for each column of a classifier of several attributes, such as ``gender: female``."""
    return [f"{attribute}: {name}" for attribute, names in classes.items() for name in names]


def consecutive(classes: Mapping[str, Sequence[str]]) -> dict[str, Head]:
    """Return the heads of logits that hold the attributes one after the other, a column for each class."""
    heads, start = {}, 0
    for attribute, names in classes.items():
        heads[attribute] = Head(tuple(names), tuple((start + index,) for index in range(len(names))))
        start += len(names)
    return heads


def head_of_labels(attribute: str, labels: Sequence[str], columns: Sequence[int]) -> Head | None:
    """Return the head of labels of gender, race or age, with the table's classes; None if they are others.

    Args:
        labels: each is of a class, and of every class there is one.
        columns: of each label.
    """
    groups = known_labels()[attribute]
    found = [class_of(attribute, label) for label in labels]
    places = tuple(tuple(column for column, one in zip(columns, found, strict=True) if one == name) for name in groups)
    return Head(tuple(groups), places) if None not in found and all(places) else None


def read_labels(source: str, labels: Sequence[str]) -> dict[str, Head]:
    """Tell the attributes that a classifier's labels stand for.

    Args:
        source: its name, for the error.
        labels: of each column: all of them labels of one attribute of the table, or as of ``write_labels``.

    Raises:
        ConfigError: neither.
    """
    named: dict[str, list[str]] = {}
    for attribute, colon, name in (label.partition(": ") for label in labels):
        if colon:
            named.setdefault(attribute, []).append(name)
    if write_labels(named) == list(labels) and all(len(names) > 1 for names in named.values()):
        return consecutive(named)
    for attribute in known_labels():
        if head := head_of_labels(attribute, labels, range(len(labels))):
            return {attribute: head}
    raise ConfigError(
        f"{source} predicts {', '.join(labels[:12])}, which are not the classes of {', '.join(known_labels())}. Write"
        " a fair_adaptors.vision.types.Classifier for it and name it MODULE:OBJECT"
    )
