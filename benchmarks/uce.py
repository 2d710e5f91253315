"""Unified Concept Editing (Gandikota et al. 2024, arXiv 2308.14761): debias concepts by a closed-form edit of weights.

The keys and values of every cross-attention are W·c for states c of the text encoder. New W move what concepts give,
keep what other texts give, and are the solution of a least-squares problem. How far to move is found by measuring.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fair_adaptors.errors import ConfigError
from fair_adaptors.evaluation.variants import Variant
from fair_adaptors.steering.draw import Attribute

if TYPE_CHECKING:
    from torch import Tensor, nn

RIDGE = 0.5
"""λ of the published code: weight of ‖W − W_old‖² in the least-squares problem."""

Measure = Callable[[Any, Sequence[str]], Mapping[str, ArrayLike]]
"""(pipeline, L labels) → for each attribute's name, the share of each class among images of each label, [L, K]."""


@dataclass(frozen=True)
class ConceptEdit:
    """All that new weights are computed from, beside the base's.

    Attributes:
        labels: the L concepts, such as occupations.
        words: the classes of all attributes in a row, ΣK words.
        strengths: α, how much of each word's states is added to each label's, [L, ΣK].
        preserved: texts whose keys and values stay.
    """

    labels: tuple[str, ...]
    words: tuple[str, ...]
    strengths: tuple[tuple[float, ...], ...]
    preserved: tuple[str, ...]

    @property
    def identity(self) -> str:
        """A hash of everything in it."""
        return hashlib.sha256(json.dumps(["uce", asdict(self)]).encode()).hexdigest()


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


def gram(edited: "Tensor", preserved: "Tensor", *, ridge: float = RIDGE) -> "Tensor":
    """Return M = λI + Σ c_i c_iᵀ + Σ c_j c_jᵀ, [D, D], of edited rows c_i [E, D] and preserved rows c_j [P, D]."""
    import torch

    eye = torch.eye(edited.shape[1], dtype=edited.dtype, device=edited.device)
    return ridge * eye + edited.T @ edited + preserved.T @ preserved


def closed_form(weight: "Tensor", concepts: "Tensor", targets: "Tensor", gram: "Tensor") -> "Tensor":
    """Return the W that minimises Σ ‖W c_i − v_i‖² + Σ ‖W c_j − W_old c_j‖² + λ ‖W − W_old‖² (eq. 6, 7).

    The paper's W = (Σ v_i c_iᵀ + W_old Σ c_j c_jᵀ + λ W_old) M⁻¹ is W_old + Σ (v_i − W_old c_i) c_iᵀ M⁻¹, the form
    used here: where nothing is asked for, nothing changes. λ, which is in the published code, makes M invertible.

    Args:
        weight: W_old, [O, D].
        concepts: c_i, [E, D].
        targets: v_i, [E, O].
        gram: M, [D, D], see ``gram``; it holds the preserved c_j.
    """
    import torch

    wanted = targets - concepts @ weight.T
    return weight + torch.linalg.solve(gram, concepts.T @ wanted).T


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


@contextmanager
def edited(pipe: Any, edit: ConceptEdit) -> Iterator[Any]:
    """Give a pipeline the edit's weights within the block; afterwards it has its own again, bit for bit.

    Raises:
        ConfigError: the weights cannot be changed, or are not fed by the text encoder alone.
    """
    modules = _projections(pipe)
    changed = _edited_weights(pipe, modules, edit)
    originals = [module.weight.detach().clone() for module in modules]
    try:
        _fill(modules, changed)
        yield pipe
    finally:
        _fill(modules, originals)


def _edited_weights(pipe: Any, modules: "Sequence[nn.Linear]", edit: ConceptEdit) -> "list[Tensor]":
    """Return new weights for the modules, with v_i = W_old (c_i + Σ_k α_k a_k) (eq. 9)."""
    import torch

    texts = [*edit.labels, *edit.words, *edit.preserved]
    # Float64 on the processor: the states of padding are so alike that M is nearly singular.
    states = _concept_states(pipe, texts).to("cpu", torch.float64)
    concepts, words, preserved = states.split([len(edit.labels), len(edit.words), len(edit.preserved)])
    moved = concepts + torch.einsum("lk,krd->lrd", torch.tensor(edit.strengths, dtype=torch.float64), words)
    concepts, moved = concepts.flatten(0, 1), moved.flatten(0, 1)
    matrix = gram(concepts, preserved.flatten(0, 1))
    weights = [module.weight.detach().to("cpu", torch.float64) for module in modules]
    return [closed_form(weight, concepts, moved @ weight.T, matrix) for weight in weights]


def _concept_states(pipe: Any, texts: Sequence[str]) -> "Tensor":
    """Return the text encoder's last hidden states from each text's last token to the end of its padding, [T, R, D].

    That is what the paper's code edits: the last token holds the concept, and the padding, which the U-Net reads too,
    repeats it. All are cut to the R rows of the longest text, so that row r is the r-th from the last token on.
    """
    import torch

    tokens = pipe.tokenizer(
        list(texts),
        padding="max_length",
        max_length=pipe.tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    last = tokens.attention_mask.sum(1) - 2  # before the token that ends the text
    rows = tokens.input_ids.shape[1] - int(last.max())
    with torch.no_grad():
        chunks = [pipe.text_encoder(ids.to(pipe.text_encoder.device))[0] for ids in tokens.input_ids.split(64)]
    states = torch.cat(chunks)
    return torch.stack([state[start : start + rows] for state, start in zip(states, last.tolist(), strict=True)])


def _projections(pipe: Any) -> "list[nn.Linear]":
    """Return the key and value projections of every cross-attention of the U-Net."""
    import torch

    if getattr(pipe, "unet", None) is None or getattr(pipe, "text_encoder_2", None) is not None:
        raise ConfigError(f"UCE edits Stable Diffusion 1 and 2, not a {type(pipe).__name__}; leave it out")
    found = {n: m for n, m in pipe.unet.named_modules() if n.endswith(("attn2.to_k", "attn2.to_v"))}
    width = pipe.text_encoder.config.hidden_size
    for name, module in found.items():
        floating = type(module) is torch.nn.Linear and module.weight.is_floating_point() and not module.weight.is_meta
        if not floating or module.in_features != width:
            raise ConfigError(
                f"UCE cannot edit {name}, a {type(module).__name__}: it takes plain linear layers of {width} inputs,"
                " in memory and in a floating dtype. Load the base without LoRA layers, quantisation or offloading"
            )
    if not found:
        raise ConfigError(f"the U-Net of this {type(pipe).__name__} has no cross-attention that UCE could edit")
    return list(found.values())


def _fill(modules: "Sequence[nn.Linear]", weights: "Sequence[Tensor]") -> None:
    import torch

    with torch.no_grad():
        for module, weight in zip(modules, weights, strict=True):
            module.weight.copy_(weight)


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
