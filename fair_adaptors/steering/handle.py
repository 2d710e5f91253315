"""The handle of an adaptor that steers calls of a pipeline: which class each image gets, and which are left alone."""

import logging
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from typing import TYPE_CHECKING, Any, Literal

from fair_adaptors.adaptor.handle import HANDLES, LOCK, FairAdaptor
from fair_adaptors.adaptor.record import AdaptorRecord
from fair_adaptors.errors import FairAdaptorError

from . import calls
from .draw import Attribute, draw_class, uniform_of
from .gate import Gate

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)

Classes = Mapping[str, str | None]
"""By attribute: the class that was drawn for an image; None where the image was left alone.

Where words name several people, those behind the first have one of their own: ``gender of person 2``.
"""


class Steering(ABC):
    """A kind of adaptor that steers: how the images of a call are made to show what was drawn for them.

    Attributes:
        record: what it makes fair, and its name.
        place: several rewrite a call in this order.
        continuous: whether its weight is how far all images are steered, and not the share of those that are.
    """

    record: AdaptorRecord
    place: float
    continuous = False

    @abstractmethod
    def rewrite(self, call: calls.Call, drawn: Sequence[Mapping[str, str]], gate: Gate, strength: float) -> None:
        """Change a call's arguments so that each image shows what was drawn for it, by attribute; {} leaves it.

        Args:
            strength: how far to steer, if that is ``continuous``.
        """

    def people(self, prompt: str, attribute: str, gate: Gate) -> tuple[str, ...]:
        """Return of whom a class is drawn: "" is the first person, and " of person 2" is another one."""
        return ("",)

    def reasons(self, pipe: Any, prompt: str, attributes: Sequence[str]) -> Mapping[str, str]:
        """Say why to leave attributes alone in a prompt that the gate does not: by attribute, {} for none."""
        return {}

    @abstractmethod
    def example(self, prompt: str, classes: Mapping[str, str], gate: Gate) -> str:
        """Say in a clause what becomes of a prompt for these classes, such as "the prompt becomes …"."""


def steer(pipe: Any, steering: Steering, weight: float | None) -> "SteeringAdaptor":
    """Load an adaptor that steers into a pipeline; if it is there already, set its weight and switch it on.

    Raises:
        FairAdaptorError: another one steers the same attribute, or the weight is no share.
        WrongBaseError: the pipeline is not called with a prompt.
    """
    with LOCK:
        here = [one for one in HANDLES if isinstance(one, SteeringAdaptor) and one.loaded and one.changes(pipe, set())]
        known = next((one for one in here if one.info.identity == steering.record.identity), None)
        if known is None:
            taken = {name: one for one in here for name in one.info.attributes}
            for name in steering.record.attributes:
                if name in taken:
                    raise FairAdaptorError(
                        f"{taken[name].info.name!r} steers the {name} of this pipeline already; unload it first"
                    )
        handle = known or SteeringAdaptor(pipe, steering)
        handle.put_in(handle.checked(steering.record.default_weight if weight is None else weight))
    return handle


class SteeringAdaptor(FairAdaptor):
    """Handle of an adaptor that steers the calls of one pipeline.

    Attributes:
        info: its record.
        gate: which prompts are left alone; give it another to exempt prompts, or to add words.
        classes: of each image of the last call, the class that was drawn, by attribute; None where it was left alone.
    """

    def __init__(self, pipe: Any, steering: Steering):
        super().__init__(steering.record)
        self.gate = Gate()
        self.classes: tuple[Classes, ...] = ()
        self.place = steering.place
        self._pipe, self._steering = weakref.ref(pipe), steering
        self._attributes = [
            Attribute(name, row.classes, tuple(row.target)) for name, row in steering.record.attributes.items()
        ]
        self._told: set[str] = set()

    def explain(self, prompt: str) -> str:
        """Say what is done with a prompt, and why: a line for each attribute."""
        reasons, lines = self._reasons(prompt), []
        for one in self._attributes:
            if reason := reasons.get(one.name):
                lines.append(f"{one.name}: left alone, because {reason}")
                continue
            parts = dict(zip(one.classes, one.target, strict=True))
            shares = ", ".join(f"{name} {share:.0%}" for name, share in parts.items())
            likely = sorted(filter(parts.get, parts), key=parts.__getitem__, reverse=True)
            people = self._steering.people(prompt, one.name, self.gate)
            drawn = {one.name + of: each for of, each in zip(people, cycle(likely), strict=False)}
            becomes = self._steering.example(prompt, drawn, self.gate)
            each = "each image" if len(people) == 1 else "each person in each image"
            lines.append(f"{one.name}: drawn for {each} ({shares}); for {', '.join(drawn.values())}, {becomes}")
        return "\n".join(lines)

    def see(self, call: calls.Call) -> bool:
        """Draw a class for each image of a call; tell whether there is any."""
        plans = {prompt: self._plan(prompt) for prompt in dict.fromkeys(call.prompts)}
        share = 1.0 if self._steering.continuous else self._weight
        self.classes = tuple(
            {
                name: one.classes[draw_class(one, key)] if one and uniform_of("steered", key) < share else None
                for name, one in plans[prompt].items()
            }
            for prompt, key in zip(call.prompts, call.keys, strict=True)
        )
        return any(name is not None for classes in self.classes for name in classes.values())

    def rewrite(self, call: calls.Call) -> None:
        """Change a call so that each image shows what was drawn for it."""
        drawn = [{name: one for name, one in classes.items() if one is not None} for classes in self.classes]
        self._steering.rewrite(call, drawn, self.gate, self._weight)

    def miss(self, why: str) -> None:
        """Be told of a call that cannot be steered."""
        self.classes = ()
        if why not in self._told:
            self._told.add(why)
            logger.warning("A call was not steered by %s, because %s", self.info.name, why)

    def checked(self, weight: float) -> float:
        """Return a weight: the share of images that are steered, or how far all are.

        Raises:
            FairAdaptorError: it is none.
        """
        share = super().checked(weight)
        if not self._steering.continuous and not 0 <= share <= 1:
            name = self.info.name
            raise FairAdaptorError(f"`weight` is {share:g}; of {name} it is the share of images, from 0 to 1")
        return share

    def changes(self, pipe: Any, modules: "set[nn.Module]") -> bool:
        """Tell whether it is loaded into a pipeline."""
        return self._pipe() is pipe

    def _plan(self, prompt: str) -> Mapping[str, Attribute | None]:
        """Return what to draw for an image of a prompt, under the names of ``classes``; None is left alone."""
        reasons = self._reasons(prompt)
        for name, reason in reasons.items():
            self._tell(f"{name} is left alone in {prompt!r}, because {reason}")
        people = self._steering.people
        return {
            one.name + of: None if one.name in reasons else replace(one, name=one.name + of)
            for one in self._attributes
            for of in (("",) if one.name in reasons else people(prompt, one.name, self.gate))
        }

    def _reasons(self, prompt: str) -> Mapping[str, str]:
        """Say why attributes are left alone in a prompt, by attribute."""
        asked = list(self.info.attributes)
        reasons = self.gate.look(prompt, asked).reasons
        rest = [name for name in asked if name not in reasons]
        return {**reasons, **(self._steering.reasons(self._pipe(), prompt, rest) if rest else {})}

    def _tell(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            logger.info(line)

    def _apply(self, weight: float) -> None:
        if (pipe := self._pipe()) is not None:
            (calls.add if weight else calls.remove)(pipe, self)

    def _close(self, state: Literal["unloaded", "fused"]) -> None:
        self.classes = ()
        super()._close(state)
