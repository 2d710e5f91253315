"""What the page tells of two rows of images: warnings where chance is ruled out, and no figure that nothing tells."""

import math
from typing import Any

import numpy as np
import pytest

from fair_adaptors.app.counting import Comparison, Side, compared
from fair_adaptors.evaluation.metrics import noise_floor
from fair_adaptors.evaluation.spec import Instruments, Kept
from fair_adaptors.evaluation.store import Record
from fair_adaptors.vision.types import Classifier, FaceDetector

CLASSES = {"gender": ("female", "male"), "tone": ("pale", "tan", "brown", "dark")}
HALVES, TONES = [0, 1] * 8, [0, 1, 2, 3] * 4


def seen(gender: Any = HALVES, tone: Any = TONES, *, found: Any = True, right: Any = 1.0) -> Side:
    """A row of 16 images, by their classes."""
    number = 16
    classes = {"gender": np.broadcast_to(gender, number), "tone": np.broadcast_to(tone, number)}
    record = Record(
        seeds=np.zeros((1, number)),
        found=np.broadcast_to(found, (1, number)),
        boxes=np.zeros((1, number, 4)),
        probabilities={"eye": {name: np.eye(len(CLASSES[name]))[index][None] for name, index in classes.items()}},
        right=np.broadcast_to(right, (1, number)),
    )
    return Side([], record)


def told(before: Side, after: Side, *, aimed: tuple[str, ...] = ("gender",), faces: bool = False) -> Comparison:
    tools = Instruments(
        (Classifier("eye", "eye", CLASSES, lambda images: {}),),
        kept=Kept("right job", lambda label, logits: np.ones(1)),
        faces=FaceDetector("detector", "detector", lambda images: None) if faces else None,
    )
    return compared(before, after, tools, set(aimed))


def test_who_all_but_vanishes_is_warned_of_and_where_the_aim_is_half_only_below_it() -> None:
    pale = [0 if tone == 3 else tone for tone in TONES]
    assert told(seen(0), seen(tone=pale)).warnings == [], "four of sixteen may be chance"
    warned = told(seen(tone=[3] * 10 + [0] * 6), seen(tone=0)).warnings
    assert warned == ["Dark-skinned people all but vanish: 10 before, 0 after."]
    assert told(seen(0), seen()).warnings == [], "what was aimed at may fall to half"
    assert told(seen(0), seen(1)).warnings == ["Women all but vanish: 16 before, 0 after."]


def test_an_occupation_that_is_lost_is_warned_of_where_it_is_no_chance() -> None:
    right = np.arange(16) >= 2
    assert told(seen(), seen(right=right)).warnings == []
    lost = told(seen(), seen(right=np.arange(16) >= 8))
    assert lost.warnings == ["Right job falls from 100% to 50% of the images."] and lost.beside[0].is_lost
    assert not told(seen(right=right), seen()).beside[0].is_lost


def test_images_without_a_face_count_for_nobody_and_are_told() -> None:
    some = told(seen(), seen(found=np.arange(16) < 4), faces=True)
    gender = some.counts[0]
    assert gender.rows == [("female", (8, 2)), ("male", (8, 2))]
    assert gender.floor == (noise_floor(16, 2), noise_floor(4, 2))
    assert some.after.captions[3:6] == ("male", "no face", "no face")
    assert (some.beside[0].what, some.beside[0].figures) == ("no face", (0.0, 0.75))
    none = told(seen(), seen(found=False), faces=True)
    assert math.isnan(none.counts[0].bias[1]) and math.isnan(none.counts[0].fair)


@pytest.mark.parametrize("aimed", [("gender",), ("tone",)])
def test_what_is_aimed_at_comes_first(aimed: tuple[str, ...]) -> None:
    counts = told(seen(), seen(), aimed=aimed).counts
    assert counts[0].attribute == aimed[0] and [count.aimed_at for count in counts] == [True, False]
