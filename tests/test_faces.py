"""Detectors of faces: OpenCV's YuNet on a network whose faces are known and with its own weights, and the protocol."""

import hashlib
import struct
import sys
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fair_adaptors.errors import ConfigError, MissingExtraError
from fair_adaptors.evaluation.spec import instruments_for
from fair_adaptors.vision import faces
from fair_adaptors.vision.crops import align_faces, crop_faces
from fair_adaptors.vision.faces import LANDMARKS, load_face_detector
from fair_adaptors.vision.types import FaceDetector, Faces
from tests.photograph import photograph
from tests.yunet import OFFSETS, STRIDE, known_yunet, model, node, value


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> FaceDetector:
    file = tmp_path_factory.mktemp("yunet") / faces.YUNET.name
    file.write_bytes(known_yunet())
    return load_face_detector(f"yunet:{file}")


def scene(height: int, width: int, *people: tuple[int, int, float], cell: int = STRIDE) -> torch.Tensor:
    """An image with faces in cells of the grid, by column, row and size."""
    image = torch.zeros(3, height, width)
    for column, row, green in people:
        place = image[:, row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
        place[0], place[1] = 1.0, green
    return image


def box(column: int, row: int, green: float, cell: int = STRIDE) -> list[float]:
    width, height = np.exp(green) * cell, 1.25 * np.exp(green) * cell
    x, y = (column + 0.5) * cell, (row + 0.5) * cell
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def test_the_largest_face_of_each_image_is_found_in_order(detector: FaceDetector) -> None:
    people = [[(2, 3, 0.4)], [(1, 1, 0.2), (6, 5, 0.6), (3, 8, 0.0)], [], [(7, 7, 1.0)]] * 6
    found = detector.find(torch.stack([scene(320, 320, *image) for image in people]))
    assert found.found.tolist() == [bool(image) for image in people]
    for n, image in enumerate(people):
        column, row, green = max(image, key=lambda face: face[2], default=(0, 0, 0.0))
        if not image:
            assert not any(part[n].any() for part in (found.boxes, found.landmarks, found.scores))
            continue
        middle = torch.tensor([column, row]) + 0.5
        assert torch.allclose(found.boxes[n], torch.tensor(box(column, row, green)).float(), atol=0.2)
        assert torch.allclose(found.landmarks[n], (middle + torch.tensor(OFFSETS)).float() * STRIDE, atol=1e-3)
        assert found.scores[n].item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("height", "width", "shrink"), [(1024, 1024, 2), (2048, 1536, 4), (200, 300, 1), (64, 96, 1)])
def test_places_are_those_of_the_image_whatever_its_size(
    detector: FaceDetector, height: int, width: int, shrink: int
) -> None:
    cell = STRIDE * shrink
    found = detector.find(scene(height, width, (1, 0, 0.4), cell=cell)[None])
    assert torch.allclose(found.boxes[0], torch.tensor(box(1, 0, 0.4, cell)).float(), atol=0.2 * shrink)
    assert torch.allclose(found.landmarks[0], torch.tensor(OFFSETS + [1.5, 0.5]).float() * cell, atol=1e-2)


def test_the_largest_is_the_one_of_which_most_is_in_the_image(detector: FaceDetector) -> None:
    """A face of which a half is cut off counts for half."""
    found = detector.find(scene(320, 320, (0, 4, 1.0), (6, 4, 0.85))[None])
    assert torch.allclose(found.boxes[0], torch.tensor(box(6, 4, 0.85)).float(), atol=0.2)


def test_faint_faces_are_none(detector: FaceDetector) -> None:
    image = scene(320, 320, (2, 2, 0.5))
    found = detector.find(torch.stack([image * 0.65, image * 0.55]))
    assert found.found.tolist() == [True, False] and found.scores[0].item() == pytest.approx(0.65, abs=0.01)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_type_is_looked_at_and_no_gradient_is_kept(detector: FaceDetector, kind: torch.dtype) -> None:
    image = scene(320, 320, (2, 3, 0.5))[None].to(kind).requires_grad_()
    found = detector.find(image)
    assert found.found.all() and found.boxes.dtype == torch.float32
    assert not any(part.requires_grad for part in (found.boxes, found.landmarks, found.scores))


def test_looking_later_and_from_several_threads_finds_the_same(detector: FaceDetector) -> None:
    """Images of two sizes at once: each thread's detector knows the size of its own."""
    batches = [torch.stack([scene(320, 320, (k, 3, 0.4))] * 4) for k in range(1, 8)]
    batches += [torch.stack([scene(128, 160, (k, 1, 0.4))] * 4) for k in range(1, 4)]
    expected = [detector.find(batch).boxes for batch in batches]
    results: dict[int, torch.Tensor] = {}
    threads = [
        threading.Thread(target=lambda n=n, batch=batch: results.update({n: detector.find(batch).boxes}))
        for n, batch in enumerate(batches)
    ]
    for thread in threads:
        thread.start()
    later = [detector.find_later(batch.requires_grad_()) for batch in batches]
    for thread in threads:
        thread.join()
    for n, wanted in enumerate(expected):
        assert torch.equal(results[n], wanted) and torch.equal(later[n].result().boxes, wanted)


def test_no_images_have_no_faces(detector: FaceDetector) -> None:
    none = detector.find(torch.zeros(0, 3, 64, 64))
    assert none.boxes.shape == (0, 4) and none.landmarks.shape == (0, 5, 2) and none.found.shape == (0,)


def test_a_whole_image_is_one_aligned_face() -> None:
    image = torch.rand(2, 3, 112, 112)
    found = load_face_detector("whole").find(image)
    assert found.boxes.tolist() == [[0, 0, 112, 112]] * 2 and found.found.all() and (found.scores == 1).all()
    assert torch.allclose(found.landmarks[0], torch.tensor(LANDMARKS) + 0.5)
    wide = load_face_detector("whole").find(torch.rand(1, 3, 50, 100))
    assert wide.boxes.tolist() == [[0, 0, 100, 50]]
    assert torch.allclose(wide.landmarks[0] / torch.tensor([100, 50]), (torch.tensor(LANDMARKS) + 0.5) / 112)


def test_its_identity_changes_with_the_weights(detector: FaceDetector, tmp_path: Path) -> None:
    other = known_yunet().replace(struct.pack("<f", np.log(1.25)), struct.pack("<f", 0.3))
    (tmp_path / faces.YUNET.name).write_bytes(other)
    changed = load_face_detector(f"yunet:{tmp_path}")
    assert changed.name == detector.name == "yunet" and changed.identity != detector.identity
    assert hashlib.sha256(other).hexdigest() in changed.identity


def test_what_cannot_be_loaded_says_why_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "no.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    other = model([node("Relu", ["input"], "out")], [], [value("out", [1, 3, 640, 640])])
    (tmp_path / "other.onnx").write_bytes(other)
    for spec, said in {
        "yunett": "Did you mean 'yunet'.*Known: yunet, yunet:PATH, insightface, whole, MODULE:OBJECT",
        "yunet:": "is not known; write KIND:SOURCE",
        "nowhere:detector": "PYTHONPATH",
        "json:loads": "is not a fair_adaptors.vision.types.FaceDetector",
        f"yunet:{tmp_path / 'missing.onnx'}": "cannot be read.*`yunet` alone is the one that comes with",
        f"yunet:{tmp_path}": f"{faces.YUNET.name} cannot be read",
        f"yunet:{tmp_path / 'empty.onnx'}": "not a YuNet that OpenCV can run",
        f"yunet:{tmp_path / 'no.onnx'}": "not a YuNet that OpenCV can run",
        f"yunet:{tmp_path / 'other.onnx'}": "not a YuNet that OpenCV can run",
    }.items():
        with pytest.raises(ConfigError, match=said):
            load_face_detector(spec)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[eval\]"):
        load_face_detector("yunet")


def test_the_weights_that_come_along_are_opencvs_to_the_byte() -> None:
    """The sha256 is that of opencv/face_detection_yunet on the Hub; nothing is fetched."""
    data = faces.YUNET.read_bytes()
    assert hashlib.sha256(data).hexdigest() == "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
    assert "MIT License" in (faces.YUNET.parent / "LICENSE").read_text(encoding="utf-8")
    assert hashlib.sha256(data).hexdigest() in load_face_detector().identity


def test_an_evaluation_takes_the_detector_that_is_named(tmp_path: Path) -> None:
    (tmp_path / faces.YUNET.name).write_bytes(known_yunet())
    named = instruments_for("sandbox", [], [], f"yunet:{tmp_path}")
    plain = instruments_for("sandbox", [], [])
    assert named.faces is not None and named.faces.name == "yunet" and plain.faces is None
    assert named.identity != plain.identity and named.kept == plain.kept
    whole = instruments_for("elsewhere", ["sandbox:evaluation"], [], "whole")
    assert whole.faces is not None and whole.faces.name == "whole image"


def test_insightface_is_asked_for_its_detector_alone_and_its_licence_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A stand-in for the package, whose weights may not be shipped."""
    monkeypatch.setitem(sys.modules, "insightface", None)
    monkeypatch.setitem(sys.modules, "insightface.app", None)
    with pytest.raises(MissingExtraError, match="pip install insightface.*non-commercial"):
        load_face_detector("insightface")
    (tmp_path / "det_10g.onnx").write_bytes(b"weights")
    landmarks = np.arange(10, dtype=np.float32).reshape(5, 2)

    class FaceAnalysis:
        def __init__(self, name: str, allowed_modules: list[str]) -> None:
            assert allowed_modules == ["detection"]
            self.det_model = types.SimpleNamespace(model_file=str(tmp_path / "det_10g.onnx"))

        def prepare(self, ctx_id: int, det_size: tuple[int, int]) -> None:
            print("set det-size:", det_size)

        def get(self, image: np.ndarray) -> list[Any]:
            if not image.any():
                return []
            assert image.shape == (40, 60, 3) and image[0, 0].tolist() == [0, 0, 255]  # BGR
            small = types.SimpleNamespace(bbox=np.array([1.0, 2, 3, 4]), kps=landmarks, det_score=0.9)
            large = types.SimpleNamespace(bbox=np.array([10.0, 5, 50, 35]), kps=landmarks + 1, det_score=0.7)
            return [small, large]

    package = types.ModuleType("insightface.app")
    package.FaceAnalysis = FaceAnalysis  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "insightface", types.ModuleType("insightface"))
    monkeypatch.setitem(sys.modules, "insightface.app", package)
    found = load_face_detector("insightface").find(
        torch.stack([torch.tensor([1.0, 0, 0])[:, None, None].expand(3, 40, 60), torch.zeros(3, 40, 60)])
    )
    assert found.boxes.tolist() == [[10, 5, 50, 35], [0, 0, 0, 0]] and found.found.tolist() == [True, False]
    assert torch.equal(found.landmarks[0], torch.from_numpy(landmarks + 1))
    assert "non-commercial" in caplog.text


BY_HAND = torch.tensor([[224.0, 190], [306, 187], [266, 240], [225, 278], [308, 277]])
BOX_BY_HAND = torch.tensor([165.0, 125, 370, 320])
"""Grace Hopper's landmarks and face in matplotlib's photograph, its upper 512 × 512 pixels, marked by eye."""


def marked(images: torch.Tensor) -> Faces:
    return Faces(BOX_BY_HAND[None], BY_HAND[None], torch.ones(1), torch.ones(1, dtype=torch.bool))


by_hand = FaceDetector("by hand", "1", marked)


def test_a_users_own_detector_finds_a_real_face_to_crop_and_align() -> None:
    """Aligned, her pupils are the darkest near where ArcFace expects the eyes, and her crop holds the whole face."""
    image = photograph(512)
    found = load_face_detector(f"{__name__}:by_hand").find(image)
    aligned = align_faces(image, found.landmarks)[0].mean(0)
    for x, y in LANDMARKS[:2]:
        near = aligned[round(y) - 6 : round(y) + 7, round(x) - 6 : round(x) + 7]
        row, column = divmod(int(near.argmin()), near.shape[1])
        assert abs(row - 6) <= 3 and abs(column - 6) <= 3
    crop = crop_faces(image, found.boxes)[0]
    assert crop.shape == (3, 224, 224) and crop.std() > 0.1


def test_yunet_finds_a_real_face() -> None:
    """Her landmarks within a quarter of the distance of her eyes, which are marked by eye too, whatever the size."""
    for size in (512, 256, 1024):
        image = torch.nn.functional.interpolate(photograph(512), (size, size), mode="bilinear", antialias=size < 512)
        found = load_face_detector().find(image)
        assert found.found.all() and (found.landmarks[0] * 512 / size - BY_HAND).norm(dim=1).max() < 20
