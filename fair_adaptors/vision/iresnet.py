"""IResNet, the residual network of ArcFace (Deng et al. 2019, "IR"), for the face recogniser of the paper's authors.

Names and shapes of the weights are those of opensphere, where the authors have theirs from. How many blocks it has is
told by the names alone.
"""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512)
SIDE = 7
"""Pixels along a side of the last features, of a face of 112."""


class Block(nn.Module):
    """Two convolutions between batch norms, the second with the stride; added to the input."""

    def __init__(self, channels: int, out: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.prelu = nn.PReLU(out)
        self.conv2 = nn.Conv2d(out, out, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = (
            nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)) if stride > 1 else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map features [N, C, H, W] to [N, out, H/stride, W/stride]."""
        y = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return y + (x if self.downsample is None else self.downsample(x))


class IResNet(nn.Module):
    """Aligned faces [N, 3, 112, 112] in [-1, 1] to features [N, width], which have no unit length."""

    def __init__(self, blocks: Sequence[int], width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.prelu = nn.PReLU(WIDTHS[0])
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(Block(channels, out, 2), *(Block(out, out, 1) for _ in range(count - 1)))
            for channels, out, count in zip((WIDTHS[0], *WIDTHS), WIDTHS, blocks, strict=False)
        )
        self.bn2 = nn.BatchNorm2d(WIDTHS[-1])
        self.fc = nn.Linear(WIDTHS[-1] * SIDE * SIDE, width)
        self.features = nn.BatchNorm1d(width)

    def forward(self, faces: Tensor) -> Tensor:
        """Return features."""
        x = self.prelu(self.bn1(self.conv1(faces)))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        return self.features(self.fc(self.bn2(x).flatten(1)))


def shaped_as(tensors: Mapping[str, Tensor]) -> IResNet:
    """Return the network, without memory for weights, that a state dict seems to be of.

    What is no such state dict gives a network that it does not fit.
    """
    import torch

    found = [re.match(r"layer([1-4])\.(\d+)\.", name) for name in tensors]
    blocks = [max((int(one[2]) + 1 for one in found if one and int(one[1]) == n), default=1) for n in (1, 2, 3, 4)]
    last = tensors.get("fc.weight")
    with torch.device("meta"):
        return IResNet(blocks, len(last) if last is not None and last.ndim == 2 else 512)
