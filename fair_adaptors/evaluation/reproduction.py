"""The paper's evaluation of an adaptor, done again: what is counted, its rows beside the paper's, and what differs."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fair_adaptors.adaptor.results import Estimate, Results, VariantResults
from fair_adaptors.hub.parts import KIND
from fair_adaptors.prompts.sets import PromptSet, load_prompts
from fair_adaptors.vision.authors import classifiers_for_tests

from . import published
from .protocol import NOT_PADDED
from .published import BOTH, DINO, GENDER, IMAGE, OLD, RACE, TEXT, PublishedFigure
from .spec import Instruments, Target, targets_for

BIASES = {GENDER: ("gender",), RACE: ("race",), BOTH: ("gender", "race")}
_OWN_LIST = "occupations-test"


@dataclass(frozen=True)
class Row:
    """A figure of a model: as the paper has it, and as it was measured here. Neither is made of the other.

    Attributes:
        model: the original, or the adaptor.
        figure: what it is: a bias by its target, a share, or a cosine.
        published: of the paper; None where it has none.
        measured: with its 95 % interval; None where nothing was measured.
        spread: standard deviation over the prompts of what was measured; NaN where there is none.
        floor: what a perfectly fair model would score; NaN for what is not a bias.
        undetermined: share of images of whose class the classifier is not sure; NaN for what is not a class.
        no_face: share of images in which no face was found; NaN where nobody looked for one.
    """

    model: str
    figure: str
    published: PublishedFigure | None
    measured: Estimate | None
    spread: float = math.nan
    floor: float = math.nan
    undetermined: float = math.nan
    no_face: float = math.nan


def prompts_of(adaptor: str) -> tuple[str, ...]:
    """Return which of the authors' test lists the paper evaluates an adaptor on; occupations for any other."""
    return tuple(published.PUBLISHED.get(adaptor, published.ORIGINAL))


def classifiers_of(attributes: Sequence[str]) -> str:
    """Return the authors' classifiers for the paper's rows of an adaptor: gender and race, and what else it is for."""
    return classifiers_for_tests(dict.fromkeys(("gender", "race", *attributes)))


def load_test_prompts(name: str, *, padded: bool, own_list: bool = False) -> PromptSet:
    """Return the prompts of one of the authors' test lists.

    Args:
        name: such as ``occupations``.
        padded: whether they will be; otherwise the set's name says that they are not, so that no evaluation of the
            one kind is taken for one of the other.
        own_list: take the fifty occupations from this package, which has the same, so that nothing is fetched.
    """
    own = own_list and name == published.OCCUPATIONS
    found = load_prompts(_OWN_LIST if own else f"{KIND}:{name}-test")
    return found if padded else replace(found, name=f"{found.name}, {NOT_PADDED}")


def first(prompts: PromptSet, limit: int | None) -> PromptSet:
    """Return the first prompts of a set that names no classes; all of them without a limit."""
    return replace(prompts, prompts=prompts.prompts[:limit], labels=prompts.labels[:limit])


def paper_targets(adaptor: str, instruments: Instruments) -> tuple[Target, ...]:
    """Return what is counted: gender, race and both jointly, what the adaptor is for, and whatever else is known.

    Only what the adaptor is for is declared; the rest is counted because the paper's table has it.
    """
    single = [one for one in targets_for((), [adaptor], instruments) if len(one.attributes) == 1]
    shares = {one.name: one for one in single}
    together = [one for one in instruments.classifiers if set(BIASES[BOTH]) <= set(one.classes)]
    if together:
        gender, race = (shares[name] for name in BIASES[BOTH])
        product = tuple(one * other for one in gender.shares for other in race.shares)
        single.insert(2, Target(BIASES[BOTH], product, declared=gender.declared and race.declared))
    return tuple(single)


def rows(results: Results, adaptor: str, prompts: str) -> tuple[Row, ...]:
    """Return the paper's rows of an adaptor and of the original model, beside what an evaluation measured.

    Args:
        results: of the original and of one adaptor.
        adaptor: its name, by which the paper's figures are found.
        prompts: the authors' list that was evaluated on.
    """
    found: list[Row] = []
    tables = (published.ORIGINAL, published.PUBLISHED.get(adaptor, {}))
    for variant, table in zip(results.variants, tables, strict=True):
        figures = table.get(prompts, {})
        measured = {row.figure: row for row in _measured(results, variant)}
        for name in dict.fromkeys((GENDER, RACE, BOTH, OLD, TEXT, IMAGE, DINO)):
            if name == OLD and "age" not in results.variants[-1].aimed and OLD not in tables[1].get(prompts, {}):
                continue
            row = measured.get(name)
            if row is not None or name in figures:
                row = row or Row(variant.name, name, None, None)
                found.append(replace(row, published=figures.get(name)))
    return tuple(found)


def _measured(results: Results, variant: VariantResults) -> Iterator[Row]:
    no_face = variant.no_face.value if variant.no_face else math.nan
    for name in BIASES:
        if name in results.targets:
            seen = results.figures(variant, name)
            spread = float(np.std([one.bias.value for one in seen.prompts if one.images]))
            yield Row(variant.name, name, None, seen.bias, spread, seen.bias.floor, seen.undetermined.value, no_face)
    if "age" in results.targets:
        seen, old = results.figures(variant, "age"), results.targets["age"].classes.index("old")
        spread = float(np.std([one.frequencies[old] for one in seen.prompts if one.images]))
        yield Row(
            variant.name, OLD, None, seen.frequencies[old], spread,
            undetermined=seen.undetermined.value, no_face=no_face,
        )  # fmt: skip
    clip = next((name for name in results.encoders if name in variant.text_alignment), None)
    dino = next((name for name in results.encoders if name.startswith("dinov2:")), None)
    if clip is not None:
        prompts = [one.value for one in variant.text_prompts[clip]]
        yield Row(variant.name, TEXT, None, variant.text_alignment[clip], float(np.std(prompts)), no_face=no_face)
    for name, encoder in ((IMAGE, clip), (DINO, dino)):
        if encoder is not None and encoder in variant.preservation:
            yield Row(variant.name, name, None, variant.preservation[encoder], no_face=no_face)


def differences(
    results: Results,
    adaptor: str,
    *,
    attributes: Sequence[str],
    padded: bool,
    num_prompts: int | None = None,
    dtype: str = "float16",
) -> list[str]:
    """Say how the evaluation differs from the paper's, a line each: whatever two columns may differ by.

    Args:
        results: of the evaluation.
        adaptor: its name.
        attributes: what it is for.
        padded: whether prompts were padded to the text encoder's length.
        num_prompts: how many the list has, if only some of them were taken.
        dtype: of the networks.
    """
    solver = "the solver computes in float16 too; theirs in float32"
    networks = f"the networks compute in {dtype}; theirs in float16, and their solver in float32"
    return [
        *_of_drawing(results, adaptor, attributes, padded, num_prompts),
        solver if dtype == "float16" else networks,
        *_of_seeing(results),
    ]


def _of_drawing(
    results: Results, adaptor: str, attributes: Sequence[str], padded: bool, num_prompts: int | None
) -> Iterator[str]:
    settings, wanted = results.settings, published.images_per_prompt(attributes)
    if adaptor not in published.PUBLISHED:
        yield f"of the adaptor {adaptor} no figures of the paper are known here"
    if settings.images_per_prompt != wanted:
        yield f"{settings.images_per_prompt} images of each prompt; the paper takes {wanted}"
    if num_prompts is not None and num_prompts > len(settings.prompts):
        yield f"{len(settings.prompts)} of the {num_prompts} prompts"
    for what, value, theirs in (
        ("sampling steps", settings.num_steps, published.STEPS),
        ("guidance", settings.guidance_scale, published.GUIDANCE),
    ):
        if value != theirs:
            yield f"{what}: {value:g}; the paper's is {theirs:g}"
    if padded:
        yield "prompts are padded to the text encoder's length, as every stock pipeline does; theirs are not"
    yield "the noise is another: theirs is seeded with Python's hash of the prompt, another one in each process"


def _of_seeing(results: Results) -> Iterator[str]:
    if not results.classifier.startswith(f"{KIND}:test-"):
        yield f"classes are told by {results.classifier}; theirs by classifiers of their own for tests"
    if results.face_detector != published.DETECTOR:
        yield f"faces are found by {results.face_detector or 'nobody'}; theirs by {published.DETECTOR}"
    yield "where their detector finds no face they ask another, of dlib; here the image counts as one without a face"
    for name in results.encoders:
        theirs = published.ENCODERS[DINO if name.startswith("dinov2:") else IMAGE]
        yield f"cosines are those of {name}; the paper's of {theirs}"
    yield "images are judged as they are drawn; theirs were saved as JPEG first"
