"""A prompt drawn without and with adaptors from the same noise, one request at a time, and what is counted."""

import base64
import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, UnknownAdaptorError, did_you_mean
from ..load import load_fair_adaptor
from ..registry import list_adaptors
from ..sandbox.prompts import ROLES, SECTORS
from .estimates import count_classes
from .grid import pictures
from .metrics import bias, noise_floor, undetermined_rate
from .prompts import MAX_LENGTH, load_prompts
from .run import classify, generate

if TYPE_CHECKING:
    from numpy import ndarray
    from PIL import Image

MAX_STRENGTH, MAX_SEED = 1.25, 2**32
REMEMBERED = 8
"""Requests whose images without adaptors are kept."""
HINT = f"The sandbox knows the places {', '.join(SECTORS)}, and the roles {', '.join(ROLES)}."

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Request:
    """What is to be drawn. The fields are those of the page's JSON."""

    prompt: str
    adaptors: tuple[str, ...]
    strength: float
    images: int
    seed: int


def read_request(values: Any, *, known: Collection[str], max_images: int) -> Request:
    """Check a request.

    Args:
        values: decoded JSON.
        known: adaptors that may be asked for.
        max_images: the largest number of images.

    Raises:
        UnknownAdaptorError: an adaptor that is not on the page.
        ConfigError: anything else is missing or out of range.
    """
    names = [field.name for field in fields(Request)]
    if not isinstance(values, dict) or sorted(values) != sorted(names):
        raise ConfigError(f"a request is an object with {', '.join(names)}")
    prompt, adaptors = values["prompt"], values["adaptors"]
    if not isinstance(prompt, str) or not prompt.strip():
        raise ConfigError("the prompt is empty: write what to draw")
    if len(prompt) > MAX_LENGTH:
        raise ConfigError(f"the prompt has {len(prompt)} characters; {MAX_LENGTH} are the most")
    if not isinstance(adaptors, list):
        raise ConfigError(f"adaptors are a list of names, not {adaptors!r}")
    if not adaptors:
        raise ConfigError("no adaptor is chosen: choose at least one to compare with")
    for name in adaptors:
        if name not in known:
            raise UnknownAdaptorError(
                f"there is no adaptor {name!r} on this page.{did_you_mean(str(name), known)} Known: {', '.join(known)}"
            )
    return Request(
        prompt.strip().encode("utf-8", "replace").decode(),  # half a surrogate pair has no bytes, so no seed
        tuple(dict.fromkeys(adaptors)),
        _number(values["strength"], "strength", 0, MAX_STRENGTH),
        int(_number(values["images"], "number of images", 1, max_images, whole=True)),
        int(_number(values["seed"], "seed", 0, MAX_SEED, whole=True)),
    )


def _number(value: Any, what: str, low: float, high: float, *, whole: bool = False) -> float:
    fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool) and low <= value <= high
    if not fits:
        raise ConfigError(f"the {what} is {value!r}; it must be a {'whole ' * whole}number from {low} to {high}")
    return value


@dataclass(frozen=True)
class _Side:
    """The images of one side: PNG pictures as ``data:`` addresses, and probabilities [1, n, K] of each attribute."""

    pictures: list[str]
    seen: "dict[str, ndarray]"


class Studio:
    """Draws and counts, one request at a time; between requests the pipeline has no adaptor."""

    def __init__(self, pipe: Any, *, base: str, adaptors: Sequence[str] = ()):
        """Load each adaptor once, so that one that does not fit is told at the start.

        Args:
            pipe: a Stable Diffusion pipeline without adaptors.
            base: its name; the registry's adaptors for it are offered, and for the sandbox its classifier counts.
            adaptors: more to offer: names, folders or Hub ids.

        Raises:
            FairAdaptorError: an adaptor cannot be loaded, or there is none to offer.
        """
        from ..sandbox.instruments import instruments
        from ..sandbox.pipeline import GUIDANCE, STEPS

        here = base == "sandbox"
        known = [info.name for info in list_adaptors() if info.base_model == base and info.status != "planned"]
        offered = list(dict.fromkeys([*known, *adaptors]))
        if not offered:
            raise ConfigError(f"no adaptor is published for {base}: name one, --adaptor FOLDER or a Hub id")
        self._pipe, self._turn, self._closed = pipe, threading.Lock(), False
        self._num_steps, self._guidance_scale = (STEPS, GUIDANCE) if here else (30, 7.5)
        self._batch_size = 8 if here else 4  # small ones, for the progress to move
        self._judge = instruments().classifiers[0] if here else None
        self._remembered: OrderedDict[tuple[str, int, int], _Side] = OrderedDict()
        self.options: dict[str, Any] = {
            "base": base,
            "adaptors": [self._offer(name) for name in offered],
            "examples": list(load_prompts("sandbox-test" if here else "occupations-test").prompts[1::3][:5]),
            "hint": HINT if here else "",
            "images": 16 if here else 4,
            "max_images": 64 if here else 16,
            "max_strength": MAX_STRENGTH,
        }

    def read(self, values: Any) -> Request:
        """Check a request, see ``read_request``."""
        known = [adaptor["key"] for adaptor in self.options["adaptors"]]
        return read_request(values, known=known, max_images=self.options["max_images"])

    def compare(self, request: Request, tell: Tell = lambda event: None) -> dict[str, Any]:
        """Draw the same noise without and with the adaptors, and count the classes.

        Args:
            tell: called with ``{"waiting": True}`` if others are before, then ``{"done": …, "total": …}`` in images;
                an exception of it ends the drawing.

        Returns:
            ``before`` and ``after``, pictures as ``data:`` addresses; ``counts``, by attribute and class the images
            before and after; ``bias``, by attribute the bias ``before`` and ``after``, its noise ``floor``, and the
            ``undetermined`` share of images before and after. The last two are empty without a classifier. There are
            no intervals: one prompt's few images, often all of one class, make a bootstrap look sure.
        """
        if self._turn.locked():
            tell({"waiting": True})
        with self._turn:
            key = request.prompt, request.seed, request.images
            total, done = request.images * (1 if key in self._remembered else 2), 0

            def advance(count: int) -> None:
                nonlocal done
                done += count
                if self._closed:
                    raise ConnectionAbortedError("the page is being closed")
                tell({"done": done, "total": total})

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
            return self._compared(self._remembered[key], after)

    def close(self, patience: float = 10) -> None:
        """End the drawing that runs after its batch, and wait for that some seconds; no other one begins."""
        self._closed = True
        if self._turn.acquire(timeout=patience):
            self._turn.release()

    def _offer(self, name: str) -> dict[str, Any]:
        """Describe an adaptor for the page, after a check that it can be loaded."""
        with load_fair_adaptor(self._pipe, name) as handle:
            info = handle.info
        label = name if info["name"] == name else f"{info['name']} ({name})"
        return {"key": name, "label": label, "summary": _aim(info), "attributes": list(info["attributes"])}

    def _draw(self, request: Request, on_batch: Callable[[int], None]) -> _Side:
        images = generate(
            self._pipe,
            [request.prompt],
            images_per_prompt=request.images,
            seed=request.seed,
            num_steps=self._num_steps,
            guidance_scale=self._guidance_scale,
            batch_size=self._batch_size,
            on_batch=on_batch,
        )
        seen = classify(images, self._judge.judge) if self._judge else {}
        return _Side([_address(picture) for picture in pictures(images[0])], seen)

    def _compared(self, before: _Side, after: _Side) -> dict[str, Any]:
        counts, biases = {}, {}
        for name, classes in self._judge.classes.items() if self._judge else ():
            pair = [side.seen[name][0] for side in (before, after)]
            both = [count_classes(seen.argmax(-1), len(classes)) for seen in pair]
            counts[name] = {word: [int(side[k]) for side in both] for k, word in enumerate(classes)}
            biases[name] = {
                "before": float(bias(both[0])),
                "after": float(bias(both[1])),
                "floor": noise_floor(len(pair[0]), len(classes)),
                "undetermined": [undetermined_rate(seen) for seen in pair],
            }
        return {"before": before.pictures, "after": after.pictures, "counts": counts, "bias": biases}


def _aim(info: Mapping[str, Any]) -> str:
    """Say what an adaptor aims at, such as "gender: female 50 %, male 50 %"."""
    return "; ".join(
        f"{attribute}: "
        + ", ".join(f"{word} {share:.0%}" for word, share in zip(row["classes"], row["target"], strict=True))
        for attribute, row in info["attributes"].items()
    )


def _address(picture: "Image.Image") -> str:
    """Return a picture as a ``data:`` address."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
