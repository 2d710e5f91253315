"""MobileNetV3-Large (Howard et al. 2019, "Searching for MobileNetV3"), the network of the paper authors' classifiers.

Names and shapes of the weights are torchvision's, so that state dicts made there load here.
"""

from typing import NamedTuple

from torch import Tensor, nn

SIZE = 224
"""Height and width of the images that it is made for."""


class Layer(NamedTuple):
    """A row of the paper's table 1."""

    kernel: int
    expanded: int
    out: int
    squeeze: bool
    hard: bool  # h-swish in the place of ReLU
    stride: int


LAYERS = (
    Layer(3, 16, 16, False, False, 1),
    Layer(3, 64, 24, False, False, 2),
    Layer(3, 72, 24, False, False, 1),
    Layer(5, 72, 40, True, False, 2),
    Layer(5, 120, 40, True, False, 1),
    Layer(5, 120, 40, True, False, 1),
    Layer(3, 240, 80, False, True, 2),
    Layer(3, 200, 80, False, True, 1),
    Layer(3, 184, 80, False, True, 1),
    Layer(3, 184, 80, False, True, 1),
    Layer(3, 480, 112, True, True, 1),
    Layer(3, 672, 112, True, True, 1),
    Layer(5, 672, 160, True, True, 2),
    Layer(5, 960, 160, True, True, 1),
    Layer(5, 960, 160, True, True, 1),
)
STEM, LAST, HIDDEN = 16, 960, 1280


class SqueezeExcite(nn.Module):
    """Scale each channel by what all of them are on average, squeezed to about a quarter of the channels between."""

    def __init__(self, channels: int):
        super().__init__()
        squeezed = _divisible(channels / 4)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scale features [N, C, H, W]."""
        mean = x.mean((2, 3), keepdim=True)
        return x * nn.functional.hardsigmoid(self.fc2(self.fc1(mean).relu()))


class InvertedResidual(nn.Module):
    """Expand, filter each channel by itself, squeeze and excite, project; added to the input where shapes allow."""

    def __init__(self, channels: int, layer: Layer):
        super().__init__()
        act = nn.Hardswish if layer.hard else nn.ReLU
        parts: list[nn.Module] = []
        if layer.expanded != channels:
            parts.append(_convolution(channels, layer.expanded, 1, act=act))
        depthwise = _convolution(
            layer.expanded, layer.expanded, layer.kernel, act=act, stride=layer.stride, groups=layer.expanded
        )
        parts.append(depthwise)
        if layer.squeeze:
            parts.append(SqueezeExcite(layer.expanded))
        parts.append(_convolution(layer.expanded, layer.out, 1))
        self.block = nn.Sequential(*parts)
        self.residual = layer.stride == 1 and layer.out == channels

    def forward(self, x: Tensor) -> Tensor:
        """Map features [N, C, H, W] to [N, layer.out, H/stride, W/stride]."""
        return x + self.block(x) if self.residual else self.block(x)


class MobileNetV3(nn.Module):
    """Images [N, 3, H, W], normalised as the weights want them, to logits [N, num_classes]."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.num_classes = num_classes
        channels = [STEM, *(layer.out for layer in LAYERS)]
        self.features = nn.Sequential(
            _convolution(3, STEM, 3, act=nn.Hardswish, stride=2),
            *(InvertedResidual(c, layer) for c, layer in zip(channels, LAYERS, strict=False)),
            _convolution(channels[-1], LAST, 1, act=nn.Hardswish),
        )
        self.classifier = nn.Sequential(
            nn.Linear(LAST, HIDDEN), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(HIDDEN, num_classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        return self.classifier(self.features(images).mean((2, 3)))


def mobilenet_v3_large(num_classes: int) -> MobileNetV3:
    """Return the network with random weights: convolutions by He et al. 2015 (fan-out), linear layers N(0, .01²)."""
    network = MobileNetV3(num_classes)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    return network


def _convolution(
    channels: int, out: int, kernel: int, *, act: type[nn.Module] | None = None, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Return convolution, batch norm and activation; the size is divided by the stride."""
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out, eps=0.001, momentum=0.01),
        *([act()] if act else []),
    )


def _divisible(channels: float) -> int:
    """Return the nearest multiple of 8, from 8 on, that is not more than a tenth below."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8
