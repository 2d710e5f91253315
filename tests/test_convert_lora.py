"""LoRAs of kohya, peft and diffusers become adaptors of the same change, their alpha folded in."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

from fair_adaptors.adaptor.architecture import load_architecture
from fair_adaptors.adaptor.folder import read_adaptor
from fair_adaptors.adaptor.modules import all_modules, linear_modules
from fair_adaptors.convert.exporting import export
from fair_adaptors.convert.layouts import known_keys
from fair_adaptors.convert.original_names import original_names
from fair_adaptors.families.sdxl import STABLE_DIFFUSION_XL
from tests.checkpoints import State, converted, converted_changes, largest_difference, refused
from tests.tiny import tiny_pipeline, tiny_xl_pipeline

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


@pytest.fixture(scope="module")
def xl_base(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("xl")
    tiny_xl_pipeline().save_pretrained(folder)
    return str(folder)


def fused(lora: Path) -> State:
    """What diffusers makes of a file: the change of each weight of the tiny SDXL."""
    pipe = tiny_xl_pipeline()
    before = {name: module.weight.detach().clone() for name, module in all_modules(pipe).items()}
    pipe.load_lora_weights(lora.parent, weight_name=lora.name)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    after = {name: module.weight.detach() - before[name] for name, module in all_modules(pipe).items()}
    return {name: change.flatten(1) for name, change in after.items() if change.any()}


@pytest.mark.parametrize("base", ["sd15", "sd21", "sdxl"])
def test_the_original_names_of_every_layer_are_those_that_diffusers_knows(base: str) -> None:
    unet = load_architecture(base).pipe.unet
    modules = [name.removeprefix("unet.") for name in linear_modules(load_architecture(base).pipe, "unet")]
    names = original_names(modules)
    checkpoint = {
        f"model.diffusion_model.{name}.{kind}": f"{module}.{kind}"
        for module, name in names.items()
        for kind in ("weight", "bias")
    }
    theirs = convert_ldm_unet_checkpoint(checkpoint, unet.config)
    assert names.keys() == set(modules) and theirs == {place: place for place in checkpoint.values()}


SDXL_LORA = {
    "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": (
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q",
    ),
    "unet.mid_block.attentions.0.proj_in": (
        "lora_unet_middle_block_1_proj_in",
        "lora_unet_mid_block_attentions_0_proj_in",
    ),
    "unet.up_blocks.0.attentions.1.transformer_blocks.1.attn2.to_out.0": (
        "lora_unet_output_blocks_1_1_transformer_blocks_1_attn2_to_out_0",
        "lora_unet_up_blocks_0_attentions_1_transformer_blocks_1_attn2_to_out_0",
    ),
    "text_encoder.text_model.encoder.layers.1.self_attn.out_proj": (
        "lora_te1_text_model_encoder_layers_1_self_attn_out_proj",
    )
    * 2,
    "text_encoder_2.text_model.encoder.layers.0.self_attn.out_proj": (
        "lora_te2_text_model_encoder_layers_0_self_attn_out_proj",
    )
    * 2,
}
"""Layers, and their two names in files of kohya's. The tiny U-Net has one layer in each of its two blocks."""


def kohya_file(path: Path, form: int, *, alphas: bool) -> State:
    """Write a LoRA in which every layer has a rank and perhaps an alpha of its own, and return its changes."""
    path.parent.mkdir(exist_ok=True)
    modules, make = all_modules(tiny_xl_pipeline()), torch.Generator().manual_seed(0)
    tensors, changes = {}, {}
    for rank, (stem, names) in enumerate(SDXL_LORA.items(), 1):
        name = names[form].replace("_4_1_", "_3_1_")  # the tiny blocks are one layer shorter
        into, out = modules[stem].in_features, modules[stem].out_features
        down, up = torch.randn(rank, into, generator=make), torch.randn(out, rank, generator=make)
        tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        if alphas:
            tensors[f"{name}.alpha"] = torch.tensor(rank + 1.5)
        changes[stem] = ((rank + 1.5) / rank if alphas else 1) * up @ down
    save_file(tensors, path)
    return changes


@pytest.mark.parametrize("form", [0, 1], ids=["original names", "diffusers' names"])
def test_kohyas_sdxl_names_of_both_forms_and_mixed_ranks_keep_their_change(
    tmp_path: Path, xl_base: str, form: int
) -> None:
    plain = kohya_file(tmp_path / "in" / "plain.safetensors", form, alphas=False)
    # Diffusers' own reader of these names; one alpha per layer it does not take (0.42).
    assert largest_difference(fused(tmp_path / "in" / "plain.safetensors"), plain) <= 2e-6
    file = tmp_path / "in" / "x.safetensors"
    expected = kohya_file(file, form, alphas=True)
    out = converted(file, tmp_path / "out", xl_base)
    assert read_adaptor(out).record.rank == len(SDXL_LORA)
    assert largest_difference(converted_changes(out), expected) <= 1e-6
    for format in ("kohya", "diffusers", "peft"):  # and what it is exported to
        path = export(out, tmp_path / format, format=format)
        again = converted(path, tmp_path / f"{format}-again", xl_base)
        assert largest_difference(converted_changes(again), expected) <= 1e-6
        if format != "peft":
            read = path if path.is_file() else next(path.iterdir())
            assert largest_difference(fused(read), expected) <= 2e-6


def test_kohyas_sdxl_names_stand_for_the_layers_of_the_real_model() -> None:
    known = known_keys(load_architecture("sdxl").shapes(), STABLE_DIFFUSION_XL)
    for stem, names in SDXL_LORA.items():
        assert {known[f"{name}.lora_down.weight"] for name in names} == {("kohya", stem, "lora_A")}


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


@pytest.mark.parametrize(
    "patterns",
    [
        {},
        {
            "rank_pattern": {"to_q": 2, "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0": 3},
            "alpha_pattern": {"attn2.to_q": 5},
        },
    ],
)
def test_what_peft_saves_keeps_its_change(tmp_path: Path, base: str, patterns: dict[str, Any]) -> None:
    unet = randomised(get_peft_model(tiny_pipeline().unet, LoraConfig(**CONFIG, **patterns)))
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
        {"alpha_pattern": {"to_q": -2}},
        {"alpha_pattern": {".*": 2}},
        {"alpha_pattern": ["to_q"]},
        {"rank_pattern": {"to_q": 2}},
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
    refused(tmp_path / "peft", tmp_path, "is not a JSON object, or too long", base)


def test_a_file_of_peft_without_its_settings_is_refused(tmp_path: Path, base: str) -> None:
    peft_unet().save_pretrained(tmp_path / "peft")
    (tmp_path / "peft" / "adapter_config.json").unlink()
    refused(tmp_path / "peft", tmp_path, "scale is not known", base)
