"""Small networks of the kinds that recognise faces, and the ONNX files that torch writes of them."""

import io
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fair_adaptors.vision.face_encoders import FaceEncoder

WIDTH = 3 * 16
"""Numbers in a feature of ``ENCODER``."""


def encode(faces: torch.Tensor) -> torch.Tensor:
    """Return what is compared of faces: their colours on a grid."""
    return F.normalize(F.adaptive_avg_pool2d(faces, 4).flatten(1) + 1e-3, dim=1)


ENCODER = FaceEncoder("small", "small 1", encode)


class Block(nn.Module):
    """A block of ArcFace's ResNets (``iresnet.py`` of insightface)."""

    def __init__(self, old: int, new: int):
        super().__init__()
        self.branch = nn.Sequential(
            nn.BatchNorm2d(old), nn.Conv2d(old, new, 3, padding=1, bias=False), nn.BatchNorm2d(new), nn.PReLU(new),
            nn.Conv2d(new, new, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(new),
        )  # fmt: skip
        self.shortcut = nn.Sequential(nn.Conv2d(old, new, 1, stride=2, bias=False), nn.BatchNorm2d(new))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.branch(x) + self.shortcut(x)


class ArcFace(nn.Sequential):
    """The network of AuraFace, in small."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.PReLU(8), Block(8, 8), Block(8, 16), Block(16, 16),
            Block(16, 16), nn.BatchNorm2d(16), nn.Dropout(0.4), nn.Flatten(), nn.Linear(16 * 49, 32),
            nn.BatchNorm1d(32),
        )  # fmt: skip


class MobileFaceNet(nn.Module):
    """A network of SFace's kind, in small: it takes bytes, convolves depthwise, and is for one image at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.PReLU(8),
            nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.PReLU(8),
            nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 16, 28, groups=16, bias=False), nn.BatchNorm2d(16),
        )  # fmt: skip
        self.last = nn.Linear(16, 24, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.layers((x - 127.5) * 0.0078125).reshape(1, 16))


NETWORKS: dict[str, tuple[type[nn.Module], float, float]] = {
    "AuraFace": (ArcFace, 2, -1),
    "SFace": (MobileFaceNet, 255, 0),
}
"""Small networks, and what to make of pixels in [0, 1] for them."""


def network(kind: str) -> nn.Module:
    """A network with weights, means and variances such as training leaves."""
    torch.manual_seed(0)
    model = NETWORKS[kind][0]()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for values in (module.weight, module.running_var):
                nn.init.uniform_(values, 0.5, 1.5)
            for values in (module.bias, module.running_mean):
                nn.init.normal_(values, std=0.2)
    return model.eval()


def exported(model: nn.Module, **options: Any) -> bytes:
    """The ONNX file that torch itself writes, as the published ones were written."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            model,
            (torch.zeros(1, 3, 112, 112),),
            file,
            dynamo=False,
            opset_version=11,
            input_names=["data"],
            **options,
        )
    return file.getvalue()
