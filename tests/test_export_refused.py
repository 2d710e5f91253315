"""What cannot be exported, or read again, is refused, and nothing is written."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from fair_adaptors import ConfigError, FairAdaptorError, InvalidAdaptorError, WrongBaseError
from fair_adaptors.adaptor.folder import write_adaptor
from fair_adaptors.adaptor.record import CONFIG_FILE, WEIGHTS_FILE
from fair_adaptors.convert.exporting import export
from tests.checkpoints import converted
from tests.tiny import tiny_pipeline


def refused(error: type[Exception], message: str, folder: Path, **settings: Any) -> None:
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(error, match=message):
        export(folder, folder.parent / "out", **settings)
    assert sorted(folder.parent.rglob("*")) == before


@pytest.mark.parametrize("format", ["kohya", "diffusers", "peft", "merged"])
def test_soft_tokens_have_no_place_in_a_lora(tmp_path: Path, pipe: Any, format: str) -> None:
    tokens = {"text_encoder": torch.randn(2, 32)}
    folder = write_adaptor(
        tmp_path / "tokens",
        {},
        tokens=tokens,
        name="tokens",
        pipe=pipe,
        base_model="tiny",
        attributes={},
        rank=1,
        training={},
    )
    refused(FairAdaptorError, "soft tokens, which .*; textual-inversion does", folder, format=format, pipe=pipe)


def test_a_format_that_is_none_is_refused(adaptor: Path) -> None:
    refused(ConfigError, "Did you mean 'kohya'", adaptor, format="kohia")


@pytest.mark.parametrize("name", ["x.bin", "x.PT"])
def test_one_file_of_another_ending_is_refused(tmp_path: Path, adaptor: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"must end in \.safetensors, or be the name of a folder"):
        export(adaptor, tmp_path / name, format="kohya")
    assert not (tmp_path / name).exists()
    assert export(adaptor, tmp_path / "X.SAFETENSORS", format="kohya").is_file()


def test_names_of_a_base_that_is_of_no_known_family_are_not_made_up(adaptor: Path) -> None:
    config = json.loads((adaptor / CONFIG_FILE).read_text())
    config["base_signature"] = {"prior": "0" * 32}
    (adaptor / CONFIG_FILE).write_text(json.dumps({**config, "family": ""}))
    refused(WrongBaseError, "not of a known family", adaptor, format="kohya")


def test_a_damaged_adaptor_is_refused(adaptor: Path) -> None:
    (adaptor / WEIGHTS_FILE).write_bytes((adaptor / WEIGHTS_FILE).read_bytes()[:-1])
    refused(InvalidAdaptorError, "truncated", adaptor, format="diffusers")


def test_merging_needs_a_base_that_fits_and_is_plain(adaptor: Path, pipe: Any) -> None:
    refused(ConfigError, "give the base", adaptor, format="merged")
    refused(WrongBaseError, "another model", adaptor, format="merged", pipe=tiny_pipeline(width=64))
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    refused(FairAdaptorError, "unload it first", adaptor, format="merged", pipe=pipe)
    other = tiny_pipeline()
    other.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    refused(FairAdaptorError, "cannot be merged into weights that are quantised", adaptor, format="merged", pipe=other)


def test_what_is_there_is_not_overwritten(tmp_path: Path, adaptor: Path) -> None:
    path = export(adaptor, tmp_path / "x.safetensors", format="kohya")
    with pytest.raises(ConfigError, match="exists already"):
        export(adaptor, path, format="kohya")
    with pytest.raises(ConfigError, match="exists already"):
        export(adaptor, adaptor, format="diffusers")


@pytest.mark.parametrize(("name", "file"), [("../../etc/ nice", "etc-nice"), ("../..", "adaptor")])
def test_a_name_that_would_lead_elsewhere_does_not(tmp_path: Path, adaptor: Path, name: str, file: str) -> None:
    config = json.loads((adaptor / CONFIG_FILE).read_text())
    (adaptor / CONFIG_FILE).write_text(json.dumps({**config, "name": name}))
    path = export(adaptor, tmp_path / "out", format="kohya")
    assert path == tmp_path / "out" / f"{file}_kohya.safetensors" and path.is_file()


def test_a_format_mixed_of_two_is_not_read(tmp_path: Path, adaptor: Path, base: str) -> None:
    kohya = load_file(export(adaptor, tmp_path / "x.safetensors", format="kohya"))
    plain = {key: value for key, value in load_file(adaptor / WEIGHTS_FILE).items() if key.startswith("unet.")}
    save_file({**{k: v for k, v in kohya.items() if "_te_" in k}, **plain}, tmp_path / "mixed.safetensors")
    with pytest.raises(InvalidAdaptorError, match="mixes the names of diffusers and kohya"):
        converted(tmp_path / "mixed.safetensors", tmp_path / "out", base)


def test_a_layer_under_two_names_is_not_read(tmp_path: Path, adaptor: Path, base: str) -> None:
    tensors = load_file(adaptor / WEIGHTS_FILE)
    flat = {key.replace("text_model.", ""): t.clone() for key, t in tensors.items() if key.startswith("text_e")}
    save_file(tensors | flat, tmp_path / "twice.safetensors")
    with pytest.raises(InvalidAdaptorError, match="two keys stand for text_encoder.text_model.encoder"):
        converted(tmp_path / "twice.safetensors", tmp_path / "out", base)
