"""What the text encoders of a pipeline say of prompts, by its own ``encode_prompt``, and which rows are whose."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fair_adaptors.errors import ConfigError
from fair_adaptors.families.family import Reading
from fair_adaptors.families.table import default_of, family_of

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 16
"""Prompts that are encoded at once."""
PADDING = 64
"""Of the rows of padding, which may be hundreds and are much alike, how many are compared."""


@dataclass(frozen=True)
class Span:
    """The rows of one prompt's embedding that one text encoder fills.

    Attributes:
        start, stop: the first row, and the one behind the last.
        end: the first row behind the prompt's words: of its last token, or of what a chat template puts behind it.
        tokens: of the rows from ``start`` on, without padding.
        names: of the rows from ``end`` on, which have read all of the prompt, padding too; and of those before it,
            if they have as well. A name is empty where they have not.
    """

    start: int
    end: int
    stop: int
    tokens: tuple[int, ...]
    names: tuple[str, str]

    @property
    def segments(self) -> Mapping[str, slice]:
        """The rows that have read all of the prompt, by the name of the segment."""
        rows = zip(self.names, (slice(self.end, self.stop), slice(self.start, self.end)), strict=True)
        return {name: one for name, one in rows if name}


@dataclass(frozen=True)
class States:
    """Encoded prompts.

    Attributes:
        embeds: of each of N prompts the rows, [T, D]; T may differ.
        pooled: of each prompt, [N, P]; None where a family has none.
        spans: whose these rows are, for each prompt; the main text encoder is the first.
    """

    embeds: "Sequence[Tensor]"
    pooled: "Tensor | None"
    spans: Sequence[Sequence[Span]]

    def means(self) -> "Tensor":
        """Return the mean of each prompt's last token and padding, [N, D], which have read all of the prompt."""
        import torch

        rows = zip(self.embeds, (spans[0] for spans in self.spans), strict=True)
        return torch.stack([row[span.end : span.stop].mean(0) for row, span in rows])

    def segments(self, index: int) -> "Mapping[str, Tensor]":
        """Return the rows of a prompt that have read all of it, [R, D] each, by the name of the segment."""
        every = (pair for span in self.spans[index] for pair in span.segments.items())
        return {name: self.embeds[index][rows] for name, rows in every}


def lacking(pipe: Any) -> list[str]:
    """Return the text encoders of a pipeline's family that it has not."""
    return [name for name in family_of(pipe).text_encoders if getattr(pipe, name, None) is None]


def check_family(pipe: Any) -> None:
    """Refuse a pipeline whose prompts cannot be read here.

    Raises:
        ConfigError: it has not all text encoders that it needs, or lacks one whose place only its network tells.
    """
    family, lacks = family_of(pipe), lacking(pipe)
    if missing := [name for name in lacks if name not in family.optional_text_encoders]:
        raise ConfigError(f"this pipeline has no {' and no '.join(missing)}; load it with its text encoders")
    if lacks and getattr(pipe, family.network, None) is None:
        raise ConfigError(f"this pipeline has no {lacks[0]} and no {family.network}; load it with one of them")


def encode(pipe: Any, texts: Sequence[str], *, on_texts: Callable[[int], None] = lambda count: None) -> States:
    """Encode texts as the pipeline itself does, in float32 on the CPU.

    Args:
        on_texts: called with the number of texts that were encoded.
    """
    import torch

    known = {"prompt_2": None, "prompt_3": None, "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    settings = {name: known[name] for name in inspect.signature(pipe.encode_prompt).parameters if name in known}
    lines = [reading.instruction for reading in family_of(pipe).readings if reading.instruction]
    settings |= {name: default_of(pipe, name) for name in lines}
    found = []
    for start in range(0, len(texts), CHUNK):
        part = list(texts[start : start + CHUNK])
        with torch.no_grad():  # the list is the pipeline's: Z-Image's writes into it
            encoded = pipe.encode_prompt(prompt=list(part), device=pipe._execution_device, **settings)
        found.append(states_of(pipe, encoded, {"prompt": part}))
        on_texts(len(part))
    pooled = [one.pooled for one in found if one.pooled is not None]
    return States(
        [row for one in found for row in one.embeds],
        torch.cat(pooled) if pooled else None,
        [spans for one in found for spans in one.spans],
    )


def states_of(pipe: Any, encoded: Sequence[Any], texts: Mapping[str, Any]) -> States:
    """Return what a pipeline's ``encode_prompt`` returned, in float32 on the CPU.

    Args:
        texts: the arguments of a call that are prompts, [N] each, with ``prompt``.
    """
    family = family_of(pipe)
    place, mask = family.pooled, encoded[family.mask] if family.mask else None
    rows = encoded[0] if mask is None else [one[own.bool()] for one, own in zip(encoded[0], mask, strict=True)]
    embeds = [one.detach().float().cpu() for one in rows]
    pooled = encoded[place].detach().float().cpu() if place else None
    return States(embeds, pooled, _spans(pipe, texts, [len(one) for one in embeds]))


def _spans(pipe: Any, texts: Mapping[str, Any], lengths: Sequence[int]) -> list[list[Span]]:
    """Return whose the rows of each prompt are."""
    readings = family_of(pipe).readings
    spans: list[list[Span]] = [[] for _ in lengths]
    starts = [0] * len(lengths)
    for index, reading in enumerate(readings):
        if getattr(pipe, reading.encoder) is None:  # its rows are zeros
            continue
        number = str(index + 1) if index else ""
        names = (f"end{number}", f"words{number}" if reading.both_ways else "")
        tail = _tail(pipe, reading)
        for place, text in enumerate(texts.get(reading.prompt) or texts["prompt"]):
            tokens, start = _tokens(pipe, reading, text), starts[place]
            last = index == len(readings) - 1
            stop = lengths[place] if last else start + getattr(pipe, reading.tokenizer).model_max_length
            tokens = tokens[: stop - start]
            spans[place].append(Span(start, start + len(tokens) - tail, stop, tuple(tokens), names))
            starts[place] = stop
    return spans


def _tokens(pipe: Any, reading: Reading, text: str) -> list[int]:
    tokenizer, begin = getattr(pipe, reading.tokenizer), 0
    if reading.chat is not None:
        said = [{"role": "user", "content": text}]
        text = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True, **reading.chat)
    elif reading.template:
        text, begin = getattr(pipe, reading.template).format(text), getattr(pipe, f"{reading.template}_start_idx")
    elif reading.instruction:
        before = "\n".join(default_of(pipe, reading.instruction))
        ids = list(tokenizer(before + text.lower().strip()).input_ids)
        return [*ids[:1], *ids[len(tokenizer(before).input_ids) - 1 :]]
    elif convert := getattr(pipe, "maybe_convert_prompt", None):  # for textual inversions
        text = convert(text, tokenizer)
    return list(tokenizer(text).input_ids)[begin:]


def _tail(pipe: Any, reading: Reading) -> int:
    """Return how many tokens stand behind the words of any prompt; the last word where there are none."""
    one, other = (_tokens(pipe, reading, text)[::-1] for text in "ab")
    return max(1, _common(one, other))


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return with how many equal tokens two texts begin."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))


def counterparts(plain: Span, others: Sequence[Span]) -> list[tuple[int, list[int]]]:
    """Return rows of a prompt, each with those that stand for the same in prompts that have more words.

    Up to the first token that differs they are counted from the beginning, behind it from the end, and in the padding
    from the beginning again, where of all rows only some are taken.
    """
    found = []
    same = [(_common(plain.tokens, one.tokens), len(one.tokens) - len(plain.tokens)) for one in others]
    for index in range(len(plain.tokens)):
        places = [index if index < common else index + more for common, more in same]
        if all(0 <= place < len(one.tokens) for place, one in zip(places, others, strict=True)):
            found.append((plain.start + index, [plain.start + place for place in places]))
    longest = max(len(one.tokens) for one in (plain, *others))
    behind = range(plain.start + longest, min(one.stop for one in (plain, *others)))
    step = max(1, len(behind) // PADDING)
    return found + [(row, [row] * len(others)) for row in behind[::step][:PADDING]]
