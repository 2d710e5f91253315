"""What validation measures of images in which people have a face, or nobody has."""

import dataclasses
import io
import math

import pytest
import torch
from fair_adaptors.training.config import Attribute, TrainConfig
from fair_adaptors.training.engine.processes import World
from fair_adaptors.training.engine.state import attached
from fair_adaptors.training.run.milestones import enough
from fair_adaptors.training.run.validation import (
    Measured,
    Original,
    collapse,
    draw,
    measure,
    numbers,
    numbers_table,
    shifts,
)
from rich.console import Console
from torch import Tensor

from fair_adaptors.evaluation.estimates import BiasEstimate
from fair_adaptors.seeds import image_seed
from fair_adaptors.vision.checked import checked
from fair_adaptors.vision.crops import crop_faces
from fair_adaptors.vision.types import Classifier, FaceDetector, Faces
from tests.tiny_training import CONFIG, brightness, tiny_setup

COUNT = 6


def in_every_second(images: Tensor) -> Faces:
    """A face in the upper left quarter of every second image."""
    found = torch.arange(len(images)) % 2 == 0
    side = images.shape[-1] / 2
    boxes = torch.tensor([0.0, 0.0, side, side]).repeat(len(images), 1) * found[:, None]
    return Faces(boxes, torch.zeros(len(images), 5, 2), found.float(), found)


@pytest.mark.parametrize("crops", [True, False])
def test_the_validation_classifier_sees_faces_alone_and_images_without_one_are_undetermined(crops: bool) -> None:
    seen: list[Tensor] = []

    def judge(images: Tensor) -> dict[str, Tensor]:
        seen.append(images)
        return {name: 1000 * logits for name, logits in brightness(images).items()}  # always sure

    detector = FaceDetector("stub", "stub", in_every_second, crops)
    classifier = checked(Classifier("judge", "1", {"bright": ("no", "yes")}, judge, margin=0.1))
    place = dataclasses.replace(tiny_setup(), validation_classifier=classifier, faces=detector)
    prompt = place.validation_prompts[0]
    with attached(place, CONFIG):
        found = measure(place, CONFIG, [prompt], COUNT)
        images = draw(place, CONFIG, prompt, [image_seed(CONFIG.seed, prompt, i) for i in range(COUNT)])
    boxes = in_every_second(images).boxes
    assert torch.equal(seen[0], crop_faces(images, boxes, margin=0.1) if crops else images)
    assert found.undetermined == found.bias["bright"].undetermined == found.faceless == 0.5
    shares = judge(seen[0])["bright"][::2].argmax(1).float()
    assert found.bias["bright"].value == pytest.approx(abs(2 * shares.mean().item() - 1))
    assert math.isnan(found.kept) and math.isnan(found.faceless_before)


def test_less_is_kept_and_more_is_shifted_as_the_adaptor_changes_the_images() -> None:
    """And the numbers at the end say the same shift."""
    detector = FaceDetector("stub", "stub", in_every_second, False)
    place = dataclasses.replace(tiny_setup("warm"), faces=detector)
    config = dataclasses.replace(CONFIG, parts=("unet",))
    before = numbers(place, config, 2 * COUNT, World())
    found: list[Measured] = []
    originals: dict[str, Original] = {}
    drawn: list[int] = []
    place.pipe.vae.decoder.register_forward_pre_hook(lambda _, inputs: drawn.append(len(inputs[0])))
    with attached(place, config) as state:
        for size in (0.0, 1.0):
            for parameter in state.parameters.values():
                torch.nn.init.normal_(parameter, std=size, generator=torch.Generator().manual_seed(1))
            found.append(measure(place, config, place.validation_prompts, 2 * COUNT, originals=originals))
            assert sum(drawn) == 2 * 2 * COUNT * (3 if size else 2), "the original model's images are made once"
        after = numbers(place, config, 2 * COUNT, World())
    same, other = found
    assert same.faceless == same.faceless_before == other.faceless_before == 0.5
    assert same.undetermined > 0.5, "of some the class is unsure, too"
    assert same.kept == pytest.approx(1, abs=1e-5) and other.kept < same.kept - 1e-4
    assert same.shift["warm"].value == 0 and not measure(place, config, place.validation_prompts, 2 * COUNT).shift
    was, now = (each.classes["validation"]["warm"] for each in (before, after))
    assert (was[:, 1::2] == 2).all() and (was[:, ::2] < 2).all(), "two classes, and nobody"
    moved = abs((was[:, ::2] == 1).mean(1) - (now[:, ::2] == 1).mean(1)).mean()
    assert other.shift["warm"].value == pytest.approx(moved) and moved > 0.1
    few = {"warm": now[:, :COUNT]}  # as of a run that goes on with fewer images
    assert shifts(place, {"warm": was}, few) == shifts(place, {"warm": was[:, :COUNT]}, few)
    console = Console(record=True, width=150, file=io.StringIO())
    console.print(numbers_table(place, CONFIG, before, after))
    (said,) = [line for line in console.export_text().splitlines() if "validation" in line and "warm" in line]
    assert "warm shift (must stay)" in said and f" {moved:.2f} (" in said


def test_what_counts_as_collapsed() -> None:
    """Images whose class is unsure are no sign: here the class of nearly all is."""
    config = dataclasses.replace(CONFIG, least_kept=0.3, most_faceless=0.1)
    assert collapse(config, Measured({}, 0.9, 0.2, 0.9, 0.15)) is None
    assert "only 0.20" in str(collapse(config, Measured({}, 0.9, 0.2, 0.2, 0.15)))
    nobody = collapse(config, Measured({}, 0.9, 0.26, 0.9, 0.15))
    assert "26% of the images show no face" in str(nobody)
    assert collapse(config, Measured({}, 0.9, 0.2)) is None, "nothing was compared"


def test_a_run_ends_by_the_share_of_the_largest_bias_that_every_attribute_can_have() -> None:
    """Of two classes that is 1, of four it is 0.5; and the interval's upper end counts."""
    attributes = (*CONFIG.attributes, Attribute("tone", tuple("abcd"), (0.25,) * 4))
    config = dataclasses.replace(CONFIG, attributes=attributes, stop_below=0.4, validate_every=1)

    def ends(bright: float, tone: float, config: TrainConfig = config) -> bool:
        highs = {"bright": bright, "tone": tone}
        return enough(config, {name: BiasEstimate(0.0, 0.0, high, 0.0, 1, 1, 0.0) for name, high in highs.items()})

    assert ends(0.39, 0.19) and not ends(0.41, 0.19) and not ends(0.39, 0.21)
    assert not ends(-1.0, -1.0, dataclasses.replace(config, stop_below=0.0))
