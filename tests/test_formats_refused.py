"""Files of weights that an adaptor's record does not describe, or that no adaptor has, are refused with the reason."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from fair_adaptors.adaptor.folder import read_adaptor
from fair_adaptors.adaptor.record import CONFIG_FILE, TOKENS_FILE, WEIGHTS_FILE, read_record
from fair_adaptors.errors import InvalidAdaptorError
from fair_adaptors.state_dicts import read_state_dicts
from tests.tiny import State, set_config, write_tensors, write_weights


def header(dtype: str, shape: list[int]) -> bytes:
    """Return a file whose header has one tensor of four bytes, or of none if its shape holds a zero."""
    size = 0 if 0 in shape else 4
    text = json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}).encode()
    return len(text).to_bytes(8, "little") + text + bytes(size)


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
    with pytest.raises(InvalidAdaptorError, match="not an adaptor folder"):
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
    with pytest.raises(InvalidAdaptorError, match="not a safetensors file") as refused:
        read_adaptor(adaptor)
    assert str(refused.value).isprintable()


ROWS = torch.ones(2, 32)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ({}, "expected the key 'text_encoder'"),
        ({"text_encoder_2": ROWS}, "expected the key 'text_encoder'"),
        ({"text_encoder": ROWS, "more": ROWS + 1}, "expected the key 'text_encoder'"),
        ({"text_encoder": ROWS.int()}, "expected soft tokens"),
        ({"text_encoder": ROWS[0]}, "expected soft tokens"),
        ({"text_encoder": ROWS[:0]}, "expected soft tokens"),
        ({"text_encoder": ROWS / 0}, "not finite"),
    ],
)
def test_what_are_no_soft_tokens_is_refused(adaptor: Path, tokens: State, message: str) -> None:
    write_tensors(adaptor, tokens, TOKENS_FILE)
    set_config(adaptor, trained_parts=["tokens"])
    with pytest.raises(InvalidAdaptorError, match=message):
        read_adaptor(adaptor)


@pytest.mark.parametrize("end", ["lora_A.weight", "lora_B.weight"])
@pytest.mark.parametrize(("value", "message"), [(float("nan"), "not finite"), (None, "do not make a LoRA")])
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
    with pytest.raises(InvalidAdaptorError, match=r"unet\.a: .* do not make a LoRA"):
        read_adaptor(adaptor)


@pytest.mark.parametrize("size", [10**30, 2**62, 2**45])
def test_a_recorded_size_takes_no_memory(adaptor: Path, size: int) -> None:
    set_config(adaptor, files={WEIGHTS_FILE: {"sha256": "0" * 64, "bytes": size}})
    with pytest.raises(InvalidAdaptorError, match="truncated"):
        read_adaptor(adaptor)
