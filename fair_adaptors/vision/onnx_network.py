"""Networks of ONNX files in torch, so that gradients pass: the operations that encoders and classifiers are made of.

Each is a function with ONNX's own inputs and attributes, see https://onnx.ai/onnx/operators/.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

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
            # One that is left out has no name.
            inputs = [None if not key else values[key] if key in values else weights[key] for key in node.inputs]
            values[node.outputs[0]] = OPERATIONS[node.operation](*inputs, **node.attributes)
            for key in set(node.inputs) & values.keys() - {graph.output}:
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
    c: "Tensor | None" = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> "Tensor":
    product = alpha * ((a.T if transA else a) @ (b.T if transB else b))
    return product if c is None else product + beta * c


def _reshape(x: "Tensor", shape: "Tensor") -> "Tensor":
    return x.reshape([int(x.shape[axis]) if size == 0 else size for axis, size in enumerate(shape.tolist())])


def _flatten(x: "Tensor", *, axis: int = 1) -> "Tensor":
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _pool(
    x: "Tensor",
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
    ceil_mode: int = 0,
    count_include_pad: int | None = None,
    auto_pad: str = "NOTSET",
    storage_order: int = 0,  # of the places of the largest, which nobody asks for
) -> "Tensor":
    """Pool by the largest, or by the mean where ``count_include_pad`` says what belongs to it."""
    from torch.nn.functional import avg_pool2d, max_pool2d

    top, left, bottom, right = pads
    if auto_pad != "NOTSET" or (top, left) != (bottom, right):
        raise ValueError(f"a pool pads by {auto_pad if auto_pad != 'NOTSET' else list(pads)}")
    kernel, stride, padding = tuple(kernel_shape), tuple(strides), (top, left)
    if count_include_pad is None:
        return max_pool2d(x, kernel, stride, padding, tuple(dilations), bool(ceil_mode))
    if any(dilation != 1 for dilation in dilations):
        raise ValueError(f"AveragePool is dilated by {list(dilations)}")
    return avg_pool2d(x, kernel, stride, padding, bool(ceil_mode), bool(count_include_pad))


def _average_pool(x: "Tensor", *, count_include_pad: int = 0, **settings: Any) -> "Tensor":
    return _pool(x, count_include_pad=count_include_pad, **settings)


def _softmax(x: "Tensor", *, axis: int | None = None) -> "Tensor":
    if axis not in (-1, x.dim() - 1) and not (axis is None and x.dim() == 2):
        raise ValueError(f"Softmax is over axis {axis} of {x.dim()}, which files of different years mean differently")
    return x.softmax(-1)


def _clip(
    x: "Tensor",
    low: "Tensor | None" = None,
    high: "Tensor | None" = None,
    *,
    min: float | None = None,  # as older files say it
    max: float | None = None,
) -> "Tensor":
    lowest: Any = min if low is None else low
    highest: Any = max if high is None else high
    return x if lowest is None and highest is None else x.clamp(lowest, highest)


def _reduce_mean(
    x: "Tensor",
    places: "Tensor | None" = None,
    *,
    axes: Sequence[int] | None = None,  # as older files say it
    keepdims: int = 1,
    noop_with_empty_axes: int = 0,
) -> "Tensor":
    over = places.tolist() if places is not None else list(axes or ())
    if not over:
        raise ValueError("ReduceMean names no axes")
    return x.mean(over, keepdim=bool(keepdims))


def _hard_sigmoid(x: "Tensor", *, alpha: float = 0.2, beta: float = 0.5) -> "Tensor":
    return (alpha * x + beta).clamp(0, 1)


def _same(x: "Tensor", *unused: "Tensor", ratio: float = 0.5, seed: int = 0) -> "Tensor":
    return x


OPERATIONS: "Mapping[str, Callable[..., Tensor]]" = {
    "Add": lambda a, b: a + b,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Clip": _clip,
    "Conv": _conv,
    "Div": lambda a, b: a / b,
    "Dropout": _same,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda x: x.mean(tuple(range(2, x.dim())), keepdim=True),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda x: x * _hard_sigmoid(x, alpha=1 / 6),
    "Identity": _same,
    "LeakyRelu": lambda x, *, alpha=0.01: x.where(x >= 0, alpha * x),
    "MatMul": lambda a, b: a @ b,
    "MaxPool": _pool,
    "Mul": lambda a, b: a * b,
    "PRelu": _prelu,
    "ReduceMean": _reduce_mean,
    "Relu": lambda x: x.relu(),
    "Reshape": _reshape,
    "Sigmoid": lambda x: x.sigmoid(),
    "Softmax": _softmax,
    "Sub": lambda a, b: a - b,
    "Tanh": lambda x: x.tanh(),
    "Transpose": lambda x, *, perm: x.permute(tuple(perm)),
}
"""What is known; all else is refused before it runs, and so are attributes that are none of a function's."""
