"""Fits directions to what text encoders say of prompts, each as it is and with a word for every class."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fair_adaptors.adaptor.record import AttributeTarget
from fair_adaptors.attributes import spoken

from .affine import Affine, fit
from .states import States, check_family, counterparts, encode
from .words import inject

if TYPE_CHECKING:
    from torch import Tensor

RANK = 32
STRENGTH = 1.4
"""How far images are moved if nobody says otherwise: as far as bias took to fall to that of words, on the sandbox."""
APART, LONGEST = 0.995, 3.0
"""Of what tells prompts apart, the share that stays as it is; and how many times longer the rest may become."""


def fit_directions(
    pipe: Any,
    prompts: Sequence[str],
    labels: Sequence[str],
    attributes: Mapping[str, AttributeTarget],
    *,
    rank: int = RANK,
    on_texts: Callable[[int], None] = lambda count: None,
) -> "dict[str, Tensor]":
    """Return the tensors of directions, from what the text encoders say of prompts with and without words of classes.

    Args:
        prompts, labels: neutral prompts, and the part of each that names the person.
        attributes: of the table, with their classes.
        on_texts: called with the number of texts that were read.

    Raises:
        ConfigError: the pipeline is of a family whose prompts cannot be read here.
    """
    check_family(pipe)
    plain = encode(pipe, prompts, on_texts=on_texts)
    found: dict[str, Tensor] = {}
    for name, row in attributes.items():
        texts = [named_texts(prompts, labels, name, one) for one in row.classes]
        found |= _axis_of(name, plain, [encode(pipe, each, on_texts=on_texts) for each in texts], rank)
    return found


def named_texts(prompts: Sequence[str], labels: Sequence[str], attribute: str, name: str) -> list[str]:
    """Return each prompt with a word for a class before its label; of several words each has its turn."""
    words = spoken(attribute, name)
    return [
        inject(prompt, label, words[index % len(words)])
        for index, (prompt, label) in enumerate(zip(prompts, labels, strict=True))
    ]


def _axis_of(name: str, plain: States, named: Sequence[States], rank: int) -> "dict[str, Tensor]":
    """Return the tensors of one attribute, of prompts as they are and with a word for each class."""
    import torch

    before: dict[str, list[Tensor]] = defaultdict(list)
    moved: dict[str, list[Tensor]] = defaultdict(list)
    owners: dict[str, list[int]] = defaultdict(list)
    for index, spans in enumerate(plain.spans):
        for place, span in enumerate(spans):
            for row, rows in counterparts(span, [one.spans[index][place] for one in named]):
                if segment := span.names[row < span.end]:
                    before[segment].append(plain.embeds[index][row])
                    after = [one.embeds[index][other] for one, other in zip(named, rows, strict=True)]
                    moved[segment].append(torch.stack(after) - before[segment][-1])
                    owners[segment].append(index)
    maps = {one: map_of(torch.stack(before[one]), torch.stack(moved[one], 1), owners[one], rank) for one in before}
    if plain.pooled is not None:
        pooled = [one.pooled - plain.pooled for one in named if one.pooled is not None]
        maps["pooled"] = map_of(plain.pooled, torch.stack(pooled), range(len(plain.pooled)), rank)
    levels = torch.stack([one.means() for one in named])
    tensors = {f"{name}.levels": levels.mean(1), f"{name}.gate": _gate(plain.means(), levels.flatten(0, 1))}
    for segment, one in maps.items():
        tensors |= one.tensors(f"{name}.{segment}")
    return tensors


def map_of(before: "Tensor", moved: "Tensor", owners: Sequence[int], rank: int) -> Affine:
    """Return the map of a segment's rows, which leaves what tells the prompts apart as it is.

    Where a class is rare in an occupation, its word draws the prompt towards another occupation. So of what prompts
    with and without the word differ by, no part is taken that tells the prompts from each other when all classes are
    named alike. The rest is made longer, to reach as far towards the class as the word does.

    Args:
        before: rows of the prompts, [N, D].
        moved: what is to be added to them for each class, [K, N, D].
        owners: of which prompt each row is, [N].
    """
    import torch

    middle, of = before + moved.mean(0), torch.tensor(owners)
    texts = torch.stack([middle[of == one].mean(0) for one in of.unique()])
    _, sizes, ways = torch.linalg.svd(texts - texts.mean(0), full_matrices=False)
    told = sizes.square().cumsum(0) / sizes.square().sum()
    apart = ways[: int((told < APART).sum()) + 1]
    free = moved - (moved @ apart.T) @ apart
    way = moved.mean(1)
    longer = way.square().sum(1) / (way * free.mean(1)).sum(1)
    return fit(before, free * longer.nan_to_num(1).clamp(1, LONGEST)[:, None, None], rank=rank)


def _gate(plain: "Tensor", named: "Tensor") -> "Tensor":
    """Return a direction along which prompts that name a class lie beyond a number, and the number, [D + 1].

    The direction is fitted to the even prompts and the number set by the odd ones, half way between the two kinds; it
    is infinite where they overlap, so that no prompt is left alone for nothing.
    """
    import torch

    x = torch.cat([plain[::2], named[::2]])
    y = torch.cat([torch.zeros(len(plain[::2])), torch.ones(len(named[::2]))])
    way = fit(x, (y[:, None] - y.mean()).expand(-1, x.shape[1])[None], rank=1)
    direction = (way.down @ way.up[0])[:, 0]
    most, least = (plain[1::2] @ direction).max(), (named[1::2] @ direction).min()
    number = (most + least) / 2 if least > most else torch.tensor(torch.inf)
    return torch.cat([direction, number[None]])
