"""Detectors of faces: the largest one of each image, its box and its five landmarks."""

import contextlib
import hashlib
import importlib
import io
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from fair_adaptors.devices import accelerator
from fair_adaptors.errors import ConfigError, MissingExtraError, did_you_mean, missing_extra, pip_install

from .catalog import load_own, parse
from .types import LANDMARKS, LANDMARKS_SIDE, FaceDetector, Faces

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

DETECTORS = ("yunet", "yunet:PATH", "insightface", "whole", "MODULE:OBJECT")
"""What ``load_face_detector`` understands."""

YUNET = Path(__file__).parent / "yunet" / "face_detection_yunet_2023mar.onnx"
"""The file of OpenCV's model zoo that comes with this package, under the MIT licence."""

LONGEST_SIDE = 512
"""Pixels to which images are shrunk for YuNet. At 320 it misses more small faces: ``benchmarks/detector.py``."""
SCORE, OVERLAP, MOST_FACES = 0.6, 0.3, 5000
"""The least score of a face, how much two may overlap, and how many are looked at: as in OpenCV's ``yunet.py``."""
MOST_THREADS = 8
_PLAIN = "`yunet` alone is the one that comes with this package"

logger = logging.getLogger(__name__)


def load_face_detector(spec: str = "yunet") -> FaceDetector:
    """Load a detector of faces.

    Args:
        spec: ``yunet``, OpenCV's, whose weights come with this package; ``yunet:PATH`` with those of a file or folder;
            ``insightface``, whose weights are not for commercial use; ``whole`` where the whole image is the face; or
            ``MODULE:OBJECT`` that is a ``FaceDetector``.

    Raises:
        ConfigError: no such detector, or its weights are not to be had.
        MissingExtraError: it needs a package that is not installed.
    """
    word = parse(spec)
    if spec == "yunet" or (word.kind == "yunet" and word.source):
        return yunet(Path(word.source).expanduser() if word.source else YUNET)
    if spec == "insightface":
        return insightface()
    if spec == "whole":
        return whole_image()
    if ":" not in spec:
        raise ConfigError(f"no face detector {spec!r}.{did_you_mean(spec, DETECTORS)} Known: {', '.join(DETECTORS)}")
    return load_own(spec, FaceDetector)


def whole_image() -> FaceDetector:
    """Return what takes the whole of each image for an aligned face, as the sandbox's portraits are."""

    def find(images: "Tensor") -> Faces:
        import torch

        count, _, height, width = images.shape
        size = torch.tensor([width, height], device=images.device)
        landmarks = (torch.tensor(LANDMARKS, device=images.device) + 0.5) / LANDMARKS_SIDE * size
        scores = torch.ones(count, device=images.device)
        boxes = torch.cat([torch.zeros_like(size), size]).float()
        return Faces(boxes.repeat(count, 1), landmarks.repeat(count, 1, 1), scores, scores.bool())

    return FaceDetector("whole image", "1", find, crops=False)


def yunet(path: Path = YUNET, *, longest_side: int = LONGEST_SIDE) -> FaceDetector:
    """Return OpenCV's YuNet (Wu et al. 2023), which looks at several images at once, each in a thread.

    Args:
        path: its ONNX file or a folder with it.
        longest_side: pixels to which larger images are shrunk.

    Raises:
        ConfigError: the file is not there, or no such model.
        MissingExtraError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise missing_extra("OpenCV, which finds faces,", "eval") from error
    import numpy as np

    model = _read(path)
    threads = min(os.cpu_count() or 1, MOST_THREADS)
    pool = ThreadPoolExecutor(threads, "yunet")
    # A detector remembers the size of its images, so that each thread needs one of its own.
    idle: SimpleQueue[Any] = SimpleQueue()
    data, nothing, sides = np.frombuffer(model, np.uint8), np.empty(0, np.uint8), (longest_side, longest_side)

    def look(image: "np.ndarray") -> "np.ndarray":
        detector = idle.get()
        try:
            detector.setInputSize(image.shape[1::-1])
            rows = detector.detect(image)[1]
        finally:
            idle.put(detector)
        return np.zeros((0, 15), np.float32) if rows is None else rows

    try:
        with _quiet_opencv():
            for _ in range(threads):
                idle.put(cv2.FaceDetectorYN.create("onnx", data, nothing, sides, SCORE, OVERLAP, MOST_FACES))
            look(np.zeros((*sides, 3), np.uint8))
    except cv2.error as error:
        raise ConfigError(f"{path} is not a YuNet that OpenCV can run; {_PLAIN}") from error

    def find(images: "Tensor") -> Faces:
        pictures, scale = _pictures(images, longest_side)
        corners = [_corners(rows) for rows in pool.map(look, pictures)]
        return _largest(corners, images, scale)

    settings = f"{longest_side} {SCORE} {OVERLAP}"
    return FaceDetector("yunet", f"{hashlib.sha256(model).hexdigest()} {settings}", find)


def _corners(rows: "np.ndarray") -> "np.ndarray":
    """Turn YuNet's width and height into right and bottom. Its right eye is the person's: the image's left one."""
    import numpy as np

    return np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4], rows[:, 4:]], 1)


def _read(path: Path) -> bytes:
    file = path / YUNET.name if path.is_dir() else path
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"yunet:{path}: {file} cannot be read ({error.strerror}); {_PLAIN}") from error


@contextlib.contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Keep OpenCV 5 from saying of each detector that its new engine has no targets yet."""
    from cv2.utils import logging as levels

    before = levels.setLogLevel(levels.LOG_LEVEL_ERROR)
    try:
        yield
    finally:
        levels.setLogLevel(before)


def insightface() -> FaceDetector:
    """Return insightface's SCRFD, the detector of the published code. Its weights are not for commercial use.

    Raises:
        ConfigError: its weights cannot be had.
        MissingExtraError: it is not installed.
    """
    try:
        # By name, since it is not a requirement: most of what comes with it may not be used freely.
        module = importlib.import_module("insightface.app")
    except ImportError as error:
        raise MissingExtraError(
            f"{error.name} is not installed: {pip_install('insightface', 'onnxruntime')}. Its weights are for"
            " non-commercial research only; those of yunet are free (MIT)"
        ) from error
    logger.warning("insightface's weights are for non-commercial research only; those of yunet are free (MIT)")
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            app = module.FaceAnalysis(name="buffalo_l", allowed_modules=["detection"])
        except Exception as error:  # whatever its download stumbles over
            raise ConfigError(f"insightface cannot load its weights buffalo_l: {error}") from error
        kind, _, number = accelerator().partition(":")
        app.prepare(ctx_id=int(number or 0) if kind == "cuda" else -1, det_size=(640, 640))

    def find(images: "Tensor") -> Faces:
        pictures, scale = _pictures(images, max(images.shape[-2:]))
        return _largest([_rows(app.get(picture)) for picture in pictures], images, scale)

    return FaceDetector("insightface", hashlib.sha256(Path(app.det_model.model_file).read_bytes()).hexdigest(), find)


def _rows(faces: Sequence[Any]) -> "np.ndarray":
    import numpy as np

    rows = [np.concatenate([face.bbox, face.kps.ravel(), [face.det_score]]) for face in faces]
    return np.array(rows, np.float32).reshape(-1, 15)


def _pictures(images: "Tensor", longest_side: int) -> "tuple[np.ndarray, tuple[float, float]]":
    """Return images as OpenCV has them, bytes [N, h, w, BGR], shrunk to a longest side, and the scale of x and y."""
    import torch
    from torch.nn.functional import interpolate

    height, width = images.shape[-2:]
    shrink = min(1.0, longest_side / max(height, width))
    small = max(1, round(height * shrink)), max(1, round(width * shrink))
    with torch.no_grad():
        pixels = images.float()
        if small != (height, width) and len(images):
            pixels = interpolate(pixels, small, mode="bilinear", antialias=True)
        pixels = (pixels.clamp(0, 1) * 255).round().byte().flip(1).permute(0, 2, 3, 1).contiguous()
    return pixels.cpu().numpy(), (width / small[1], height / small[0])


def _largest(rows: "Sequence[np.ndarray]", images: "Tensor", scale: tuple[float, float]) -> Faces:
    """Return the face of each image that fills most of it.

    Args:
        rows: of each image its faces, as (left, top, right, bottom, five times x and y, score), [faces, 15].
        scale: from their x and y to those of ``images``.
    """
    import numpy as np
    import torch

    height, width = images.shape[-2:]
    table = np.zeros((len(rows), 15), np.float32)
    for row, faces in zip(table, rows, strict=True):
        if len(faces):
            low, high = np.zeros(2), np.array([width / scale[0], height / scale[1]])
            sides = faces[:, 2:4].clip(low, high) - faces[:, :2].clip(low, high)
            row[:] = faces[sides.prod(1).argmax()]
    found = torch.from_numpy(table).to(images.device)
    places = found[:, :14].unflatten(1, (7, 2)) * torch.tensor(scale, device=images.device)
    return Faces(places[:, :2].flatten(1), places[:, 2:], found[:, 14], found[:, 14] > 0)
