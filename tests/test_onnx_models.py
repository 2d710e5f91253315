"""ONNX files as classifiers and encoders: operations as onnx's own evaluator has them, and what words may say."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.reference import ReferenceEvaluator
from torch import nn

from fair_adaptors.errors import ConfigError
from fair_adaptors.vision.catalog import load_classifier, load_encoder, parse
from fair_adaptors.vision.onnx_file import read_onnx
from fair_adaptors.vision.onnx_network import _flatten, onnx_network
from tests.face_networks import exported
from tests.vision_models import pictures

FLOAT = onnx.TensorProto.FLOAT
IMAGENET = "mean=0.485/0.456/0.406:std=0.229/0.224/0.225"


def one_operation(
    name: str, opset: int, shape: tuple[int | str, ...], given: tuple[Any, ...], settings: dict[str, Any]
) -> bytes:
    """A file of one operation on an input, with constants as its other inputs."""
    constants = [
        onnx.numpy_helper.from_array(np.array(each), f"c{n}") for n, each in enumerate(given) if each is not None
    ]
    inputs = ["x", *(f"c{n}" if each is not None else "" for n, each in enumerate(given))]
    ends = make_tensor_value_info("x", FLOAT, [1, *shape]), make_tensor_value_info("y", FLOAT, None)
    graph = make_graph([make_node(name, inputs, ["y"], **settings)], "g", [ends[0]], [ends[1]], constants)
    return make_model(graph, opset_imports=[make_opsetid("", opset)]).SerializeToString()


OPERATIONS: list[tuple[str, int, tuple[int, ...], tuple[Any, ...], dict[str, Any]]] = [
    ("AveragePool", 18, (3, 8, 10), (), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("AveragePool", 18, (3, 9, 9), (), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("AveragePool", 18, (3, 9, 9), (), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("MaxPool", 18, (3, 9, 11), (), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("MaxPool", 18, (3, 8, 8), (), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ("GlobalAveragePool", 18, (3, 5, 6), (), {}),
    ("Softmax", 18, (7,), (), {"axis": 1}),
    ("Softmax", 18, (4, 7), (), {"axis": -1}),
    ("Softmax", 18, (7,), (), {}),
    ("Clip", 18, (9,), (np.float32(-0.3), np.float32(0.5)), {}),
    ("Clip", 18, (9,), (None, np.float32(0.5)), {}),
    ("Clip", 18, (9,), (np.float32(-0.3),), {}),
    ("Clip", 18, (9,), (), {}),
    ("Flatten", 18, (3, 4, 5), (), {"axis": 0}),
    ("Clip", 6, (9,), (), {"min": -0.1, "max": 6.0}),
    ("ReduceMean", 18, (3, 5, 6), (np.array([2, 3]),), {"keepdims": 0}),
    ("ReduceMean", 13, (3, 5, 6), (), {"axes": [-1, -2]}),
    ("HardSigmoid", 18, (9,), (), {"alpha": 1 / 6}),
    ("HardSwish", 18, (9,), (), {}),
    ("LeakyRelu", 18, (9,), (), {"alpha": 0.3}),
    ("Sigmoid", 18, (9,), (), {}),
    ("Tanh", 18, (9,), (), {}),
    ("Transpose", 18, (3, 4, 5), (), {"perm": [0, 2, 3, 1]}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "opset", "shape", "given", "settings"), OPERATIONS)
def test_an_operation_is_what_onnxs_own_evaluator_makes_of_it(
    name: str, opset: int, shape: tuple[int, ...], given: tuple[Any, ...], settings: dict[str, Any]
) -> None:
    data = one_operation(name, opset, shape, given, settings)
    x = 4 * torch.randn(2, *shape)
    judge = ReferenceEvaluator(onnx.load_model_from_string(data))
    expected = np.concatenate([judge.run(None, {"x": one[None].numpy()})[0] for one in x])
    found = onnx_network(read_onnx(data, "one"), "one", "cpu")(x)
    assert torch.allclose(found, torch.from_numpy(expected), atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2, 3, 4, -1, -2, -3])
def test_flatten_makes_rows_of_the_dimensions_before_its_axis(axis: int) -> None:
    one = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Flatten", ["x"], ["y"], axis=axis)],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, one.shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, None])],
    )
    (expected,) = ReferenceEvaluator(onnx.helper.make_model(graph)).run(None, {"x": one})
    assert np.array_equal(_flatten(torch.from_numpy(one), axis=axis).numpy(), expected)


CONSTANTS = {"Conv": (np.ones((2, 3, 1, 1), np.float32),), "BatchNormalization": (np.ones(3, np.float32),) * 4}


@pytest.mark.parametrize(
    ("name", "shape", "settings", "said"),
    [
        ("Conv", (3, 8, 8), {"auto_pad": "SAME_UPPER"}, "Conv pads by SAME_UPPER"),
        ("BatchNormalization", (3, 8, 8), {"training_mode": 1}, "in training mode"),
        ("AveragePool", (3, 8, 8), {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}, "pads by SAME_UPPER"),
        ("MaxPool", (3, 8, 8), {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}, r"pads by \[0, 0, 1, 1\]"),
        ("AveragePool", (3, 8, 8), {"kernel_shape": [2, 2], "dilations": [2, 2]}, r"dilated by \[2, 2\]"),
        ("Softmax", (3, 8, 8), {"axis": 1}, "Softmax is over axis 1 of 4"),
        ("Softmax", (3, 8, 8), {}, "Softmax is over axis None of 4"),
        ("Softmax", (5,), {"axis": 0}, "Softmax is over axis 0 of 2"),
        ("ReduceMean", (3, 8, 8), {}, "names no axes"),
    ],
)
def test_what_files_say_in_ways_that_are_not_known_is_refused(
    name: str, shape: tuple[int, ...], settings: dict[str, Any], said: str
) -> None:
    data = one_operation(name, 18, shape, CONSTANTS.get(name, ()), settings)
    network = onnx_network(read_onnx(data, "one"), "one", "cpu")
    with pytest.raises(ValueError, match=said):
        network(torch.rand(2, *shape))


def classifier(outputs: int, *last: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.Hardswish(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, outputs), *last,
    ).eval()  # fmt: skip


def of_letters(inputs: str, outputs: str, last: list[str] | None) -> bytes:
    """A file that makes a = the means of the channels of x, b = Relu(a), and z by another node; or an empty one."""
    nodes = [("GlobalAveragePool", "x", "p"), ("Flatten", "p", "a"), ("Relu", "a", "b")]
    nodes = [*nodes, (*last, "z")] if last else []  # type: ignore[list-item]
    ends = [[make_tensor_value_info(name, FLOAT, [1, 3, 8, 8]) for name in names] for names in (inputs, outputs)]
    graph = make_graph([make_node(kind, list(given), [made]) for kind, given, made in nodes], "g", *ends)
    return make_model(graph, opset_imports=[make_opsetid("", 18)]).SerializeToString()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of a classifier with a softmax at its end, one without, an encoder, and one for any size of image."""
    place = tmp_path_factory.mktemp("onnx")
    (place / "softmax.onnx").write_bytes(exported(classifier(2, nn.Softmax(1))))
    (place / "seven.onnx").write_bytes(exported(classifier(7)))
    (place / "map.onnx").write_bytes(exported(nn.Conv2d(3, 2, 3)))
    free = {"data": {0: "N", 2: "height", 3: "width"}}
    (place / "any.onnx").write_bytes(exported(classifier(2), dynamic_axes=free))
    (place / "one.onnx").write_bytes(one_operation("Sigmoid", 18, (1, 8, 8), (), {}))
    (place / "flat.onnx").write_bytes(one_operation("Sigmoid", 18, (3, 8), (), {}))
    (place / "wide.onnx").write_bytes(one_operation("Sigmoid", 18, (3, 8, "width"), (), {}))
    (place / "tall.onnx").write_bytes(one_operation("Sigmoid", 18, (3, "height", 8), (), {}))
    (place / "axes.onnx").write_bytes(one_operation("ReduceMean", 18, (3, 8, 8), (), {}))
    (place / "strange.onnx").write_bytes(one_operation("Sigmoid", 18, (3, 8, 8), (), {"strange": 1}))
    (place / "misfit.onnx").write_bytes(one_operation("Add", 18, (3, 8, 8), (np.ones(5, np.float32),), {}))
    for name, inputs, outputs, last in (
        ("absent", "x", "b", ["Add", "xw"]),
        ("inputs", "xw", "b", ["Add", "xw"]),
        ("outputs", "x", "ab", ["Relu", "a"]),
        ("empty", "x", "x", None),
        ("aside", "x", "b", ["Softmax", "a"]),
        ("after", "x", "b", ["Softmax", "b"]),
    ):
        (place / f"{name}.onnx").write_bytes(of_letters(inputs, outputs, last))
    return place


def test_a_classifiers_logits_are_those_before_its_softmax_for_pictures_of_any_size(folder: Path) -> None:
    """Mean, deviation and the order of channels are as the word says, and gradients reach the pixels."""
    known = load_classifier(f"onnx:gender=Male/woman:{IMAGENET}:channels=bgr:margin=0.1:{folder / 'softmax.onnx'}")
    assert (
        known.classes == {"gender": ("female", "male")} and known.margin == 0.1 and known.name == "onnx:softmax.onnx"
    )
    images = pictures(3, side=150).requires_grad_()
    small = nn.functional.interpolate(images, (112, 112), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(values)[:, None, None] for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    expected = classifier(2)(((small - mean) / std).flip(1)).flip(1)  # the file begins with men
    found = known.logits(images)["gender"]
    assert torch.allclose(found, expected.log_softmax(1), atol=1e-5)
    slopes = [
        torch.autograd.grad(each.log_softmax(1)[:, 0].sum(), images, retain_graph=True)[0]
        for each in (found, expected)
    ]
    assert slopes[0].any() and torch.allclose(*slopes, atol=1e-6)


def test_several_attributes_follow_each_other_and_labels_of_one_class_are_added(folder: Path) -> None:
    words = "race=White/Black/Indian/East Asian/Middle Eastern:hair=dark/fair"
    known = load_classifier(f"onnx:{words}:mean=0.5:std=0.5:{folder / 'seven.onnx'}")
    assert known.classes["hair"] == ("dark", "fair") and known.classes["race"] == ("WMELH", "Black", "Indian", "Asian")
    images = pictures(2, side=112)
    raw = classifier(7)(images * 2 - 1)
    race, found = raw[:, :5].softmax(1), known.logits(images)
    assert torch.allclose(found["hair"].softmax(1), raw[:, 5:].softmax(1), atol=1e-5)
    expected = torch.stack([race[:, 0] + race[:, 4], race[:, 1], race[:, 2], race[:, 3]], 1)
    assert torch.allclose(found["race"].softmax(1), expected, atol=1e-5)


def test_an_encoder_sees_the_whole_image(folder: Path) -> None:
    known = load_encoder(f"onnx:mean=0:std=1:{folder / 'seven.onnx'}")
    images = pictures(2, side=112)
    assert torch.allclose(known.encode(images), nn.functional.normalize(classifier(7)(images), dim=1), atol=1e-5)
    assert known.encode_text is None and known.name == "onnx:seven.onnx"


def test_the_identity_changes_with_what_the_word_says(folder: Path) -> None:
    words = ["gender=female/male:mean=0:std=1", "gender=male/female:mean=0:std=1", "gender=female/male:mean=0:std=2"]
    found = {load_classifier(f"onnx:{word}:{folder / 'softmax.onnx'}").identity for word in words}
    assert len(found) == 3 and not any("+" in identity for identity in found)  # which would join two


def test_a_file_for_any_size_is_told_one(folder: Path) -> None:
    known = load_classifier(f"onnx:gender=female/male:mean=0:std=1:size=64:{folder / 'any.onnx'}")
    images = pictures(2, side=64)
    assert torch.allclose(known.logits(images)["gender"], classifier(2)(images).log_softmax(1), atol=1e-5)


G, MS = "gender=female/male:", "mean=0:std=1:"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (f"{G}{MS}nothing.onnx", "nothing.onnx cannot be read: No such file"),
        (f"{MS}softmax.onnx", "say what its outputs are, in their order, such as gender=female/male"),
        (f"{G}softmax.onnx", r"say how pixels from 0 to 1 become its input.* mean=0.485/0.456/0.406:std=.*ImageNet's"),
        (f"{G}mean=0:softmax.onnx", "say how pixels from 0 to 1 become its input"),
        (f"{G}mean=0:std=0:softmax.onnx", "std must not be 0"),
        (f"{G}mean=0/0:std=1:softmax.onnx", "mean is '0/0'; it must be one number, or three with /"),
        (f"{G}mean=zero:std=1:softmax.onnx", "mean is 'zero'"),
        (f"{G}{MS}channels=grb:softmax.onnx", "channels is 'grb'; it must be rgb or bgr"),
        (f"{G}std=1:softmax.onnx", "say how pixels from 0 to 1 become its input"),
        (f"{G}{MS}size=0:any.onnx", "size is '0'"),
        (f"{G}{MS}size=64:softmax.onnx", "size is 64, and the file takes 112 × 112 pixels"),
        (f"{G}{MS}size=big:any.onnx", "size is 'big'"),
        (f"{G}{MS}any.onnx", "takes images of any size: say which it was trained with, such as size=224"),
        (f"{G}{G}{MS}softmax.onnx", "says gender twice"),
        (f"gender=female:{MS}softmax.onnx", "gender needs two classes or more"),
        (f"gender=male/male:{MS}softmax.onnx", "gender needs two classes or more, each once"),
        (f"gender=male/female/male:{MS}seven.onnx", "gender needs two classes or more, each once"),
        (f"gender=female/:{MS}softmax.onnx", "gender needs two classes or more"),
        (f"gender=male/man/him:{MS}seven.onnx", r"gives an output of the shape \[1, 7\].*must be \[1, 3\]"),
        (f"gender=male/him:{MS}softmax.onnx", "male/him are not the classes of gender, which are female: female"),
        (f"{G}{MS}map.onnx", r"gives an output of the shape \[1, 2, 110, 110\]"),
        (f"{G}{MS}one.onnx", r"takes an input of the shape \[1, 1, 8, 8\]; it must be \[N, 3, height, width\]"),
        (f"{G}{MS}flat.onnx", r"takes an input of the shape \[1, 3, 8\]"),
        (f"{G}{MS}wide.onnx", "takes images of any size"),
        (f"{G}{MS}tall.onnx", "takes images of any size"),
        (f"{G}{MS}axes.onnx", "axes.onnx fails on an image: ReduceMean names no axes"),
        (f"{G}{MS}strange.onnx", "strange.onnx fails on an image: .*strange"),
        (f"{G}{MS}misfit.onnx", "misfit.onnx fails on an image: The size of tensor"),
        (f"{G}{MS}absent.onnx", "absent.onnx fails on an image: 'w'"),
        (f"{G}{MS}inputs.onnx", "has 2 inputs and 1 outputs; it must have one of each"),
        (f"{G}{MS}outputs.onnx", "has 1 inputs and 2 outputs"),
        (f"{G}{MS}empty.onnx", r"gives an output of the shape \[1, 3, 8, 8\]"),
        (f"encoder:{G}{MS}seven.onnx", "an encoder has no gender; it takes mean, std, size, channels"),
        (f"encoder:{MS}map.onnx", r"gives an output of the shape .* it must be \[1, D\]"),
    ],
)  # fmt: skip
def test_a_word_that_lacks_something_says_what(
    word: str, said: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    load = load_encoder if word.startswith("encoder:") else load_classifier
    with pytest.raises(ConfigError, match=said):
        load(f"onnx:{word.removeprefix('encoder:')}")


@pytest.mark.parametrize("name", ["aside", "after"])
def test_a_softmax_that_is_not_at_the_end_is_no_end(folder: Path, name: str) -> None:
    known = load_classifier(f"onnx:hair=a/b/c:mean=0.5:std=0.1:{folder / name}.onnx")
    images = pictures(2, side=8)
    expected = ((images.mean((2, 3)) - 0.5) / 0.1).relu()
    assert torch.allclose(known.logits(images)["hair"].softmax(1), expected.softmax(1), atol=1e-5)


def test_a_margin_may_stand_anywhere_before_the_file() -> None:
    word = parse(f"onnx:{G}margin=0.25:{MS}a=b.onnx")
    assert (word.kind, word.source, word.margin) == ("onnx", f"{G}{MS}a=b.onnx", 0.25)
    assert parse("onnx:a=margin=0.25.onnx").margin is None
