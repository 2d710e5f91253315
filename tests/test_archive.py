"""The authors' archives: fetched once as Google Drive gives them, whole or not at all, and always the same."""

import hashlib
import os
import socket
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fair_adaptors.adaptor.archives import ARCHIVES, Archive
from fair_adaptors.errors import ArchiveError
from fair_adaptors.files import CACHE, cache_folder
from fair_adaptors.hub import archive as module
from fair_adaptors.hub.archive import fetch_archive
from tests.checkpoints import zipped
from tests.drive import FILES, PAGES, Drive, drive_server

ARCHIVE = ARCHIVES["exp-3-checkpoints.zip"]
RUN = "from-paper_finetune-text-encoder_09190230/checkpoint-12200_exported"
PAGE = "https://drive.google.com/file/d/1aYCBNnIJlj3nrIYd8o-D4ob02JLVQnpk/view"


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    """A zip of a megabyte and a half that cannot be packed any smaller."""
    return zipped(tmp_path / "made.zip", {f"{RUN}/weights.pth": os.urandom(1_500_000)}).read_bytes()


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch, data: bytes, tmp_path: Path) -> Iterator[Drive]:
    monkeypatch.setattr(module, "RETRIES", 1)
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    with drive_server(monkeypatch) as server:
        server.files[ARCHIVE.file_id] = data
        yield server


def kept() -> list[str]:
    """What is in the cache, but for the lock."""
    return sorted(path.name for path in (cache_folder() / "archives").iterdir() if not path.name.endswith(".lock"))


def test_an_archive_is_fetched_once_confirmed_shown_and_recorded(
    drive: Drive, data: bytes, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = fetch_archive(ARCHIVE)
    assert path == cache_folder() / "archives" / "exp-3-checkpoints.zip" and path.read_bytes() == data
    asked = [(host, "confirm" in query) for host, query in drive.log]
    assert asked == [(PAGES, False), (FILES, False), (FILES, True)]
    digest = hashlib.sha256(data).hexdigest()
    assert path.with_name("exp-3-checkpoints.zip.sha256").read_text() == f"{digest}  exp-3-checkpoints.zip\n"
    told = capsys.readouterr().err + caplog.text
    caplog.clear()
    assert PAGE in told and digest in told and "1.5 MB" in told and "100%" in told
    assert fetch_archive(ARCHIVE) == path and len(drive.log) == 3 and not capsys.readouterr().err + caplog.text


def test_an_archive_can_be_fetched_in_silence(
    drive: Drive, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert fetch_archive(ARCHIVE, progress=False).is_file()
    assert capsys.readouterr() == ("", "") and not caplog.text


def test_offline_is_said_of_an_archive_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nowhere(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", nowhere)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(module, "RETRIES", 0)
    monkeypatch.setenv(CACHE, str(tmp_path))
    with pytest.raises(ArchiveError, match=f"^{ARCHIVE.name} cannot be fetched: you seem to be offline.*--from FILE"):
        fetch_archive(ARCHIVE)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("quota", "Too many users have viewed or downloaded this file recently"),
        ("sign in", "a page that leads to no file"),
        ("404", "a page that leads to no file"),
        ("bare 404", "could not be fetched"),
        ("500", "could not be fetched"),
        ("confirms for ever", "sends pages and no file"),
        ("page as file", "it is a web page, not a zip"),
        ("cut", "incomplete"),
        ("cut, size unknown", "it is not a zip, or a damaged one"),
        ("silent", "Read timed out"),
    ],
)
def test_what_goes_wrong_is_said_with_the_page_and_nothing_stays(
    drive: Drive, monkeypatch: pytest.MonkeyPatch, fault: str, why: str
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", (1.0, 0.3))
    monkeypatch.setattr(module, "PATIENCE", 2.0)
    drive.fault = fault
    with pytest.raises(ArchiveError, match=why) as caught:
        fetch_archive(ARCHIVE)
    text = str(caught.value)
    assert PAGE in text and "fair-adaptors pull exp-3-checkpoints.zip --from FILE" in text and "\n" not in text
    assert kept() == []
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(1)
            assert not thread.is_alive()
    drive.fault = ""
    assert fetch_archive(ARCHIVE).is_file()


def test_a_download_that_breaks_off_is_taken_up_where_it_broke_off(drive: Drive, data: bytes) -> None:
    drive.fault = "broken off once"
    assert fetch_archive(ARCHIVE).read_bytes() == data
    assert drive.starts == [0, 2**19]  # gdown keeps whole blocks


def test_other_bytes_than_those_that_came_first_are_refused(drive: Drive, data: bytes, tmp_path: Path) -> None:
    first = hashlib.sha256(data).hexdigest()
    path = fetch_archive(ARCHIVE)
    path.unlink()
    drive.files[ARCHIVE.file_id] = zipped(tmp_path / "other.zip", {f"{RUN}/weights.pth": b"other"}).read_bytes()
    other = hashlib.sha256(drive.files[ARCHIVE.file_id]).hexdigest()
    for source in (None, tmp_path / "other.zip"):
        with pytest.raises(ArchiveError, match=f"{other}, and not {first}, which is in .*sha256 when it came first"):
            fetch_archive(ARCHIVE, source=source)
        assert kept() == ["exp-3-checkpoints.zip.sha256"]
    drive.files[ARCHIVE.file_id] = data
    assert fetch_archive(ARCHIVE).read_bytes() == data


def test_a_sha256_of_the_table_goes_before_the_recorded_one(drive: Drive, data: bytes, tmp_path: Path) -> None:
    fetch_archive(ARCHIVE)
    better = zipped(tmp_path / "better.zip", {f"{RUN}/weights.pth": b"better"}).read_bytes()
    known = Archive(ARCHIVE.name, ARCHIVE.file_id, sha256=hashlib.sha256(better).hexdigest())
    with pytest.raises(ArchiveError, match="in the table of this package") as caught:
        fetch_archive(known)
    assert "delete" not in str(caught.value)
    drive.files[ARCHIVE.file_id] = better
    assert fetch_archive(known).read_bytes() == better


def test_a_copy_that_was_damaged_in_the_cache_is_fetched_again(drive: Drive, data: bytes) -> None:
    path = fetch_archive(ARCHIVE)
    path.write_bytes(data[:-1] + b"x")
    assert fetch_archive(ARCHIVE).read_bytes() == data


def test_a_file_that_was_fetched_by_hand_does_without_google_drive(drive: Drive, data: bytes, tmp_path: Path) -> None:
    made = tmp_path / "made.zip"
    path = fetch_archive(ARCHIVE, source=made, cache_dir=tmp_path / "own", local_files_only=True)
    assert path.read_bytes() == data and path.is_relative_to(tmp_path / "own") and made.is_file()
    assert fetch_archive(ARCHIVE, cache_dir=tmp_path / "own", local_files_only=True) == path
    assert not drive.log and not (tmp_path / "cache").exists()


def test_a_file_that_is_given_is_looked_at_though_the_archive_is_there(drive: Drive, tmp_path: Path) -> None:
    path = fetch_archive(ARCHIVE)
    with pytest.raises(ArchiveError, match=f"^there is no file .*gone.zip; {ARCHIVE.name} can be fetched at {PAGE}"):
        fetch_archive(ARCHIVE, source=tmp_path / "gone.zip")
    (tmp_path / "page.zip").write_text("<html>")
    with pytest.raises(ArchiveError, match="it is a web page"):
        fetch_archive(ARCHIVE, source=tmp_path / "page.zip")
    assert fetch_archive(ARCHIVE) == path


def test_offline_nothing_is_asked_for(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArchiveError, match="nothing was fetched"):
        fetch_archive(ARCHIVE, local_files_only=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ArchiveError, match="HF_HUB_OFFLINE"):
        fetch_archive(ARCHIVE)
    assert not drive.log and not cache_folder().exists()


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../outside.pth", "leads elsewhere"),
        ("/etc/passwd", "leads elsewhere"),
        ("C:\\outside.pth", "leads elsewhere"),
        (link("run/weights.pth"), "is a link"),
        ("x" * 200, "unpacked it would have 200,000 bytes"),
    ],
)
def test_an_archive_that_holds_what_none_should_is_refused(
    drive: Drive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str | zipfile.ZipInfo, why: str
) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 100_000)
    with zipfile.ZipFile(tmp_path / "bad.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, b"0" * (200_000 if name == "x" * 200 else 10))
    drive.files[ARCHIVE.file_id] = (tmp_path / "bad.zip").read_bytes()
    for source in (None, tmp_path / "bad.zip"):
        with pytest.raises(ArchiveError, match=why):
            fetch_archive(ARCHIVE, source=source)
        assert kept() == []


def test_what_is_damaged_inside_or_too_large_is_refused(
    drive: Drive, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    drive.files[ARCHIVE.file_id] = data[:1000] + bytes(100) + data[1100:]
    with pytest.raises(ArchiveError, match="weights.pth' is damaged"):
        fetch_archive(ARCHIVE)
    drive.files[ARCHIVE.file_id] = data
    monkeypatch.setattr(module, "MOST_BYTES", 100_000)
    with pytest.raises(ArchiveError, match=f"^{ARCHIVE.name}: it has more than 100,000 bytes"):
        fetch_archive(ARCHIVE)
    assert kept() == []


def test_several_that_want_an_archive_at_once_fetch_it_once(drive: Drive, data: bytes) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(fetch_archive(ARCHIVE, progress=False))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3 and len(drive.log) == 3 and found[0].read_bytes() == data


def test_what_a_killed_process_left_is_cleared_away(drive: Drive) -> None:
    left = cache_folder() / "archives" / ".exp-3-checkpoints.zip.partial"
    left.mkdir(parents=True)
    (left / "half").touch()
    fetch_archive(ARCHIVE)
    assert kept() == ["exp-3-checkpoints.zip", "exp-3-checkpoints.zip.sha256"]


def test_a_cache_that_cannot_be_written_is_named(drive: Drive, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArchiveError, match="file.* cannot be written.*FAIR_ADAPTORS_CACHE"):
        fetch_archive(ARCHIVE, cache_dir=tmp_path / "file")


def test_the_cache_is_where_such_caches_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(CACHE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "fair-adaptors"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "fair-adaptors"
