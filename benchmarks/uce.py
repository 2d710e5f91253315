"""Unified Concept Editing as its authors use it (Gandikota et al. 2024): how far to move each concept is measured.

The edit itself is ``fair_adaptors.steering.edit``, which ``fair-adaptors make --method edit`` has without measuring.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fair_adaptors.errors import ConfigError
from fair_adaptors.evaluation.variants import Variant
from fair_adaptors.steering.draw import Attribute
from fair_adaptors.steering.edit import ConceptEdit, edited

Measure = Callable[[Any, Sequence[str]], Mapping[str, ArrayLike]]
"""(pipeline, L labels) → for each attribute's name, the share of each class among images of each label, [L, K]."""


def uce(edit: ConceptEdit, *, aimed: Sequence[str] = ()) -> Variant:
    """Return an edit as a variant of an evaluation.

    Args:
        edit: what ``debias`` has found for the same base.
        aimed: the attributes whose words it was found with.
    """
    return Variant(
        "UCE",
        edit.identity,
        lambda pipe: edited(pipe, edit),
        aimed=tuple(aimed),
        summary=f"Cross-attention edited in closed form for {len(edit.labels)} concepts (Gandikota et al. 2024).",
    )


def debias(
    pipe: Any,
    labels: Sequence[str],
    attributes: Sequence[Attribute],
    *,
    preserved: Sequence[str],
    measure: Measure,
    step: float = 0.25,
    tolerance: float = 0.05,
    rounds: int = 30,
) -> ConceptEdit:
    """Find the strengths α with which each label shows each class as often as its target says.

    The paper's procedure: each round measures the pipeline with the edit so far, and moves α by ``step`` · (target −
    share) for the labels of which some share is off by ``tolerance`` or more. It ends when there are none, or after
    ``rounds``. The edit always starts from the pipeline's own weights, which it has again in the end.

    Args:
        pipe: a Stable Diffusion pipeline.
        labels: L concepts to debias.
        attributes: with classes and targets.
        preserved: neutral texts to keep.
        measure: generates images of the labels with the pipeline and counts. What is found holds for its images: the
            more there are, the better for others.

    Raises:
        ConfigError: nothing to edit, a label twice, or what was measured is of another shape.
    """
    if not labels or not attributes or len(set(labels)) < len(labels):
        raise ConfigError(f"labels to debias are {list(labels)}; give at least one, each once, and an attribute")
    target = np.array([share for attribute in attributes for share in attribute.target])
    words = tuple(word for attribute in attributes for word in attribute.classes)
    strengths = np.zeros((len(labels), len(words)))
    edit = ConceptEdit(tuple(labels), words, _as_tuples(strengths), tuple(preserved))
    for _ in range(rounds):
        with edited(pipe, edit):
            gap = target - _shares(measure(pipe, labels), attributes, len(labels))
        off = np.abs(gap).max(1, keepdims=True) >= tolerance
        if not off.any():
            break
        strengths += step * gap * off
        edit = replace(edit, strengths=_as_tuples(strengths))
    return edit


def _shares(measured: Mapping[str, ArrayLike], attributes: Sequence[Attribute], num_labels: int) -> np.ndarray:
    """Put the measured shares of all attributes side by side, [L, ΣK]."""
    missing = [attribute.name for attribute in attributes if attribute.name not in measured]
    if missing:
        raise ConfigError(
            f"the measure gave {sorted(measured)}, and nothing for {missing}; it must give every attribute"
        )
    shares = [np.asarray(measured[attribute.name], dtype=float) for attribute in attributes]
    for attribute, share in zip(attributes, shares, strict=True):
        if share.shape != (expected := (num_labels, len(attribute.classes))):
            raise ConfigError(f"the measure gave shares {share.shape} of {attribute.name!r}; they must be {expected}")
    return np.concatenate(shares, axis=1)


def _as_tuples(strengths: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in strengths)
