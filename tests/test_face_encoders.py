"""Encoders of faces give what the networks in their files and OpenCV compute, and the gradients of these networks."""

import hashlib
import struct
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fair_adaptors.errors import ConfigError
from fair_adaptors.vision import face_encoders
from fair_adaptors.vision.face_encoders import PUBLISHED, FaceEncoder, load_face_encoder
from fair_adaptors.vision.onnx_file import Graph, Node, read_onnx
from fair_adaptors.vision.onnx_network import onnx_network
from tests.face_networks import NETWORKS, exported, network


@pytest.fixture(scope="module", params=NETWORKS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def file(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "network.onnx"
    path.write_bytes(exported(network(kind)))
    return path


def faces(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 112, 112, generator=torch.Generator().manual_seed(seed))


def reference(kind: str, images: torch.Tensor) -> torch.Tensor:
    """Features of the network itself, one face at a time: of the face and of its mirror image."""
    model, (_, scale, shift) = network(kind), NETWORKS[kind]
    sums = [model(one[None] * scale + shift) + model(one[None].flip(-1) * scale + shift) for one in images]
    return F.normalize(torch.cat(sums), dim=1)


def test_features_are_those_of_the_network_that_was_exported(kind: str, file: Path) -> None:
    images = faces(3)
    with torch.no_grad():
        found = load_face_encoder(f"onnx:{file}").encode(images)
        assert torch.allclose(found, reference(kind, images), atol=1e-5)
    assert torch.allclose(found.norm(dim=1), torch.ones(3))


def test_features_are_those_that_opencv_computes(kind: str, file: Path) -> None:
    net, (_, scale, shift) = cv2.dnn.readNetFromONNX(str(file)), NETWORKS[kind]
    rows = []
    for image in faces(3):
        total = np.zeros(1, np.float32)
        for one in (image, image.flip(-1)):
            net.setInput((one[None] * scale + shift).numpy())
            total = total + net.forward()[0]
        rows.append(total / np.linalg.norm(total))
    found = load_face_encoder(f"onnx:{file}").encode(faces(3))
    assert torch.allclose(found, torch.from_numpy(np.stack(rows)), atol=1e-4)


def test_gradients_are_those_of_the_network_and_the_slopes_that_differences_show(kind: str, file: Path) -> None:
    images, goal = faces(2).requires_grad_(), F.normalize(torch.randn(2, 24 if kind == "SFace" else 32), dim=1)
    encode = load_face_encoder(f"onnx:{file}").encode
    found = torch.autograd.grad((encode(images) * goal).sum(), images)[0]
    expected = torch.autograd.grad((reference(kind, images) * goal).sum(), images)[0]
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-3)
    step = 1e-3 * found / found.abs().max()
    with torch.no_grad():
        slope = ((encode(images + step) - encode(images - step)).double() * goal).sum() / 2
    assert torch.allclose(slope, (found * step).sum().double(), rtol=0.03)


def test_a_face_and_its_mirror_image_are_the_same_person(file: Path) -> None:
    encode = load_face_encoder(f"onnx:{file}").encode
    assert torch.allclose(encode(faces(2)), encode(faces(2).flip(-1)), atol=1e-6)


def test_weights_may_be_listed_among_the_inputs_as_older_files_do(kind: str, file: Path) -> None:
    old = exported(network(kind), keep_initializers_as_inputs=True)
    graph = read_onnx(old, "old")
    assert graph.input == "data" and len(old) > file.stat().st_size
    images = faces(1) * 2 - 1
    new = onnx_network(read_onnx(file.read_bytes(), "new"), "new", "cpu")
    assert torch.equal(onnx_network(graph, "old", "cpu")(images), new(images))


def field(number: int, data: bytes | int) -> bytes:
    """A field of a protocol buffer, by hand."""
    key, rest = (number << 3, bytes([data])) if isinstance(data, int) else (number << 3 | 2, data)
    assert isinstance(data, int) or len(data) < 128
    return bytes([key]) + rest if isinstance(data, int) else bytes([key, len(data)]) + rest


def by_hand(tensor: bytes) -> bytes:
    """A file of opset 11 that subtracts a tensor "b" from an input "a" of two numbers."""
    shape = field(2, field(1, field(1, 1)) + field(1, field(1, 2)))
    ends = [
        field(number, field(1, name) + field(2, field(1, field(1, 1) + shape)))
        for number, name in ((11, b"a"), (12, b"c"))
    ]
    node = field(1, field(1, b"a") + field(1, b"b") + field(2, b"c") + field(4, b"Sub"))
    return field(1, 6) + field(7, node + field(2, b"g") + field(5, tensor) + b"".join(ends)) + field(8, field(2, 11))


@pytest.mark.parametrize("packed", [True, False])
def test_weights_may_be_written_number_by_number_as_mxnet_does(packed: bool, tmp_path: Path) -> None:
    numbers = struct.pack("<2f", 1.5, -2.0)
    rows = field(4, numbers) if packed else b"".join(bytes([4 << 3 | 5]) + numbers[i : i + 4] for i in (0, 4))
    data = by_hand(field(1, 1) + field(1, 2) + field(2, 1) + rows + field(8, b"b"))
    (tmp_path / "hand.onnx").write_bytes(data)
    net = cv2.dnn.readNetFromONNX(str(tmp_path / "hand.onnx"))
    net.setInput(np.array([[1.0, 1.0]], np.float32))
    assert net.forward().tolist() == [[-0.5, 3.0]]
    assert onnx_network(read_onnx(data, "hand"), "hand", "cpu")(torch.ones(1, 2)).tolist() == [[-0.5, 3.0]]


def test_weights_in_another_file_are_refused() -> None:
    outside = field(1, 1) + field(1, 2) + field(2, 1) + field(8, b"b") + field(14, 1)
    with pytest.raises(ConfigError, match="the weights 'b' are in another file"):
        read_onnx(by_hand(outside), "outside")


def test_a_convolution_may_pad_its_sides_differently() -> None:
    weight = torch.randn(2, 3, 3, 3)
    node = Node("Conv", ("x", "w"), ("y",), {"pads": [0, 1, 2, 3], "strides": [2, 1], "kernel_shape": [3, 3]})
    images = torch.randn(2, 3, 8, 9)
    found = onnx_network(Graph((node,), {"w": weight.numpy()}, "x", "y"), "padded", "cpu")(images)
    assert torch.allclose(found, F.conv2d(F.pad(images, (1, 3, 0, 2)), weight, stride=(2, 1)), atol=1e-5)


def test_a_damaged_file_is_refused_wherever_it_ends(file: Path, tmp_path: Path) -> None:
    data = file.read_bytes()
    for length in range(0, len(data) - 1, len(data) // 40):
        (tmp_path / "cut.onnx").write_bytes(data[:length])
        with pytest.raises(ConfigError, match=r"cut\.onnx"):
            load_face_encoder(f"onnx:{tmp_path / 'cut.onnx'}")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Flatten()),
            "has the operations Sigmoid; known here: Add,",
        ),
        (nn.Conv2d(3, 4, 3), r"gives features of shape \[1, 4, 110, 110\] for a face"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 112 * 112, 2)), None),
    ],
)
def test_a_network_that_is_no_face_encoder_is_refused(model: nn.Module, message: str | None, tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(exported(model))
    if message is None:  # the narrowest one that there is
        assert load_face_encoder(f"onnx:{path}").encode(faces(1)).shape == (1, 2)
        return
    with pytest.raises(ConfigError, match=message):
        load_face_encoder(f"onnx:{path}")


def test_an_encoder_is_named_or_brought_along(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = FaceEncoder("mine", "1", lambda images: images.mean((2, 3)))
    monkeypatch.setitem(sys.modules, "my_faces", SimpleNamespace(encoder=mine, other=1))
    assert load_face_encoder("my_faces:encoder") is mine
    with pytest.raises(ConfigError, match="my_faces:other is no"):
        load_face_encoder("my_faces:other")
    with pytest.raises(ConfigError, match="Did you mean 'auraface'"):
        load_face_encoder("oraface")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_face_encoder("onnx:nowhere.onnx")


def test_published_encoders_are_free_to_use_and_checked_to_the_byte(
    kind: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = kind.lower()
    assert load_face_encoder.__defaults__ == ("auraface",)
    assert PUBLISHED[name].licence == "apache-2.0"
    with pytest.raises(ConfigError, match=f"Or fetch {PUBLISHED[name].address} and name it: onnx:FILE"):
        load_face_encoder(name)  # tests are offline
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repo, file_name, revision, endpoint: str(file))
    with pytest.raises(ConfigError, match="is damaged: its sha256 is not"):
        load_face_encoder(name)
    here = replace(PUBLISHED[name], sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setattr(face_encoders, "PUBLISHED", {name: here})
    same = load_face_encoder(f"onnx:{file}")  # finds out by itself what the network takes
    assert torch.equal(load_face_encoder(name).encode(faces(1)), same.encode(faces(1)))
    assert load_face_encoder(name).identity == same.identity
