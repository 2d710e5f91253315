"""What the losses see of images: classifiers the faces alone, encoders all, and whose face is kept."""

import dataclasses
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from fair_adaptors.training.config import Attribute
from fair_adaptors.training.engine.objective import (
    ObservedImages,
    OriginalImages,
    describe,
    losses,
    observe,
    observe_each,
)
from fair_adaptors.training.engine.sampling import initial_noise
from fair_adaptors.training.engine.targets import Targets
from fair_adaptors.training.faces.bank import FaceBank
from fair_adaptors.training.setup import Setup
from torch import Tensor

from fair_adaptors.vision.checked import checked
from fair_adaptors.vision.crops import align_faces
from fair_adaptors.vision.faces import LANDMARKS, LANDMARKS_SIDE
from fair_adaptors.vision.types import Classifier, FaceDetector, Faces
from tests.tiny_training import CONFIG, tiny_setup

COUNT = 4
FACE = dataclasses.replace(CONFIG, preservation=0.0, face_weight=1.0, face_encoder="stub", faces="stub")


def detector(found: list[bool], *, crops: bool = True) -> FaceDetector:
    """Finds a face in the upper left quarter of some images."""

    def find(images: Tensor) -> Faces:
        there = torch.tensor(found[: len(images)])
        side = images.shape[-1] / 2
        landmarks = (torch.tensor(LANDMARKS) + 0.5) / LANDMARKS_SIDE * side
        boxes = torch.tensor([0.0, 0.0, side, side]).repeat(len(images), 1) * there[:, None]
        return Faces(boxes, landmarks.repeat(len(images), 1, 1) * there[:, None, None], there.float(), there)

    return FaceDetector("stub", "stub", find, crops)


def encode(faces: Tensor) -> Tensor:
    return F.normalize(F.adaptive_avg_pool2d(faces, 4).flatten(1) + 1e-3, dim=1)


def place(found: list[bool], **changes: object) -> Setup:
    return dataclasses.replace(tiny_setup(), faces=detector(found), face_encoder=encode, **changes)  # type: ignore[arg-type]


def seen(where: Setup, seed: int) -> ObservedImages:
    return observe(where, initial_noise(where.pipe, range(seed, seed + COUNT)))


def known(where: Setup, seed: int) -> OriginalImages:
    return describe(where, [seen(where, seed)])


def targets_of(references: OriginalImages, *, change: bool) -> dict[str, Targets]:
    """Targets of the original's class, or of the other one, all kept."""
    labels = references.logits["bright"].argmax(1)
    keep = torch.ones(COUNT, dtype=torch.bool)
    return {"bright": Targets(1 - labels if change else labels, keep.float(), keep)}


@pytest.mark.parametrize(("crops", "side"), [(True, 224), (False, 16)])
def test_classifiers_see_the_face_alone_unless_the_image_is_one(crops: bool, side: int) -> None:
    shapes = []

    def classifier(images: Tensor) -> dict[str, Tensor]:
        shapes.append(tuple(images.shape[-2:]))
        return {"bright": images.mean((1, 2, 3))[:, None] * torch.tensor([1.0, -1.0])}

    sees = checked(Classifier("stub", "1", {"bright": ("dark", "bright")}, classifier))
    seen(dataclasses.replace(tiny_setup(), faces=detector([True] * COUNT, crops=crops), classifier=sees), 0)
    assert shapes == [(side, side)]


def test_chunks_are_seen_as_the_whole_is() -> None:
    where = place([True, False] * 2)
    latents = initial_noise(where.pipe, range(COUNT))
    parts = observe_each(where, latents.split(2))
    whole = observe(where, latents)
    assert torch.allclose(torch.cat([part.images for part in parts]), whole.images.detach(), atol=1e-5)
    assert [part.found.tolist() for part in parts] == [[True, False]] * 2 and not parts[0].images.requires_grad


def test_what_is_known_of_originals_is_the_same_in_parts_and_can_be_laid_aside() -> None:
    where = place([True, False] * 2)
    latents = initial_noise(where.pipe, range(COUNT))
    whole, parts = (describe(where, observe_each(where, latents.split(size))) for size in (COUNT, 2))
    names = {*(f"logits.{name}" for name in whole.logits), *(f"features.{name}" for name in where.encoders)}
    names |= {f"faces.{name}" for name in ("boxes", "landmarks", "scores", "found")}
    assert set(whole.tensors()) == names | {"face_features"}
    assert all(
        torch.allclose(rows.float(), parts.tensors()[name].float(), atol=1e-5)
        for name, rows in whole.tensors().items()
    )
    again = OriginalImages.of(whole.tensors())
    assert again.found.tolist() == [True, False] * 2 and again.select(torch.tensor([2, 1])).found.tolist() == [
        True,
        False,
    ]
    nobody = describe(tiny_setup(), [seen(tiny_setup(), 0)])
    assert nobody.faces is None and nobody.face_features is None and nobody.found.all()


def test_an_unchanged_face_is_pulled_to_the_original_and_nobodys_face_is_not() -> None:
    where = place([True, False, True, False])
    images, references = seen(where, 0), known(where, 10)
    sure = dataclasses.replace(FACE, face_confidence=0.0)
    loss = losses(where, sure, images, references, targets_of(references, change=False), {})["face"]
    gradient = torch.autograd.grad(loss, images.latents)[0].flatten(1).norm(dim=1)
    assert loss > 0 and (gradient > 0).tolist() == [True, False, True, False]
    same = losses(where, sure, seen(where, 10), references, targets_of(references, change=False), {})["face"]
    assert same.abs() < 1e-5


def test_a_face_that_must_change_is_pulled_to_the_nearest_real_one_if_there_are_any() -> None:
    where = place([True] * COUNT)
    images, references = seen(where, 0), known(where, 10)
    targets = targets_of(references, change=True)
    assert losses(where, FACE, images, references, targets, {})["face"] == 0
    rows = F.normalize(torch.rand(6, 48, generator=torch.Generator().manual_seed(0)), dim=1)
    labels = {"bright": torch.tensor([0, 1] * 3, dtype=torch.uint8)}
    bank = FaceBank(rows, labels, {"bright": ("dark", "bright")}, "stub", "nowhere", "none")
    assert images.faces is not None
    features = encode(align_faces(images.images, images.faces.landmarks))
    allowed = labels["bright"][None] == targets["bright"].labels[:, None]
    nearest = (features @ rows.T).masked_fill(~allowed, -2).amax(1)
    found = losses(dataclasses.replace(where, face_bank=bank), FACE, images, references, targets, {})["face"]
    assert found.item() == pytest.approx((1 - nearest).sum().item(), rel=1e-5)


def test_an_unsure_class_does_not_keep_its_face() -> None:
    where = place([True] * COUNT)
    images, references = seen(where, 0), known(where, 10)
    never = dataclasses.replace(FACE, face_confidence=1.1)
    assert losses(where, never, images, references, targets_of(references, change=False), {})["face"] == 0


def test_inside_the_common_face_a_changing_image_is_held_less() -> None:
    where = place([True] * COUNT)
    images, references = seen(where, 0), known(where, 10)
    config = dataclasses.replace(CONFIG, preservation=1.0)
    none, all_ = (tuple(dataclasses.replace(a, factor1=1.0, factor2=f) for a in CONFIG.attributes) for f in (0.0, 1.0))
    targets = targets_of(references, change=True)
    pixels = []
    for attributes in (none, all_):
        pixels_of = images.images.detach().requires_grad_(True)
        shown = dataclasses.replace(images, images=pixels_of)
        found = losses(where, dataclasses.replace(config, attributes=attributes), shown, references, targets, {})
        pixels.append(torch.autograd.grad(found["preservation"], pixels_of)[0])
    region = pixels[0].abs().sum((0, 1)) == 0
    side = images.images.shape[-1] // 2
    assert region[:side, :side].all() and not region[side + side // 2 :, side + side // 2 :].any()
    assert torch.allclose(pixels[0] * ~region, pixels[1] * ~region, atol=1e-7)


def test_the_face_loss_is_weighed_and_each_image_is_aligned_by_its_own_face() -> None:
    """The new image's face is in its upper left quarter, the original's fills the image."""
    where = place([True] * COUNT)
    new, there = seen(where, 0), seen(where, 10)
    assert new.faces is not None and there.faces is not None
    there = dataclasses.replace(there, faces=dataclasses.replace(there.faces, landmarks=2 * there.faces.landmarks))
    old = describe(where, [there])
    assert there.faces is not None
    config = dataclasses.replace(FACE, face_weight=0.25, face_confidence=0.0)
    found = losses(where, config, new, old, targets_of(old, change=False), {})["face"]
    one, other = (
        encode(align_faces(new.images, new.faces.landmarks)),
        encode(align_faces(there.images, there.faces.landmarks)),
    )
    assert found.item() == pytest.approx(0.25 * (1 - (one * other).sum(1)).sum().item(), rel=1e-5)
    assert not torch.allclose(other, encode(align_faces(there.images, new.faces.landmarks)))


def test_logits_come_back_to_where_the_images_are() -> None:
    def elsewhere(images: Tensor) -> dict[str, Tensor]:
        return {"bright": torch.zeros(len(images), 2, device="meta")}

    where = dataclasses.replace(tiny_setup(), classifier=elsewhere, validation_classifier=elsewhere)
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):  # it was asked for, at least
        seen(where, 0)


def test_what_must_stay_costs_nothing_where_it_does_and_pulls_back_where_it_does_not() -> None:
    """Three images have a class that is sure; the losses of what is made fair are what they are without it."""
    where = tiny_setup("warm")
    images, references = seen(where, 0), known(where, 10)
    aims = targets_of(references, change=True)
    labels = 1 - images.logits["warm"].argmax(1)
    kept = {"warm": Targets(labels, torch.ones(COUNT), torch.tensor([True, True, True, False]))}
    config = dataclasses.replace(CONFIG, keep_weight=0.5)
    found = losses(where, config, images, references, aims, kept)
    cross_entropy = F.cross_entropy(images.logits["warm"], labels, reduction="none")
    assert found["keep"].item() == pytest.approx(0.5 * cross_entropy[:3].sum().item(), rel=1e-5)
    logits = images.logits["warm"]
    gradient = torch.autograd.grad(found["keep"], logits, retain_graph=True)[0]
    assert (gradient.gather(1, labels[:, None])[:3] < 0).all() and not gradient[3].any()
    there = dataclasses.replace(images, logits={**images.logits, "warm": 100 * (F.one_hot(labels, 2) - 0.5)})
    assert losses(where, config, there, references, aims, kept)["keep"] == 0
    without = losses(where, CONFIG, images, references, aims, {})
    assert without["keep"] == 0
    assert all(torch.equal(without[name], found[name]) for name in without if name != "keep")


@pytest.mark.parametrize(
    ("rule", "attributes", "weights"),
    [("full", 1, [1.0, 0.2, 1.0, 1.0]), ("reduced", 1, [1.0, 0.2, 0.2, 1.0]), ("reduced", 2, [1.0, 0.2, 0.2, 0.2])],
)
def test_how_far_images_without_a_target_are_preserved(
    rule: Literal["full", "reduced"], attributes: int, weights: list[float]
) -> None:
    """The images: its class stays · it changes · it has no sure target · it has no face. Paper §2, and its code."""
    where = dataclasses.replace(place([True, True, True, False]), encoders={"far": lambda images: images.mean((2, 3))})
    images, references = seen(where, 0), known(where, 10)
    both = (CONFIG.attributes[0], Attribute("warm", ("cold", "warm"), (0.5, 0.5), 1.0, 1.0))[:attributes]
    aims = {}
    for name in [attribute.name for attribute in both]:
        labels = references.logits[name].argmax(1)
        keep = torch.tensor([True, True, False, False])
        aims[name] = Targets(torch.tensor([0, 1, 0, 0]) ^ labels, keep.float(), keep)
    config = dataclasses.replace(CONFIG, attributes=both, preserve_unassigned=rule)
    found = losses(where, config, images, references, aims, {})
    far = 1 - (images.images.mean((2, 3)) * references.features["far"]).sum(1)
    wanted = CONFIG.preservation * (torch.tensor(weights) * far).sum()
    assert found["preservation"].item() == pytest.approx(wanted.item(), rel=1e-5)


def test_an_image_whose_original_shows_nobody_is_held_as_one_whose_class_changes() -> None:
    """What the classifier says of a picture without a face is not a class that could stay."""
    where = dataclasses.replace(place([True] * COUNT), encoders={"far": lambda images: images.mean((2, 3))})
    images, references = seen(where, 0), known(where, 10)
    assert references.faces is not None
    nobody = dataclasses.replace(references.faces, found=torch.tensor([False, True, True, True]))
    references = dataclasses.replace(references, faces=nobody)
    found = losses(where, CONFIG, images, references, targets_of(references, change=False), {})
    far = 1 - (images.images.mean((2, 3)) * references.features["far"]).sum(1)
    wanted = CONFIG.preservation * (torch.tensor([0.2, 1.0, 1.0, 1.0]) * far).sum()
    assert found["preservation"].item() == pytest.approx(wanted.item(), rel=1e-5)
