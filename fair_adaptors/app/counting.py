"""What the page tells of two rows of images: who is shown before and after, and what else the adaptors changed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fair_adaptors.attributes import people
from fair_adaptors.evaluation.beside import erasures, pairs_of, shift, sign_test
from fair_adaptors.evaluation.estimates import count_classes
from fair_adaptors.evaluation.harm import VANISHED
from fair_adaptors.evaluation.metrics import CONFIDENCE, bias, effective_classes, effective_floor, noise_floor
from fair_adaptors.evaluation.spec import Instruments
from fair_adaptors.evaluation.store import Record
from fair_adaptors.evaluation.variety import diversity

if TYPE_CHECKING:
    from PIL import Image

LEVEL = 0.05
"""What stayed right is called lost where a sign test of the pairs is below this."""
Pair = tuple[float, float]
"""Before and after."""


@dataclass(frozen=True)
class Side:
    """The n images of one side.

    Attributes:
        pictures: as they were drawn.
        record: what was seen in them, [1, n, …]; None without a classifier.
        captions: the classes of each image, with a question mark where it is undetermined.
    """

    pictures: "list[Image.Image]"
    record: Record | None
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Count:
    """How many images are of each class of one attribute, and what follows; pairs are before and after.

    There are no intervals: one prompt's few images, often all of one class, make a bootstrap look sure. NaN is what no
    image with a face tells.

    Attributes:
        attribute: its name.
        aimed_at: whether an adaptor makes it fair.
        rows: each class and its images.
        bias: see ``metrics.bias``.
        floor: what a perfectly fair model is expected to score with as many images.
        shown: how many classes are shown, see ``metrics.effective_classes``.
        fair: how many a perfectly fair model shows on average with as many images as there are after.
        shift: how far it moved from before, see ``beside.shift``: what counts where no adaptor aims at it.
        shift_floor: the shift of images that change their class without a direction.
        undetermined: share of images whose class is undetermined.
    """

    attribute: str
    aimed_at: bool
    rows: list[tuple[str, tuple[int, int]]]
    bias: Pair
    floor: Pair
    shown: Pair
    fair: float
    shift: float
    shift_floor: float
    undetermined: Pair


@dataclass(frozen=True)
class Beside:
    """What should stay, before and after.

    Attributes:
        what: such as "right occupation".
        share: whether the figures are shares of images.
        figures: before and after; NaN before where it is a likeness to before.
        is_lost: whether it clearly fell.
    """

    what: str
    share: bool
    figures: Pair
    is_lost: bool = False


@dataclass(frozen=True)
class Comparison:
    """Images of the same noise without and with adaptors; without a classifier, nothing is counted.

    Attributes:
        warnings: who all but vanished, and what was lost, in words.
    """

    before: Side
    after: Side
    counts: list[Count]
    beside: list[Beside]
    warnings: list[str]


def compared(before: Side, after: Side, instruments: Instruments | None, aimed: set[str]) -> Comparison:
    """Count, with the attributes first that the adaptors aim at."""
    if instruments is None or before.record is None or after.record is None:
        return Comparison(before, after, [], [], [])
    was, now = before.record, after.record
    first = instruments.classifiers[0]
    counts = [
        _count((was, now), first.name, name, classes, name in aimed)
        for name, classes in sorted(first.classes.items(), key=lambda row: row[0] not in aimed)
    ]
    beside = list(_beside(was, now, instruments))
    warnings = [*_erased(was, now, first.name, first.classes, aimed), *(_lost(row) for row in beside if row.is_lost)]
    shown = {name: words for name, words in first.classes.items() if name in aimed} or first.classes

    def captioned(side: Side, seen: Record) -> Side:
        return replace(side, captions=tuple(_captions(seen, first.name, shown)))

    return Comparison(captioned(before, was), captioned(after, now), counts, beside, warnings)


def _count(records: tuple[Record, Record], classifier: str, name: str, words: Sequence[str], aimed_at: bool) -> Count:
    number = len(words)
    before, after = (record.classes(classifier, [name]) for record in records)
    found = [count_classes(seen, number)[0] for seen in (before, after)]
    moved = shift(pairs_of(before, after, number))
    valid = [int(seen.sum()) for seen in found]
    return Count(
        name,
        aimed_at,
        [(word, (int(was), int(now))) for word, was, now in zip(words, *found, strict=True)],
        bias=_pair(float(bias(seen)) if count else np.nan for seen, count in zip(found, valid, strict=True)),
        floor=_pair(noise_floor(count, number) if count else np.nan for count in valid),
        shown=_pair(
            float(effective_classes(seen)) if count else np.nan for seen, count in zip(found, valid, strict=True)
        ),
        fair=effective_floor(valid[1], (1 / number,) * number) if valid[1] else np.nan,
        shift=moved.value,
        shift_floor=moved.floor,
        undetermined=_pair(float(one.undetermined(classifier, [name], CONFIDENCE).mean()) for one in records),
    )


def _beside(was: Record, now: Record, instruments: Instruments) -> Iterator[Beside]:
    if instruments.faces is not None:
        yield Beside("no face", True, (float(1 - was.found.mean()), float(1 - now.found.mean())))
    if instruments.kept and was.right is not None and now.right is not None and np.isfinite(was.right).all():
        left, joined = ((one > other).sum() for one, other in ((was.right, now.right), (now.right, was.right)))
        lost = left > joined and sign_test(int(left), int(joined)) < LEVEL
        yield Beside(instruments.kept.name, True, (float(was.right.mean()), float(now.right.mean())), bool(lost))
    for encoder, features in now.features.items():
        before = was.features[encoder]
        if features.shape[1] > 1:
            yield Beside("distance of two images", False, (diversity(before).value, diversity(features).value))
        yield Beside("likeness to before", False, (np.nan, float((features * before).sum(-1).mean())))
    for encoder, fits in now.text.items():
        yield Beside("fit to the prompt", False, (float(was.text[encoder].mean()), float(fits.mean())))


def _erased(
    was: Record, now: Record, classifier: str, classes: Mapping[str, Sequence[str]], aimed: set[str]
) -> Iterator[str]:
    pairs = {
        name: pairs_of(was.classes(classifier, [name]), now.classes(classifier, [name]), len(words))
        for name, words in classes.items()
    }
    wanted = {name: (1 / len(classes[name]),) * len(classes[name]) for name in classes if name in aimed}
    for one in erasures(pairs, classes, wanted):
        if one.prompt is None:
            count = [round(share * pairs[one.target].sum()) for share in (one.change.before, one.change.after)]
            who = people(one.target, one.class_name)
            fall = "all but vanish" if count[1] <= VANISHED * count[0] else "are shown less than half as often"
            yield f"{who[0].upper()}{who[1:]} {fall}: {count[0]} before, {count[1]} after."


def _lost(row: Beside) -> str:
    was, now = row.figures
    return f"{row.what[0].upper()}{row.what[1:]} falls from {was:.0%} to {now:.0%} of the images."


def _captions(record: Record, classifier: str, classes: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield the classes of each image, such as "female, dark?"."""
    for index in range(record.found.shape[1]):
        words = []
        for name, known in classes.items():
            seen = record.probabilities[classifier][name][0, index]
            words.append(known[int(seen.argmax())] + ("" if seen.max() >= CONFIDENCE else "?"))
        yield ", ".join(words) if record.found[0, index] else "no face"


def _pair(values: Iterator[float]) -> Pair:
    before, after = values
    return before, after
