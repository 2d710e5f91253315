"""Time of cutting out and aligning faces, with the gradient to the pixels, and of looking for them."""

import argparse
import time
from collections.abc import Callable
from typing import Any

from benchmarks._report import report

BAR = 0.5
"""Seconds for 24 faces of 512 × 512 images, to 224 × 224 and to 112 × 112, forward and backward, on 2 cores."""
SIDE = 512


def measure(work: Callable[[], object], repeats: int) -> dict[str, float]:
    """Return the least seconds of wall and of CPU time over some repeats, after a first one that is not counted."""
    work()
    wall, cpu = [], []
    for _ in range(repeats):
        started, used = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    return {"seconds": min(wall), "cpu_seconds": min(cpu)}


def main() -> None:
    """Print the seconds of crops, of aligned faces, and of both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--faces", help="a detector to time too, such as yunet")
    arguments = parser.parse_args()

    import torch

    from fair_adaptors.vision.crops import align_faces, crop_faces
    from fair_adaptors.vision.faces import LANDMARKS, LANDMARKS_SIDE, load_face_detector

    torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(arguments.images, 3, SIDE, SIDE, generator=generator, requires_grad=True)
    # Faces as portraits have them: a quarter to three quarters of the side, anywhere, and turned a little.
    sides = SIDE * (0.25 + 0.5 * torch.rand(arguments.images, 1, generator=generator))
    middles = sides / 2 + (SIDE - sides) * torch.rand(arguments.images, 2, generator=generator)
    boxes = torch.cat([middles - sides / 2, middles + sides / 2], 1)
    angles = 0.3 * torch.randn(arguments.images, 1, generator=generator)
    template = torch.view_as_complex(torch.tensor(LANDMARKS) / LANDMARKS_SIDE - 0.5)
    places = template * torch.polar(sides, angles) + torch.view_as_complex(middles)[:, None]
    landmarks = torch.view_as_real(places)

    def gradient(*faces: torch.Tensor) -> None:
        torch.autograd.grad([face.sum() for face in faces], images)

    cases: dict[str, Callable[[], object]] = {
        "crops of 224": lambda: gradient(crop_faces(images, boxes)),
        "aligned faces of 112": lambda: gradient(align_faces(images, landmarks)),
        "both": lambda: gradient(crop_faces(images, boxes), align_faces(images, landmarks)),
    }
    if arguments.faces:
        detector = load_face_detector(arguments.faces)
        cases[f"looking for them, {detector.name}"] = lambda: detector.find(images)
    rows: list[dict[str, Any]] = [{"what": what, **measure(work, arguments.repeats)} for what, work in cases.items()]
    both = next(row for row in rows if row["what"] == "both")
    report("faces", rows, images=arguments.images, bar=BAR, held=both["seconds"] <= BAR)


if __name__ == "__main__":
    main()
