"""A network in ONNX with YuNet's input and outputs whose faces are known, since the real weights cannot be shipped."""

from collections.abc import Sequence

import numpy as np

STRIDE = 32
OFFSETS = np.array([[-0.2, -0.3], [0.3, -0.2], [0.1, 0.0], [-0.1, 0.3], [0.2, 0.4]])
"""The landmarks of the network's faces, from their middles, in strides."""

Proto = int | str | bytes


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _message(*fields: tuple[int, Proto]) -> bytes:
    """Encode a protocol buffer: numbers of fields with what they hold."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(_varint(number << 3) + _varint(value))
        else:
            data = value.encode() if isinstance(value, str) else value
            parts.append(_varint(number << 3 | 2) + _varint(len(data)) + data)
    return b"".join(parts)


def node(kind: str, inputs: Sequence[str], output: str, **attributes: Sequence[int]) -> bytes:
    listed = [_message((1, name), *((8, v) for v in values), (20, 7)) for name, values in attributes.items()]
    return _message(*((1, name) for name in inputs), (2, output), (4, kind), *((5, one) for one in listed))


def _tensor(name: str, array: np.ndarray) -> bytes:
    kind = {"float32": 1, "int64": 7}[array.dtype.name]
    return _message(*((1, size) for size in array.shape), (2, kind), (8, name), (9, array.tobytes()))


def value(name: str, shape: Sequence[int]) -> bytes:
    sizes = _message(*((1, _message((1, size))) for size in shape))
    return _message((1, name), (2, _message((1, _message((1, 1), (2, sizes))))))


def model(nodes: Sequence[bytes], tensors: Sequence[bytes], outputs: Sequence[bytes]) -> bytes:
    """Encode an ONNX model. Its input, as the real one's, is said to be 640 × 640, and may be another size."""
    graph = [(1, n) for n in nodes] + [(2, "faces")] + [(5, t) for t in tensors]
    graph += [(11, value("input", [1, 3, 640, 640])), *((12, v) for v in outputs)]
    return _message((1, 8), (7, _message(*graph)), (8, _message((2, 13))))


def known_yunet(*, everywhere: bool = False) -> bytes:
    """An ONNX network with YuNet's input and twelve outputs that sees a face in each red square of its coarsest grid.

    The more green, the larger the face, e^(green) strides wide and e^(green) · 1.25 high; the more red, the surer.
    With ``everywhere`` it is sure of a face in every square.
    """
    nodes, tensors, outputs = [], [], []
    red, green = np.eye(3, dtype=np.float32)[[2, 1]] / 255  # of blue, green, red
    for stride in (8, 16, 32):
        nodes.append(node("AveragePool", ["input"], f"mean_{stride}", kernel_shape=[stride] * 2, strides=[stride] * 2))
        sure, anyway = red * (stride == STRIDE), float(everywhere and stride == STRIDE)
        heads = {
            "cls": ([sure], [anyway]),
            "obj": ([sure], [anyway]),
            "bbox": ([0 * red, 0 * red, green, green], [0.5, 0.5, 0.0, np.log(1.25)]),
            "kps": ([0 * red] * 10, (OFFSETS + 0.5).flatten().tolist()),
        }
        for name, (weights, bias) in heads.items():
            out, count = f"{name}_{stride}", len(bias)
            tensors += [
                _tensor(f"{out}.weight", np.array(weights, np.float32)[..., None, None]),
                _tensor(f"{out}.bias", np.array(bias, np.float32)),
                _tensor(f"{out}.shape", np.array([1, -1, count])),
            ]
            nodes += [
                node("Conv", [f"mean_{stride}", f"{out}.weight", f"{out}.bias"], f"{out}.map", kernel_shape=[1, 1]),
                node("Transpose", [f"{out}.map"], f"{out}.last", perm=[0, 2, 3, 1]),
                node("Reshape", [f"{out}.last", f"{out}.shape"], out),
            ]
            outputs.append(value(out, [1, (640 // stride) ** 2, count]))
    return model(nodes, tensors, outputs)
