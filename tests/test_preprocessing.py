"""What models are fed is what their processors make of an image, to the byte; and gradients come through."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    ConvNextImageProcessorPil,
    Dinov2Config,
    Dinov2Model,
    ViTImageProcessorPil,
)

from fair_adaptors.errors import ConfigError
from fair_adaptors.vision.catalog import load_encoder
from fair_adaptors.vision.dinov2 import dino_encoder
from fair_adaptors.vision.preprocessing import FILTERS, as_bytes, preparation, resize_like_pillow
from fair_adaptors.vision.pretrained import TRAINING_ENCODERS, loaded

CPU = torch.device("cpu")
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
PROCESSORS = {
    "CLIP": CLIPImageProcessorPil(),
    "DINOv2": BitImageProcessorPil(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}, **IMAGENET),
    "ViT": ViTImageProcessorPil(),
    "no crop, not square": ViTImageProcessorPil(size={"height": 60, "width": 90}, resample=3),
    "crop beyond the image": CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 61, "width": 50}),
    "crop alone": CLIPImageProcessorPil(do_resize=False, crop_size={"height": 99, "width": 120}),
    "resize alone": CLIPImageProcessorPil(do_center_crop=False, do_normalize=False, do_rescale=False),
}  # fmt: skip
SIZES = [(512, 512), (300, 401), (401, 300), (37, 53), (224, 224)]


def pictures(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def pillow(images: torch.Tensor) -> list[Image.Image]:
    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]


@settings(max_examples=300, deadline=None)
@given(
    old=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    new=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    number=st.sampled_from(sorted(FILTERS)),
    seed=st.integers(0, 99),
)
def test_resizing_gives_the_bytes_of_pillow(old: Any, new: Any, number: int, seed: int) -> None:
    images = pictures(1, *old, seed=seed)
    expected = np.asarray(pillow(images)[0].resize(new[::-1], resample=Image.Resampling(number)))
    found = resize_like_pillow(images.double(), new, FILTERS[number])[0].permute(1, 2, 0)
    assert torch.equal(found, torch.tensor(expected).double())


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "×".join(map(str, size)))
@pytest.mark.parametrize("name", PROCESSORS)
def test_a_model_is_fed_what_its_processor_makes_of_the_image(name: str, size: tuple[int, int]) -> None:
    processor = PROCESSORS[name]
    images = pictures(2, *size)
    expected = processor(pillow(images), return_tensors="pt")["pixel_values"]
    found = preparation(processor, name, CPU)(images / 255)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4


def test_a_byte_is_rounded_and_its_gradient_is_not() -> None:
    levels = torch.tensor([-3.0, 0.2, 7.5, 8.4, 300.0], dtype=torch.float64, requires_grad=True)
    found = as_bytes(levels)
    assert found.tolist() == [0, 0, 8, 8, 255]
    assert torch.autograd.grad(found.sum(), levels)[0].tolist() == [0, 1, 1, 1, 0]


@pytest.mark.parametrize("number", FILTERS)
def test_gradients_are_those_of_the_filter_that_does_not_round(number: int) -> None:
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 30}, crop_size={"height": 30, "width": 30}, resample=number, do_normalize=False
    )
    smooth = 0.3 + 0.4 * torch.rand(2, 3, 70, 70, dtype=torch.float64)  # nothing runs over the ends of a byte
    images, weights = smooth.requires_grad_(), torch.rand(2, 3, 30, 30, dtype=torch.float64)
    found = torch.autograd.grad((preparation(processor, "CLIP", CPU)(images) * weights).sum(), images)[0]
    resized = F.interpolate(images, (30, 30), mode=FILTERS[number], antialias=True)
    expected = torch.autograd.grad((resized * weights).sum(), images)[0]
    assert torch.allclose(found, expected, atol=1e-6)


def test_the_whole_image_is_seen_in_training_and_the_middle_by_dinos_processor() -> None:
    corner = {}
    for whole in (True, False):
        images = (pictures(1, 512, 512) / 255).requires_grad_()
        found = preparation(PROCESSORS["DINOv2"], "DINOv2", CPU, whole=whole)(images)
        assert found.shape == (1, 3, 224, 224)
        corner[whole] = torch.autograd.grad(found.abs().sum(), images)[0][..., :16, :16].abs().sum()
    assert corner[True] > 0 == corner[False]


def test_of_a_square_image_clip_sees_the_same_either_way_but_for_roundings() -> None:
    images = pictures(1, 512, 512).clamp(64, 192) / 255
    one, other = (preparation(PROCESSORS["CLIP"], "CLIP", CPU, whole=whole)(images) for whole in (True, False))
    level = 1 / 255 / min(PROCESSORS["CLIP"].image_std)
    assert (one - other).abs().max() < 1.5 * level and (one - other).abs().mean() < 0.3 * level


def test_a_processor_that_does_more_is_refused() -> None:
    with pytest.raises(ConfigError, match="ConvNextImageProcessorPil does more to images than"):
        preparation(ConvNextImageProcessorPil(size={"shortest_edge": 64}), "convnext", CPU)
    with pytest.raises(ConfigError, match="resizes images by Pillow's filter 1"):
        preparation(ViTImageProcessorPil(resample=1), "lanczos", CPU)


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DINOv2's real class, small, beside the processor that it is published with."""
    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    Dinov2Model(Dinov2Config(**sizes, image_size=224, patch_size=14)).save_pretrained(folder)
    PROCESSORS["DINOv2"].save_pretrained(folder)
    return folder


def test_features_are_those_of_the_model_behind_its_own_processor(dino: Path) -> None:
    images = pictures(2, 300, 401)
    pixels = PROCESSORS["DINOv2"](pillow(images), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = F.normalize(Dinov2Model.from_pretrained(dino)(pixel_values=pixels).last_hidden_state[:, 0], dim=1)
        found = load_encoder(f"dinov2:{dino}").encode(images / 255)
    assert torch.allclose(found, expected, atol=1e-5)


def test_gradients_of_features_are_the_slopes_that_differences_show(dino: Path) -> None:
    encode = dino_encoder(str(dino), whole=True).encode
    images = (0.3 + 0.4 * torch.rand(1, 3, 64, 64)).requires_grad_()
    goal = F.normalize(torch.randn(1, 16), dim=1)
    gradient = torch.autograd.grad((encode(images) * goal).sum(), images)[0]
    step = 0.02 * gradient / gradient.abs().max()
    with torch.no_grad():
        slope = ((encode(images + step) - encode(images - step)) * goal).sum() / 2
    assert torch.allclose(slope, (gradient * step).sum(), rtol=0.02)


def test_clip_passes_gradients_too(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = CLIPModel(CLIPConfig(text_config=sizes, vision_config={**sizes, "patch_size": 32}, projection_dim=8))
    images = (pictures(1, 224, 224) / 255).requires_grad_()
    prepared = preparation(PROCESSORS["CLIP"], "CLIP", CPU)(images)
    features = model.eval().get_image_features(pixel_values=prepared).pooler_output
    gradient = torch.autograd.grad(features.square().sum(), images)[0]
    assert gradient.isfinite().all() and gradient.abs().sum() > 0


def test_what_is_trained_against_is_named_with_its_commit() -> None:
    for spec in TRAINING_ENCODERS:
        kind, repo, commit = spec.replace("@", ":").split(":")
        assert kind in ("clip", "dinov2") and repo.count("/") == 1 and len(bytes.fromhex(commit)) == 20


def test_a_version_of_a_model_is_asked_for_by_its_commit() -> None:
    class Asked:
        @staticmethod
        def from_pretrained(place: str, **settings: Any) -> tuple[str, Any]:
            return place, settings

    assert loaded(Asked, "org/model@abc") == ("org/model", {"revision": "abc"})
    assert loaded(Asked, "org/model") == ("org/model", {"revision": None})
