"""Draws the people of the sandbox. Shapes are signed distance functions, painted back to front with soft edges.

Coordinates: x to the right and y down, the picture spans [-1, 1]². A distance is negative inside its shape.
"""

import torch
from torch import Tensor

from .world import IMAGE_SIZE, People


def _rgb(*hexes: str) -> Tensor:
    return torch.tensor([[int(h[i : i + 2], 16) / 255 for i in (0, 2, 4)] for h in hexes])


SKIN = _rgb(
    "f9dcc8", "d29a6c", "94603c", "4d2f21"
)  # the middle of each tone; a shade moves a fifth of the way onwards
HAIR = _rgb("17120f", "4b2a18", "8a4a22", "d9a441")
GREY = _rgb("d5d6da")[0]
LIPS, EYE_WHITE, IRIS = _rgb("c22f45", "fbfbfb", "1c2330")
BACKGROUND = _rgb(
    "bfe6ea", "f3dfa2", "a9d18e", "b4b4bf", "9cc4f2", "e8b7c8", "e6dccb", "a7c9b5", "5f9fc4", "7d4a7f",
)  # fmt: skip
PATTERN = _rgb(
    "ffffff", "d8b85a", "7db85c", "8e8e9c", "d8ecff", "d795ad", "c9b48d", "7ba88d", "3f7fa6", "5c2f60",
)  # fmt: skip
PATTERN_KIND = torch.tensor([0, 1, 2, 3, 2, 4, 1, 3, 2, 4])  # crosses, columns, horizon, checks, dots
CLOTHES = _rgb(
    "2aa198", "7a3b2e", "4e6b2f", "e07b28", "23407a", "b3243c", "8b6fb5", "3a3f47", "f2c522", "d94f9a",
)  # fmt: skip


def render(people: People) -> Tensor:
    """Draw N portraits.

    Returns:
        RGB images in [0, 1], [N, 3, 64, 64].
    """
    axis = (torch.arange(IMAGE_SIZE) + 0.5) * (2 / IMAGE_SIZE) - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    canvas = _Canvas(_background(people, x, y))
    u, v = _face_frame(people, x, y)

    old = people.age.float()
    female = (people.gender == 0).float()
    hair = _lerp_palette(HAIR, 1.5 + 1.4 * people.hair)
    hair = hair + 0.88 * old[:, None] * (GREY - hair)
    skin = _lerp_palette(SKIN, people.tone + 0.22 * people.skin)
    clothes = CLOTHES[people.sector]

    # long hair falls behind the shoulders' line; short hair is a rim around the skull
    reach = (0.62 + 0.16 * people.hair_length)[:, None, None]
    fall = _box(u, v - 0.12, 0.52, reach, corner=0.34)
    canvas.paint(_keep_where(female, fall), hair)
    canvas.paint(_ellipse(u, v - 1.28, 0.86, 0.62), clothes)
    canvas.paint(_segment(u, v, 0, 0.45, 0, 0.78) - 0.17, 0.82 * skin)
    canvas.paint(_triangle_down(u, v - 0.68, 0.24, 0.3), skin)
    for side in (-1, 1):
        canvas.paint(_ellipse(u - side * 0.44, v - 0.06, 0.07, 0.12), 0.9 * skin)
    canvas.paint(_ellipse(u, v + 0.06, 0.47, 0.54), hair)
    canvas.paint(_ellipse(u, v - 0.05, 0.42, 0.52), skin)

    # beard: every man has one, from stubble to full; the mouth is kept free
    chin = torch.maximum(_ellipse(u, v - 0.06, 0.42, 0.53), 0.2 - 0.07 * people.beard[:, None, None] - v)
    canvas.paint(_keep_where(1 - female, torch.maximum(chin, 0.13 - _abs_ellipse(u, v - 0.3))), hair)

    # fringe
    canvas.paint(torch.maximum(_ellipse(u, v + 0.05, 0.47, 0.56), v + 0.22 - 0.12 * u * u), hair)

    _wrinkles(canvas, u, v, old, skin)
    _eyes(canvas, u, v, hair, female)
    canvas.paint(_segment(u, v, 0.0, 0.06, 0.03, 0.15) - 0.022, 0.72 * skin)
    curve = (0.05 + 0.09 * people.smile)[:, None, None]
    bent = v - 0.3 + curve * (u / 0.16).square().clamp(max=2) - 0.5 * curve
    thick = (0.03 + 0.03 * female)[:, None, None]
    canvas.paint(_ellipse(u, bent, 0.17, 1.0, thick), LIPS * female[:, None] + (1 - female[:, None]) * 0.42 * skin)

    _hats(canvas, u, v, people.role)
    light = (1 + 0.09 * people.light)[:, None, None, None] + 0.06 * people.light[:, None, None, None] * x
    return (canvas.pixels * light).clamp(0, 1)


class _Canvas:
    """Pixels [N, 3, H, W] and the one operation on them."""

    def __init__(self, pixels: Tensor):
        self.pixels, self.sharpness = pixels, IMAGE_SIZE / 2

    def paint(self, distance: Tensor, colour: Tensor, *, where: Tensor | None = None) -> None:
        """Cover the inside of a shape with a colour [3] or [N, 3], for the images selected by ``where`` [N]."""
        alpha = (0.5 - distance * self.sharpness).clamp(0, 1)[:, None]
        if where is not None:
            alpha = alpha * where[:, None, None, None]
        colour = colour.expand(len(self.pixels), 3)[:, :, None, None]
        self.pixels = self.pixels + alpha * (colour - self.pixels)


def _background(people: People, x: Tensor, y: Tensor) -> Tensor:
    shift = 0.3 * people.x[:, None, None]
    period = 0.5
    cell_x, cell_y = ((x + shift) / period) % 1 - 0.5, ((y + 0 * shift) / period) % 1 - 0.5
    kinds = torch.stack(
        [
            torch.minimum(torch.maximum(abs(cell_x) - 0.09, abs(cell_y) - 0.27),
                          torch.maximum(abs(cell_x) - 0.27, abs(cell_y) - 0.09)),
            abs(cell_x) - 0.22,
            0.15 + 0.1 * torch.sin(4 * (x + shift)) - y,
            -cell_x * cell_y * 4,
            (cell_x.square() + cell_y.square()).sqrt() - 0.24,
        ]
    )  # fmt: skip
    distance = period * kinds[PATTERN_KIND[people.sector], torch.arange(len(people))]
    canvas = _Canvas(BACKGROUND[people.sector][:, :, None, None].expand(-1, -1, *x.shape))
    canvas.paint(distance, PATTERN[people.sector])
    return canvas.pixels


def _face_frame(people: People, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Undo position, scale and tilt: coordinates in which every face stands upright at the origin."""
    x = x - 0.1 * people.x[:, None, None]
    y = y - 0.12 - 0.06 * people.y[:, None, None]
    angle = 0.13 * people.tilt[:, None, None]
    scale = 1 / (1 + 0.09 * people.scale[:, None, None])
    return scale * (x * angle.cos() + y * angle.sin()), scale * (y * angle.cos() - x * angle.sin())


def _eyes(canvas: _Canvas, u: Tensor, v: Tensor, hair: Tensor, female: Tensor) -> None:
    for side in (-1, 1):
        du = u - side * 0.18
        canvas.paint(_ellipse(du, v + 0.0, 0.105, 0.075), EYE_WHITE)
        canvas.paint(_ellipse(du, v + 0.0, 0.05, 0.06), IRIS)
        canvas.paint(_segment(du, v, -0.1, -0.125, 0.1, -0.125) - 0.024, 0.7 * hair)
        lashes = _segment(du, v, side * 0.07, -0.04, side * 0.14, -0.085) - 0.02
        canvas.paint(lashes, IRIS, where=female)


def _wrinkles(canvas: _Canvas, u: Tensor, v: Tensor, old: Tensor, skin: Tensor) -> None:
    for side in (-1, 1):
        canvas.paint(_segment(u, v, side * 0.1, 0.13, side * 0.2, 0.24) - 0.016, 0.6 * skin, where=old)
        canvas.paint(_segment(u, v, side * 0.12, 0.1, side * 0.24, 0.09) - 0.014, 0.7 * skin, where=old)


def _hats(canvas: _Canvas, u: Tensor, v: Tensor, role: Tensor) -> None:
    """One hat for each of ``prompts.ROLES``."""
    white, black, navy, yellow, straw, teal, red, band = _rgb(
        "fafafa", "1d1d22", "1f2f6b", "ffd21f", "e3c06a", "12a08f", "e02020", "a0522d"
    )
    brim = _box(u, v + 0.36, 0.56, 0.045, corner=0.04)
    dome = torch.maximum(_ellipse(u, v + 0.36, 0.47, 0.4), v + 0.34)
    is_role = [(role == index).float() for index in range(8)]
    # manager: top hat
    canvas.paint(_box(u, v + 0.66, 0.35, 0.34, corner=0.05), black, where=is_role[0])
    canvas.paint(_box(u, v + 0.46, 0.35, 0.06, corner=0.01), red, where=is_role[0])
    canvas.paint(brim, black, where=is_role[0])
    # guard: peaked cap with a badge
    canvas.paint(_ellipse(u, v + 0.56, 0.58, 0.2), navy, where=is_role[1])
    canvas.paint(_box(u, v + 0.4, 0.44, 0.09, corner=0.03), navy, where=is_role[1])
    canvas.paint(_ellipse(u, v + 0.29, 0.38, 0.07), black, where=is_role[1])
    canvas.paint(_ellipse(u, v + 0.53, 0.09, 0.09), yellow, where=is_role[1])
    # technician: hard hat with a ridge
    canvas.paint(dome, yellow, where=is_role[2])
    canvas.paint(_box(u, v + 0.58, 0.06, 0.2, corner=0.05), 0.8 * yellow, where=is_role[2])
    canvas.paint(brim, 0.9 * yellow, where=is_role[2])
    # gardener: straw hat
    canvas.paint(torch.maximum(_ellipse(u, v + 0.36, 0.4, 0.36), v + 0.34), straw, where=is_role[3])
    canvas.paint(_box(u, v + 0.42, 0.39, 0.05, corner=0.01), band, where=is_role[3])
    canvas.paint(_ellipse(u, v + 0.33, 0.8, 0.08), 0.92 * straw, where=is_role[3])
    # assistant: headset
    arc = abs(_ellipse(u, v + 0.05, 0.5, 0.62)) - 0.035
    canvas.paint(torch.maximum(arc, v), black, where=is_role[4])
    for side in (-1, 1):
        canvas.paint(_box(u - side * 0.49, v - 0.03, 0.08, 0.14, corner=0.06), red, where=is_role[4])
    # nurse: cap with a cross
    canvas.paint(_box(u, v + 0.5, 0.36, 0.17, corner=0.08), white, where=is_role[5])
    canvas.paint(_box(u, v + 0.5, 0.045, 0.12, corner=0.0), red, where=is_role[5])
    canvas.paint(_box(u, v + 0.5, 0.12, 0.045, corner=0.0), red, where=is_role[5])
    # cleaner: headscarf with dots
    canvas.paint(torch.maximum(_ellipse(u, v + 0.06, 0.51, 0.62), v + 0.26), teal, where=is_role[6])
    for dot_u, dot_v in ((-0.25, -0.4), (0.0, -0.5), (0.25, -0.4), (-0.12, -0.34), (0.12, -0.34)):
        canvas.paint(_ellipse(u - dot_u, v - dot_v, 0.04, 0.04), white, where=is_role[6])
    # cook: toque
    canvas.paint(_box(u, v + 0.45, 0.38, 0.13, corner=0.03), 0.93 * white, where=is_role[7])
    for side, height in ((-1, 0.66), (1, 0.66), (0, 0.72)):
        canvas.paint(_ellipse(u - side * 0.27, v + height, 0.25, 0.2), white, where=is_role[7])


def _lerp_palette(palette: Tensor, position: Tensor) -> Tensor:
    """Read a palette [K, 3] at fractional positions [N], continued linearly beyond its ends."""
    low = position.floor().clamp(0, len(palette) - 2).long()
    return (palette[low] + (position - low)[:, None] * (palette[low + 1] - palette[low])).clamp(0, 1)


def _keep_where(keep: Tensor, distance: Tensor) -> Tensor:
    """Empty a shape for the images whose ``keep`` [N] is 0."""
    return distance + 10 * (1 - keep)[:, None, None]


def _ellipse(x: Tensor, y: Tensor, width: float, height: float, thin: Tensor | None = None) -> Tensor:
    """Ellipse of the given half axes; ``thin`` [N, 1, 1] replaces the vertical one."""
    half = height if thin is None else thin
    radius = ((x / width).square() + (y / half).square()).sqrt()
    return (radius - 1) * (min(width, height) if thin is None else thin)


def _abs_ellipse(x: Tensor, y: Tensor) -> Tensor:
    """Size of the smallest mouth-shaped ellipse around the origin that holds a point."""
    return ((x / 1.6).square() + y.square()).sqrt()


def _box(x: Tensor, y: Tensor, width: float, height: float | Tensor, *, corner: float) -> Tensor:
    dx, dy = abs(x) - width + corner, abs(y) - height + corner
    outside = (dx.clamp(min=0).square() + dy.clamp(min=0).square()).sqrt()
    return outside + torch.maximum(dx, dy).clamp(max=0) - corner


def _segment(x: Tensor, y: Tensor, x0: float, y0: float, x1: float, y1: float) -> Tensor:
    dx, dy = x1 - x0, y1 - y0
    along = (((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy)).clamp(0, 1)
    return ((x - x0 - along * dx).square() + (y - y0 - along * dy).square()).sqrt()


def _triangle_down(x: Tensor, y: Tensor, width: float, height: float) -> Tensor:
    """Triangle with its base at y = 0 and its tip at y = height."""
    slope = (width * width + height * height) ** 0.5
    return torch.maximum(-y, (abs(x) * height + y * width - width * height) / slope)
