"""Real weights on real photographs: faces are found, aligned, recognised and told, as OpenCV does, with gradients."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from benchmarks._published import FOLDER, NPM, PACKAGES, PORTRAITS, Portrait, photograph
from fair_adaptors.adaptor.results_file import load_results
from fair_adaptors.evaluation.store import read_seen, record_path
from fair_adaptors.evaluation.variants import original
from fair_adaptors.vision.catalog import load_classifier
from fair_adaptors.vision.crops import align_faces
from fair_adaptors.vision.face_encoders import load_face_encoder
from fair_adaptors.vision.faces import load_face_detector
from fair_adaptors.vision.seeing import see
from tests.commands import Command
from tests.conftest import NO_NPM

FILES = [FOLDER / Path(path).name for package in PACKAGES if package.client != NPM for path in package.files]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not all(file.is_file() for file in FILES), reason="not fetched: make test-slow does it"),
]

NETWORK = FOLDER / "fr_feature.onnx"
with_mobilefacenet = pytest.mark.skipif(not NETWORK.is_file(), reason=NO_NPM)
MOBILEFACENET = f"onnx:{NETWORK}"
INPUT = "mean=0.481498/0.458828/0.409012:std=1.003922"
"""As the package says: bytes less (122.782, 117.001, 104.298), by 256."""


def gender(margin: float) -> str:
    return f"onnx:gender=female/male:margin={margin}:{INPUT}:{FOLDER / 'gender-v1.onnx'}"


def truth(portrait: Portrait) -> Tensor:
    return torch.tensor(portrait.landmarks, dtype=torch.float32)


def eyes(portrait: Portrait) -> float:
    return float((truth(portrait)[1] - truth(portrait)[0]).norm())


@pytest.fixture(scope="module")
def aligned() -> Tensor:
    """The face of each portrait, found by YuNet."""
    found = [(image := photograph(one.file), load_face_detector().find(image).landmarks) for one in PORTRAITS]
    return torch.cat([align_faces(image, landmarks) for image, landmarks in found])


@pytest.mark.parametrize("portrait", PORTRAITS, ids=lambda one: one.file or "hopper")
def test_a_portraits_face_and_its_landmarks_are_found_where_an_eye_sees_them(portrait: Portrait) -> None:
    """Within a fifth of the distance of the eyes, and the box holds them all."""
    found = load_face_detector().find(photograph(portrait.file))
    assert found.found.all() and found.scores[0] > 0.9
    assert (found.landmarks[0] - truth(portrait)).norm(dim=1).max() < 0.2 * eyes(portrait)
    left, top, right, bottom = found.boxes[0]
    x, y = truth(portrait).T
    assert left < x.min() and x.max() < right and top < y.min() and y.max() < bottom


def test_a_hundred_faces_are_found_and_a_hundred_pictures_without_one_are_not() -> None:
    """Labeled Faces in the Wild, in grey, grown from 25 pixels to 100; the second half are pieces of backgrounds."""
    small = torch.from_numpy(np.load(FOLDER / "lfw_subset.npy")).float()[:, None].expand(-1, 3, -1, -1)
    found = load_face_detector().find(torch.nn.functional.interpolate(small, (100, 100), mode="bilinear")).found
    assert found[:100].sum() == 100 and found[100:].sum() <= 2


@with_mobilefacenet
def test_aligned_faces_are_those_that_opencv_cuts_out(aligned: Tensor) -> None:
    """OpenCV's recogniser brings its own alignment; it interpolates in another way, so that pixels differ a little."""
    recogniser = cv2.FaceRecognizerSF.create(str(NETWORK), "")
    for portrait, face in zip(PORTRAITS, aligned, strict=True):
        image = photograph(portrait.file)
        landmarks = load_face_detector().find(image).landmarks[0]
        row = np.concatenate([np.zeros(4), landmarks.numpy().ravel(), [1]]).astype(np.float32)[None]
        cut = recogniser.alignCrop((image[0].permute(1, 2, 0).numpy()[..., ::-1] * 255).round().astype(np.uint8), row)
        same = np.corrcoef(cut[..., ::-1].ravel(), face.permute(1, 2, 0).numpy().ravel())[0, 1]
        assert same > 0.98, portrait


@with_mobilefacenet
def test_one_person_is_like_oneself_and_unlike_others(aligned: Tensor) -> None:
    features = load_face_encoder(MOBILEFACENET).encode(aligned)
    cosines = features @ features.T
    people = [one.person for one in PORTRAITS]
    same = torch.tensor([[one == other for other in people] for one in people])
    assert same.sum() == 12  # themselves, and three pictures of one man with each other
    assert cosines[same].min() > 0.6 and cosines[~same].max() < 0.3
    assert torch.allclose(features.norm(dim=1), torch.ones(len(people)))


@with_mobilefacenet
def test_features_and_genders_are_those_that_opencv_computes(aligned: Tensor) -> None:
    net = cv2.dnn.readNetFromONNX(str(NETWORK))
    rows = []
    for face in aligned:
        total = np.zeros(1, np.float32)
        for one in (face, face.flip(-1)):
            net.setInput((one[None] * 2 - 1).numpy())
            total = total + net.forward()[0]
        rows.append(total / np.linalg.norm(total))
    assert torch.allclose(
        load_face_encoder(MOBILEFACENET).encode(aligned), torch.from_numpy(np.stack(rows)), atol=1e-4
    )
    small = torch.nn.functional.interpolate(aligned, (32, 32), mode="bilinear", antialias=True)
    net = cv2.dnn.readNetFromONNX(str(FOLDER / "gender-v1.onnx"))
    probabilities = []
    for face in small:
        net.setInput(
            (face.numpy() * 255 - np.array([122.782, 117.001, 104.298])[:, None, None])[None].astype(np.float32) / 256
        )
        probabilities.append(net.forward()[0].copy())
    told = load_classifier(gender(0.1)).logits(aligned)["gender"].softmax(1)
    assert torch.allclose(told, torch.from_numpy(np.stack(probabilities)), atol=1e-4)


def test_a_classifier_is_right_with_the_margin_it_was_made_for_alone() -> None:
    """It was trained on faces cut out narrowly: with the usual margin Collins is a man to it."""
    image = photograph(PORTRAITS[0].file)
    boxes = load_face_detector().find(image).boxes
    narrow, usual = (see(load_classifier(gender(margin)), image, boxes)["gender"].argmax() for margin in (0.1, 0.5))
    assert (narrow, usual) == (0, 1)
    men = [one for one in PORTRAITS if one.gender == "male"]
    for one in men:
        image = photograph(one.file)
        logits = see(load_classifier(gender(0.1)), image, load_face_detector().find(image).boxes)["gender"]
        assert logits.softmax(1)[0, 1] > 0.9


def like_hopper() -> Callable[[Tensor], Tensor]:
    """How alike Collins's face is to Hopper's."""
    encode, where = load_face_encoder(MOBILEFACENET).encode, [truth(one)[None] for one in PORTRAITS[:2]]
    other = encode(align_faces(photograph(""), where[1]))
    return lambda image: (encode(align_faces(image, where[0])) * other).sum()


def a_woman() -> Callable[[Tensor], Tensor]:
    """How much Collins is a woman to a classifier; where her face is does not change with the pixels."""
    classifier, boxes = load_classifier(gender(0.1)), load_face_detector().find(photograph(PORTRAITS[0].file)).boxes
    return lambda image: see(classifier, image, boxes)["gender"].log_softmax(1)[0, 0]


@pytest.mark.parametrize("figure", [pytest.param(like_hopper, marks=with_mobilefacenet), a_woman])
def test_gradients_to_the_pixels_are_the_slopes_that_differences_show(
    figure: Callable[[], Callable[[Tensor], Tensor]],
) -> None:
    """Along the gradient, and along five directions of chance."""
    value, image, step = figure(), photograph(PORTRAITS[0].file).requires_grad_(), 0.01
    (found,) = torch.autograd.grad(value(image), image)
    directions = [found, *(torch.randn_like(image) * (found != 0) for _ in range(5))]
    directions = [each / each.norm() for each in directions]
    with torch.no_grad():
        slopes = torch.stack([(value(image + step * d) - value(image - step * d)) / (2 * step) for d in directions])
    expected = torch.stack([(found * each).sum() for each in directions])
    assert expected[0] > 0 and slopes[0] == pytest.approx(float(expected[0]), rel=0.02)
    assert (slopes - expected)[1:].norm() < 0.05 * expected[1:].norm()


def square(name: str) -> Tensor:
    """A photograph's middle round the face, or round its own middle, 512 pixels wide."""
    image = photograph(name)
    known = next((truth(one).mean(0) for one in PORTRAITS if one.file == name), torch.tensor(image.shape[:1:-1]) / 2)
    side = min(image.shape[-2:])
    left, top = ((known[axis] - side / 2).clamp(0, image.shape[3 - axis] - side).int() for axis in (0, 1))
    return torch.nn.functional.interpolate(image[..., top : top + side, left : left + side], (512, 512), mode="area")


@with_mobilefacenet
def test_an_evaluation_of_photographs_counts_who_is_in_them(
    command: Command, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command, with the detector that comes along; photographs stand for what a model draws of two prompts."""
    shown = {
        "astronaut": ["astronaut.png", "coffee.png"] * 2,
        "president": ["obama.jpg", "biden.jpg", "obama3.jpg", "obama2.jpg"],
    }

    def drawn(pipe: Any, prompt: list[str], **settings: Any) -> SimpleNamespace:
        names = shown[next(name for name in shown if name in prompt[0])]
        return SimpleNamespace(images=torch.cat([square(name) for name in names[: len(prompt)]]))

    monkeypatch.setattr(StableDiffusionPipeline, "__call__", drawn)
    (tmp_path / "prompts.txt").write_text("a photo of an astronaut\na photo of a president\n")
    words = ["evaluate", base, "--prompts", str(tmp_path / "prompts.txt"), "-n", "4", "--out", str(tmp_path / "out")]
    words += ["--classifier", gender(0.1), "--encoder", f"onnx:mean=0.5:std=0.5:{NETWORK}"]
    status, _, error = command(*words)
    assert status == 0, error
    results = load_results(tmp_path / "out" / "results.json")
    assert results.face_detector == "yunet" and results.classifiers == ("onnx:gender-v1.onnx",)
    (variant,) = results.variants
    for index, (expected, found) in enumerate([([0, 0], [True, False] * 2), ([1, 1, 1, 1], [True] * 4)]):
        record = read_seen(record_path(tmp_path / "out", original(), index), results.classifier, ("gender",))
        assert record.found.tolist() == found
        assert record.classes(results.classifier, ("gender",))[record.found].tolist() == expected
    assert (tmp_path / "out" / "report.html").is_file()
