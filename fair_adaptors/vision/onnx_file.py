"""ONNX files as nodes and arrays, for ``onnx_network``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fair_adaptors.errors import ConfigError, missing_extra

if TYPE_CHECKING:
    import numpy as np


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
        shape: of the input; None where it may be any.
    """

    nodes: tuple[Node, ...]
    tensors: "Mapping[str, np.ndarray]"
    input: str
    output: str
    shape: tuple[int | None, ...] = ()


def read_onnx(data: bytes, name: str) -> Graph:
    """Read an ONNX file.

    Args:
        data: its bytes.
        name: of the file, for errors.

    Raises:
        ConfigError: it is damaged or no such file, has weights in other files, or several inputs or outputs.
        MissingExtraError: reading it needs onnx.
    """
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise missing_extra(error.name, "eval") from error
    try:
        graph = onnx.load_model_from_string(data).graph
        tensors = {tensor.name: _array(tensor) for tensor in graph.initializer}
        nodes = [_node(node) for node in graph.node]
        tensors |= {node.outputs[0]: node.attributes["value"] for node in nodes if node.operation == "Constant"}
    except Exception as error:  # damage makes protobuf and numpy raise nearly anything
        raise ConfigError(f"{name} cannot be read as an ONNX file: {error}") from error
    inputs = [one for one in graph.input if one.name not in tensors]  # older files list their weights there too
    outputs = [one.name for one in graph.output]
    if len(inputs) != 1 or len(outputs) != 1:
        raise ConfigError(f"{name} has {len(inputs)} inputs and {len(outputs)} outputs; it must have one of each")
    run = tuple(node for node in nodes if node.operation != "Constant")
    shape = tuple(size.dim_value or None for size in inputs[0].type.tensor_type.shape.dim)
    return Graph(run, tensors, inputs[0].name, outputs[0], shape)


def _node(node: Any) -> Node:
    attributes = {attribute.name: _value(attribute) for attribute in node.attribute}
    return Node(node.op_type, tuple(node.input), tuple(node.output), attributes)


def _value(attribute: Any) -> Any:
    import onnx

    value = onnx.helper.get_attribute_value(attribute)
    kinds = onnx.AttributeProto
    if attribute.type == kinds.TENSOR:
        return _array(value)
    if attribute.type == kinds.STRING:
        return value.decode()
    if attribute.type in (kinds.FLOATS, kinds.INTS):
        return list(value)
    if attribute.type in (kinds.FLOAT, kinds.INT):
        return value
    raise ValueError(f"the attribute {attribute.name!r} is of a kind that cannot be read")


def _array(tensor: Any) -> "np.ndarray":
    import numpy as np
    import onnx

    # onnx would open the file that the tensor names, wherever that is.
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ValueError(f"the weights {tensor.name!r} are in another file")
    array = onnx.numpy_helper.to_array(tensor)
    if array.dtype not in (np.float32, np.float64, np.float16, np.int32, np.int64):
        raise ValueError(f"{tensor.name!r} has numbers of the kind {array.dtype}")
    return array
