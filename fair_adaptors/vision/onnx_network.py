"""Networks of ONNX files in torch, so that gradients pass: the operations that face encoders are made of.

Each is a function with ONNX's own inputs and attributes, see https://onnx.ai/onnx/operators/.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from fair_adaptors.errors import ConfigError

from .onnx_file import Graph

if TYPE_CHECKING:
    from torch import Tensor


def onnx_network(graph: Graph, name: str, device: str) -> "Callable[[Tensor], Tensor]":
    """Return a network as a function of images [N, C, H, W]; gradients pass to them, not to the weights.

    Files that were made for one image at a time say so in the shapes inside: ``torch.vmap`` runs them on many at once.

    Args:
        graph: from ``read_onnx``.
        name: of the file, for errors.
        device: where it runs.

    Raises:
        ConfigError: it has operations that are not known here.
    """
    import torch

    if unknown := sorted({node.operation for node in graph.nodes} - OPERATIONS.keys()):
        raise ConfigError(f"{name} has the operations {', '.join(unknown)}; known here: {', '.join(OPERATIONS)}")
    weights = {key: torch.from_numpy(value.copy()).to(device) for key, value in graph.tensors.items()}
    last_use = {key: index for index, node in enumerate(graph.nodes) for key in node.inputs}

    def run(image: "Tensor") -> "Tensor":
        values = {graph.input: image[None]}
        for index, node in enumerate(graph.nodes):
            inputs = [values[key] if key in values else weights[key] for key in node.inputs if key]
            values[node.outputs[0]] = OPERATIONS[node.operation](*inputs, **node.attributes)
            for key in set(node.inputs) & values.keys():
                if last_use[key] == index:
                    del values[key]
        return values[graph.output][0]

    return lambda images: torch.vmap(run)(images.to(device, torch.float32))


def _conv(
    x: "Tensor",
    weight: "Tensor",
    bias: "Tensor | None" = None,
    *,
    kernel_shape: Sequence[int] = (),
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
    group: int = 1,
    auto_pad: str = "NOTSET",
) -> "Tensor":
    from torch.nn.functional import conv2d, pad

    if auto_pad != "NOTSET":
        raise ValueError(f"Conv pads by {auto_pad}")
    top, left, bottom, right = pads
    if (top, left) != (bottom, right):
        x, top, left = pad(x, (left, right, top, bottom)), 0, 0
    return conv2d(x, weight, bias, tuple(strides), (top, left), tuple(dilations), group)


def _batch_normalization(
    x: "Tensor",
    scale: "Tensor",
    shift: "Tensor",
    mean: "Tensor",
    variance: "Tensor",
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,  # in files of MXNet; either way there is a mean for each channel
    training_mode: int = 0,
) -> "Tensor":
    from torch.nn.functional import batch_norm

    if training_mode:
        raise ValueError("BatchNormalization is in training mode")
    return batch_norm(x, mean, variance, scale, shift, eps=epsilon)


def _prelu(x: "Tensor", slope: "Tensor") -> "Tensor":
    return x.where(x >= 0, slope * x)


def _gemm(
    a: "Tensor",
    b: "Tensor",
    c: "Tensor | float" = 0.0,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> "Tensor":
    return alpha * ((a.T if transA else a) @ (b.T if transB else b)) + beta * c


def _reshape(x: "Tensor", shape: "Tensor") -> "Tensor":
    return x.reshape([int(x.shape[axis]) if size == 0 else size for axis, size in enumerate(shape.tolist())])


def _flatten(x: "Tensor", *, axis: int = 1) -> "Tensor":
    return x.flatten(0, axis - 1).flatten(1) if axis > 0 else x.reshape(1, -1)


def _same(x: "Tensor", *unused: "Tensor", ratio: float = 0.5, seed: int = 0) -> "Tensor":
    return x


OPERATIONS: "Mapping[str, Callable[..., Tensor]]" = {
    "Add": lambda a, b: a + b,
    "BatchNormalization": _batch_normalization,
    "Conv": _conv,
    "Div": lambda a, b: a / b,
    "Dropout": _same,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "Identity": _same,
    "MatMul": lambda a, b: a @ b,
    "Mul": lambda a, b: a * b,
    "PRelu": _prelu,
    "Relu": lambda x: x.relu(),
    "Reshape": _reshape,
    "Sub": lambda a, b: a - b,
}
"""What is known; all else is refused before it runs, and so are attributes that are none of a function's."""
