"""An adaptor in another format is the same change of every layer, as other programs read it, and comes back."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from fair_adaptors import load_fair_adaptor
from fair_adaptors.adaptor.architecture import load_architecture
from fair_adaptors.adaptor.folder import read_adaptor, write_adaptor
from fair_adaptors.adaptor.record import CONFIG_FILE, WEIGHTS_FILE
from fair_adaptors.convert import convert
from fair_adaptors.convert.exporting import export, kohya_tensors
from fair_adaptors.families.sdxl import STABLE_DIFFUSION_XL
from fair_adaptors.families.table import family_of
from tests.checkpoints import TOKENS, converted, largest_difference, saved, token_checkpoint
from tests.checkpoints import refused as refused_by_convert
from tests.commands import Command
from tests.tiny import AIM, FAMILIES, image, write_tiny_adaptor

State = dict[str, Tensor]


@pytest.fixture(params=["SD 1.x"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


every_family = pytest.mark.parametrize("family", FAMILIES, indirect=True)


@pytest.fixture
def pipe(family: str) -> Any:
    return FAMILIES[family]()


@pytest.fixture
def adaptor(tmp_path: Path, pipe: Any) -> Path:
    return write_tiny_adaptor(tmp_path / "adaptor", pipe, parts=parts_of(pipe))


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("tiny")
    for name, make in FAMILIES.items():
        make().save_pretrained(folder / name)
    return {name: str(folder / name) for name in FAMILIES}


@pytest.fixture
def base(bases: dict[str, str], family: str) -> str:
    return bases[family]


def parts_of(pipe: Any) -> tuple[str, ...]:
    return tuple(family_of(pipe).parts)


def weights(pipe: Any) -> State:
    """The weights of the linear and convolution layers, by part and name, without what peft adds to a model."""
    return {
        f"{part}.{name.replace('.base_layer', '')}": module.weight.detach().clone()
        for part in parts_of(pipe)
        for name, module in getattr(pipe, part).named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d) and ".lora_" not in name
    }


def with_adaptor(pipe: Any, adaptor: Path) -> State:
    with load_fair_adaptor(pipe, adaptor):
        return weights(pipe)


# kohya


Factors = dict[str, tuple[Tensor, Tensor]]
"""Up and down by layer: all products at once would not fit in memory for SDXL."""


def read_kohya(path: Path, models: dict[str, Any]) -> Factors:
    """An independent reader, by module as kohya's scripts name them; every tensor of the file is used."""
    tensors = load_file(path)
    found = {}
    for prefix, model in models.items():
        for name, module in model.named_modules():
            if prefix != "lora_unet" and not name.startswith("text_model."):
                name = "text_model." + name
            key = f"{prefix}_{name}".replace(".", "_")
            if f"{key}.lora_down.weight" in tensors:
                down, up = tensors.pop(f"{key}.lora_down.weight"), tensors.pop(f"{key}.lora_up.weight")
                scale = tensors.pop(f"{key}.alpha").item() / down.shape[0]
                assert up.shape[0] == module.weight.shape[0] and down.shape[1:] == module.weight.shape[1:]
                found[key] = scale * up.flatten(1), down.flatten(1)
    assert not tensors
    return found


def our_factors(folder: Path) -> Factors:
    tensors = read_adaptor(folder).tensors
    return {
        key.removesuffix(".lora_A.weight"): (tensors[key.replace("lora_A", "lora_B")].flatten(1), down.flatten(1))
        for key, down in tensors.items()
        if "lora_A" in key
    }


def difference_of_products(one: Factors, two: Factors) -> float:
    assert one.keys() == two.keys()
    return max(float((one[key][0] @ one[key][1]).sub_(two[key][0] @ two[key][1]).abs_().max()) for key in one)


def write_adaptor_for(base: str, folder: Path, rank: int = 2) -> Path:
    """An adaptor with random weights on the authors' layers of a real base, and on a convolution."""
    model = load_architecture(base)
    make = torch.Generator().manual_seed(0)
    tensors = {}
    for stem, shape in model.shapes().items():
        if stem.startswith("text_encoder.") or ".attn" in stem or stem == "unet.conv_in":
            tensors[f"{stem}.lora_A.weight"] = torch.randn(rank, *shape[1:], generator=make)
            tensors[f"{stem}.lora_B.weight"] = torch.randn(shape[0], rank, *(1,) * (len(shape) - 2), generator=make)
    return write_adaptor(
        folder, tensors, name=base, pipe=model.pipe, base_model=base, attributes=AIM, rank=rank, training={}
    )


@pytest.mark.parametrize(
    ("kind", "prefix", "layers", "version"),
    [
        ("sd15", "lora_te", 72 + 128, "sd_v1"),
        ("sd21", "lora_te", 138 + 128, "sd_v2"),
        ("sdxl", "lora_te1", 632, "sdxl_"),
    ],
)
def test_kohyas_names_fit_every_base_and_come_back(
    tmp_path: Path, kind: str, prefix: str, layers: int, version: str
) -> None:
    adaptor = write_adaptor_for(kind, tmp_path / "adaptor")
    path = export(adaptor, tmp_path / "x.safetensors", format="kohya")
    model = load_architecture(kind).pipe
    theirs = read_kohya(path, {prefix: model.text_encoder, "lora_unet": model.unet})
    ours = our_factors(adaptor)
    assert len(theirs) == layers + 1
    renamed = {
        stem.replace("text_encoder.", prefix + "_").replace("unet.", "lora_unet_").replace(".", "_"): factors
        for stem, factors in ours.items()
    }
    assert difference_of_products(renamed, theirs) <= 1e-6
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["ss_base_model_version"].startswith(version) and metadata["ss_network_dim"] == "2"
    assert (metadata["ss_v2"] == "True") == (kind == "sd21")
    back = convert(path, tmp_path / "back", base=kind, attributes=["gender"])
    assert (back / WEIGHTS_FILE).read_bytes() == (adaptor / WEIGHTS_FILE).read_bytes()


@every_family
def test_diffusers_reads_kohyas_file_to_the_same_weights(tmp_path: Path, pipe: Any, adaptor: Path) -> None:
    expected = with_adaptor(pipe, adaptor)
    path = export(adaptor, tmp_path / "kohya", format="kohya")
    assert path == tmp_path / "kohya" / "tiny-1_kohya.safetensors"
    pipe.load_lora_weights(path.parent, weight_name=path.name)
    pipe.fuse_lora()
    assert largest_difference(weights(pipe), expected) <= 1e-6


def test_the_first_text_encoder_has_another_name_beside_a_second_one(tmp_path: Path) -> None:
    for family, name in (("SD 1.x", "lora_te"), ("SDXL", "lora_te1")):
        adaptor = write_tiny_adaptor(tmp_path / family, FAMILIES[family](), parts=("text_encoder",))
        keys = load_file(export(adaptor, tmp_path / f"{name}.safetensors", format="kohya"))
        assert {key.partition("_text_model")[0] for key in keys} == {name}


def test_the_second_text_encoder_has_kohyas_name_for_it() -> None:
    stem = "text_encoder_2.text_model.encoder.layers.31.mlp.fc1"
    tensors = {f"{stem}.lora_A.weight": torch.zeros(2, 1280), f"{stem}.lora_B.weight": torch.zeros(5120, 2)}
    name = "lora_te2_text_model_encoder_layers_31_mlp_fc1"
    named = kohya_tensors(tensors, STABLE_DIFFUSION_XL)
    assert named.keys() == {f"{name}.lora_down.weight", f"{name}.lora_up.weight", f"{name}.alpha"}
    assert named[f"{name}.alpha"] == 2


# diffusers, peft and merged


@every_family
def test_diffusers_reads_its_file_to_the_same_weights(tmp_path: Path, pipe: Any, adaptor: Path) -> None:
    expected = with_adaptor(pipe, adaptor)
    folder = export(adaptor, tmp_path / "diffusers", format="diffusers")
    assert [path.name for path in folder.iterdir()] == [WEIGHTS_FILE]
    pipe.load_lora_weights(folder, weight_name=WEIGHTS_FILE)
    pipe.fuse_lora()
    assert largest_difference(weights(pipe), expected) <= 1e-6


@every_family
def test_peft_reads_its_folders_to_the_same_weights(tmp_path: Path, pipe: Any, adaptor: Path) -> None:
    expected = with_adaptor(pipe, adaptor)
    folder = export(adaptor, tmp_path / "peft", format="peft")
    for part in parts_of(pipe):
        merged = PeftModel.from_pretrained(getattr(pipe, part), folder / part).merge_and_unload()
        setattr(pipe, part, merged)
    assert largest_difference(weights(pipe), expected) <= 1e-6


@every_family
def test_a_merged_pipeline_is_the_base_with_the_adaptor_in_it(tmp_path: Path, pipe: Any, adaptor: Path) -> None:
    before, plain = weights(pipe), image(pipe)
    with load_fair_adaptor(pipe, adaptor):
        expected, drawn = weights(pipe), image(pipe)
    folder = export(adaptor, tmp_path / "merged", format="merged", pipe=pipe)
    assert largest_difference(weights(pipe), before) == 0
    merged = DiffusionPipeline.from_pretrained(folder)
    merged.set_progress_bar_config(disable=True)
    assert largest_difference(weights(merged), expected) == 0
    assert torch.allclose(image(merged), drawn, atol=1e-5) and not torch.allclose(drawn, plain, atol=1e-3)


def test_a_merged_pipeline_has_the_adaptor_at_its_own_strength(tmp_path: Path, pipe: Any, adaptor: Path) -> None:
    config = json.loads((adaptor / CONFIG_FILE).read_text())
    (adaptor / CONFIG_FILE).write_text(json.dumps({**config, "default_weight": 0.5}))
    with load_fair_adaptor(pipe, adaptor, weight=0.5):
        expected = weights(pipe)
    merged = DiffusionPipeline.from_pretrained(export(adaptor, tmp_path / "m", format="merged", pipe=pipe))
    assert largest_difference(weights(merged), expected) == 0


# There and back


@every_family
@pytest.mark.parametrize(("first", "second"), [*product(("kohya", "diffusers", "peft"), repeat=2)])
def test_any_format_becomes_any_other_and_nothing_is_lost(
    tmp_path: Path, adaptor: Path, base: str, first: str, second: str
) -> None:
    there = converted(export(adaptor, tmp_path / "1", format=first), tmp_path / "2", base)
    back = converted(export(there, tmp_path / "3", format=second), tmp_path / "4", base)
    assert (back / WEIGHTS_FILE).read_bytes() == (adaptor / WEIGHTS_FILE).read_bytes()
    assert read_adaptor(back).record.base_signature == read_adaptor(adaptor).record.base_signature


def test_half_precision_stays_as_it_is(tmp_path: Path, pipe: Any, adaptor: Path, base: str) -> None:
    tensors = {key: value.half() for key, value in load_file(adaptor / WEIGHTS_FILE).items()}
    half = write_adaptor(
        tmp_path / "half", tensors, name="half", pipe=pipe, base_model="tiny", attributes={}, rank=2, training={}
    )
    path = export(half, tmp_path / "x.safetensors", format="kohya")
    back = converted(path, tmp_path / "back", base)
    assert (back / WEIGHTS_FILE).read_bytes() == (half / WEIGHTS_FILE).read_bytes()


# What is refused, with nothing written


@pytest.mark.parametrize("family", ["SDXL"], indirect=True)
def test_the_folder_of_a_file_of_peft_tells_its_part_where_the_keys_could_be_of_two(
    tmp_path: Path, adaptor: Path, base: str
) -> None:
    folder = export(adaptor, tmp_path / "peft", format="peft")
    path = folder / "text_encoder" / "adapter_model.safetensors"
    of_older_transformers = {
        key.replace("model.encoder", "model.text_model.encoder"): v for key, v in load_file(path).items()
    }
    save_file(of_older_transformers, path)
    back = converted(folder, tmp_path / "back", base)
    assert (back / WEIGHTS_FILE).read_bytes() == (adaptor / WEIGHTS_FILE).read_bytes()


@pytest.mark.parametrize("family", ["SDXL"], indirect=True)
def test_soft_tokens_are_not_read_for_a_base_with_two_text_encoders(tmp_path: Path, base: str) -> None:
    refused_by_convert(saved(tmp_path / TOKENS, token_checkpoint()), tmp_path, "XL, takes none", base)


def test_the_commands_go_there_and_back(command: Command, tmp_path: Path) -> None:
    file, back, merged = tmp_path / "x.safetensors", tmp_path / "back", tmp_path / "merged"
    status, said, _ = command("export", "sandbox-gender", "--format", "kohya", "--out", str(file))
    assert status == 0 and str(file) in said
    status, said, _ = command("convert", str(file), "--base", "sandbox", "--out", str(back), "--attribute", "gender")
    assert status == 0 and "x.safetensors (kohya)" in said
    assert command("export", str(back), "--format", "merged", "--out", str(merged))[0] == 0
    assert (merged / "model_index.json").is_file()
    status, _, error = command("export", str(back), "--format", "onnx", "--out", str(tmp_path / "new"))
    assert status == 1 and "no format 'onnx'" in error and "Traceback" not in error
    status, _, error = command("export", "nobody", "--format", "peft", "--out", str(tmp_path / "new"))
    assert status == 1 and "there is no adaptor 'nobody'" in error
