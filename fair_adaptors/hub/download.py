"""One file of a commit, into the Hub's cache: no larger than it is said to be, resumed where it broke off, compared.

It is written beside (``….incomplete``): under the cache's own name are only bytes that have the hash of the commit. It
comes by plain HTTP and not by Xet, so that every byte is counted before it is kept.
"""

import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fair_adaptors.errors import HubError

from .client import ask
from .files import has_bytes_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class Source:
    """A commit of a repository, what it is called in errors, and the cache that it goes to."""

    api: "HfApi"
    repo_id: str
    commit: str
    what: str
    cache_dir: str | Path | None


def fetch_file(source: Source, file: "RepoFile", *, check: bool) -> Path:
    """Return one file in the cache, with the bytes that the commit says.

    Args:
        check: whether to look at one that is in the cache already.

    Raises:
        HubError, UnknownAdaptorError: no access, no answer, or other bytes than those of the commit.
    """
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.file_download import repo_folder_name

    known = try_to_load_from_cache(source.repo_id, file.path, source.cache_dir, source.commit)
    if isinstance(known, str):
        if not check or has_bytes_of(Path(known), file):
            return Path(known)
        Path(known).unlink()
    digest = str(file.lfs.sha256 if file.lfs is not None else file.blob_id)
    if not _HASH.fullmatch(digest):  # it becomes the name of a file
        raise HubError(f"{source.what}: {source.api.endpoint} names no hash of {file.path}; it seems to be no Hub")
    cache = Path(source.cache_dir or constants.HF_HUB_CACHE).expanduser()
    folder = repo_folder_name(repo_id=source.repo_id, repo_type="model")
    blob = cache / folder / "blobs" / digest
    path = cache / folder / "snapshots" / source.commit / file.path
    try:
        _fetch_blob(source, file, blob, lock=cache / ".locks" / folder / f"{digest}.lock")
        _link(blob, path)
    except OSError as error:
        raise HubError(
            f"{source.what}: the cache {cache} cannot be written: {error.strerror}. Name another folder: HF_HOME or"
            " cache_dir"
        ) from error
    return path


def _fetch_blob(source: Source, file: "RepoFile", blob: Path, *, lock: Path) -> None:
    from huggingface_hub.utils import WeakFileLock

    for folder in (blob.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if blob.is_file() and has_bytes_of(blob, file):
            return
        blob.unlink(missing_ok=True)
        for _ in range(2):
            if ask(source.api, f"{source.what}: {file.path}", lambda: _download(source, file, blob)):
                return
    raise HubError(
        f"{source.what}: {source.api.endpoint} sends other bytes for {file.path} than those of commit"
        f" {source.commit[:12]}. Nothing of them was kept; try again later or from another network"
    )


def _download(source: Source, file: "RepoFile", blob: Path) -> bool:
    """Bring a file's bytes, going on from what an earlier attempt has left; tell whether they are the commit's.

    The server is asked about it first: the download itself waits minutes for one that does not answer.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    api = source.api
    url = hf_hub_url(source.repo_id, file.path, revision=source.commit, endpoint=api.endpoint)
    timeout = float(constants.HF_HUB_ETAG_TIMEOUT)
    told = get_hf_file_metadata(url, token=api.token, timeout=timeout, endpoint=api.endpoint)
    if told.size not in (None, file.size):
        raise HubError(
            f"{source.what}: of {file.path} the server tells another size than the commit: {told.size:,} bytes, not"
            f" {file.size:,}. Nothing of it was downloaded; try again later"
        )
    aside = blob.with_name(f"{blob.name}.incomplete")
    try:
        with _Bounded(aside, file.size) as opened:
            headers = build_hf_headers(token=api.token, library_name=api.library_name)
            http_get(url, opened, resume_size=opened.tell(), headers=headers, expected_size=file.size)
    except _TooLongError:
        aside.unlink()
        return False
    if not has_bytes_of(aside, file):
        aside.unlink()
        return False
    os.replace(aside, blob)
    return True


class _TooLongError(Exception):
    """A server sends more than it said."""


class _Bounded(io.FileIO):
    """A file to go on writing at its end, which takes no byte beyond a size."""

    def __init__(self, path: Path, most: int):
        super().__init__(path, "a")
        self._most = most
        if self.tell() > most:
            self.truncate(0)

    def write(self, data: bytes) -> int:  # type: ignore[override]
        if self.tell() + len(data) > self._most:
            raise _TooLongError
        return super().write(data)


def _link(blob: Path, path: Path) -> None:
    """Give a file in the cache its name in a snapshot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        path.symlink_to(os.path.relpath(blob, path.parent))
    except FileExistsError:  # another process was quicker
        pass
    except OSError:  # a file system without links
        os.replace(blob, path)
