"""LoRAs of kohya, peft and diffusers become adaptors of the same change, their alpha folded in."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

from fair_adaptors.adaptor.folder import read_adaptor
from tests.checkpoints import State, converted, converted_changes, largest_difference, refused
from tests.tiny import tiny_pipeline

CONFIG = {"r": 4, "lora_alpha": 10, "target_modules": ["to_q", "to_out.0"]}


def test_the_alpha_of_kohya_is_folded_in_and_half_precision_is_kept(tmp_path: Path, base: str) -> None:
    name, conv = "lora_te_text_model_encoder_layers_1_mlp_fc1", "lora_unet_conv_in"
    down, up = torch.randn(4, 32).half(), torch.randn(64, 4).half()
    down_conv, up_conv = torch.randn(4, 4, 3, 3), torch.randn(32, 4, 1, 1)
    tensors = {
        f"{name}.lora_down.weight": down,
        f"{name}.lora_up.weight": up,
        f"{conv}.lora_down.weight": down_conv,
        f"{conv}.lora_up.weight": up_conv,
        f"{conv}.alpha": torch.tensor(1.0),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    out = converted(tmp_path / "x.safetensors", tmp_path / "out", base)
    assert (
        read_adaptor(out).tensors["text_encoder.text_model.encoder.layers.1.mlp.fc1.lora_A.weight"].dtype == torch.half
    )
    expected = {
        "text_encoder.text_model.encoder.layers.1.mlp.fc1": up.float() @ down.float(),
        "unet.conv_in": up_conv.flatten(1) @ down_conv.flatten(1) / 4,
    }
    assert largest_difference(converted_changes(out), expected) <= 1e-6


@pytest.mark.parametrize(
    ("alpha", "message"),
    [
        (torch.tensor(0.0), "alpha must be one number above 0"),
        (torch.tensor([1.0, 2.0]), "alpha must be one number above 0"),
        (torch.tensor(float("nan")), "alpha must be one number above 0"),
        (torch.tensor(1e5), "not finite"),  # times the weights it is beyond what float32 holds
    ],
)
def test_an_alpha_that_cannot_be_is_refused(tmp_path: Path, base: str, alpha: Tensor, message: str) -> None:
    tensors = {"lora_down.weight": torch.ones(4, 4, 3, 3), "lora_up.weight": torch.full((32, 4, 1, 1), 3e38)}
    named = {f"lora_unet_conv_in.{key}": value for key, value in {**tensors, "alpha": alpha}.items()}
    save_file(named, tmp_path / "x.safetensors")
    refused(tmp_path / "x.safetensors", tmp_path, message, base)


def randomised(unet: Any) -> Any:
    for name, parameter in unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return unet


def peft_unet() -> Any:
    return randomised(get_peft_model(tiny_pipeline().unet, LoraConfig(**CONFIG)))


def differences(after: State) -> State:
    """What was added to each weight of the U-Net."""
    before = tiny_pipeline().unet.state_dict()
    return {
        f"unet.{name.removesuffix('.weight')}": after[name] - before[name]
        for name in before
        if not torch.equal(after[name], before[name])
    }


def test_what_peft_saves_keeps_its_change(tmp_path: Path, base: str) -> None:
    unet = peft_unet()
    unet.save_pretrained(tmp_path / "peft")
    expected = differences(unet.merge_and_unload().state_dict())
    for number, source in enumerate((tmp_path / "peft", tmp_path / "peft" / "adapter_model.safetensors")):
        out = converted(source, tmp_path / str(number), base)
        assert largest_difference(converted_changes(out), expected) <= 1e-6


def test_what_diffusers_saves_keeps_its_change(tmp_path: Path, base: str) -> None:
    unet = tiny_pipeline().unet
    unet.add_adapter(LoraConfig(**CONFIG))
    StableDiffusionPipeline.save_lora_weights(
        tmp_path / "lora",
        unet_lora_layers=get_peft_model_state_dict(randomised(unet)),
        **_collate_lora_metadata({"unet": unet}),
    )
    unet.fuse_lora()
    merged = {name.replace(".base_layer", ""): value for name, value in unet.state_dict().items()}
    out = converted(tmp_path / "lora", tmp_path / "out", base)
    assert largest_difference(converted_changes(out), differences(merged)) <= 1e-6


@pytest.mark.parametrize(
    "settings",
    [
        {"use_rslora": True},
        {"alpha_pattern": {"to_q": 2}},
        {"bias": "all"},
        {"peft_type": "LOHA"},
        {"r": 5},
        {"lora_alpha": -1},
        {"lora_alpha": "10"},
    ],
)
def test_settings_that_would_change_the_change_are_refused(
    tmp_path: Path, base: str, settings: dict[str, Any]
) -> None:
    peft_unet().save_pretrained(tmp_path / "peft")
    path = tmp_path / "peft" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    refused(tmp_path / "peft", tmp_path, "its settings", base)


@pytest.mark.parametrize("settings", ["{", "[]", "[" * 100_000, '{"r": 4, "x": "' + "x" * 4_000_000 + '"}'])
def test_settings_that_are_no_json_object_or_too_long_are_refused(tmp_path: Path, base: str, settings: str) -> None:
    peft_unet().save_pretrained(tmp_path / "peft")
    (tmp_path / "peft" / "adapter_config.json").write_text(settings)
    refused(tmp_path / "peft", tmp_path, "is no JSON object, or too long", base)


def test_a_file_of_peft_without_its_settings_is_refused(tmp_path: Path, base: str) -> None:
    peft_unet().save_pretrained(tmp_path / "peft")
    (tmp_path / "peft" / "adapter_config.json").unlink()
    refused(tmp_path / "peft", tmp_path, "scale is not known", base)
