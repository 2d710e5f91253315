"""An adaptor folder holds what was written into it, and a stranger's folder is believed in nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from fair_adaptors.adaptor.folder import read_adaptor, write_adaptor
from fair_adaptors.adaptor.modules import linear_modules, shape_signature
from fair_adaptors.adaptor.record import CONFIG_FILE, WEIGHTS_FILE, AdaptorRecord, read_record
from fair_adaptors.adaptor.registry import EMBEDDED
from fair_adaptors.errors import InvalidAdaptorError
from tests.tiny import AIM, State, set_config, tiny_pipeline, write_tiny_adaptor, write_tiny_tokens


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny_pipeline()


def write(folder: Path, pipe: Any, tensors: State) -> Path:
    return write_adaptor(
        folder, tensors, name="x", pipe=pipe, base_model="tiny", attributes=AIM, rank=2, training={"seed": 3}
    )


def test_what_is_written_is_read(tmp_path: Path, pipe: Any) -> None:
    stem = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {f"{stem}.lora_A.weight": torch.randn(2, 64), f"{stem}.lora_B.weight": torch.randn(64, 2)}
    files = read_adaptor(write(tmp_path, pipe, tensors))
    assert files.tensors.keys() == tensors.keys()
    assert all(torch.equal(files.tensors[key], tensors[key]) for key in tensors)
    assert (files.record.name, files.record.rank, files.record.training) == ("x", 2, {"seed": 3})
    assert files.record.trained_parts == ("unet",) and files.record.attributes == AIM


@pytest.mark.parametrize("name", ["sandbox-gender", "sandbox-gender-tone"])
def test_what_is_read_is_written_byte_for_byte(name: str) -> None:
    text = (EMBEDDED / name / CONFIG_FILE).read_text(encoding="utf-8")
    record = AdaptorRecord.from_json(json.loads(text))
    assert json.dumps(record.to_json(), indent=2, ensure_ascii=False) + "\n" == text


def test_nothing_but_the_two_files_is_left(adaptor: Path, pipe: Any) -> None:
    write_tiny_adaptor(write_tiny_tokens(adaptor, pipe), pipe)
    assert sorted(path.name for path in adaptor.iterdir()) == sorted([CONFIG_FILE, WEIGHTS_FILE])


def test_a_write_that_fails_leaves_the_old_adaptor(adaptor: Path, pipe: Any) -> None:
    before = {path.name: path.read_bytes() for path in adaptor.iterdir()}
    with pytest.raises(TypeError):
        write_adaptor(
            adaptor,
            {"unet.x.lora_A.weight": torch.zeros(2, 2)},
            name="x",
            pipe=pipe,
            base_model="tiny",
            attributes={},
            rank=2,
            training={"not JSON": object()},
        )
    assert {path.name: path.read_bytes() for path in adaptor.iterdir()} == before


def test_the_file_carries_no_metadata_that_older_libraries_stumble_over(adaptor: Path) -> None:
    with safe_open(adaptor / WEIGHTS_FILE, "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_text_encoder_keys_carry_the_prefix_that_every_transformers_version_reads(adaptor: Path) -> None:
    keys = [key for key in load_file(adaptor / WEIGHTS_FILE) if key.startswith("text_encoder.")]
    assert keys and all(key.startswith("text_encoder.text_model.encoder.") for key in keys)


def test_the_signature_tells_architectures_apart_and_not_their_weights_or_dtypes(pipe: Any) -> None:
    other = tiny_pipeline(seed=5)
    other.to(dtype=torch.bfloat16)
    assert shape_signature(other) == shape_signature(pipe)
    wider = shape_signature(tiny_pipeline(width=64))
    assert all(wider[part] != signature for part, signature in shape_signature(pipe).items())


def test_the_signature_is_the_same_with_a_lora_attached(adaptor: Path) -> None:
    pipe = tiny_pipeline()
    before, names = shape_signature(pipe), list(linear_modules(pipe, "unet"))
    pipe.load_lora_weights(adaptor, weight_name=WEIGHTS_FILE)
    assert shape_signature(pipe) == before and list(linear_modules(pipe, "unet")) == names


HALVES = [0.5, 0.5]
HOSTILE = [
    ("name", ""),
    ("name", "\x1b[2J"),
    ("name", 3),
    ("name", "x" * 501),
    ("base_model", ""),
    ("base_signature", ["unet"]),
    ("base_signature", {"unet": 3}),
    ("attributes", {"gender": 3}),
    ("attributes", {"gender": {"classes": "ab", "target": HALVES}}),
    ("attributes", {"gender": {"classes": ["a", "b"], "target": {}}}),
    ("attributes", {"gender": {"classes": ["a"], "target": [1.0]}}),
    ("attributes", {"gender": {"classes": ["a", "b", "c"], "target": HALVES}}),
    ("attributes", {"gender": {"classes": ["a", "\x1b[2J"], "target": HALVES}}),
    ("attributes", {"gender": {"classes": ["a", "b"], "target": [0.5, float("nan")]}}),
    ("attributes", {"gender": {"classes": ["a", "b"], "target": ["half", 0.5]}}),
    ("attributes", {"gender": {"classes": ["a", "b"], "target": [-0.5, 1.5]}}),
    ("attributes", {"\x1b[2J": {"classes": ["a", "b"], "target": HALVES}}),
    ("trained_parts", []),
    ("trained_parts", {"unet": 1}),
    ("trained_parts", ["unet", "vae"]),
    ("trained_parts", [["unet"]]),
    ("rank", True),
    ("rank", 0),
    ("default_weight", float("nan")),
    ("default_weight", 10**400),
    ("default_weight", True),
    ("training", None),
    ("versions", {"torch": {}}),
    ("files", {}),
    ("files", {WEIGHTS_FILE: 3}),
    ("files", {WEIGHTS_FILE: {"sha256": "0", "bytes": -1}}),
    ("files", {WEIGHTS_FILE: {"sha256": None, "bytes": 1}}),
    ("files", {"../../etc/passwd": {"sha256": "0", "bytes": 1}}),
    ("files", {WEIGHTS_FILE: {"sha256": "0", "bytes": 1}, "../outside.safetensors": {"sha256": "0", "bytes": 1}}),
]


@pytest.mark.parametrize(("field", "value"), HOSTILE)
def test_a_field_that_is_not_what_it_should_be_is_named(adaptor: Path, field: str, value: Any) -> None:
    set_config(adaptor, **{field: value})
    with pytest.raises(InvalidAdaptorError, match=f"are missing or wrong: {field}$"):
        read_record(adaptor)


def test_every_wrong_field_is_named_at_once(adaptor: Path) -> None:
    set_config(adaptor, name=None, rank=None)
    with pytest.raises(InvalidAdaptorError, match="name, rank"):
        read_record(adaptor)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "\x00"])
def test_a_record_that_is_no_record_is_refused(adaptor: Path, text: str) -> None:
    (adaptor / CONFIG_FILE).write_text(text)
    with pytest.raises(InvalidAdaptorError, match=CONFIG_FILE):
        read_record(adaptor)


def test_a_record_of_another_schema_or_size_is_refused_though_all_else_is_right(adaptor: Path) -> None:
    set_config(adaptor, schema_version=True)
    with pytest.raises(InvalidAdaptorError, match="schema version True"):
        read_record(adaptor)
    set_config(adaptor, schema_version=1, padding="x" * 4_000_000)
    with pytest.raises(InvalidAdaptorError, match="more than 4000000 bytes"):
        read_record(adaptor)
