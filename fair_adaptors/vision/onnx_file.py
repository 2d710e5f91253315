"""ONNX files, read without a library: their nodes and their tensors, from the wire format of protocol buffers.

Numbers of fields are those of ``onnx.proto``; see also https://protobuf.dev/programming-guides/encoding/.
"""

import struct
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fair_adaptors.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

_VARINT, _EIGHT_BYTES, _LENGTH_FIRST, _FOUR_BYTES = 0, 1, 2, 5
_TYPES = {1: "<f4", 6: "<i4", 7: "<i8", 10: "<f2", 11: "<f8"}
"""Numbers of TensorProto.DataType and what numpy calls them."""

_Fields = Mapping[int, list[Any]]


@dataclass(frozen=True)
class Node:
    """An operation.

    Attributes:
        operation: such as ``Conv``.
        inputs, outputs: names of tensors; an input that is left out is an empty name.
        attributes: numbers, lists of numbers, texts and arrays, by name.
    """

    operation: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Graph:
    """A network of one input and one output.

    Attributes:
        nodes: in an order in which they can be run.
        tensors: the weights and other constants, by name.
        input, output: names.
    """

    nodes: tuple[Node, ...]
    tensors: "Mapping[str, np.ndarray]"
    input: str
    output: str


def read_onnx(data: bytes, name: str) -> Graph:
    """Read an ONNX file.

    Args:
        data: its bytes.
        name: of the file, for errors.

    Raises:
        ConfigError: it is damaged or no such file, has weights in other files, or several inputs or outputs.
    """
    try:
        graph = _message(_message(memoryview(data))[7][0])
        tensors = dict(map(_tensor, graph[5]))
        nodes = tuple(map(_node, graph[1]))
        tensors |= {node.outputs[0]: node.attributes["value"] for node in nodes if node.operation == "Constant"}
        inputs, outputs = ([_text(_message(value)[1][0]) for value in graph[number]] for number in (11, 12))
    except (ValueError, IndexError, KeyError, struct.error) as error:
        raise ConfigError(f"{name} is no ONNX file that can be read: {error}") from error
    nodes = tuple(node for node in nodes if node.operation != "Constant")
    inputs = [one for one in inputs if one not in tensors]  # older files list their weights among the inputs
    if len(inputs) != 1 or len(outputs) != 1:
        raise ConfigError(f"{name} has {len(inputs)} inputs and {len(outputs)} outputs; it must have one of each")
    return Graph(nodes, tensors, inputs[0], outputs[0])


def _message(data: memoryview) -> _Fields:
    """Return the values of a message by the numbers of their fields: varints as int, all else as bytes."""
    fields: dict[int, list[Any]] = defaultdict(list)
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        kind = key & 7
        if kind == _VARINT:
            value, place = _varint(data, place)
            fields[key >> 3].append(value)
            continue
        if kind == _LENGTH_FIRST:
            length, place = _varint(data, place)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            length = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"a field of unknown kind {kind}")
        if place + length > len(data):
            raise ValueError("it is cut short")
        fields[key >> 3].append(data[place : place + length])
        place += length
    return fields


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """Return a number written seven bits a byte, the lowest first, and the place behind it."""
    value = shift = 0
    while shift < 70:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    raise ValueError("a number has no end")


def _node(data: memoryview) -> Node:
    fields = _message(data)
    inputs, outputs = (tuple(map(_text, fields[number])) for number in (1, 2))
    return Node(_text(fields[4][0]), inputs, outputs, dict(map(_attribute, fields[5])))


def _attribute(data: memoryview) -> tuple[str, Any]:
    fields = _message(data)
    values = {
        1: lambda: struct.unpack("<f", fields[2][0])[0] if fields[2] else 0.0,
        2: lambda: _whole(fields[3])[0] if fields[3] else 0,
        3: lambda: _text(fields[4][0]),
        4: lambda: _tensor(fields[5][0])[1],
        6: lambda: _array(fields[7], "<f4").tolist(),
        7: lambda: _whole(fields[8]),
    }
    kind = fields[20][0]
    if kind not in values:
        raise ValueError(f"an attribute of kind {kind}")
    return _text(fields[1][0]), values[kind]()


def _tensor(data: memoryview) -> "tuple[str, np.ndarray]":
    import numpy as np

    fields = _message(data)
    name = _text(fields[8][0]) if fields[8] else ""
    kind, shape = fields[2][0], _whole(fields[1])
    if fields[14] == [1]:
        raise ValueError(f"the weights {name!r} are in another file")
    if kind not in _TYPES:
        raise ValueError(f"{name!r} has numbers of kind {kind}")
    if fields[9]:
        array = _array(fields[9], _TYPES[kind])
    elif fields[4]:
        array = _array(fields[4], "<f4")
    else:
        array = np.array(_whole(fields[7] or fields[5]))
    return name, array.astype(_TYPES[kind]).reshape(shape)


def _array(parts: Sequence[memoryview], kind: str) -> "np.ndarray":
    import numpy as np

    return np.frombuffer(b"".join(parts), kind)


def _whole(values: Sequence[Any]) -> list[int]:
    """Return whole numbers that are written one by one or packed together."""
    found: list[int] = []
    for value in values:
        place = 0
        while not isinstance(value, int) and place < len(value):
            number, place = _varint(value, place)
            found.append(number)
        if isinstance(value, int):
            found.append(value)
    return [number - 2**64 if number >= 2**63 else number for number in found]


def _text(data: memoryview) -> str:
    return bytes(data).decode()
