"""What validation measures of images in which people have a face, or nobody has."""

import dataclasses
import math

import pytest
import torch
from fair_adaptors.training.engine.state import attached
from fair_adaptors.training.run.validation import collapse, draw, measure
from torch import Tensor

from fair_adaptors.seeds import image_seed
from fair_adaptors.vision.crops import crop_faces
from fair_adaptors.vision.types import FaceDetector, Faces
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
        return {"bright": 1000 * brightness(images)["bright"]}  # always sure

    detector = FaceDetector("stub", "stub", in_every_second, crops)
    place = dataclasses.replace(tiny_setup(), validation_classifier=judge, faces=detector)
    prompt = place.validation_prompts[0]
    with attached(place, CONFIG):
        found = measure(place, CONFIG, [prompt], COUNT)
        images = draw(place, CONFIG, prompt, [image_seed(CONFIG.seed, prompt, i) for i in range(COUNT)])
    boxes = in_every_second(images).boxes
    assert torch.equal(seen[0], crop_faces(images, boxes) if crops else images)
    assert found.undetermined == found.bias["bright"].undetermined == 0.5
    shares = judge(seen[0])["bright"][::2].argmax(1).float()
    assert found.bias["bright"].value == pytest.approx(abs(2 * shares.mean().item() - 1))
    assert math.isnan(found.kept) and collapse(CONFIG, found, 0.0) is not None


def test_what_is_kept_falls_as_the_adaptor_changes_the_images() -> None:
    place = tiny_setup()
    kept = []
    with attached(place, CONFIG) as state:
        for size in (0.0, 1.0):
            for parameter in state.parameters.values():
                torch.nn.init.normal_(parameter, std=size, generator=torch.Generator().manual_seed(1))
            kept.append(measure(place, CONFIG, place.validation_prompts, COUNT, kept=True).kept)
    assert kept[0] == pytest.approx(1, abs=1e-5) and kept[1] < kept[0] - 1e-4
