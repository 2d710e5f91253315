"""Stable Diffusion 1.x, 2.x and XL: an adaptor of each loads, unloads, and is read by diffusers to the same image."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fair_adaptors import load_fair_adaptor
from fair_adaptors.adaptor.folder import read_adaptor
from fair_adaptors.adaptor.modules import linear_modules
from fair_adaptors.adaptor.record import WEIGHTS_FILE
from fair_adaptors.errors import WrongBaseError
from tests.tiny import FAMILIES, latents, tiny_pipeline, write_tiny_adaptor

PARTS = {
    "SD 1.x": ("text_encoder", "unet"),
    "SD 2.x": ("text_encoder", "unet"),
    "SDXL": ("text_encoder", "text_encoder_2", "unet"),
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pipe(family: str) -> Any:
    return FAMILIES[family]()


@pytest.fixture
def adaptor(tmp_path: Path, family: str, pipe: Any) -> Path:
    return write_tiny_adaptor(tmp_path / "adaptor", pipe, parts=PARTS[family])


def weights(pipe: Any) -> dict[str, torch.Tensor]:
    modules = [linear_modules(pipe, part) for part in ("text_encoder", "text_encoder_2", "unet")]
    return {name: module.weight.detach().clone() for found in modules for name, module in found.items()}


def test_what_is_added_is_the_product_of_the_factors_and_unloading_is_exact(pipe: Any, adaptor: Path) -> None:
    before, tensors = weights(pipe), read_adaptor(adaptor).tensors
    handle = load_fair_adaptor(pipe, adaptor)
    stems = {key.removesuffix(".lora_A.weight") for key in tensors if key.endswith(".lora_A.weight")}
    for name, weight in weights(pipe).items():
        change = tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"] if name in stems else 0.0
        assert torch.allclose(weight, before[name] + change, atol=1e-6), name
    assert stems <= before.keys()
    handle.unload()
    assert all(torch.equal(weight, before[name]) for name, weight in weights(pipe).items())


def test_diffusers_own_loader_makes_the_same_image_of_the_file(pipe: Any, adaptor: Path) -> None:
    with load_fair_adaptor(pipe, adaptor):
        ours = latents(pipe)
    plain = latents(pipe)
    pipe.load_lora_weights(adaptor, weight_name=WEIGHTS_FILE)
    theirs = latents(pipe)
    assert (plain - ours).norm() > 0.01 * plain.norm()
    assert (theirs - ours).norm() < 1e-4 * ours.norm()


def test_an_adaptor_of_another_family_is_refused(family: str, adaptor: Path) -> None:
    # Stable Diffusion 2.x differs from 1.x in the width of its text encoder.
    other = tiny_pipeline(width=48) if family != "SD 1.x" else FAMILIES["SDXL"]()
    before = weights(other)
    with pytest.raises(WrongBaseError, match="another model"):
        load_fair_adaptor(other, adaptor)
    assert all(torch.equal(weight, before[name]) for name, weight in weights(other).items())


def test_only_the_level_that_a_library_dropped_is_put_back_into_names() -> None:
    from fair_adaptors.adaptor.modules import name_in_file
    from fair_adaptors.families.sd import STABLE_DIFFUSION

    assert name_in_file(STABLE_DIFFUSION, "text_encoder", "encoder.fc1") == "text_encoder.text_model.encoder.fc1"
    for name in ("text_model.encoder.fc1", "text_projection", "pooler.dense"):
        assert name_in_file(STABLE_DIFFUSION, "text_encoder", name) == f"text_encoder.{name}"


def test_a_folder_with_a_damaged_autoencoder_is_refused(tmp_path: Path) -> None:
    from fair_adaptors.adaptor.architecture import load_architecture
    from fair_adaptors.errors import ConfigError

    tiny_pipeline().save_pretrained(tmp_path)
    (tmp_path / "vae" / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="not a folder of a known pipeline"):
        load_architecture(str(tmp_path))
