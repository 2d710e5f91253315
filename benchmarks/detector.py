"""How many faces YuNet misses, and how far its landmarks are off, by the size to which images are shrunk for it."""

import argparse
import time
from typing import TYPE_CHECKING, Any

from benchmarks._published import PORTRAITS, Portrait, photograph
from benchmarks._report import report

if TYPE_CHECKING:
    from torch import Tensor

    from fair_adaptors.vision.types import FaceDetector

SIDE = 1024
SIDES = (320, 512)
SHARES = (1 / 2, 1 / 4, 1 / 8, 1 / 12, 1 / 16, 1 / 24, 1 / 32)
"""How much of the picture's height a face has."""
FACE = 2.8
"""A face's height, in distances of its eyes."""
PLACES = 3
FOUND = 0.5
"""A face counts as found if the middle of its landmarks is off by less than this, in distances of the eyes."""


def scene(portrait: Portrait, share: float, middle: tuple[float, float]) -> "tuple[Tensor, Tensor]":
    """Return a picture [1, 3, SIDE, SIDE] of a table with a portrait on it, and the true landmarks [5, 2].

    Args:
        share: of the picture's height that the face has.
        middle: where on the table the face is, x and y in [0, 1]; the face stays within the picture.
    """
    import torch
    from torch.nn.functional import interpolate

    picture = interpolate(photograph("coffee.png"), (SIDE, SIDE), mode="bilinear", antialias=True)
    landmarks = torch.tensor(portrait.landmarks, dtype=torch.float64)
    eyes = float((landmarks[1] - landmarks[0]).norm())
    scale = share * SIDE / (FACE * eyes)
    source, reach = photograph(portrait.file), FACE * eyes  # the head with some of what is around it
    low = (landmarks.mean(0) - reach).clamp(min=0).round()
    high = torch.minimum(landmarks.mean(0) + reach, torch.tensor(source.shape[:1:-1]).double()).round()
    (left, top), (right, bottom) = low.int().tolist(), high.int().tolist()
    height, width = round((bottom - top) * scale), round((right - left) * scale)
    head = interpolate(source[..., top:bottom, left:right], (height, width), mode="bilinear", antialias=True)
    head = head[..., :SIDE, :SIDE]
    x = round(middle[0] * (SIDE - head.shape[-1]))
    y = round(middle[1] * (SIDE - head.shape[-2]))
    picture[..., y : y + head.shape[-2], x : x + head.shape[-1]] = head
    stretch = torch.tensor([width / (right - left), height / (bottom - top)])
    return picture, (landmarks - low) * stretch + torch.tensor([x, y])


def measure(detector: "FaceDetector") -> dict[str, Any]:
    """Return how many of all faces, and of small ones, a detector misses, its errors, and its CPU time."""
    import torch

    generator = torch.Generator().manual_seed(0)
    errors, missed, seconds, small = [], {share: 0 for share in SHARES}, [], SHARES[-3:]
    for share in SHARES:
        for portrait in PORTRAITS:
            for middle in torch.rand(PLACES, 2, generator=generator).tolist():
                picture, truth = scene(portrait, share, middle)
                started = time.process_time()
                faces = detector.find(picture)
                seconds.append(time.process_time() - started)
                off = (faces.landmarks[0] - truth) / (truth[1] - truth[0]).norm()
                if faces.found.item() and off.mean(0).norm() < FOUND:
                    errors.append(float(off.norm(dim=1).mean()))
                else:
                    missed[share] += 1
    faces_of_each = len(PORTRAITS) * PLACES
    quantiles = torch.tensor(errors).quantile(torch.tensor([0.5, 0.9])).tolist()
    return {
        "missed": sum(missed.values()),
        "of": faces_of_each * len(SHARES),
        "missed of a 16th of the height or less": sum(missed[share] for share in small),
        "of these": faces_of_each * len(small),
        "landmark error, median": quantiles[0],
        "landmark error, 90 %": quantiles[1],
        "CPU milliseconds": 1e3 * float(torch.tensor(seconds).median()),
        "missed by share of the height": {f"1/{1 / share:.0f}": count for share, count in missed.items()},
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    import torch

    from fair_adaptors.vision.faces import yunet

    torch.set_num_threads(arguments.threads)
    rows = [{"longest side": side, **measure(yunet(longest_side=side))} for side in SIDES]
    shares = [{"longest side": row["longest side"], **row.pop("missed by share of the height")} for row in rows]
    report("detector", rows, beside=shares, picture=SIDE)


if __name__ == "__main__":
    main()
