"""Unified Concept Editing (Gandikota et al. 2024, arXiv 2308.14761): a closed-form change of weights that read text.

The keys and values of every cross-attention are W·c for states c of the text encoder. New W move what concepts give,
keep what other texts give, and are the solution of a least-squares problem. All W read the same states, so one change
of the states serves them all: W_new = W·(I + R), and R has no higher rank than there are concepts.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fair_adaptors.adaptor.modules import linear_modules
from fair_adaptors.adaptor.record import AttributeTarget
from fair_adaptors.errors import ConfigError
from fair_adaptors.families.table import family_of

from .fitting import named_texts
from .states import States, check_family, encode

if TYPE_CHECKING:
    from torch import Tensor, nn

RIDGE = 0.5
"""λ of the published code: weight of ‖W − W_old‖² in the least-squares problem."""
OWN_RIDGE, WEIGHT = 0.05, 3.0
"""λ of ``fit_edit``, and how much a concept weighs there beside what is preserved. Chosen on the sandbox's states:
prompts then say a third of what they said of a class, and prompts that name one say nine tenths of it."""
READERS = ("attn2.to_k", "attn2.to_v")
"""What the names of the layers end with that read the text encoder's states, where no one layer lets them in."""


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
    up, down = factors(targets - concepts @ weight.T, concepts, gram)
    return weight + up @ down


def factors(wanted: "Tensor", concepts: "Tensor", gram: "Tensor") -> "tuple[Tensor, Tensor]":
    """Return the two factors of Σ w_i c_iᵀ M⁻¹: [O, R] and [R, D], with R the fewer of the concepts and of D.

    Args:
        wanted: w_i, what is to be added to what each concept gives, [E, O].
        concepts: c_i, [E, D].
        gram: M, [D, D].
    """
    import torch

    if len(concepts) > len(gram):  # more rows than a product can have a rank
        return torch.linalg.solve(gram, concepts.T @ wanted).T, torch.eye(len(gram), dtype=gram.dtype)
    return wanted.T, torch.linalg.solve(gram, concepts.T).T


def fit_edit(
    pipe: Any,
    prompts: Sequence[str],
    labels: Sequence[str],
    attributes: Mapping[str, AttributeTarget],
    *,
    on_texts: Callable[[int], None] = lambda count: None,
) -> "dict[str, Tensor]":
    """Return the LoRAs by which prompts give what prompts that name the classes give on the average of the target.

    They are on the layers that read a prompt's words and, where a family has layers for it, on those that read the one
    row for all of it, which is a concept of its own. Of the words each prompt is one concept c_i: the mean of its last
    token and the padding, which have read all of it. (An encoder that reads both ways gives a second one, of the
    words.) Its target is the average over the classes, each with its share, of the same of "a female nurse" and the
    like. These, which name a class, are preserved, and so is what all texts share.

    Args:
        prompts, labels: neutral prompts, and the part of each that names the person.
        attributes: of the table, with classes and target shares.

    Raises:
        ConfigError: the pipeline lacks what reads prompts, or its layers cannot be changed.
    """
    import torch

    check_family(pipe)
    family, plain = family_of(pipe), encode(pipe, prompts, on_texts=on_texts)
    layers = readers(pipe, plain.embeds[0].shape[1])
    pooled_layers = {}
    if family.pooled_entry and plain.pooled is not None:
        pooled_layers = readers(pipe, plain.pooled.shape[1], family.pooled_entry)
    named, named_pooled, shares = [], [], []
    for name, row in attributes.items():
        for one, share in zip(row.classes, row.target, strict=True):
            states = encode(pipe, named_texts(prompts, labels, name, one), on_texts=on_texts)
            named.append(_concepts(pipe, states))
            named_pooled.append(states.pooled)
            shares.append(share)
    begin = [
        rows[span.start + 1 : span.end]
        for rows, spans in zip(plain.embeds, plain.spans, strict=True)
        for span in spans
        if len(span.segments) == 1
    ]
    common = torch.cat([_entering(pipe, rows) for rows in (*begin, plain.embeds[0][:1])])
    tensors = _tensors(layers, *_change(_concepts(pipe, plain), named, shares, common))
    if pooled_layers:
        every = (plain.pooled, encode(pipe, [""]).pooled, *named_pooled)
        concepts, empty, *others = (one.double() for one in every if one is not None)
        tensors |= _tensors(pooled_layers, *_change(concepts, others, shares, empty))
    return tensors


def _change(
    concepts: "Tensor", named: "Sequence[Tensor]", shares: Sequence[float], common: "Tensor"
) -> "tuple[Tensor, Tensor]":
    """Return the factors of R: [D, R] and [R, D].

    Args:
        concepts: of prompts, [E, D].
        named: of each class, the same of prompts that name it, which are preserved.
        shares: of the classes.
        common: what all prompts share, [P, D].
    """
    import torch

    moves = [share * (one - concepts) for one, share in zip(named, shares, strict=True)]
    wanted = torch.stack(moves).sum(0)
    concepts, wanted = WEIGHT * concepts, WEIGHT * wanted
    return factors(wanted, concepts, gram(concepts, torch.cat([*named, common]), ridge=OWN_RIDGE))


def _tensors(modules: "Mapping[str, nn.Linear]", up: "Tensor", down: "Tensor") -> "dict[str, Tensor]":
    """Return the LoRAs that let layers read changed states, by their names in the file."""
    tensors = {}
    for name, module in modules.items():
        weight = module.weight.detach().cpu().double()
        tensors[f"{name}.lora_A.weight"] = down.float().clone()
        tensors[f"{name}.lora_B.weight"] = (weight @ up).float()
    return tensors


def _concepts(pipe: Any, states: States) -> "Tensor":
    """Return the mean of each segment of each prompt, as it enters the network, [N·S, D] in float64."""
    import torch

    every = (rows for index in range(len(states.embeds)) for rows in states.segments(index).values())
    return torch.stack([_entering(pipe, rows).mean(0) for rows in every])


def _entering(pipe: Any, states: "Tensor") -> "Tensor":
    """Return states [N, D] as the layer gets them that lets them in: there may be others before it."""
    import torch

    family = family_of(pipe)
    with torch.no_grad():
        for name in family.before_entry:
            module = getattr(pipe, family.network).get_submodule(name)
            states = module(states.to(next(module.parameters()))).float().cpu()
    return states.double()


def readers(pipe: Any, width: int, names: Sequence[str] = ()) -> "dict[str, nn.Linear]":
    """Return the layers of a pipeline's network that read the text, by their names in the file.

    Args:
        width: of what the text encoders say.
        names: of other layers to be returned, which read it too.

    Raises:
        ConfigError: there are none, or their weights cannot be changed, or are not fed by the text encoders alone.
    """
    import torch

    family = family_of(pipe)
    endings = tuple(f".{name}" for name in names or family.text_entry) or READERS
    found = {name: one for name, one in linear_modules(pipe, family.network).items() if name.endswith(endings)}
    for name, module in found.items():
        floating = type(module) is torch.nn.Linear and module.weight.is_floating_point() and not module.weight.is_meta
        if not floating or module.in_features != width:
            raise ConfigError(
                f"{name}, a {type(module).__name__}, cannot be edited: only plain linear layers of {width} inputs can,"
                " in memory and in a floating dtype. Load the base without LoRA layers, quantisation or offloading"
            )
    if not found:
        raise ConfigError(f"the network of this {type(pipe).__name__} has no layer for text that could be edited")
    return {name: module for name, module in found.items() if isinstance(module, torch.nn.Linear)}


@dataclass(frozen=True)
class ConceptEdit:
    """An edit as the paper has it, whose strengths were found by measuring images.

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


@contextmanager
def edited(pipe: Any, edit: ConceptEdit) -> Iterator[Any]:
    """Give a pipeline the edit's weights within the block; afterwards it has its own again, bit for bit.

    Raises:
        ConfigError: the weights cannot be changed, or are not fed by the text encoder alone.
    """
    check_family(pipe)
    modules = list(readers(pipe, encode(pipe, ["a"]).embeds[0].shape[1]).values())
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
    states = _concept_states(pipe, texts).to(torch.float64)
    concepts, words, preserved = states.split([len(edit.labels), len(edit.words), len(edit.preserved)])
    added = torch.einsum("lk,krd->lrd", torch.tensor(edit.strengths, dtype=torch.float64), words)
    concepts, added = concepts.flatten(0, 1), added.flatten(0, 1)
    matrix = gram(concepts, preserved.flatten(0, 1))
    weights = [module.weight.detach().to("cpu", torch.float64) for module in modules]
    return [closed_form(weight, concepts, (concepts + added) @ weight.T, matrix) for weight in weights]


def _concept_states(pipe: Any, texts: Sequence[str]) -> "Tensor":
    """Return the states from each text's last word to the end of its padding, [T, R, D].

    That is what the paper's code edits: the last word holds the concept, and the padding, which the U-Net reads too,
    repeats it. All are cut to the R rows of the longest text, so that row r is the r-th from the last word on.
    """
    import torch

    states = encode(pipe, texts)
    last = [spans[0].end - 1 for spans in states.spans]
    rows = len(states.embeds[0]) - max(last)
    return torch.stack([one[start : start + rows] for one, start in zip(states.embeds, last, strict=True)])


def _fill(modules: "Sequence[nn.Linear]", weights: "Sequence[Tensor]") -> None:
    import torch

    with torch.no_grad():
        for module, weight in zip(modules, weights, strict=True):
            module.weight.copy_(weight)
