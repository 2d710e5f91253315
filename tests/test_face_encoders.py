"""Encoders of faces give what the networks in their files and OpenCV compute, and the gradients of these networks."""

import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fair_adaptors.errors import ConfigError, MissingExtraError
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


def subtracting(tensor: onnx.TensorProto) -> bytes:
    """A file that subtracts a tensor "b" from an input "a" of two numbers."""
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2]) for name in "ac"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Sub", ["a", "b"], ["c"])], "g", ends[:1], ends[1:], [tensor]
    )
    opset = onnx.helper.make_opsetid("", 11)
    return onnx.helper.make_model(graph, ir_version=6, opset_imports=[opset]).SerializeToString()


def test_weights_may_be_written_as_numbers_as_mxnet_does(tmp_path: Path) -> None:
    tensor = onnx.helper.make_tensor("b", onnx.TensorProto.FLOAT, [1, 2], [1.5, -2.0])
    assert list(tensor.float_data) == [1.5, -2.0] and not tensor.raw_data
    (tmp_path / "numbers.onnx").write_bytes(data := subtracting(tensor))
    net = cv2.dnn.readNetFromONNX(str(tmp_path / "numbers.onnx"))
    net.setInput(np.array([[1.0, 1.0]], np.float32))
    assert net.forward().tolist() == [[-0.5, 3.0]]
    assert onnx_network(read_onnx(data, "numbers"), "numbers", "cpu")(torch.ones(1, 2)).tolist() == [[-0.5, 3.0]]


def test_weights_in_another_file_are_refused_even_if_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = onnx.numpy_helper.from_array(np.array([[1.5, -2.0]], np.float32), "b")
    onnx.external_data_helper.set_external_data(tensor, "weights.bin")
    (tmp_path / "weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="the weights 'b' are in another file"):
        read_onnx(subtracting(tensor), "outside")


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        (onnx.TensorProto.BOOL, [1, 2], "'b' has numbers of the kind bool"),
        (onnx.TensorProto.STRING, [1, 2], "'b' has numbers of the kind object"),
        (onnx.TensorProto.FLOAT, [2**62], "cannot reshape array"),
    ],
)
def test_weights_that_are_none_or_say_to_be_huge_are_refused(kind: int, shape: list[int], message: str) -> None:
    tensor = onnx.TensorProto(name="b", data_type=kind, dims=shape, float_data=[1, 2], int32_data=[1, 0])
    tensor.string_data.extend([b"a", b"b"])
    with pytest.raises(ConfigError, match=f"weights cannot be read as an ONNX file: {message}"):
        read_onnx(subtracting(tensor), "weights")


@pytest.mark.parametrize("value", [["a", "b"], onnx.helper.make_graph([], "inside", [], [])])
def test_attributes_that_are_no_numbers_texts_or_arrays_are_refused(value: object) -> None:
    node = onnx.helper.make_node("If", ["a"], ["c"], then_branch=value)
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2]) for name in "ac"]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", ends[:1], ends[1:]))
    with pytest.raises(ConfigError, match="'then_branch' is of a kind that cannot be read"):
        read_onnx(model.SerializeToString(), "attributes")


def test_attributes_may_be_texts() -> None:
    node = onnx.helper.make_node("Conv", ["a", "a"], ["c"], auto_pad="SAME_UPPER", group=2)
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2]) for name in "ac"]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", ends[:1], ends[1:]))
    assert read_onnx(model.SerializeToString(), "x").nodes[0].attributes == {"auto_pad": "SAME_UPPER", "group": 2}


def test_without_onnx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"onnx is not installed: .*pip install .*\[eval\]"):
        read_onnx(b"", "any")


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
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ELU(), nn.Flatten()), "has the operations Elu; known here: Add,"),
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
    with pytest.raises(ConfigError, match="my_faces:other is not"):
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
