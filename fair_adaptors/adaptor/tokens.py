"""Soft tokens: learned embeddings that stand before the words of a prompt, and never in the negative prompt."""

import inspect
import logging
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fair_adaptors.families.table import family_of

if TYPE_CHECKING:
    from torch import Tensor, nn

logger = logging.getLogger(__name__)


def token_encoder(pipe: Any) -> Any:
    """Return the text encoder of a pipeline that soft tokens are for; its family must have one."""
    return getattr(pipe, family_of(pipe).token_encoder)


@contextmanager
def inserted(text_encoder: "nn.Module", tokens: "Tensor") -> Iterator[None]:
    """Within the block, put ``tokens`` [n, D] right after the start token of whatever the text encoder reads.

    The n last tokens but the very last one (an end token, or padding) make room. Differentiable in ``tokens``.
    """
    import torch

    count, owner = len(tokens), threading.get_ident()

    def make_room(module: "nn.Module", arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
        if threading.get_ident() != owner:  # another thread's pipeline shares the encoder
            return arguments, named
        ids, *rest = arguments or [named.pop("input_ids")]
        # Start tokens hold the places: their ids are below the end token's, by which some encoders find the end.
        ids = torch.cat([ids[:, :1].expand(-1, 1 + count), ids[:, 1 : -1 - count], ids[:, -1:]], 1)
        mask = named.get("attention_mask")
        if mask is not None:
            ones = torch.ones_like(mask[:, :1]).expand(-1, count)
            named["attention_mask"] = torch.cat([mask[:, :1], ones, mask[:, 1 : -1 - count], mask[:, -1:]], 1)
        return (ids, *rest), named

    def put_in(module: Any, arguments: Any, embedded: Any) -> Any:
        if threading.get_ident() != owner:
            return embedded
        rows = tokens.to(embedded).expand(len(embedded), -1, -1)
        return torch.cat([embedded[:, :1], rows, embedded[:, 1 + count :]], 1)

    embeddings: Any = text_encoder.get_input_embeddings()  # type: ignore[operator]
    hooks = [
        text_encoder.register_forward_pre_hook(make_room, with_kwargs=True),
        embeddings.register_forward_hook(put_in),
    ]
    try:
        with torch.compiler.set_stance("force_eager"):  # compiled code would not see the hooks
            yield
    finally:
        for hook in hooks:
            hook.remove()


@dataclass
class _Prompting:
    """A pipeline class's ``encode_prompt``, the soft tokens in force with their strengths, and what was warned of."""

    original: Any  # not bound: the table must not keep the pipeline alive
    made: Any  # embeddings with soft tokens, as keys
    prefixes: "dict[str, tuple[float, Tensor]]" = field(default_factory=dict)
    too_long: set[str] = field(default_factory=set)
    told: bool = False
    watch: Any = None


_PROMPTING: "weakref.WeakKeyDictionary[Any, _Prompting]" = weakref.WeakKeyDictionary()

_ENCODING = threading.local()
"""Has ``active`` while a pipeline's own ``encode_prompt`` runs in this thread, with soft tokens."""


def set_prefix(pipe: Any, identity: str, prefix: "tuple[float, Tensor] | None") -> None:
    """Put soft tokens before every prompt of a pipeline with a strength, or take them out with None.

    With strength w the prompt's embeddings are E₀ + w·(E − E₀), E with the tokens and E₀ without; several prefixes add
    up. Without any, the pipeline's ``encode_prompt`` is its own again. Of a prompt that has no room beside them it is
    logged, once, which end of it is not read; and, once, that a prompt does not have them, because it was encoded by
    something else, or by another pipeline with this text encoder.
    """
    from torch.utils.weak import WeakIdKeyDictionary

    known = _PROMPTING.get(pipe)
    if known is None:
        if prefix is None:
            return
        known = _PROMPTING[pipe] = _Prompting(type(pipe).encode_prompt, WeakIdKeyDictionary())
        known.watch = token_encoder(pipe).register_forward_pre_hook(_Watch(weakref.ref(pipe)))
        pipe.encode_prompt = _EncodePrompt(weakref.ref(pipe))
    known.prefixes.pop(identity, None)
    if prefix is not None:
        known.prefixes[identity] = prefix
    if not known.prefixes:
        del pipe.encode_prompt
        known.watch.remove()
        del _PROMPTING[pipe]


def prefix_length(pipe: Any) -> int:
    """Return how many soft tokens stand before a pipeline's prompts: the most if there are several prefixes."""
    known = _PROMPTING.get(pipe)
    return max((len(tokens) for _, tokens in known.prefixes.values()), default=0) if known else 0


class _EncodePrompt:
    """``encode_prompt`` of a pipeline with soft tokens. A deep copy of the pipeline has its own, without any."""

    def __init__(self, reference: "weakref.ref[Any]", told: bool = True):
        self._reference, self._told = reference, told

    def __deepcopy__(self, memo: dict[int, Any]) -> "_EncodePrompt":
        return _EncodePrompt(weakref.ref(memo[id(self._reference())]), told=False)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        pipe: Any = self._reference()
        known = _PROMPTING.get(pipe)
        if known is None:  # a deep copy
            if not self._told:
                self._told = True
                logger.warning("This pipeline is a copy of one with soft tokens, and has none. %s", _REMEDY)
            return type(pipe).encode_prompt(pipe, *arguments, **named)
        given = inspect.signature(known.original).bind(pipe, *arguments, **named).arguments
        embeds, before = given.get("prompt_embeds"), getattr(_ENCODING, "active", False)
        if embeds is not None and embeds not in known.made:
            _tell_once(known)
        _ENCODING.active = True
        try:
            if embeds is None:
                given["prompt_embeds"] = _blend(pipe, known, given)
            encoded = known.original(**given)
        finally:
            _ENCODING.active = before
        if embeds is None or embeds in known.made:
            known.made[encoded[0]] = True
        return encoded


class _Watch:
    """What a text encoder calls first, to tell of prompts that it reads without the soft tokens of a pipeline."""

    def __init__(self, reference: "weakref.ref[Any]"):
        self._reference = reference

    def __call__(self, text_encoder: "nn.Module", arguments: tuple[Any, ...]) -> None:
        import torch

        if torch.compiler.is_compiling() or getattr(_ENCODING, "active", False):
            return
        if (known := _PROMPTING.get(self._reference())) is not None:
            _tell_once(known)


_REMEDY = (
    "Load the adaptor into each pipeline that is to have them, also after from_pipe. Where something else encodes the"
    " prompts (compel, say), export the adaptor as textual-inversion, and put its word into the prompts"
)


def _tell_once(known: _Prompting) -> None:
    if not known.told:
        known.told = True
        logger.warning("Soft tokens are loaded, and a prompt was encoded without them. %s", _REMEDY)


def _blend(pipe: Any, known: _Prompting, given: dict[str, Any]) -> "Tensor":
    _warn_of_lost_ends(pipe, known, given["prompt"])
    alone = {**given, "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    rest = 1.0 - sum(weight for weight, _ in known.prefixes.values())
    parts = [rest * known.original(**alone)[0]] if rest else []
    for identity in sorted(known.prefixes):  # the order of loading must not change a bit
        weight, tokens = known.prefixes[identity]
        with inserted(token_encoder(pipe), tokens):
            parts.append(weight * known.original(**alone)[0])
    return sum(parts[1:], parts[0])


def _warn_of_lost_ends(pipe: Any, known: _Prompting, prompt: str | list[str]) -> None:
    """Log what of a prompt is not read, as diffusers does for what is beyond its limit even without soft tokens."""
    longest = prefix_length(pipe)
    room = pipe.tokenizer.model_max_length - 2 - longest
    for text in dict.fromkeys([prompt] if isinstance(prompt, str) else prompt):
        words = pipe.tokenizer(pipe.maybe_convert_prompt(text, pipe.tokenizer), add_special_tokens=False).input_ids
        if len(words) > room and text not in known.too_long:
            known.too_long.add(text)
            logger.warning(
                "With %d soft tokens, a prompt may have %d tokens of its own; the end of this one is not read: %r",
                longest,
                room,
                pipe.tokenizer.decode(words[room:]),
            )
