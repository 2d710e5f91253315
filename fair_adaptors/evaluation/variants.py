"""What an evaluation compares: the original model, adaptors at some strength, and the baselines of others."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from fair_adaptors.adaptor.folder import read_adaptor
from fair_adaptors.errors import ConfigError
from fair_adaptors.files import public_name
from fair_adaptors.hub.resolve import resolve
from fair_adaptors.load import load_fair_adaptor, record_of

ORIGINAL = "original"


@contextmanager
def _as_it_is(pipe: Any) -> Iterator[Any]:
    yield pipe


def _as_written(prompt: str, label: str, seeds: Sequence[int]) -> list[str]:
    return [prompt] * len(seeds)


@dataclass(frozen=True)
class Variant:
    """One way to make the images of a prompt.

    Attributes:
        name: what tables call it; unique within an evaluation.
        identity: a word that changes with anything that changes the images, such as a hash of weights.
        applied: context manager, given the base pipeline; yields what is called like a pipeline within the block, and
            leaves the pipeline as it was, bit for bit.
        prompts: (prompt, label, seeds of its images) → the prompt that each image is made of. ``label`` is the part of
            the prompt that names the person, such as an occupation.
        adaptor: name of the adaptor, if it is one.
        weight: its strength.
        aimed: the attributes that it is made to show fairly.
        summary: one sentence for the report.
    """

    name: str
    identity: str
    applied: Callable[[Any], AbstractContextManager[Any]] = _as_it_is
    prompts: Callable[[str, str, Sequence[int]], list[str]] = _as_written
    adaptor: str | None = None
    weight: float | None = None
    aimed: tuple[str, ...] = ()
    summary: str = ""


def original() -> Variant:
    """Return the model as it is, which every other variant is compared with."""
    return Variant(ORIGINAL, ORIGINAL, summary="The model as it is.")


def with_adaptor(name: str, weight: float | None = None, *, label: str | None = None) -> Variant:
    """Return the model with an adaptor: a name, folder or Hub id, or what needs no files, such as ``words:gender``.

    Args:
        weight: strength; None for the adaptor's own.
        label: what tables call it; None for the adaptor's name.

    Raises:
        FairAdaptorError: no such adaptor, or its files are damaged.
    """
    record = record_of(name)
    if record.files:
        read_adaptor(resolve(name))  # or an error
    strength = record.default_weight if weight is None else weight
    said = label or record.name

    @contextmanager
    def applied(pipe: Any) -> Iterator[Any]:
        if record_of(name).identity != record.identity:
            raise ConfigError(f"the adaptor {name} has changed since the evaluation began; start it again")
        with load_fair_adaptor(pipe, name, weight=strength):
            yield pipe

    return Variant(
        said if weight is None else f"{said} × {weight:g}",
        hashlib.sha256(f"{record.identity} {strength:g}".encode()).hexdigest(),
        applied,
        adaptor=record.name,
        weight=strength,
        aimed=tuple(record.attributes),
        summary=f"Adaptor of {' and '.join(record.trained_parts)}, strength {strength:g}.",
    )


def distinct(variants: Sequence[Variant]) -> tuple[Variant, ...]:
    """Return the variants, the original first, after a check that tables can tell them apart.

    Raises:
        ConfigError: two have one name, or are the same.
    """
    every = (original(), *(variant for variant in variants if variant.identity != ORIGINAL))
    for what in ("name", "identity"):
        seen: set[str] = set()
        for variant in every:
            value = getattr(variant, what)
            if value in seen:
                raise ConfigError(f"{variant.name!r} is given twice to compare")
            seen.add(value)
    return every


def variants_for(adaptors: Sequence[str], weights: Sequence[float]) -> list[Variant]:
    """Return each adaptor at each weight; at its own if there are none.

    Raises:
        ConfigError: a weight is not a number, or there is nothing to weigh.
    """
    if weights and not adaptors:
        raise ConfigError("`weight` is the strength of an adaptor: name an `adaptor` as well")
    if any(not math.isfinite(weight) or abs(weight) >= 100 for weight in weights):
        raise ConfigError("`weight` must be a finite number, usually between 0 and 1")
    if len(set(adaptors)) < len(adaptors):
        raise ConfigError(f"an adaptor is given twice to compare: {', '.join(adaptors)}")
    names = [record_of(adaptor).name for adaptor in adaptors]
    # Several trainings of one recipe have one name; then they go by what was typed, without where it lies.
    typed = [public_name(adaptor) for adaptor in adaptors]
    typed = [name if typed.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(typed, 1)]
    labels = [label if names.count(name) > 1 else name for name, label in zip(names, typed, strict=True)]
    wanted: Sequence[float | None] = weights or [None]
    return [
        with_adaptor(adaptor, weight, label=label)
        for adaptor, label in zip(adaptors, labels, strict=True)
        for weight in wanted
    ]
