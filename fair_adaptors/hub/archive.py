"""An archive of the paper's authors, from Google Drive or from a file at hand, once into this package's cache.

The authors publish no checksum. The sha256 that is seen first is recorded beside the archive, and whatever is fetched
later must have it.
"""

import hashlib
import logging
import os
import shutil
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from fair_adaptors.adaptor.archives import Archive
from fair_adaptors.errors import ArchiveError
from fair_adaptors.files import cache_folder
from fair_adaptors.progress import hidden
from fair_adaptors.state_dicts import problem_of

from .errors import is_offline, when_offline

logger = logging.getLogger(__name__)
TIMEOUT = (10.0, 30.0)
"""Seconds to connect, and without a byte, after which a request has failed."""
PATIENCE = 60.0
"""Seconds after which Google Drive must have come to the file itself, whatever pages it puts before it."""
RETRIES = 3
"""How often a download that broke off is taken up again."""
MOST_BYTES = 8_000_000_000
"""An archive that is larger, packed or unpacked, is refused."""


def fetch_archive(
    archive: Archive,
    *,
    source: str | Path | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    progress: bool = True,
) -> Path:
    """Return the zip of an archive in the cache, fetched if it is not there. Whoever waits for another gets its copy.

    Args:
        archive: a row of ``ARCHIVES``.
        source: a file that was fetched by hand, to take instead of a download; it is copied.
        cache_dir: a folder to use in place of ``cache_folder()``.
        local_files_only: fetch nothing, as with ``HF_HUB_OFFLINE``.
        progress: tell on the terminal what is fetched, and how far it is.

    Raises:
        ArchiveError: it cannot be had, is not a zip, holds what no archive should, or has other bytes than are known
            of it. Nothing of it is kept.
    """
    from huggingface_hub import is_offline_mode

    path = archive_path(archive, cache_dir)
    if source is None and _is_whole(path, archive):
        return path
    if source is None and (local_files_only or is_offline_mode()):
        raise ArchiveError(
            f"{archive.name} is not in the cache, and nothing was fetched, because HF_HUB_OFFLINE is set or"
            f" local_files_only was asked for. {_by_hand(archive)}"
        )
    with alone_in_the_cache(path):
        if source is None and _is_whole(path, archive):  # another process was quicker
            return path
        aside = path.with_name(f".{path.name}.partial")
        shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed
        aside.mkdir()
        try:
            if source is not None:
                _copy(Path(source).expanduser(), aside / path.name, archive)
            else:
                _download(archive, aside / path.name, progress=progress)
            _keep(aside / path.name, path, archive, progress=progress)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return path


@contextmanager
def alone_in_the_cache(path: Path) -> Iterator[None]:
    """Let nobody else write a path of the cache within the block.

    Raises:
        ArchiveError: it cannot be written.
    """
    from huggingface_hub.utils import WeakFileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(path.with_name(f".{path.name}.lock")):
            yield
    except OSError as error:
        raise ArchiveError(
            f"{path.name}: {error.filename or path.parent} cannot be written: {error.strerror or error}. Name another"
            " folder for the cache: FAIR_ADAPTORS_CACHE or cache_dir"
        ) from error


def archive_path(archive: Archive, cache_dir: str | Path | None = None) -> Path:
    """Return where an archive is in the cache, or would be."""
    return (cache_folder() if cache_dir is None else Path(cache_dir).expanduser()) / "archives" / archive.name


def _is_whole(path: Path, archive: Archive) -> bool:
    """Tell whether the cache has the archive, byte for byte."""
    return path.is_file() and (known := _known(path, archive)) is not None and _sha256(path) == known


def _known(path: Path, archive: Archive) -> str | None:
    """Return the sha256 that an archive must have: the table's, or that of the first copy."""
    record = _record(path)
    first = record.read_text(encoding="ascii", errors="replace")[:64] if record.is_file() else None
    return archive.sha256 or first


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(source: Path, path: Path, archive: Archive) -> None:
    if not source.is_file():
        raise ArchiveError(f"there is no file {source}; {archive.name} can be fetched at {archive.page}")
    shutil.copyfile(source, path)


def _download(archive: Archive, path: Path, *, progress: bool) -> None:
    """Fetch an archive with gdown, which knows the pages that Google Drive puts before a file."""
    from gdown import download

    _say(f"{archive.name}: from Google Drive, {archive.page}", progress)
    late = threading.Event()
    timer = threading.Timer(PATIENCE, late.set)
    bar = _Bar(archive, timer, progress)
    timer.daemon = True
    timer.start()
    try:
        download(
            id=archive.file_id,
            output=str(path),
            quiet=True,
            use_cookies=False,
            timeout=TIMEOUT,
            retries=RETRIES,
            progress=bar,
            cancel=late,
        )
    except ArchiveError:
        raise
    except Exception as error:  # an answer that gdown does not expect makes it raise nearly anything
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk
        why = f"cannot be fetched: {when_offline()}" if is_offline(error) else f"could not be fetched: {_why(error)}"
        raise ArchiveError(f"{archive.name} {why}. {_by_hand(archive)}") from error
    finally:
        timer.cancel()
        bar.close()


def _why(error: Exception) -> str:
    """Say in one line what an error of gdown means."""
    from gdown.exceptions import DownloadCancelled, DownloadError, FileURLRetrievalError

    if isinstance(error, DownloadCancelled):
        return f"Google Drive sends pages and no file, for {PATIENCE:.0f} s"
    said = str(error.__context__ if isinstance(error, FileURLRetrievalError) and error.__context__ else error)
    if isinstance(error, FileURLRetrievalError) and said.startswith("Cannot retrieve"):
        return "Google Drive answers with a page that leads to no file: too many have fetched it lately, or it is gone"
    line = "".join(filter(str.isprintable, said.partition("\n")[0]))[:300].rstrip(".")
    return line if isinstance(error, OSError | DownloadError) else f"{type(error).__name__}: {line}"


def _keep(new: Path, path: Path, archive: Archive, *, progress: bool) -> None:
    """Move an archive to its place in the cache if it is what it should be, and record its sha256.

    Raises:
        ArchiveError: it is not.
    """
    known, found = _known(path, archive), _sha256(new)
    if problem := _problem_of_zip(new, archive, whole=known is None):
        raise ArchiveError(f"this {archive.name} is refused: {problem}. {_by_hand(archive)}")
    if known not in (None, found):
        where = "in the table of this package" if archive.sha256 else f"in {_record(path)} when it came first"
        undo = "" if archive.sha256 else " If you trust the new one, delete that record."
        raise ArchiveError(
            f"this {archive.name} has the sha256 {found}, and not {known}, which is {where}: somebody changed"
            f" it, so it was not kept.{undo} {_by_hand(archive)}"
        )
    record = new.with_name(_record(path).name)
    record.write_text(f"{found}  {path.name}\n", encoding="ascii")
    os.replace(record, _record(path))
    os.replace(new, path)
    said = "as known" if known else "recorded beside it, as no checksum is published; a later copy must have it too"
    _say(f"{archive.name}: {path.stat().st_size / 1e6:,.1f} MB in {path}\nsha256 {found} ({said})", progress)


def _problem_of_zip(path: Path, archive: Archive, *, whole: bool) -> str | None:
    """Say why a file is not the archive, or may not be kept; None if all is well.

    Args:
        whole: read it to the end, and compare its members with their checksums.
    """
    try:
        with zipfile.ZipFile(path) as opened:
            members = opened.infolist()
            problem = next((problem for member in members if (problem := problem_of(member))), None)
            size = sum(member.file_size for member in members)
            if problem is None and size > MOST_BYTES:
                problem = f"unpacked it would have {size:,} bytes, more than {MOST_BYTES:,}"
            folders = {part for member in members for part in PurePosixPath(member.filename).parts[:-1]}
            if problem is None and (missing := set(archive.holds) - folders):
                problem = f"it has no folder {min(missing)}, so it is another file"
            if problem is None and whole and (damaged := opened.testzip()):
                problem = f"its member {damaged!r} is damaged"
            return problem
    except Exception as error:  # a damaged zip makes zipfile raise nearly anything
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk
        with path.open("rb") as file:
            page = file.read(500).lstrip().lower().startswith((b"<!doctype html", b"<html"))
        return "it is a web page, not a zip" if page else "it is not a zip, or a damaged one"


def _by_hand(archive: Archive) -> str:
    return (
        f"Open {archive.page} in a browser, download the file there, and give it:"
        f" fair-adaptors pull {archive.name} --from FILE"
    )


def _say(text: str, progress: bool) -> None:
    """Tell what a person should know who asked for an adaptor and gets a download: so it is a warning."""
    if progress:
        logger.warning(text)


class _Bar:
    """What gdown tells of its progress, as a bar. Its first bytes stop the timer; what is too large is ended."""

    def __init__(self, archive: Archive, timer: threading.Timer, progress: bool):
        from huggingface_hub.utils import tqdm

        self._archive, self._timer = archive, timer
        self._bar = tqdm(desc=archive.name, unit="B", unit_scale=True, disable=not progress or hidden())

    def __call__(self, done: int, total: int | None) -> None:
        if max(done, total or 0) > MOST_BYTES:
            raise ArchiveError(f"{self._archive.name}: it has more than {MOST_BYTES:,} bytes, so nothing was kept")
        self._timer.cancel()
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        self._bar.close()
