"""What is read of strangers' files of weights is bounded, and is what was checked."""

import io
import zipfile
from pathlib import Path

import pytest
import torch

from fair_adaptors import InvalidAdaptorError, state_dicts
from fair_adaptors.state_dicts import read_state_dicts
from tests.checkpoints import TEXT, as_bytes, refused, saved, text_checkpoint


def test_what_torch_reads_is_a_copy_of_what_was_checked(tmp_path: Path) -> None:
    tensors = text_checkpoint()
    (tmp_path / TEXT).write_bytes(b"PK" + bytes(98) + as_bytes(tensors))  # torch itself would not find its start
    (found,), _ = read_state_dicts(tmp_path / TEXT)
    assert all(torch.equal(found.tensors[key], tensors[key]) for key in tensors)


def test_the_size_of_files_and_pickles_and_the_number_of_files_are_limited(
    tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = saved(tmp_path / "checkpoint" / TEXT, text_checkpoint())
    for limit, message in (
        ("BYTES", "an adaptor has less than 10"),
        ("TEXT_BYTES", "its pickle has"),
        ("FILES", "more than 10"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(state_dicts, f"_MOST_{limit}", 10)
            refused(source, tmp_path, message, base)
    for number in range(10):
        (source.parent / f"{number}.txt").touch()
    monkeypatch.setattr(state_dicts, "_MOST_FILES", 10)
    refused(source.parent, tmp_path, "has more than 10 files", base)


def test_what_all_files_hold_together_is_limited_and_what_tensors_share_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = torch.zeros(100_000)
    saved(tmp_path / "1.pth", {"start": values[:10], "end": values[10:20]})  # with all that they are views of
    monkeypatch.setattr(state_dicts, "_MOST_BYTES", 600_000)
    assert len(read_state_dicts(tmp_path)[0]) == 1
    saved(tmp_path / "2.pth", {"start": values[:10]})
    with pytest.raises(InvalidAdaptorError, match="holds 800,000 bytes of weights, more than 600,000"):
        read_state_dicts(tmp_path)


def test_records_that_are_compressed_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    """Otherwise many small archives in a zip would unpack into any number of bytes, one after the other."""
    plain = io.BytesIO()
    torch.save({"a": torch.zeros(4)}, plain)
    with zipfile.ZipFile(plain) as archive, zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as other:
        for member in archive.infolist():
            other.writestr(member.filename, archive.read(member))
    with pytest.raises(InvalidAdaptorError, match="compressed records"):
        read_state_dicts(tmp_path / "a.pth")
