"""Sees each call of a pipeline, and changes what it is called with: one prompt for each image.

Python looks ``__call__`` up on the class, so a pipeline gets a subclass of its own class, with the same name; taken
out, it has its own class again. Nothing of it is copied, saved or pickled: a copy of the pipeline is the plain one.
"""

import functools
import inspect
import logging
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

from fair_adaptors.errors import WrongBaseError

from .encoding import encoding, once
from .noise import noise_keys

logger = logging.getLogger(__name__)

PROMPTS = ("prompt", "prompt_2", "prompt_3")
NEGATIVES = ("negative_prompt", "negative_prompt_2", "negative_prompt_3")
EACH = ("num_images_per_prompt", "num_videos_per_prompt")
PER_PROMPT = ("image", "control_image")
"""Of a pipeline with a ControlNet, which wants as many of them as prompts."""


@dataclass
class Call:
    """A call of a pipeline.

    Attributes:
        pipe: the pipeline.
        arguments: by name. While it is rewritten, ``prompt`` is a list with a prompt for each of N images, as are
            those for further text encoders and the negative ones, where there are any.
        prompts: the prompt of each image, as it was written, [N].
        keys: a number for each image that is a function of its noise, [N].
        during: what is left when the call has ended.
    """

    pipe: Any
    arguments: dict[str, Any]
    prompts: tuple[str, ...]
    keys: tuple[int, ...]
    during: ExitStack = field(default_factory=ExitStack)


class Steerer(Protocol):
    """What changes calls."""

    place: float

    def see(self, call: Call) -> bool:
        """Tell whether any image of a call is to be changed. It may not change the call."""

    def rewrite(self, call: Call) -> None:
        """Change ``call.arguments``."""

    def miss(self, why: str) -> None:
        """Be told of a call that cannot be steered."""


_STEERED: "weakref.WeakKeyDictionary[Any, list[Steerer]]" = weakref.WeakKeyDictionary()
"""What steers each pipeline, in the order in which it rewrites."""


def add(pipe: Any, steerer: Steerer) -> None:
    """Let something see and change the calls of a pipeline.

    Raises:
        WrongBaseError: it is not called with a prompt.
    """
    if "prompt" not in inspect.signature(type(pipe).__call__).parameters:
        raise WrongBaseError(f"a {type(pipe).__name__} is not called with a prompt, so its images cannot be steered")
    known = _STEERED.setdefault(pipe, [])
    if steerer not in known:
        known.append(steerer)
        known.sort(key=lambda one: one.place)
    if len(known) == 1:
        pipe.__class__ = _watched(_plain(type(pipe)))


def remove(pipe: Any, steerer: Steerer) -> None:
    """Take something out again; the pipeline's class is its own when nothing is left."""
    known = _STEERED.get(pipe, [])
    if steerer in known:
        known.remove(steerer)
        if not known:
            del _STEERED[pipe]
            pipe.__class__ = _plain(type(pipe))


def _plain(kind: type) -> type:
    return getattr(kind, "_fair_adaptors_plain", kind)


@cache
def _watched(kind: type) -> type:
    """Return a subclass of a pipeline's class, by the same name, whose calls are seen."""

    @functools.wraps(kind.__call__)
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        return _call(kind, self, arguments, named)

    def reduce(self: Any, protocol: Any) -> Any:
        logger.warning("This copy of the pipeline is not steered. Load the adaptor into it, too")
        return (object.__new__, (kind,), *super(type(self), self).__reduce_ex__(protocol)[2:])

    names = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    members = {"__call__": call, "__reduce_ex__": reduce, "_fair_adaptors_plain": kind}
    return type(kind.__name__, (kind,), names | members)


def _call(kind: type, pipe: Any, given: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    plain: Any = kind.__call__
    steerers = list(_STEERED.get(pipe, ()))
    call = _read(plain, pipe, given, named)
    if isinstance(call, str):
        for steerer in steerers:
            steerer.miss(call)
        return plain(pipe, *given, **named)
    acting = [steerer for steerer in steerers if steerer.see(call)]
    if not acting:
        return plain(pipe, *given, **named)
    _expand(call)
    with call.during:
        if hasattr(pipe, "encode_prompt"):
            call.during.enter_context(encoding(pipe, once))
        for steerer in acting:
            steerer.rewrite(call)
        return plain(pipe, **call.arguments)


def _read(plain: Any, pipe: Any, given: tuple[Any, ...], named: Mapping[str, Any]) -> Call | str:
    """Return a call, as it was made; or why its images cannot be steered."""
    signature = inspect.signature(plain)
    try:
        arguments = dict(signature.bind(pipe, *given, **named).arguments)
    except TypeError:
        return "it has wrong arguments"  # which the pipeline will say
    first = next(iter(signature.parameters))
    del arguments[first]
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments |= arguments.pop(name, {})
    prompt = arguments.get("prompt")
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, list | tuple) or not prompts or not all(isinstance(one, str) for one in prompts):
        return "its prompt is not given as text"
    each = _each(arguments)
    every = tuple(one for one in prompts for _ in range(each))
    return Call(pipe, arguments, every, tuple(noise_keys(pipe, arguments, len(every))))


def _each(arguments: Mapping[str, Any]) -> int:
    """Return how many images a call draws of each prompt."""
    return next((int(arguments[name]) for name in EACH if arguments.get(name)), 1)


def _expand(call: Call) -> None:
    """Give each image a prompt of its own."""
    import torch

    each = _each(call.arguments)
    count = len(call.prompts) // each
    for name in (*PROMPTS, *NEGATIVES):
        value = call.arguments.get(name)
        if isinstance(value, str):
            call.arguments[name] = [value] * len(call.prompts)
        elif isinstance(value, list | tuple) and len(value) == count:
            call.arguments[name] = [one for one in value for _ in range(each)]
    if each > 1:
        call.arguments |= {name: 1 for name in EACH if name in call.arguments}
        per_prompt = PER_PROMPT if getattr(call.pipe, "controlnet", None) is not None else ()
        for name in ("negative_prompt_embeds", "negative_pooled_prompt_embeds", *per_prompt):
            value = call.arguments.get(name)
            if isinstance(value, torch.Tensor) and len(value) == count:
                call.arguments[name] = value.repeat_interleave(each, 0)
            elif isinstance(value, list) and len(value) == count > 1:
                call.arguments[name] = [one for one in value for _ in range(each)]
