"""An adaptor folder holds what was written into it, and a stranger's folder is believed in nothing."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from fair_adaptors.adaptor.folder import read_adaptor, write_adaptor
from fair_adaptors.adaptor.modules import linear_modules, shape_signature
from fair_adaptors.adaptor.record import CONFIG_FILE, TOKENS_FILE, WEIGHTS_FILE, AdaptorRecord, read_record
from fair_adaptors.adaptor.registry import EMBEDDED
from fair_adaptors.errors import InvalidAdaptorError
from fair_adaptors.state_dicts import read_state_dicts
from tests.tiny import AIM, State, tiny_pipeline, write_tensors, write_tiny_adaptor, write_tiny_tokens, write_weights


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny_pipeline()


@pytest.fixture
def adaptor(tmp_path: Path, pipe: Any) -> Path:
    return write_tiny_adaptor(tmp_path / "adaptor", pipe)


def set_config(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps({**config, **fields}))


def write(folder: Path, pipe: Any, tensors: State) -> Path:
    return write_adaptor(
        folder, tensors, name="x", pipe=pipe, base_model="tiny", attributes=AIM, rank=2, training={"seed": 3}
    )


def header(dtype: str, shape: list[int]) -> bytes:
    """Return a file whose header has one tensor of four bytes, or of none if its shape holds a zero."""
    size = 0 if 0 in shape else 4
    text = json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}).encode()
    return len(text).to_bytes(8, "little") + text + bytes(size)


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
    with pytest.raises(InvalidAdaptorError, match=f"not what it should be: {field}$"):
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


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that cannot be read")
@pytest.mark.parametrize("file", [WEIGHTS_FILE, CONFIG_FILE])
def test_a_file_that_the_system_does_not_read_is_refused(adaptor: Path, file: str) -> None:
    (adaptor / file).unlink()
    (adaptor / file).symlink_to("/proc/self/mem")
    with pytest.raises(InvalidAdaptorError, match=f"{file} cannot be read"):
        read_adaptor(adaptor)


def test_a_folder_or_a_pipe_in_a_files_place_is_refused(adaptor: Path) -> None:
    (adaptor / WEIGHTS_FILE).unlink()
    os.mkfifo(adaptor / WEIGHTS_FILE)
    with pytest.raises(InvalidAdaptorError, match=f"has no {WEIGHTS_FILE}"):
        read_adaptor(adaptor)
    (adaptor / CONFIG_FILE).unlink()
    (adaptor / CONFIG_FILE).mkdir()
    with pytest.raises(InvalidAdaptorError, match="no adaptor folder"):
        read_record(adaptor)


@pytest.mark.parametrize("more", [4, 2**40])
def test_a_file_that_is_longer_than_recorded_is_refused_and_not_read(adaptor: Path, more: int) -> None:
    """The one of a terabyte is a hole: it takes no room on the disk, and memory that nobody has."""
    os.truncate(adaptor / WEIGHTS_FILE, (adaptor / WEIGHTS_FILE).stat().st_size + more)
    with pytest.raises(InvalidAdaptorError, match="sha256"):
        read_adaptor(adaptor)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_of_any_protocol_is_called_one(adaptor: Path, protocol: int) -> None:
    write_weights(adaptor, pickle.dumps({"a": 1}, protocol))
    with pytest.raises(InvalidAdaptorError, match="is a pickle"):
        read_adaptor(adaptor)


@pytest.mark.parametrize("start", [b"PK", b"\x80\x02", b"\x80\x05"])
def test_a_header_as_long_as_a_pickles_beginning_is_no_pickle(adaptor: Path, start: bytes) -> None:
    stem = "unet.mid_block.attentions.0.proj_in"
    data = save({f"{stem}.lora_A.weight": torch.zeros(2, 64), f"{stem}.lora_B.weight": torch.zeros(64, 2)})
    end, length = 8 + int.from_bytes(data[:8], "little"), int.from_bytes(start, "little")
    write_weights(adaptor, length.to_bytes(8, "little") + data[8:end].ljust(length) + data[end:])
    set_config(adaptor, trained_parts=["unet"])
    assert len(read_adaptor(adaptor).tensors) == 2
    assert len(read_state_dicts(adaptor / WEIGHTS_FILE)[0][0].tensors) == 2


def test_unexpected_and_missing_keys_are_reported_together(adaptor: Path) -> None:
    tensors = load_file(adaptor / WEIGHTS_FILE)
    lost = sorted(tensors)[0]
    tensors["unet.extra.alpha"] = tensors.pop(lost)
    write_tensors(adaptor, tensors)
    with pytest.raises(InvalidAdaptorError, match=f"unexpected keys: 'unet.extra.alpha'; missing keys: '{lost}'"):
        read_adaptor(adaptor)


def test_tensors_of_a_part_that_the_record_does_not_name_are_refused(adaptor: Path) -> None:
    set_config(adaptor, trained_parts=["text_encoder"])
    with pytest.raises(InvalidAdaptorError, match=r"unexpected keys: 'unet\."):
        read_adaptor(adaptor)


def test_a_recorded_part_without_tensors_is_refused(adaptor: Path) -> None:
    tensors = load_file(adaptor / WEIGHTS_FILE)
    write_tensors(adaptor, {key: value for key, value in tensors.items() if key.startswith("unet.")})
    with pytest.raises(InvalidAdaptorError, match=r"missing keys: 'text_encoder\.\*'"):
        read_adaptor(adaptor)


def test_another_rank_than_recorded_is_refused(adaptor: Path) -> None:
    set_config(adaptor, rank=3)
    with pytest.raises(InvalidAdaptorError, match="the largest rank is 2; fair_adaptor.json says 3"):
        read_adaptor(adaptor)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.float64])
def test_a_dtype_that_no_adaptor_has_is_refused(adaptor: Path, dtype: torch.dtype) -> None:
    tensors = load_file(adaptor / WEIGHTS_FILE)
    write_tensors(adaptor, {key: value.to(dtype) for key, value in tensors.items()})
    with pytest.raises(InvalidAdaptorError, match="dtype"):
        read_adaptor(adaptor)


HEADERS = {
    "length": (2**63).to_bytes(8, "little") + b"{}",
    "text to be printed": header("\x1b[2J", [1]),
    "dtype that torch lacks": header("F8_E8M0", [4]),
    "size beyond torch's": header("F32", [2**63, 0]),
}


@pytest.mark.parametrize("data", HEADERS.values(), ids=HEADERS)
def test_a_header_that_lies_is_refused_in_printable_words(adaptor: Path, data: bytes) -> None:
    write_weights(adaptor, data)
    with pytest.raises(InvalidAdaptorError, match="no safetensors") as refused:
        read_adaptor(adaptor)
    assert str(refused.value).isprintable()


ROWS = torch.ones(2, 32)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ({"text_encoder_2": ROWS}, "expected the key 'text_encoder'"),
        ({"text_encoder": ROWS, "more": ROWS + 1}, "expected the key 'text_encoder'"),
        ({"text_encoder": ROWS.int()}, "no tokens"),
        ({"text_encoder": ROWS[0]}, "no tokens"),
        ({"text_encoder": ROWS[:0]}, "no tokens"),
        ({"text_encoder": ROWS / 0}, "not finite"),
    ],
)
def test_what_are_no_soft_tokens_is_refused(adaptor: Path, tokens: State, message: str) -> None:
    write_tensors(adaptor, tokens, TOKENS_FILE)
    set_config(adaptor, trained_parts=["tokens"])
    with pytest.raises(InvalidAdaptorError, match=message):
        read_adaptor(adaptor)


@pytest.mark.parametrize("end", ["lora_A.weight", "lora_B.weight"])
@pytest.mark.parametrize(("value", "message"), [(float("nan"), "not finite"), (None, "no pair of one rank")])
def test_either_half_of_a_pair_is_looked_at(adaptor: Path, end: str, value: float | None, message: str) -> None:
    tensors = load_file(adaptor / WEIGHTS_FILE)
    key = next(key for key in tensors if key.endswith(end))
    tensors[key] = tensors[key][..., None, None] if value is None else torch.full_like(tensors[key], value)
    write_tensors(adaptor, tensors)
    with pytest.raises(InvalidAdaptorError, match=message):
        read_adaptor(adaptor)


@pytest.mark.parametrize(
    ("down", "up"), [((2,), (4,)), ((2, 4, 1), (4, 2, 1)), ((2, 4), (4, 3)), ((0, 4), (4, 0)), ((2, 4), (4, 2, 1, 1))]
)
def test_two_factors_that_have_no_product_are_refused(
    adaptor: Path, down: tuple[int, ...], up: tuple[int, ...]
) -> None:
    pair = {"unet.a.lora_A.weight": torch.zeros(down), "unet.a.lora_B.weight": torch.zeros(up)}
    write_tensors(adaptor, load_file(adaptor / WEIGHTS_FILE) | pair)
    with pytest.raises(InvalidAdaptorError, match=r"unet\.a: .* are no pair of one rank"):
        read_adaptor(adaptor)


@pytest.mark.parametrize("size", [10**30, 2**62, 2**45])
def test_a_recorded_size_takes_no_memory(adaptor: Path, size: int) -> None:
    set_config(adaptor, files={WEIGHTS_FILE: {"sha256": "0" * 64, "bytes": size}})
    with pytest.raises(InvalidAdaptorError, match="truncated"):
        read_adaptor(adaptor)
