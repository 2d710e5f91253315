"""ONNX files as classifiers and encoders: what the word says that the file does not, and the input made of images.

A word is ``onnx:SETTING=VALUE:…:FILE``. ``mean`` and ``std`` are of pixels in [0, 1], one number or three with ``/``
between them; a classifier's attributes are settings too, ``gender=female/male``, in the order of the file's outputs.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fair_adaptors.attributes import labels as known_labels
from fair_adaptors.devices import accelerator
from fair_adaptors.errors import ConfigError

from .heads import Head, consecutive, head_of_labels, split_logits
from .onnx_file import Graph, read_onnx
from .onnx_network import onnx_network
from .types import Classifier, Encoder

if TYPE_CHECKING:
    from torch import Tensor

SETTINGS = ("mean", "std", "size", "channels")
"""What a word may say of the input; ``channels`` is ``rgb``, or ``bgr`` as of networks that OpenCV feeds."""
_SETTING = re.compile(r"([\w ]+)=([^:]*):")
_USUAL = (
    "mean=0.485/0.456/0.406:std=0.229/0.224/0.225 (ImageNet's, as most have), mean=0.5:std=0.5 (from -1 to 1) or"
    " mean=0:std=1 (from 0 to 1)"
)


@dataclass(frozen=True)
class _Model:
    """A file with what makes its input.

    Attributes:
        name: what tables call it.
        identity: a word that changes with the file and the settings.
        graph: of the file.
        prepare: images [N, 3, H, W] in [0, 1] → the network's input.
        attributes: the settings that are none of ``SETTINGS``.
    """

    name: str
    identity: str
    graph: Graph
    prepare: "Callable[[Tensor], Tensor]"
    attributes: Mapping[str, tuple[str, ...]]


def onnx_classifier(source: str) -> Classifier:
    """Return a classifier of an ONNX file with one input and one output, [N, K], that gradients pass through.

    A softmax at its end is left out, since logits are wanted.

    Args:
        source: ``gender=female/male:mean=…:std=…:FILE``. Of several attributes the outputs follow each other. The
            names of gender, race and age are any that ``attributes.labels`` knows; several may be of one class.

    Raises:
        ConfigError: no such file, a setting is missing or makes no sense, or the file is of another kind.
        MissingExtraError: reading it needs onnx.
    """
    model = _read(source)
    if not model.attributes:
        raise ConfigError(f"onnx:{source}: say what its outputs are, in their order, such as gender=female/male")
    count = sum(map(len, model.attributes.values()))
    network = _network(model.name, _without_softmax(model.graph), model.prepare, count)
    heads: dict[str, Head] = {}
    for attribute, head in consecutive(model.attributes).items():
        heads[attribute] = _of_table(source, attribute, head) if attribute in known_labels() else head
    return Classifier(
        model.name,
        model.identity,
        {attribute: head.classes for attribute, head in heads.items()},
        lambda images: split_logits(network(images), heads),
    )


def onnx_encoder(source: str, *, whole: bool = False) -> Encoder:
    """Return an encoder of images of an ONNX file with one input and one output, [N, D].

    Args:
        source: ``mean=…:std=…:FILE``.
        whole: no difference: the whole image is resized, in evaluation too.

    Raises:
        ConfigError: as for ``onnx_classifier``.
        MissingExtraError: reading it needs onnx.
    """
    from torch.nn.functional import normalize

    model = _read(source)
    if model.attributes:
        raise ConfigError(
            f"onnx:{source}: an encoder has no {', '.join(model.attributes)}; it takes {', '.join(SETTINGS)}"
        )
    network = _network(model.name, model.graph, model.prepare, None)
    return Encoder(model.name, model.identity, lambda images: normalize(network(images), dim=1))


def _read(source: str) -> _Model:
    """Take the settings off a source, and read its file."""
    said: dict[str, str] = {}
    rest = source
    while found := _SETTING.match(rest):
        if found[1] in said:
            raise ConfigError(f"onnx:{source} says {found[1]} twice")
        said[found[1]], rest = found[2], rest[found.end() :]
    path = Path(rest).expanduser()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"onnx:{source}: {path} cannot be read: {error.strerror}") from error
    graph = read_onnx(data, f"onnx:{path.name}")
    words = {name: said.pop(name, None) for name in SETTINGS}
    attributes = {name: tuple(value.split("/")) for name, value in said.items()}
    for name, classes in attributes.items():
        if len(set(classes)) < max(2, len(classes)) or not all(classes):
            raise ConfigError(
                f"onnx:{source}: {name} needs two classes or more, each once, such as gender=female/male"
            )
    if words["mean"] is None or words["std"] is None:
        raise ConfigError(f"onnx:{source}: say how pixels from 0 to 1 become its input, before the file: {_USUAL}")
    mean, std = (_numbers(source, name, str(words[name])) for name in ("mean", "std"))
    if not all(std):
        raise ConfigError(f"onnx:{source}: std must not be 0")
    if words["channels"] not in (None, "rgb", "bgr"):
        raise ConfigError(f"onnx:{source}: channels is {words['channels']!r}; it must be rgb or bgr")
    size = _size(source, graph, words["size"])
    how = f"{size} bilinear, less {mean}, by {std}, {words['channels'] or 'rgb'}"
    identity = hashlib.sha256(data + f"{how} {attributes}".encode()).hexdigest()
    prepare = _preparation(size, mean, std, backwards=words["channels"] == "bgr")
    return _Model(f"onnx:{path.name}", identity, graph, prepare, attributes)


def _numbers(source: str, name: str, text: str) -> tuple[float, ...]:
    """Return three numbers of a text that has them, or one for all channels."""
    try:
        found = tuple(float(each) for each in text.split("/"))
    except ValueError:
        found = ()
    if len(found) not in (1, 3):
        raise ConfigError(f"onnx:{source}: {name} is {text!r}; it must be one number, or three with / between them")
    return found * (3 // len(found))


def _size(source: str, graph: Graph, said: str | None) -> tuple[int, int]:
    """Return height and width of the input: what the file says, or the word where the file takes any size."""
    shape = graph.shape
    if len(shape) != 4 or shape[1] not in (3, None):
        raise ConfigError(f"onnx:{source} takes an input of the shape {list(shape)}; it must be [N, 3, height, width]")
    height, width = shape[2:]
    if said is not None:
        if not said.isdecimal() or not int(said):
            raise ConfigError(f"onnx:{source}: size is {said!r}; it must be a number of pixels")
        if (height, width) not in ((None, None), (int(said), int(said))):
            raise ConfigError(f"onnx:{source}: size is {said}, and the file takes {height} × {width} pixels")
        return int(said), int(said)
    if height is None or width is None:
        raise ConfigError(f"onnx:{source} takes images of any size: say which it was trained with, such as size=224")
    return height, width


def _preparation(
    size: tuple[int, int], mean: Sequence[float], std: Sequence[float], *, backwards: bool
) -> "Callable[[Tensor], Tensor]":
    import torch
    from torch.nn.functional import interpolate

    device = accelerator()
    means, stds = (torch.tensor(values, device=device)[:, None, None] for values in (mean, std))

    def prepare(images: "Tensor") -> "Tensor":
        pixels = images.to(device, torch.float32)
        if pixels.shape[2:] != size:
            pixels = interpolate(pixels, size, mode="bilinear", antialias=True)
        made = (pixels - means) / stds
        return made.flip(1) if backwards else made

    return prepare


def _network(
    name: str, graph: Graph, prepare: "Callable[[Tensor], Tensor]", outputs: int | None
) -> "Callable[[Tensor], Tensor]":
    """Return a network of images, after it was tried once.

    Args:
        outputs: how many it must have for an image; None for any number.
    """
    import torch

    network = onnx_network(graph, name, accelerator())
    try:
        with torch.no_grad():
            shape = tuple(network(prepare(torch.zeros(1, 3, 8, 8))).shape)
    except (KeyError, TypeError, RuntimeError, ValueError) as error:  # what torch and our operations say
        raise ConfigError(f"{name} fails on an image: {error}") from error
    if len(shape) != 2 or (outputs is not None and shape[1] != outputs):
        wanted = f"[1, {outputs}], a number for each class that was named" if outputs is not None else "[1, D]"
        raise ConfigError(f"{name} gives an output of the shape {list(shape)} for an image; it must be {wanted}")
    return lambda images: network(prepare(images))


def _without_softmax(graph: Graph) -> Graph:
    last = graph.nodes[-1] if graph.nodes else None
    if last is None or last.operation != "Softmax" or last.outputs[0] != graph.output:
        return graph
    return replace(graph, nodes=graph.nodes[:-1], output=last.inputs[0])


def _of_table(source: str, attribute: str, head: Head) -> Head:
    """Return the head of an attribute of the table, with the table's classes in its order."""
    found = head_of_labels(attribute, head.classes, [column for (column,) in head.columns])
    if found is None:
        known = "; ".join(f"{name}: {', '.join(words)}" for name, words in known_labels()[attribute].items())
        raise ConfigError(
            f"onnx:{source}: {'/'.join(head.classes)} are not the classes of {attribute}, which are {known}"
        )
    return found
