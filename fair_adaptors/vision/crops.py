"""Faces cut out of images, turned upright, and where they lie: the whole batch at once, with gradients to the pixels.

Boxes and landmarks count in pixels of the image, whose first pixel spans 0 to 1. Beyond its border an image is black,
as in the published code and in insightface's ``norm_crop``.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .types import LANDMARKS, LANDMARKS_SIDE, MARGIN

UNLIKE = 1e-3
"""Landmarks whose correlation with a face's is less than this have no place in an aligned face."""


def square_boxes(boxes: Tensor, margin: float = MARGIN) -> Tensor:
    """Return the squares [N, 4] round the middles of ``boxes`` [N, 4], (1 + margin) times as wide as the longer side.

    A box without area stays without.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    longer = torch.where(sides.amin(1) > 0, sides.amax(1), 0)
    half = (1 + margin) / 2 * longer[:, None]
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    return torch.cat([middle - half, middle + half], 1)


def crop_faces(images: Tensor, boxes: Tensor, size: int = 224, margin: float = MARGIN) -> Tensor:
    """Return the squares round faces [N, 3, size, size], antialiased; black where the box has no area.

    Args:
        images: [N, 3, H, W].
        boxes: (left, top, right, bottom) [N, 4]; they get no gradient.
        size: pixels along a side of a crop.
        margin: how much wider than its box a crop is.
    """
    return _resize(images, square_boxes(_constant(boxes, images), margin), size)


def align_faces(images: Tensor, landmarks: Tensor, size: int = 112) -> Tensor:
    """Return faces [N, 3, size, size] moved, turned and scaled so that their landmarks lie as ArcFace expects them.

    The similarity is the one from the landmarks to ArcFace's that errs least (Umeyama 1991, eq. 39–43). In the plane,
    with points as complex numbers p and q less their means, it is w = Σ q̄p / Σ |q|², free of reflections.

    Args:
        images: [N, 3, H, W].
        landmarks: (x, y) [N, 5, 2], as in ``Faces``; they get no gradient. Those that are no face's, such as zeros,
            give black.
        size: pixels along a side.
    """
    middle, side = _aligned_squares(_constant(landmarks, images))
    # Two bilinear steps follow each other. With √2 more pixels per length in the first, they blur as much as one step
    # to the final size would; the other √2 makes room for the corners of a square that is turned.
    room = math.sqrt(2)
    corner = room * side.abs() / 2 * (1 + 1j)
    squares = torch.cat([torch.view_as_real(middle - corner), torch.view_as_real(middle + corner)], 1)
    upright = _resize(images, squares, 2 * size)
    points = (torch.arange(size, device=images.device) + 0.5) * (2 / size) - 1
    turn = torch.polar(torch.ones_like(side.real), side.angle()) / room
    grid = torch.view_as_real(turn[:, None, None] * (points + 1j * points[:, None]))
    return F.grid_sample(upright.to(grid), grid, padding_mode="zeros", align_corners=False).to(images)


def face_masks(
    boxes_a: Tensor, boxes_b: Tensor, found_a: Tensor, found_b: Tensor, *, height: int, width: int
) -> Tensor:
    """Return [N, 1, height, width]: one at pixels whose middle is in the boxes of both images, zero elsewhere.

    Where either image has no face all is zero: there the published code cuts a region out by its −1 for "none".

    Args:
        boxes_a, boxes_b: boxes of an image and its original, [N, 4].
        found_a, found_b: whether they have a face, bool [N].
    """
    low = torch.maximum(boxes_a[:, :2], boxes_b[:, :2])
    high = torch.minimum(boxes_a[:, 2:], boxes_b[:, 2:])
    sides = []
    for axis, length in enumerate((width, height)):
        pixels = torch.arange(length, device=boxes_a.device) + 0.5
        sides.append((pixels >= low[:, axis, None]) & (pixels < high[:, axis, None]))
    columns, rows = sides
    inside = rows[:, None, :, None] & columns[:, None, None, :] & (found_a & found_b)[:, None, None, None]
    return inside.to(boxes_a.dtype)


def _constant(places: Tensor, images: Tensor) -> Tensor:
    """Return places as constants beside the images, exact enough to point into them."""
    return places.detach().to(images.device, torch.promote_types(images.dtype, torch.float32))


def _aligned_squares(landmarks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squares that aligned faces come from, as complex numbers: their middles [N] and upper sides [N].

    A side goes from the left to the right of the aligned face; it is zero for landmarks of no face.
    """
    known = (torch.tensor(LANDMARKS, dtype=landmarks.dtype, device=landmarks.device) + 0.5) / LANDMARKS_SIDE
    p, q = torch.view_as_complex(known), torch.view_as_complex(landmarks.contiguous())
    mean_p, mean_q = p.mean(), q.mean(1)
    p, q = p - mean_p, q - mean_q[:, None]
    spread_p, spread_q, product = p.abs().square().sum(), q.abs().square().sum(1), (q.conj() * p).sum(1)
    face = product.abs().square() > UNLIKE**2 * spread_p * spread_q
    side = torch.where(face, spread_q / torch.where(face, product, 1), 0)  # 1 / w
    return mean_q + side * (0.5 + 0.5j - mean_p), side


def _resize(images: Tensor, squares: Tensor, size: int) -> Tensor:
    """Resize what is in ``squares`` [N, 4] with Pillow's bilinear filter, which widens as it shrinks.

    It is linear in columns and in rows. As two products of matrices it needs nothing kept for the backward pass.
    """
    height, width = images.shape[-2:]
    left, top, right, bottom = squares.unbind(1)
    columns = _filter(left, right, width, size).to(images.dtype)
    rows = _filter(top, bottom, height, size).to(images.dtype)
    narrow = (images.flatten(1, 2) @ columns.mT).unflatten(1, (-1, height))
    return rows[:, None] @ narrow


def _filter(start: Tensor, end: Tensor, length: int, size: int) -> Tensor:
    """Return the weights of ``length`` pixels in each of ``size`` that divide the interval, [N, size, length].

    They fall in a line to zero at the distance of one new pixel, or of one old pixel if that is more, and sum to one
    together with those of pixels beyond the border. All are zero for an interval without length.
    """
    step = ((end - start) / size)[:, None]
    reach = step.clamp(min=1)
    centres = start[:, None] + step * (torch.arange(size, device=start.device) + 0.5)
    pixels = torch.arange(length, device=start.device) + 0.5
    weights = (1 - (pixels - centres[..., None]).abs() / reach[..., None]).clamp(min=0)
    before = (centres - 0.5).remainder(1)  # to the last pixel before, and from there to the next one behind
    total = _falling(before, reach) + _falling(1 - before, reach)
    return weights / total[..., None] * (step > 0)[..., None]


def _falling(first: Tensor, reach: Tensor) -> Tensor:
    """Return Σ (1 − d / reach) over the distances d = first, first + 1, … up to ``reach``."""
    count = (reach - first).floor() + 1
    return count - (count * first + count * (count - 1) / 2) / reach
