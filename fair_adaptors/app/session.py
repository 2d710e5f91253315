"""What the page can do: draw a prompt without and with adaptors from the same noise, and count what is seen."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from fair_adaptors.adaptor.base_model import Defaults
from fair_adaptors.adaptor.bases import defaults_of, imported, plugin_of
from fair_adaptors.adaptor.registry import default_for, list_adaptors
from fair_adaptors.errors import ConfigError, UnknownAdaptorError, did_you_mean
from fair_adaptors.evaluation.drawing import generate
from fair_adaptors.evaluation.run import look_at
from fair_adaptors.evaluation.spec import Instruments
from fair_adaptors.evaluation.store import stack
from fair_adaptors.load import load_fair_adaptor
from fair_adaptors.prompts.files import MAX_LENGTH
from fair_adaptors.prompts.sets import load_prompts
from fair_adaptors.report.grid import pictures

from .counting import Comparison, Side, compared

MAX_STRENGTH, MAX_SEED = 1.25, 2**32
REMEMBERED = 8
"""Requests whose images without adaptors are remembered."""

Tell = Callable[[int, int], None]
"""Called with the images drawn and those to draw; what it raises ends the drawing."""


class Stopped(Exception):
    """Nobody waits for the drawing any more."""


@dataclass(frozen=True)
class Request:
    """What is to be drawn."""

    prompt: str
    adaptors: tuple[str, ...]
    strength: float
    images: int
    seed: int


@dataclass(frozen=True)
class Offer:
    """An adaptor that can be chosen.

    Attributes:
        key: its name, folder or Hub id.
        label: what to call it.
        summary: what it aims at.
        attributes: those it makes fair.
    """

    key: str
    label: str
    summary: str
    attributes: tuple[str, ...]


class Session:
    """Draws and counts, one request at a time; between requests the pipeline has no adaptor.

    Attributes:
        base: the pipeline's name.
        offers: adaptors to choose from, by their keys.
        examples: prompts to begin with, by what they are about.
        hint: what the base can draw; may be empty.
        images: a good number of images.
        max_images: the largest.
        place: the device it draws on.
    """

    def __init__(self, pipe: Any, *, base: str, adaptors: Sequence[str] = (), instruments: Instruments | None = None):
        """Load each adaptor once, so that one that does not fit is told at the start.

        Args:
            pipe: a text-to-image pipeline of a known family, without adaptors.
            base: its name; the registry's adaptors for it are offered. Of those that the paper's authors published,
                what is here already is; the first one if there is no other.
            adaptors: more to offer: names, folders or Hub ids.
            instruments: what the images are counted with; None for those of an embedded base, and for no figures with
                any other.

        Raises:
            FairAdaptorError: an adaptor cannot be loaded, or there is none to offer.
        """
        plugin, usual = plugin_of(base), defaults_of(base, pipe)
        self._pipe, self._turn, self._closed = pipe, threading.Lock(), False
        offered = self._offered(base, adaptors)
        self._usual = usual
        self._instruments: Instruments | None = instruments or (imported(plugin.instruments)() if plugin else None)
        self._labels = _known_labels(base, usual)
        self._opening: Comparison | None = None
        self._opens = threading.Lock()
        self._remembered: OrderedDict[tuple[str, int, int], Side] = OrderedDict()
        prompts = load_prompts(usual.test_prompts)
        self.base, self.hint = base, imported(plugin.hint) if plugin else ""
        self.offers = {name: self._offer(name) for name in offered}
        self.examples = dict(zip(prompts.labels[1::3][:5], prompts.prompts[1::3][:5], strict=True))
        self.images, self.max_images = usual.app_images
        self.place = str(pipe.device)

    def open(self, tell: Tell = lambda done, total: None) -> tuple[Request, Comparison]:
        """Return the first example, with the first adaptor: drawn for the first who asks, and kept for the others."""
        prompt, adaptor = next(iter(self.examples.values())), next(iter(self.offers))
        request = Request(prompt, (adaptor,), 1, self.images, 0)
        with self._opens:
            if self._opening is None:
                self._opening = self.compare(request, tell)
        return request, self._opening

    def read(self, prompt: str, adaptors: Collection[str], *, strength: float, images: int, seed: int) -> Request:
        """Check what somebody wants to see.

        Raises:
            UnknownAdaptorError: an adaptor that is not offered.
            ConfigError: anything else is missing or out of range.
        """
        if not prompt.strip():
            raise ConfigError("the prompt is empty: write what to draw")
        if len(prompt) > MAX_LENGTH:
            raise ConfigError(f"the prompt has {len(prompt)} characters; {MAX_LENGTH} are the most")
        if not adaptors:
            raise ConfigError("no adaptor is chosen: choose at least one to compare with")
        for name in adaptors:
            if name not in self.offers:
                hint = did_you_mean(name, self.offers)
                raise UnknownAdaptorError(f"no adaptor {name!r} is offered.{hint} Known: {', '.join(self.offers)}")
        return Request(
            prompt.strip().encode("utf-8", "replace").decode(),  # half a surrogate pair has no bytes, so no seed
            tuple(dict.fromkeys(adaptors)),
            _number(strength, "strength", 0, MAX_STRENGTH),
            int(_number(images, "number of images", 1, self.max_images, whole=True)),
            int(_number(seed, "seed", 0, MAX_SEED, whole=True)),
        )

    def compare(self, request: Request, tell: Tell = lambda done, total: None) -> Comparison:
        """Draw the same noise without and with the adaptors, and count the classes.

        Raises:
            Stopped: the session is being closed.
        """
        with self._turn:
            key = request.prompt, request.seed, request.images
            total, done = request.images * (1 if key in self._remembered else 2), 0

            def advance(count: int) -> None:
                nonlocal done
                done += count
                if self._closed:
                    raise Stopped
                tell(done, total)

            advance(0)
            if key not in self._remembered:
                self._remembered[key] = self._draw(request, advance)
            self._remembered.move_to_end(key)
            while len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
            with ExitStack() as stack:
                for name in request.adaptors:
                    stack.enter_context(load_fair_adaptor(self._pipe, name, weight=request.strength))
                after = self._draw(request, advance)
            aimed = {attribute for name in request.adaptors for attribute in self.offers[name].attributes}
            return compared(self._remembered[key], after, self._instruments, aimed)

    def close(self, patience: float = 10) -> None:
        """End the drawing that runs after its batch, and wait for that some seconds; no other one begins."""
        self._closed = True
        if self._turn.acquire(timeout=patience):
            self._turn.release()

    def _offered(self, base: str, adaptors: Sequence[str]) -> list[str]:
        ours = [info for info in list_adaptors() if base in info.base_models]
        known = [info.name for info in ours if info.is_here or info.repo_id]
        offered = list(dict.fromkeys([*known, *adaptors])) or [info.name for info in ours if info.checkpoint][:1]
        if not offered:  # a base under another name, such as a folder: its shapes tell
            try:
                return [default_for(self._pipe).name]
            except UnknownAdaptorError as error:
                raise ConfigError(f"no adaptor is published for {base}; name one, as a folder or a Hub id") from error
        return offered

    def _offer(self, name: str) -> Offer:
        """Describe an adaptor, after a check that it can be loaded."""
        with load_fair_adaptor(self._pipe, name) as handle:
            info = handle.info
        label = name if info.name == name else f"{info.name} ({name})"
        return Offer(name, label, info.aim, tuple(info.attributes))

    def _draw(self, request: Request, on_batch: Callable[[int], None]) -> Side:
        images = generate(
            self._pipe,
            [request.prompt],
            images_per_prompt=request.images,
            seed=request.seed,
            num_steps=self._usual.num_steps,
            guidance_scale=self._usual.guidance_scale,
            batch_size=self._usual.app_batch,
            on_batch=on_batch,
        )
        pixels = (images[0].clamp(0, 1) * 255).round() / 255
        if self._instruments is None:
            return Side(pictures(pixels), None, ("",) * request.images)
        label = next((label for label in self._labels if label.lower() in request.prompt.lower()), "")
        return Side(pictures(pixels), stack([look_at(pixels, request.prompt, label, self._instruments)]))


def _known_labels(base: str, usual: Defaults) -> tuple[str, ...]:
    """Return the labels of prompts that are known for a base, such as occupations, the longest first."""
    plugin = plugin_of(base)
    sets = imported(plugin.prompt_sets)() if plugin else [load_prompts(usual.test_prompts)]
    return tuple(sorted({label for one in sets for label in one.labels}, key=len, reverse=True))


def _number(value: Any, what: str, low: float, high: float, *, whole: bool = False) -> float:
    fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool) and low <= value <= high
    if not fits:
        said = "missing" if value is None else repr(value)
        raise ConfigError(f"the {what} is {said}; it must be a {'whole ' * whole}number from {low} to {high}")
    return value
