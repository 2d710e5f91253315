"""MobileNetV3-Large against the paper's table: names, shapes, count, and a forward pass written out by hand."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fair_adaptors.vision.mobilenet import mobilenet_v3_large

# Howard et al. 2019, table 1: kernel, expansion, output, squeeze and excite, non-linearity, stride.
TABLE_1 = """
3 16 16 - RE 1
3 64 24 - RE 2
3 72 24 - RE 1
5 72 40 SE RE 2
5 120 40 SE RE 1
5 120 40 SE RE 1
3 240 80 - HS 2
3 200 80 - HS 1
3 184 80 - HS 1
3 184 80 - HS 1
3 480 112 SE HS 1
3 672 112 SE HS 1
5 672 160 SE HS 2
5 960 160 SE HS 1
5 960 160 SE HS 1
"""
ROWS = [line.split() for line in TABLE_1.strip().splitlines()]
SQUEEZED = {72: 24, 120: 32, 480: 120, 672: 168, 960: 240}  # a quarter, as a multiple of 8


def convolution(name: str, out: int, per_group: int, kernel: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a convolution without bias and its batch norm."""
    norm = {f"{name}.1.{part}": (out,) for part in ("weight", "bias", "running_mean", "running_var")}
    return {f"{name}.0.weight": (out, per_group, kernel, kernel), **norm, f"{name}.1.num_batches_tracked": ()}


def expected_shapes(num_classes: int) -> dict[str, tuple[int, ...]]:
    shapes = convolution("features.0", 16, 3, 3)
    channels = 16
    for number, (kernel, expanded, out, squeeze, _, _) in enumerate(ROWS, 1):
        wide, place = int(expanded), 0
        if wide != channels:
            shapes |= convolution(f"features.{number}.block.{place}", wide, channels, 1)
            place += 1
        shapes |= convolution(f"features.{number}.block.{place}", wide, 1, int(kernel))
        if squeeze == "SE":
            place += 1
            few, name = SQUEEZED[wide], f"features.{number}.block.{place}"
            shapes |= {f"{name}.fc1.weight": (few, wide, 1, 1), f"{name}.fc1.bias": (few,)}
            shapes |= {f"{name}.fc2.weight": (wide, few, 1, 1), f"{name}.fc2.bias": (wide,)}
        shapes |= convolution(f"features.{number}.block.{place + 1}", int(out), wide, 1)
        channels = int(out)
    shapes |= convolution("features.16", 960, 160, 1)
    shapes |= {"classifier.0.weight": (1280, 960), "classifier.0.bias": (1280,)}
    return shapes | {"classifier.3.weight": (num_classes, 1280), "classifier.3.bias": (num_classes,)}


def forward_by_hand(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network in eval mode, from its weights and the table alone."""

    def layer(name: str, x: Tensor, act: str | None, stride: int = 1) -> Tensor:
        kernel = w[f"{name}.0.weight"]
        groups = x.shape[1] // kernel.shape[1]
        x = F.conv2d(x, kernel, stride=stride, padding=(kernel.shape[-1] - 1) // 2, groups=groups)
        mean, variance = (w[f"{name}.1.running_{part}"][:, None, None] for part in ("mean", "var"))
        scale, shift = (w[f"{name}.1.{part}"][:, None, None] for part in ("weight", "bias"))
        x = (x - mean) / (variance + 0.001).sqrt() * scale + shift
        return {"RE": x.clamp(min=0), "HS": x * (x + 3).clamp(0, 6) / 6}.get(act or "", x)

    x = layer("features.0", x, "HS", 2)
    for number, (_, _, _, squeeze, act, stride) in enumerate(ROWS, 1):
        before, name = x, f"features.{number}.block"
        parts = len({key.split(".")[3] for key in w if key.startswith(name)})
        place = parts - (3 if squeeze == "SE" else 2)
        if place:
            x = layer(f"{name}.0", x, act)
        x = layer(f"{name}.{place}", x, act, int(stride))
        if squeeze == "SE":
            first, second = (f"{name}.{place + 1}.fc{which}" for which in (1, 2))
            mean = x.mean((2, 3))
            few = (mean @ w[f"{first}.weight"].flatten(1).T + w[f"{first}.bias"]).clamp(min=0)
            gate = few @ w[f"{second}.weight"].flatten(1).T + w[f"{second}.bias"]
            x = x * ((gate + 3).clamp(0, 6) / 6)[:, :, None, None]
        x = layer(f"{name}.{parts - 1}", x, None)
        x = x + before if x.shape == before.shape else x
    x = layer("features.16", x, "HS").mean((2, 3))
    x = x @ w["classifier.0.weight"].T + w["classifier.0.bias"]
    x = x * (x + 3).clamp(0, 6) / 6
    return x @ w["classifier.3.weight"].T + w["classifier.3.bias"]


def test_names_and_shapes_are_those_of_the_table_in_torchvisions_order() -> None:
    for num_classes in (1000, 8):
        found = {name: tuple(value.shape) for name, value in mobilenet_v3_large(num_classes).state_dict().items()}
        assert list(found.items()) == list(expected_shapes(num_classes).items())


def test_the_count_is_the_published_one() -> None:
    assert sum(value.numel() for value in mobilenet_v3_large(1000).parameters()) == 5_483_032


def test_the_forward_pass_is_the_one_written_by_hand() -> None:
    network = mobilenet_v3_large(5).double()
    generator = torch.Generator().manual_seed(3)
    weights = network.state_dict()
    for name, value in weights.items():
        if name.endswith((".1.weight", ".bias")):
            value.add_(0.3 * torch.rand(value.shape, generator=generator).to(value))
    images = torch.randn(2, 3, 96, 64, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # the statistics are those of one batch: nothing fades away
        network.train()(torch.randn(8, 3, 96, 64, generator=generator, dtype=torch.float64))
        network.eval()
        found, expected = network(images), forward_by_hand(weights, images)
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    assert torch.allclose(found, expected, rtol=1e-9)


def test_training_moves_the_statistics_by_a_hundredth_and_gradients_reach_the_image() -> None:
    network = mobilenet_v3_large(2).train()
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(4)).requires_grad_()
    with torch.no_grad():
        mean = F.conv2d(images, network.state_dict()["features.0.0.weight"], stride=2, padding=1).mean((0, 2, 3))
    network(images).sum().backward()
    assert torch.allclose(network.state_dict()["features.0.1.running_mean"], 0.01 * mean, atol=1e-6)
    assert images.grad is not None and (images.grad.flatten(1).abs().sum(1) > 0).all()
