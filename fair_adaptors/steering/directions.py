"""Moves what the text encoders say of a prompt to what they would say if it named the class that was drawn.

For a class, the mean of e("female X") − e("X") over prompts is embedding arithmetic. Here it also depends on the
prompt, by a map of low rank: a prompt that says much of the class already is moved less, and one that speaks of
another class first loses what it says of that (as EquiSteer, arXiv 2607.01147, does within cross-attention, and
FairImagen, arXiv 2510.21363, with a projection).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fair_adaptors.adaptor.folder import AdaptorFiles
from fair_adaptors.adaptor.record import AdaptorRecord
from fair_adaptors.errors import InvalidAdaptorError, WrongBaseError
from fair_adaptors.families.table import family_of

from .affine import Affine
from .calls import PROMPTS, Call
from .encoding import Encode, distinct, encoding, picked
from .gate import Gate
from .handle import Steering
from .states import States, check_family, encode, states_of

if TYPE_CHECKING:
    from torch import Tensor

SEGMENTS = ("end", "words", "end2", "words2", "pooled")
"""A prompt's last token with the padding, which have read all of it; its words, of an encoder that reads both ways;
both again of a second encoder; and what is pooled. Words that have read only what is before them stay as they are:
moving them as well changed nothing on the sandbox."""
ENOUGH = 0.75
"""Of the way from the middle to a class, how much a prompt says by itself when it is not moved there any more."""


@dataclass(frozen=True)
class Axis:
    """How prompts are moved to the classes of an attribute.

    Attributes:
        maps: by segment.
        levels: mean end of prompts that name each class, [K, D].
        gate: by which prompts that name any class are known, [D + 1]: a direction, and the least that they have of it.
            The least is infinite where it would not tell them from others.
    """

    maps: Mapping[str, Affine]
    levels: "Tensor"
    gate: "Tensor"

    def needed(self, ends: "Tensor", kind: int) -> "Tensor":
        """Return how far to move prompts to a class, [N], from 0 to 1: by what their ends [N, D] say of it already."""
        middle = self.levels.mean(0)
        way = self.levels[kind] - middle
        said = (ends - middle) @ way / way.square().sum()
        return (1 - said / ENOUGH).clamp(0, 1)

    @property
    def keys(self) -> set[str]:
        """The names of its tensors in a file, behind the attribute's."""
        parts = {key for segment, one in self.maps.items() for key in one.tensors(segment)}
        return parts | {"levels", "gate"}

    def names(self, end: "Tensor") -> bool:
        """Tell whether a prompt names a class, by its end [D]."""
        return bool(end @ self.gate[:-1] >= self.gate[-1])


class Directions(Steering):
    """Directions that were made for a base's text encoders. Negative prompts stay as they are."""

    place = 1.0  # behind the words of others
    continuous = True

    def __init__(self, record: AdaptorRecord, axes: Mapping[str, Axis]):
        """Take an axis for each attribute of the record."""
        self.record, self.axes = record, axes

    def reasons(self, pipe: Any, prompt: str, attributes: Sequence[str]) -> Mapping[str, str]:
        """Say of which attributes a prompt names a class, by what the text encoders say of it."""
        asked = [name for name in attributes if self.axes[name].gate[-1].isfinite()]
        if not asked:
            return {}
        end = encode(pipe, [prompt]).means()[0]
        return {name: f"the prompt names a {name}" for name in asked if self.axes[name].names(end)}

    def rewrite(self, call: Call, drawn: Sequence[Mapping[str, str]], gate: Gate, strength: float) -> None:
        """Let the pipeline encode the prompts of this call as they are moved to what was drawn for each image."""
        texts = {name: list(call.arguments[name]) for name in PROMPTS if isinstance(call.arguments.get(name), list)}
        kinds = {name: row.classes for name, row in self.record.attributes.items()}
        chosen = [{name: kinds[name].index(one) for name, one in classes.items()} for classes in drawn]

        rows = zip(*texts.values(), (tuple(sorted(one.items())) for one in chosen), strict=True)
        firsts, places = distinct(list(rows))
        few = {name: [one[first] for first in firsts] for name, one in texts.items()}
        wanted = [chosen[first] for first in firsts]

        def steered(plain: Encode) -> Encode:
            def encode_prompt(*arguments: Any, **named: Any) -> Any:
                ours = named.get("prompt", arguments[0] if arguments else None) == texts["prompt"]
                encoded = plain(*arguments, **named)  # Z-Image's writes into the list
                if not ours:
                    return encoded
                part = picked(encoded, len(places), firsts)
                moved = self.moved(call.pipe, part, states_of(call.pipe, part, few), wanted, strength)
                return tuple(
                    picked(moved[index], len(firsts), places) if index in (0, family_of(call.pipe).pooled) else one
                    for index, one in enumerate(encoded)
                )

            return encode_prompt

        call.during.enter_context(encoding(call.pipe, steered))

    def moved(
        self, pipe: Any, encoded: Sequence[Any], states: States, chosen: Sequence[Mapping[str, int]], strength: float
    ) -> tuple[Any, ...]:
        """Return what a pipeline encoded, moved to classes.

        Args:
            encoded: what ``encode_prompt`` returned of N prompts.
            states: the same as it is read.
            chosen: by attribute the index of the class that each prompt is moved to, [N]; {} leaves it as it is.
        """
        place, found = family_of(pipe).pooled, list(encoded)
        for one in {0, place}:
            rows = encoded[one]
            found[one] = [row.clone() for row in rows] if isinstance(rows, list) else rows.clone()
        for index, (classes, mean) in enumerate(zip(chosen, states.means(), strict=True)):
            every = [pair for span in states.spans[index] for pair in span.segments.items()]
            for name, kind in classes.items():
                axis, row = self.axes[name], found[0][index]
                much = strength * axis.needed(mean[None], kind)
                for segment, rows in every:
                    row[rows] += (much * axis.maps[segment](states.embeds[index][rows], kind)).to(row)
                if states.pooled is not None:
                    change = much * axis.maps["pooled"](states.pooled[index], kind)
                    found[place][index] += change.to(found[place])
        return tuple(found)

    def example(self, prompt: str, classes: Mapping[str, str], gate: Gate) -> str:
        """Say what becomes of a prompt for these classes."""
        return f"what the text encoders say of it is moved to {' and '.join(classes.values())}"


def read_directions(files: AdaptorFiles, pipe: Any) -> Directions:
    """Return the directions of an adaptor folder, for a pipeline.

    Raises:
        InvalidAdaptorError: a tensor is missing, is of no attribute, or has another shape than the others ask for.
        WrongBaseError: they were made for text encoders of other widths.
    """
    record, family = files.record, family_of(pipe)
    if family.name != record.family:
        raise WrongBaseError(
            f"the adaptor {record.name!r} was made for {record.base_model}, and this pipeline is of {family.title}."
            " Nothing was changed"
        )
    check_family(pipe)
    axes = {name: _read_axis(files, name, len(row.classes)) for name, row in record.attributes.items()}
    if foreign := set(files.directions) - {f"{name}.{key}" for name, axis in axes.items() for key in axis.keys}:
        raise InvalidAdaptorError(f"{record.name!r} has a tensor of no attribute: {min(foreign)}")
    read = encode(pipe, ["a"])
    here = {segment: rows.shape[1] for segment, rows in read.segments(0).items()}
    here |= {"pooled": read.pooled.shape[1]} if read.pooled is not None else {}
    for axis in axes.values():
        if (made := {segment: len(one.mean) for segment, one in axis.maps.items()}) != here:
            raise WrongBaseError(
                f"the adaptor {record.name!r} was made for {record.base_model}, whose text encoders give"
                f" {_numbers(made)}; those of this pipeline give {_numbers(here)}. Nothing was changed"
            )
    return Directions(record, axes)


def _numbers(widths: Mapping[str, int]) -> str:
    return ", ".join(f"{width} numbers ({segment})" for segment, width in widths.items())


def _read_axis(files: AdaptorFiles, name: str, classes: int) -> Axis:
    tensors = {
        key.removeprefix(f"{name}."): one for key, one in files.directions.items() if key.startswith(f"{name}.")
    }
    segments = [segment for segment in SEGMENTS if f"{segment}.mean" in tensors]
    try:
        maps = {
            segment: Affine(*(tensors[f"{segment}.{part}"] for part in ("mean", "offset", "down", "up")))
            for segment in segments
        }
        axis = Axis(maps, tensors["levels"], tensors["gate"])
        width = axis.levels.shape[1]
        fits = "end" in maps and axis.levels.shape == (classes, width)
        fits &= axis.gate.shape == (width + 1,)
        for segment, one in maps.items():
            (size,) = one.mean.shape
            rank = one.down.shape[1]
            fits &= one.offset.shape == (classes, size) and one.down.shape == (size, rank)
            fits &= one.up.shape == (classes, rank, size) and (segment == "pooled" or size == width)
    except (KeyError, ValueError, IndexError) as error:
        raise InvalidAdaptorError(f"{files.record.name!r} lacks a tensor of {name}: {error}") from error
    if not fits:
        raise InvalidAdaptorError(f"the tensors of {name} in {files.record.name!r} do not fit each other")
    return axis
