"""What the page can do: draw a prompt without and with adaptors from the same noise, and count what is seen."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fair_adaptors.adaptor.bases import defaults_of, imported, plugin_of
from fair_adaptors.adaptor.record import AdaptorRecord
from fair_adaptors.adaptor.registry import list_adaptors
from fair_adaptors.errors import ConfigError, UnknownAdaptorError, did_you_mean
from fair_adaptors.evaluation.beside import pairs_of, shift
from fair_adaptors.evaluation.drawing import classify, generate
from fair_adaptors.evaluation.estimates import count_classes
from fair_adaptors.evaluation.metrics import CONFIDENCE, bias, noise_floor, undetermined_rate
from fair_adaptors.load import load_fair_adaptor
from fair_adaptors.prompts.files import MAX_LENGTH
from fair_adaptors.prompts.sets import load_prompts
from fair_adaptors.report.grid import pictures

if TYPE_CHECKING:
    from numpy import ndarray
    from PIL import Image

    from fair_adaptors.vision.types import Classifier

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


@dataclass(frozen=True)
class Side:
    """The n images of one side.

    Attributes:
        pictures: as they were drawn.
        seen: probabilities [1, n, K] of each attribute's classes; empty without a classifier.
        captions: the classes of each image, with a question mark where it is undetermined.
    """

    pictures: "list[Image.Image]"
    seen: "dict[str, ndarray]"
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Count:
    """How many images are of each class of one attribute, and what follows; pairs are before and after.

    There are no intervals: one prompt's few images, often all of one class, make a bootstrap look sure.

    Attributes:
        attribute: its name.
        aimed_at: whether an adaptor makes it fair.
        rows: each class and its images.
        bias: see ``metrics.bias``.
        floor: what a perfectly fair model is expected to score with as many images.
        shift: how far it moved from before, see ``beside.shift``: what counts where no adaptor aims at it.
        shift_floor: the shift of images that change their class without a direction.
        undetermined: share of images whose class is undetermined.
    """

    attribute: str
    aimed_at: bool
    rows: list[tuple[str, tuple[int, int]]]
    bias: tuple[float, float]
    floor: float
    shift: float
    shift_floor: float
    undetermined: tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """Images of the same noise without and with adaptors; without a classifier, nothing is counted."""

    before: Side
    after: Side
    counts: list[Count]


class Session:
    """Draws and counts, one request at a time; between requests the pipeline has no adaptor.

    Attributes:
        base: the pipeline's name.
        offers: adaptors to choose from, by their keys.
        examples: prompts to begin with, by what they are about.
        hint: what the base can draw; may be empty.
        images: a good number of images.
        max_images: the largest.
    """

    def __init__(self, pipe: Any, *, base: str, adaptors: Sequence[str] = ()):
        """Load each adaptor once, so that one that does not fit is told at the start.

        Args:
            pipe: a Stable Diffusion pipeline without adaptors.
            base: its name; the registry's adaptors for it are offered, and an embedded one's own classifier counts. Of
                those that the paper's authors published, what is here already is; the first one if there is no other.
            adaptors: more to offer: names, folders or Hub ids.

        Raises:
            FairAdaptorError: an adaptor cannot be loaded, or there is none to offer.
        """
        plugin, usual = plugin_of(base), defaults_of(base)
        ours = [info for info in list_adaptors() if base in info.base_models]
        known = [info.name for info in ours if info.is_here or info.repo_id]
        offered = list(dict.fromkeys([*known, *adaptors])) or [info.name for info in ours if info.checkpoint][:1]
        if not offered:
            raise ConfigError(f"no adaptor is published for {base}: name one: a folder or a Hub id")
        self._pipe, self._turn, self._closed = pipe, threading.Lock(), False
        self._usual = usual
        self._classifier: Classifier | None = imported(plugin.instruments)().classifiers[0] if plugin else None
        self._remembered: OrderedDict[tuple[str, int, int], Side] = OrderedDict()
        prompts = load_prompts(usual.test_prompts)
        self.base, self.hint = base, imported(plugin.hint) if plugin else ""
        self.offers = {name: self._offer(name) for name in offered}
        self.examples = dict(zip(prompts.labels[1::3][:5], prompts.prompts[1::3][:5], strict=True))
        self.images, self.max_images = usual.app_images

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
            return self._compared(request, self._remembered[key], after)

    def close(self, patience: float = 10) -> None:
        """End the drawing that runs after its batch, and wait for that some seconds; no other one begins."""
        self._closed = True
        if self._turn.acquire(timeout=patience):
            self._turn.release()

    def _offer(self, name: str) -> Offer:
        """Describe an adaptor, after a check that it can be loaded."""
        with load_fair_adaptor(self._pipe, name) as handle:
            info = handle.info
        label = name if info.name == name else f"{info.name} ({name})"
        return Offer(name, label, _aim(info), tuple(info.attributes))

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
        seen = classify(images, self._classifier.logits) if self._classifier else {}
        return Side(pictures(images[0]), seen)

    def _compared(self, request: Request, before: Side, after: Side) -> Comparison:
        """Count, with the attributes first that the adaptors aim at."""
        classes = dict(self._classifier.classes) if self._classifier else {}
        aimed = {attribute for name in request.adaptors for attribute in self.offers[name].attributes}
        counts = []
        for name in sorted(classes, key=lambda name: name not in aimed):
            pair = [side.seen[name][0] for side in (before, after)]
            likeliest, number = [seen.argmax(-1) for seen in pair], len(classes[name])
            found = [count_classes(seen, number) for seen in likeliest]
            rows = [(word, (int(was), int(now))) for word, was, now in zip(classes[name], *found, strict=True)]
            biases = float(bias(found[0])), float(bias(found[1]))
            undetermined = undetermined_rate(pair[0]), undetermined_rate(pair[1])
            moved = shift(pairs_of(likeliest[0][None], likeliest[1][None], number))
            floor = noise_floor(request.images, number)
            counts.append(Count(name, name in aimed, rows, biases, floor, moved.value, moved.floor, undetermined))
        shown = {name: words for name, words in classes.items() if name in aimed} or classes
        return Comparison(_captioned(before, shown), _captioned(after, shown), counts)


def _captioned(side: Side, classes: Mapping[str, Sequence[str]]) -> Side:
    """Say the classes of each image, such as "female, dark?"."""

    def words(index: int) -> Iterator[str]:
        for name, known in classes.items():
            seen = side.seen[name][0, index]
            yield known[int(seen.argmax())] + ("" if seen.max() >= CONFIDENCE else "?")

    return replace(side, captions=tuple(", ".join(words(index)) for index in range(len(side.pictures))))


def _aim(info: AdaptorRecord) -> str:
    """Say what an adaptor aims at, such as "gender: female 50 %, male 50 %"."""
    return "; ".join(
        f"{attribute}: "
        + ", ".join(f"{word} {share:.0%}" for word, share in zip(row.classes, row.target, strict=True))
        for attribute, row in info.attributes.items()
    )


def _number(value: Any, what: str, low: float, high: float, *, whole: bool = False) -> float:
    fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool) and low <= value <= high
    if not fits:
        said = "missing" if value is None else repr(value)
        raise ConfigError(f"the {what} is {said}; it must be a {'whole ' * whole}number from {low} to {high}")
    return value
