"""Of a checkpoint that is damaged, hostile, incomplete or of another base nothing is run, unpacked or written."""

import io
import pickle
import struct
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fair_adaptors import ConfigError, InvalidAdaptorError, state_dicts
from fair_adaptors.convert import convert
from tests.checkpoints import (
    TEXT,
    TOKENS,
    Hostile,
    State,
    as_bytes,
    converted,
    refused,
    saved,
    text_checkpoint,
    token_checkpoint,
    zipped,
)

FIRST = "text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.down.weight"


def nested(tensor: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it may still change
        return torch.nested.nested_tensor([tensor, tensor[:1]])


WRONG: dict[str, tuple[Callable[[State], Any], str]] = {
    "a layer is missing": (lambda t: {k: v for k, v in t.items() if "layers.1.mlp.fc2" not in k}, "1 of 12 layers"),
    "half a pair is missing": (lambda t: {k: v for k, v in t.items() if k != FIRST}, "missing from a pair"),
    "a key is unknown": (lambda t: {**t, "text_model.final.weight": t[FIRST]}, "unexpected keys: 'text_model.final"),
    "a layer is too much": (
        lambda t: {**t, **{k.replace("layers.0", "layers.9"): v for k, v in t.items()}},
        "unexpected keys",
    ),
    "a layer is one that they do not train": (
        lambda t: {**t, "mid_block.attentions.0.processor.proj_in_lora.down.weight": torch.zeros(3, 64, 1, 1)},
        "unexpected keys: 'mid_block.att",
    ),
    "a shape is wrong": (lambda t: {**t, FIRST: torch.zeros(3, 31)}, r"shapes \[3, 31\]"),
    "the ranks of a pair differ": (lambda t: {**t, FIRST: torch.zeros(2, 32)}, r"shapes \[2, 32\]"),
    "a factor is one row": (lambda t: {**t, FIRST.replace("down", "up"): torch.zeros(64)}, r"\[64\] are not"),
    "the rank is 0": (lambda t: {k: v[:0] if "down" in k else v[:, :0] for k, v in t.items()}, "are not a LoRA"),
    "the ranks of layers differ": (
        lambda t: {**t, FIRST: torch.zeros(9, 32), FIRST.replace("down", "up"): torch.zeros(64, 9)},
        "share one rank, and have 3, 9",
    ),
    "a value is not a number": (lambda t: {**t, FIRST: torch.full((3, 32), float("nan"))}, f"{TEXT}: .*not finite"),
    "a value is infinite": (lambda t: {**t, FIRST: torch.full((3, 32), float("inf"))}, f"{TEXT}: .*not finite"),
    "a value of the second factor is not a number": (
        lambda t: {**t, FIRST.replace("down", "up"): torch.full((64, 3), float("nan"))},
        f"{TEXT}: .*not finite",
    ),
    "the second factor is of integers": (
        lambda t: {**t, FIRST.replace("down", "up"): torch.zeros(64, 3, dtype=torch.int64)},
        f"{TEXT}: .*floating",
    ),
    "a tensor is of integers": (lambda t: {**t, FIRST: torch.zeros(3, 32, dtype=torch.int64)}, f"{TEXT}: .*floating"),
    "a tensor is of complex numbers": (
        lambda t: {**t, FIRST: torch.zeros(3, 32, dtype=torch.cfloat)},
        "weights: torch.c",
    ),
    "a tensor is sparse": (lambda t: {**t, FIRST: t[FIRST].to_sparse()}, "not a tensor of weights"),
    "a tensor is nowhere": (lambda t: {**t, FIRST: torch.zeros(3, 32, device="meta")}, "on meta"),
    "a tensor is nested": (lambda t: {**t, FIRST: nested(t[FIRST])}, "not a tensor of weights: torch.float32 on cpu"),
    "a tensor says to be huge": (lambda t: {**t, FIRST: torch.zeros(1, 1).expand(10**6, 10**6)}, "holds 4,.* bytes"),
    "a value is a text": (lambda t: {**t, FIRST: "text"}, "not a tensor of weights: str"),
    "it is nested": (lambda t: {"state_dict": t}, "not a tensor of weights: dict"),
    "a key is a number": (lambda t: {1: t[FIRST]}, "no dictionary of tensors"),
    "it is a list": (lambda t: [*t], "no dictionary"),
    "it is empty": (lambda t: {}, "no dictionary"),
}


WRONG_TOKENS: dict[str, tuple[Callable[[State], State], str]] = {
    "row 0 is not empty": (lambda t: {**t, "token_embedding.weight": torch.ones(6, 32)}, "row 0"),
    "there is no token": (lambda t: {**t, "token_embedding.weight": torch.zeros(1, 32)}, "do not fit"),
    "the width is another": (lambda t: {**t, "token_embedding.weight": torch.zeros(6, 31)}, "do not fit"),
    "a prompt has no room for them": (lambda t: {**t, "token_embedding.weight": torch.zeros(16, 32)}, "do not fit"),
    "positions are missing": (lambda t: {k: v for k, v in t.items() if k != "position_ids"}, "missing: 'position_ids"),
    "a key is unknown": (lambda t: {**t, "bias": torch.zeros(1)}, "missing: 'bias'"),
    "positions are of another length": (
        lambda t: {**t, "position_embedding.weight": torch.zeros(9, 32)},
        "do not fit",
    ),
    "positions are out of order": (lambda t: {**t, "position_ids": torch.zeros(1, 16, dtype=torch.int64)}, "0 to 15"),
    "a token is of whole numbers": (lambda t: {k: v.long() for k, v in t.items()}, f"{TOKENS} holds values"),
    "a value is not a number": (lambda t: {k: v / 0 if v.is_floating_point() else v for k, v in t.items()}, "finite"),
}
CASES = {(TEXT, case): wrong for case, wrong in WRONG.items()} | {
    (TOKENS, case): wrong for case, wrong in WRONG_TOKENS.items()
}


@pytest.mark.parametrize(("name", "case"), CASES)
def test_a_checkpoint_is_refused_when(tmp_path: Path, base: str, name: str, case: str) -> None:
    spoil, message = CASES[name, case]
    good = text_checkpoint() if name == TEXT else token_checkpoint()
    refused(saved(tmp_path / name, spoil(good)), tmp_path, message, base)


def test_a_checkpoint_of_another_base_is_refused(tmp_path: Path) -> None:
    refused(
        saved(tmp_path / TEXT, text_checkpoint()), tmp_path, r"are not a LoRA on the weight|layers are missing", "sd15"
    )


@pytest.mark.parametrize("legacy", [False, True])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path, base: str, legacy: bool) -> None:
    mark = tmp_path / "mark"
    tensors = {**text_checkpoint(), "x": Hostile(mark)}
    torch.save(tensors, tmp_path / TEXT, _use_new_zipfile_serialization=not legacy)
    refused(tmp_path / TEXT, tmp_path, "neither safetensors" if legacy else "a pickle could run code", base)
    (tmp_path / TEXT).write_bytes(pickle.dumps(Hostile(mark)))
    refused(tmp_path / TEXT, tmp_path, "neither safetensors", base)
    assert not mark.exists()


def test_what_a_hostile_file_makes_torch_say_can_be_printed(tmp_path: Path, base: str) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(as_bytes(text_checkpoint()))) as old, zipfile.ZipFile(data, "w") as new:
        for member in old.namelist():
            new.writestr(member, b"\x80\x02c\x1b[2Jos\nsystem\n." if member.endswith("data.pkl") else old.read(member))
    (tmp_path / TEXT).write_bytes(data.getvalue())
    with pytest.raises(InvalidAdaptorError, match="could run code") as refusal:
        converted(tmp_path / TEXT, tmp_path / "out", base)
    assert str(refusal.value).isprintable() and "os" in str(refusal.value)


def broken_files() -> dict[str, bytes]:
    good = as_bytes(text_checkpoint())
    flipped = bytearray(good)
    flipped[good.index(text_checkpoint()[FIRST].numpy().tobytes()) + 5] ^= 64
    return {
        "empty": b"",
        "text": b"<html>404</html>",
        "truncated": good[: len(good) // 2],
        "flipped": bytes(flipped),
        "header": (2**63).to_bytes(8, "little") + b"{}",
        "no zip": b"PK\x03\x04" + bytes(100),
    }


@pytest.mark.parametrize("case", ["empty", "text", "truncated", "flipped", "header", "no zip"])
@pytest.mark.parametrize("name", [TEXT, "x.safetensors"])
def test_a_broken_file_is_refused(tmp_path: Path, base: str, case: str, name: str) -> None:
    (tmp_path / name).write_bytes(broken_files()[case])
    refused(tmp_path / name, tmp_path, "neither safetensors|damaged", base)


@pytest.mark.parametrize("name", ["../x.pth", "/tmp/x.pth", "a/../../x.pth", "..\\x.pth", "C:x.pth", "a\nb.pth"])
def test_a_zip_whose_names_lead_elsewhere_is_refused(tmp_path: Path, base: str, name: str) -> None:
    refused(zipped(tmp_path / "x.zip", {name: as_bytes(text_checkpoint())}), tmp_path, "leads elsewhere", base)


def test_a_zip_with_a_link_is_refused(tmp_path: Path, base: str) -> None:
    link = zipfile.ZipInfo(TEXT)
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    refused(tmp_path / "x.zip", tmp_path, "is a link", base)


def patched(path: Path, offset: int, value: bytes) -> Path:
    """Change the first entry of a zip's table of contents."""
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\x01\x02") + offset
    data[start : start + len(value)] = value
    path.write_bytes(data)
    return path


def test_an_encrypted_zip_is_refused(tmp_path: Path, base: str) -> None:
    source = patched(zipped(tmp_path / "x.zip", {TEXT: as_bytes(text_checkpoint())}), 8, b"\x01")
    refused(source, tmp_path, "encrypted", base)


def test_a_zip_that_declares_more_than_an_adaptor_is_refused_before_it_is_read(tmp_path: Path, base: str) -> None:
    source = patched(zipped(tmp_path / "x.zip", {TEXT: bytes(1_000_000)}), 24, struct.pack("<I", 2**31))
    refused(source, tmp_path, "unpacked it would have 2,147,483,648 bytes", base)


def test_a_zip_that_holds_more_than_it_declares_is_not_read_further(tmp_path: Path, base: str) -> None:
    source = patched(zipped(tmp_path / "x.zip", {TEXT: bytes(50_000_000)}), 24, struct.pack("<I", 1000))
    tracemalloc.start()
    refused(source, tmp_path, "is damaged", base)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_a_zip_of_too_many_files_or_too_long_a_table_is_refused(tmp_path: Path, base: str) -> None:
    many = zipped(tmp_path / "many.zip", {f"{number}": b"" for number in range(state_dicts._MOST_FILES + 1)})
    refused(many, tmp_path, "members", base)
    size = state_dicts._MOST_TEXT_BYTES + 1
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, size, 0, 0)
    (tmp_path / "long.zip").write_bytes(b"PK" + bytes(size - 2) + end)
    refused(tmp_path / "long.zip", tmp_path, "table of contents is too long", base)


def test_a_zip_with_two_members_of_one_name_is_refused(tmp_path: Path, base: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        for seed in (1, 2):
            archive.writestr(TEXT, as_bytes(text_checkpoint(seed=seed)))
    refused(tmp_path / "x.zip", tmp_path, "two of its members have one name", base)


def test_a_file_whose_name_cannot_be_shown_is_refused(tmp_path: Path, base: str) -> None:
    source = saved(tmp_path / "checkpoint" / "a\nb.pth", text_checkpoint()).parent
    refused(source, tmp_path, r"name cannot be shown: 'a\\nb.pth'", base)


def test_a_way_of_compression_that_inflates_without_a_bound_is_refused(tmp_path: Path, base: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr(TEXT, as_bytes(text_checkpoint()))
    refused(tmp_path / "x.zip", tmp_path, "by a method that is not read", base)


def test_a_damaged_zip_is_refused(tmp_path: Path, base: str) -> None:
    source = patched(zipped(tmp_path / "x.zip", {TEXT: as_bytes(text_checkpoint())}), 16, b"\x00\x00\x00\x00")
    refused(source, tmp_path, "CRC", base)
    (tmp_path / "x.zip").write_bytes((tmp_path / "x.zip").read_bytes()[:-30])
    refused(tmp_path / "x.zip", tmp_path, "damaged zip", base)


def test_two_files_for_one_place_are_refused(tmp_path: Path, base: str) -> None:
    two = {f"run/checkpoint-{step}_exported/{TEXT}": as_bytes(text_checkpoint(seed=step)) for step in (1, 2)}
    refused(zipped(tmp_path / "x.zip", two), tmp_path, "in another file too", base)
    tokens = {f"{step}/{TOKENS}": as_bytes(token_checkpoint()) for step in (1, 2)}
    refused(zipped(tmp_path / "y.zip", tokens), tmp_path, "in another file too", base)


def test_a_file_of_weights_that_is_not_understood_is_not_passed_over(tmp_path: Path, base: str) -> None:
    files = {TEXT: as_bytes(text_checkpoint()), "optimizer.bin": as_bytes({"state": torch.zeros(3)})}
    refused(zipped(tmp_path / "x.zip", files), tmp_path, "optimizer.bin: unexpected keys", base)


def test_a_source_that_is_not_there_empty_or_ours_is_refused(tmp_path: Path, base: str) -> None:
    refused(tmp_path / "nothing.zip", tmp_path, "no file or folder", base)
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", tmp_path, "no file of weights", base)
    ours = converted(saved(tmp_path / TEXT, text_checkpoint()), tmp_path / "ours", base)
    refused(ours, tmp_path, "already an adaptor of this package", base)


def test_a_source_that_is_not_there_is_named_before_its_base_is_looked_for(tmp_path: Path) -> None:
    refused(tmp_path / "nothing.zip", tmp_path, "no file or folder", base="no-such-base")


@pytest.mark.parametrize("name", ["a\nb", "x" * 501])
def test_a_name_that_cannot_be_shown_is_refused_before_anything_is_read(tmp_path: Path, base: str, name: str) -> None:
    with pytest.raises(ConfigError, match="500 printable characters"):
        convert(tmp_path / "nothing.zip", tmp_path / "out", base=base, name=name, attributes=["gender"])
