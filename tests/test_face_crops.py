"""Faces cut out and aligned: against Pillow, OpenCV and loops; gradients, borders, and masks for the three weights."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fair_adaptors.training.engine.losses import (
    PreservationScale,
    must_change,
    preservation_loss,
    preservation_weights,
)
from fair_adaptors.training.engine.targets import Targets
from PIL import Image

from fair_adaptors.vision.crops import MARGIN, align_faces, crop_faces, face_masks, square_boxes
from fair_adaptors.vision.faces import LANDMARKS, whole_image
from tests.photograph import photograph

TEMPLATE = np.array(LANDMARKS) + 0.5  # counted from the corner of the first pixel

Crop = Callable[..., torch.Tensor]


def coordinates(size: int, count: int = 1) -> torch.Tensor:
    """Images whose first two channels say where a pixel is."""
    middles = torch.arange(size).double() + 0.5
    y, x = torch.meshgrid(middles, middles, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)]).expand(count, 3, size, size)


def landmarks_at(*faces: tuple[float, float, float, float]) -> torch.Tensor:
    """Landmarks of faces, each by middle x and y, side in pixels and turn in degrees."""
    rows = []
    for x, y, side, degrees in faces:
        turn = side / 112 * np.exp(1j * math.radians(degrees))
        points = (TEMPLATE @ np.array([1, 1j]) - 56 * (1 + 1j)) * turn + complex(x, y)
        rows.append(np.stack([points.real, points.imag], 1))
    return torch.tensor(np.stack(rows))


def pillow(image: torch.Tensor, box: torch.Tensor, size: int, pad: int = 200) -> torch.Tensor:
    """The square of one image [3, H, W] as Pillow resizes it, with black round the image."""
    padded = torch.nn.functional.pad(image, (pad,) * 4).numpy().astype(np.float32)
    place = tuple((box + pad).tolist())
    planes = [Image.fromarray(p).resize((size, size), Image.Resampling.BILINEAR, box=place) for p in padded]
    return torch.tensor(np.stack([np.asarray(p) for p in planes]))


def umeyama(source: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The similarity [2, 3] from points to points by singular values of the covariance (Umeyama 1991, eq. 40)."""
    p, q = source - source.mean(0), goal - goal.mean(0)
    u, d, v = np.linalg.svd(q.T @ p / len(p))
    signs = np.array([1, np.sign(np.linalg.det(u) * np.linalg.det(v))])
    rotation = u @ np.diag(signs) @ v
    scale = (d * signs).sum() / p.var(0).sum()
    return np.hstack([scale * rotation, (goal.mean(0) - scale * rotation @ source.mean(0))[:, None]])


BOXES = torch.tensor([[60.3, 70.1, 190.7, 230.2], [-40.5, 150.0, 120.0, 300.4], [100.0, 100.0, 117.5, 123.0]])


def test_a_crop_is_what_pillow_makes_of_the_same_square() -> None:
    """Shrunk, across two borders, and enlarged."""
    images = photograph().repeat(3, 1, 1, 1) * torch.tensor([1, 0.5, 0.25])[:, None, None, None]
    found = crop_faces(images, BOXES, size=56)
    for image, square, crop in zip(images, square_boxes(BOXES), found, strict=True):
        assert torch.allclose(crop, pillow(image, square, 56), atol=1e-5)


def test_a_square_is_round_its_box_and_wider_than_its_longer_side() -> None:
    squares = square_boxes(BOXES)
    sides = squares[:, 2:] - squares[:, :2]
    assert torch.allclose(sides[:, 0], sides[:, 1]) and torch.allclose(
        sides[:, 0], (1 + MARGIN) * (BOXES[:, 2:] - BOXES[:, :2]).amax(1)
    )
    assert torch.allclose(squares[:, :2] + squares[:, 2:], BOXES[:, :2] + BOXES[:, 2:])


def test_a_crop_of_the_very_pixels_is_the_pixels() -> None:
    image = photograph(64)
    box = torch.tensor([[10.0, 20, 42, 52]])
    assert torch.allclose(crop_faces(image, box, size=32, margin=0), image[..., 20:52, 10:42], atol=1e-6)


def test_crops_are_the_sums_that_a_loop_makes() -> None:
    images = torch.rand(2, 1, 9, 11, dtype=torch.double)
    squares = torch.tensor([[1.3, 2.2, 8.4, 9.3], [-2.0, -3.0, 14.0, 13.0]], dtype=torch.double)
    found = crop_faces(images, squares, size=4, margin=0)
    for n, square in enumerate(squares.tolist()):
        step = (square[2] - square[0]) / 4
        reach = max(step, 1.0)
        for i in range(4):
            for j in range(4):
                y, x = square[1] + step * (i + 0.5), square[0] + step * (j + 0.5)
                total = weights = 0.0
                for row in range(-20, 40):
                    for column in range(-20, 40):
                        weight = max(0, 1 - abs(row + 0.5 - y) / reach) * max(0, 1 - abs(column + 0.5 - x) / reach)
                        inside = 0 <= row < 9 and 0 <= column < 11
                        total += weight * float(images[n, 0, row, column]) if inside else 0.0
                        weights += weight
                assert found[n, 0, i, j].item() == pytest.approx(total / weights)


FACES = landmarks_at((128, 120, 112, 0), (90, 140, 150, 25), (20, 240, 60, -70), (128, 128, 240, 180))


def test_landmarks_come_to_where_arcface_expects_them() -> None:
    """Images that hold their own coordinates say, aligned and read at the template, where the landmarks were."""
    faces = landmarks_at((128, 120, 112, 0), (120, 140, 90, 25), (130, 120, 60, -70), (128, 128, 130, 180))
    aligned = align_faces(coordinates(256, 4), faces)
    grid = torch.tensor(TEMPLATE / 56 - 1)[None, None].expand(4, 1, 5, 2)
    found = torch.nn.functional.grid_sample(aligned, grid, align_corners=False)[:, :2, 0].mT
    assert (found - faces).abs().max() < 0.05  # pixels


@pytest.mark.parametrize("noise", [0, 4])
def test_alignment_is_umeyamas_least_squares_from_the_landmarks_to_the_template(noise: float) -> None:
    generator = torch.Generator().manual_seed(1)
    faces = FACES[:2] + noise * torch.randn(2, 5, 2, generator=generator, dtype=torch.double)
    aligned = align_faces(coordinates(256, 2), faces)
    for landmarks, face in zip(faces.numpy(), aligned.numpy(), strict=True):
        to_template = umeyama(landmarks, TEMPLATE)
        for x, y in ((30, 40), (56, 60), (80, 90)):
            back = to_template @ np.array([*face[:2, y, x], 1])
            assert back == pytest.approx([x + 0.5, y + 0.5], abs=0.05)


def test_an_aligned_face_is_what_opencv_warps_as_insightface_does() -> None:
    """Where it need not shrink, and but for what two interpolations blur."""
    import cv2

    image = torch.from_numpy(cv2.GaussianBlur(photograph()[0].permute(1, 2, 0).numpy(), (0, 0), 2)).permute(2, 0, 1)
    for face in landmarks_at((120, 110, 112, 0), (110, 120, 100, 17), (130, 100, 60, -30), (30, 30, 112, 10)):
        matrix = umeyama(face.numpy() - 0.5, TEMPLATE - 0.5)  # both from the middle of the first pixel
        expected = cv2.warpAffine(image.permute(1, 2, 0).numpy(), matrix, (112, 112), borderValue=0.0)
        found = align_faces(image[None], face[None])[0].permute(1, 2, 0).numpy()
        inside = cv2.warpAffine(np.ones((256, 256), np.float32), matrix, (112, 112)) > 0.999
        inside = cv2.erode(inside.astype(np.uint8), np.ones((5, 5))) > 0
        assert np.abs(found - expected)[inside].max() < 0.03 and np.abs(found - expected).mean() < 0.003


def test_the_whole_image_aligned_is_the_image_resized() -> None:
    image = photograph()
    landmarks = whole_image().find(image).landmarks
    expected = pillow(image[0], torch.tensor([0.0, 0, 256, 256]), 112)
    assert (align_faces(image, landmarks)[0] - expected).abs().mean() < 0.01


@pytest.mark.parametrize("turn", [0, 13, 45])
def test_fine_patterns_shrink_to_grey_and_not_to_coarse_ones(turn: float) -> None:
    y, x = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    stripes = ((x + y) % 2).float().expand(1, 3, 256, 256)
    crop = crop_faces(stripes, torch.tensor([[43.0, 40, 213, 200]]), size=50, margin=0)
    aligned = align_faces(stripes, landmarks_at((128, 128, 160, turn)), size=50)
    for found in (crop, aligned):
        assert (found - 0.5).abs().max() < 0.02


def test_beyond_the_border_all_is_black_and_inside_nothing_is() -> None:
    white = torch.ones(1, 3, 64, 64)
    crop = crop_faces(white, torch.tensor([[-32.0, 0, 32, 64]]), size=64, margin=0)
    assert (crop[..., :32] == 0).all() and torch.allclose(crop[..., 32:], torch.ones(()))
    aligned = align_faces(white, landmarks_at((0, 64, 64, 0)), size=64)
    assert aligned[..., :31].abs().max() < 1e-5 and aligned[..., 33:].abs().max() < 1 + 1e-5
    assert torch.allclose(aligned[..., :31, 33:], torch.ones(()), atol=1e-5) and (aligned[..., 33:, :] < 1e-5).all()


CASES: list[tuple[Crop, torch.Tensor]] = [
    (crop_faces, torch.tensor([[2.0, 1, 9, 8], [-3.3, 4, 6, 12.2], [4, 4, 6, 5.5], [0, 0, 0, 0]])),
    (align_faces, torch.cat([landmarks_at((6, 5, 8, 0), (3, 8, 12, 33), (7, 6, 3, -120)), torch.zeros(1, 5, 2)])),
]


@pytest.mark.parametrize(("crop", "places"), CASES)
def test_gradients_are_those_of_finite_differences(crop: Crop, places: torch.Tensor) -> None:
    images = torch.rand(4, 3, 10, 12, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda pixels: crop(pixels, places, size=5), images)


@pytest.mark.parametrize(("crop", "places"), CASES)
def test_a_face_looks_the_same_whoever_is_beside_it(crop: Crop, places: torch.Tensor) -> None:
    images = torch.rand(4, 3, 10, 12)
    every = crop(images, places, size=5)
    for n in range(4):
        assert torch.allclose(every[n], crop(images[n : n + 1], places[n : n + 1], size=5)[0], atol=1e-6)
    assert crop(images[:0], places[:0]).shape[0] == 0


@pytest.mark.parametrize(("crop", "places"), CASES)
def test_a_face_that_moves_with_its_image_is_the_same_face(crop: Crop, places: torch.Tensor) -> None:
    images = torch.zeros(3, 3, 40, 40)
    images[..., 5:17, 5:15] = torch.rand(3, 3, 12, 10)
    moved = torch.roll(images, (11, 7), (2, 3))
    offset = torch.tensor([7, 11], dtype=places.dtype)
    places = places[:3] + 5
    by = offset.repeat(2) if places.ndim == 2 else offset
    assert torch.allclose(crop(images, places, size=8), crop(moved, places + by, size=8), atol=1e-5)


@pytest.mark.parametrize(
    ("crop", "nothing"),
    [
        (crop_faces, torch.tensor([[0.0, 0, 0, 0], [5, 5, 5, 9], [9, 9, 5, 5]])),
        (align_faces, torch.stack([torch.zeros(5, 2), torch.full((5, 2), 7.0), 1e-30 * torch.rand(5, 2)])),
    ],
)
def test_where_there_is_no_face_all_is_black_and_no_gradient_is_lost(crop: Crop, nothing: torch.Tensor) -> None:
    images = torch.rand(3, 3, 16, 16, requires_grad=True)
    found = crop(images, nothing, size=8)
    found.sum().backward()
    assert (found[:2] == 0).all() and found.isfinite().all()
    assert images.grad is not None and (images.grad[:2] == 0).all() and images.grad.isfinite().all()


@pytest.mark.parametrize("landmarks", [torch.tensor(TEMPLATE) * torch.tensor([-1.0, 1.0]), torch.ones(5, 2).cumsum(0)])
def test_a_mirrored_face_and_points_in_a_line_are_aligned_somehow(landmarks: torch.Tensor) -> None:
    assert align_faces(torch.rand(1, 3, 16, 16, dtype=torch.double), landmarks.double()[None]).isfinite().all()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_goes_in_and_comes_out(kind: torch.dtype) -> None:
    image = photograph(64)
    face = landmarks_at((30, 32, 40, 10))
    for crop, places in ((crop_faces, torch.tensor([[10.0, 10, 40, 50]])), (align_faces, face)):
        found = crop(image.to(kind), places)
        assert found.dtype == kind and (found.float() - crop(image, places)).abs().max() < 0.03


def test_a_mask_is_the_overlap_of_both_boxes_and_nothing_without_both_faces() -> None:
    a = torch.tensor([[2.0, 1, 6, 5]] * 4 + [[-3.0, -3, 2.4, 2.6]])
    b = torch.tensor([[4.0, 0, 9, 3]] * 4 + [[0.0, 0, 99, 99]])
    a[2], b[1] = 0, 0
    found_a, found_b = torch.tensor([1, 1, 0, 0, 1]).bool(), torch.tensor([1, 0, 1, 0, 1]).bool()
    masks = face_masks(a, b, found_a, found_b, height=6, width=8)
    assert masks.shape == (5, 1, 6, 8)
    expected = torch.zeros(5, 6, 8)
    expected[0, 1:3, 4:6] = 1
    expected[4, :3, :2] = 1
    assert torch.equal(masks[:, 0], expected)
    apart = torch.tensor([[6.0, 1, 8, 5]])
    assert not face_masks(a[:1], apart, found_a[:1], found_b[:1], height=6, width=8).any()


def test_faces_are_kept_by_the_three_weights() -> None:
    """λ₁ where the class stays; where it changes λ₂ outside the face and λ₃ inside it, and λ₂ if there is no face."""
    w, factor1, factor2 = 8.0, 0.5, 0.2
    keep, changes, faceless = range(3)
    labels = torch.tensor([0, 1, 1])
    targets = {"gender": Targets(labels, torch.ones(3), torch.ones(3, dtype=torch.bool))}
    changing = must_change(targets, {"gender": torch.zeros(3, dtype=torch.long)})
    weights, scale = preservation_weights(changing, {"gender": PreservationScale(factor1, factor2)}, weight=w)
    boxes = torch.tensor([[2.0, 2, 6, 6]]).repeat(3, 1)
    found = torch.tensor([True, True, False])
    mask = face_masks(boxes, boxes, torch.ones(3, dtype=torch.bool), found, height=8, width=8)

    def gradient(**how: Any) -> torch.Tensor:
        images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
        originals = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        encoders = {"pixels": lambda pixels: torch.nn.functional.normalize(pixels.flatten(1), dim=1)}
        wanted = {name: encode(originals) for name, encode in encoders.items()}
        preservation_loss(images, wanted, encoders, **how).sum().backward()
        assert images.grad is not None
        return images.grad

    plain = gradient(weights=torch.ones(3), face_scale=torch.ones(3))
    ratio = gradient(weights=weights, face_scale=scale, face_mask=mask) / plain
    face = mask[changes].bool().expand(3, -1, -1)
    assert torch.allclose(ratio[keep], torch.tensor(w))
    assert torch.allclose(ratio[changes][~face], torch.tensor(factor1 * w))
    assert torch.allclose(ratio[changes][face], torch.tensor(factor2 * factor1 * w))
    assert torch.allclose(ratio[faceless], torch.tensor(factor1 * w))
