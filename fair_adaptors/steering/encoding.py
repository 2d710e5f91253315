"""Changes what a pipeline's ``encode_prompt`` returns within a block: each distinct wording is encoded once."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fair_adaptors.families.table import FAMILIES

Encode = Callable[..., Any]
"""A pipeline's ``encode_prompt``."""
INSTRUCTIONS = {reading.instruction for family in FAMILIES for reading in family.readings}
"""Arguments of it that are lists of lines, and not of prompts."""


@contextmanager
def encoding(pipe: Any, changed: Callable[[Encode], Encode]) -> Iterator[None]:
    """Within the block, a pipeline's ``encode_prompt`` is what ``changed`` makes of its own."""
    own, plain = vars(pipe).get("encode_prompt"), pipe.encode_prompt
    pipe.encode_prompt = changed(plain)
    try:
        yield
    finally:
        if own is None:
            del pipe.encode_prompt
        else:
            pipe.encode_prompt = own


def once(plain: Encode) -> Encode:
    """Return an ``encode_prompt`` that encodes each distinct wording of a list of prompts once.

    Prompts are alike where those for further text encoders and the negative ones are, too. What is not text may belong
    to one prompt of the list, such as negative embeddings; then all are encoded.
    """

    def encode_prompt(*arguments: Any, **named: Any) -> Any:
        prompts = named.get("prompt", arguments[0] if arguments else None)
        count = len(prompts) if isinstance(prompts, list) else 0
        lists = [*arguments, *(one for name, one in named.items() if name not in INSTRUCTIONS)]
        each = [one for one in lists if not isinstance(one, str) and _length(one) == count]
        if not each or not all(isinstance(text, str) for one in each for text in one):
            return plain(*arguments, **named)
        firsts, places = distinct(list(zip(*each, strict=True)))
        if len(firsts) == count:
            return plain(*arguments, **named)

        def few(value: Any) -> Any:
            return picked(value, count, firsts) if any(value is one for one in each) else value

        encoded = plain(*map(few, arguments), **{name: few(one) for name, one in named.items()})
        embeds = encoded[0] if isinstance(encoded, tuple) else encoded
        # FLUX.1's also returns a row for each token, which could not be told from one for each of as many wordings.
        if _length(embeds) != len(firsts) or tuple(getattr(embeds, "shape", ())[1:2]) == (len(firsts),):
            return plain(*arguments, **named)
        return picked(encoded, len(firsts), places)

    return encode_prompt


def distinct(rows: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """Return where each distinct row stands first, and for each row which of these it is."""
    number = {row: index for index, row in enumerate(dict.fromkeys(rows))}
    return [rows.index(row) for row in number], [number[row] for row in rows]


def picked(value: Any, count: int, places: Sequence[int]) -> Any:
    """Return these rows of a list or tensor of ``count`` rows, and of each such in a tuple; others as they are."""
    if isinstance(value, tuple):
        return tuple(picked(one, count, places) for one in value)
    if _length(value) != count:
        return value
    return [value[index] for index in places] if isinstance(value, list) else value[list(places)]


def _length(value: Any) -> int:
    """Return how many rows a list or a tensor has; -1 of what has none."""
    return len(value) if isinstance(value, list) or getattr(value, "shape", None) else -1
