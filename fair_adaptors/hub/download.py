"""Of a commit of a Hub repository, an adaptor's files and no others, into the Hub's cache."""

import logging
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fair_adaptors.adaptor.record import CONFIG_FILE, read_record
from fair_adaptors.errors import HubError, HubUnreachableError, InvalidAdaptorError, UnknownAdaptorError

from .client import ask, check_repo_id, connect, look_up, size_of, without_xet
from .files import MOST_BYTES, Wanted, has_bytes_of, is_part

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

_MOST_CONFIG_BYTES = 4_000_000
_MOST_TEXT_BYTES = 3 * _MOST_CONFIG_BYTES  # record, card and results
_MOST_FILES = 200
_PATIENCE_WITH_A_COPY = 3.0  # seconds
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REVISION = re.compile(r"[\w.@+-]+(/[\w.@+-]+)*")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Source:
    """A commit of a repository, what it is called in errors, and the cache that it goes to."""

    api: "HfApi"
    repo_id: str
    commit: str
    what: str
    cache_dir: Path


def download(
    repo_id: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    endpoint: str | None = None,
    wanted: Wanted = "needed",
    force: bool = False,
) -> Path:
    """Return the snapshot in the Hub's cache of an adaptor's repository at one commit, with only its files.

    The files are compared with the hashes of the commit, where the server tells them, and what is damaged is fetched
    once more. A commit of which the cache has all that loading needs is not asked for again. If the server cannot be
    reached, a copy in the cache is used, and a warning is logged.

    Args:
        wanted: which files; see ``is_part``. A mere description does not become what the revision means in the cache.
        force: fetch what is in the cache once more.

    Raises:
        UnknownAdaptorError: no such repository or revision, or not in the cache when nothing else may be asked.
        HubError: no access, no answer, or other bytes than those of the commit.
        InvalidAdaptorError: the repository holds none of our adaptors, or one of a size that none has.
    """
    from huggingface_hub import constants, is_offline_mode

    check_repo_id(repo_id)
    api, cache = connect(endpoint, token), Path(cache_dir or constants.HF_HUB_CACHE).expanduser()
    what = f"{repo_id!r}" + (f" at revision {revision[:100]!r}" if revision else "")
    if revision and (len(revision) > 200 or ".." in revision or not _REVISION.fullmatch(revision)):
        raise UnknownAdaptorError(f"{what}: no branch, tag or commit can have this name")
    cached = _in_cache(repo_id, revision, cache)
    if local_files_only or is_offline_mode():
        if cached is None:
            raise UnknownAdaptorError(
                f"{what} is neither a folder here nor a Hub repository that can be read: it is not in the cache, and"
                " the Hub was not asked, because HF_HUB_OFFLINE is set or local_files_only was asked for"
            )
        if not (cached / CONFIG_FILE).is_file():
            raise InvalidAdaptorError(_not_ours(what, repo_id, " (or only a part of it is in the cache)"))
        return cached
    if cached is not None and wanted != "description" and not is_whole(cached):
        cached = None
    if cached is not None and revision == cached.name and wanted == "needed":
        return cached  # a commit never changes
    try:
        soon = None if cached is None else _PATIENCE_WITH_A_COPY
        branch = revision or constants.DEFAULT_REVISION
        info = look_up(api, repo_id, branch, what=what, patience=soon)
        if not _COMMIT.fullmatch(str(info.sha)):
            raise HubError(f"{what}: {api.endpoint} names no commit; it does not seem to be a Hub")
        source = _Source(api, repo_id, str(info.sha), what, cache)
        folder = _fetch(source, _listed(source, info, wanted), force=force)
    except HubUnreachableError as error:
        if cached is None:
            raise
        logger.warning("%s. Using the copy in the cache, of commit %s.", error, cached.name[:12])
        return cached
    if wanted != "description":
        _point_at(folder, branch)
    return folder


def fetch_config(api: "HfApi", repo_id: str, commit: str, *, cache_dir: str | Path | None = None) -> Path:
    """Bring only the ``fair_adaptor.json`` of a commit into the cache, and return the folder that it is in.

    Raises:
        HubError, UnknownAdaptorError: as for ``download``.
    """
    from huggingface_hub import constants

    source = _Source(api, repo_id, commit, f"{repo_id!r}", Path(cache_dir or constants.HF_HUB_CACHE).expanduser())
    return _get(source, CONFIG_FILE, _MOST_CONFIG_BYTES).parent


def _in_cache(repo_id: str, revision: str | None, cache: Path) -> Path | None:
    """Return the snapshot of a revision."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                repo_id, revision=revision, cache_dir=cache, local_files_only=True, allow_patterns=CONFIG_FILE
            )
        )
    except (LocalEntryNotFoundError, OSError):  # it is not there, or the cache is not a folder
        return None


def is_whole(snapshot: Path) -> bool:
    """Tell whether a folder has all that loading needs, by the files' sizes."""
    try:
        files = read_record(snapshot).files
        return all((snapshot / name).stat().st_size == recorded.bytes for name, recorded in files.items())
    except (InvalidAdaptorError, FileNotFoundError):
        return False


def _not_ours(what: str, repo_id: str, perhaps: str = "") -> str:
    return (
        f"the Hub repository {what} has no {CONFIG_FILE}, so it is not an adaptor of this package{perhaps}. If it is a"
        f" LoRA of sd15, sd21 or sdxl, `fair-adaptors convert {repo_id} --base sdxl --attribute gender --out FOLDER`"
        " makes an adaptor of it"
    )


def _listed(source: _Source, info: "ModelInfo", wanted: Wanted) -> "list[RepoSibling]":
    """Return an adaptor's files with their sizes, the record last.

    Raises:
        InvalidAdaptorError: there is no record, or more than any adaptor has.
    """
    files = [file for file in info.siblings or () if is_part(str(file.rfilename), wanted)]
    files.sort(key=lambda file: file.rfilename == CONFIG_FILE)
    if not files or files[-1].rfilename != CONFIG_FILE:
        raise InvalidAdaptorError(_not_ours(source.what, source.repo_id))
    for file in files[:_MOST_FILES]:
        file.size = size_of(source.api, source.repo_id, source.commit, file)
    size = sum(file.size or 0 for file in files)
    most = _MOST_TEXT_BYTES if wanted == "description" else MOST_BYTES
    if size > most or len(files) > _MOST_FILES:
        raise InvalidAdaptorError(
            f"{source.what} has {len(files)} files of {size:,} bytes; an adaptor has at most {_MOST_FILES} of"
            f" {most:,} bytes. Nothing was downloaded"
        )
    return files


def _fetch(source: _Source, files: "list[RepoSibling]", *, force: bool) -> Path:
    """Bring the files of a commit into the cache, and return the folder that they are in.

    Raises:
        HubError: twice a file came with other bytes than those of the commit.
    """
    for file in files:
        for forced in (force, True):
            path = _get(source, file.rfilename, file.size or 0, force=forced)
            if _is_intact(path, file):
                break
        else:
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            raise HubError(
                f"{source.what}: {source.api.endpoint} sends other bytes for {file.rfilename} than those of commit"
                f" {source.commit[:12]}. Nothing was kept; try again later or from another network"
            )
    return path.parent


def _is_intact(path: Path, file: "RepoSibling") -> bool:
    """Tell whether a file has the bytes that the server says; those of a mirror that tells no hash may be any."""
    return (file.blob_id is None and file.lfs is None) or has_bytes_of(path, file)


def _get(source: _Source, name: str, size: int, *, force: bool = False) -> Path:
    """Return one file in the cache, fetched if it is not there, and never more of it than its size.

    Raises:
        HubError, UnknownAdaptorError: no access, no answer, or more bytes than these.
    """
    api, what = source.api, f"{source.what}: {name}"
    fetch = partial(api.hf_hub_download, source.repo_id, name, revision=source.commit, cache_dir=source.cache_dir)
    with without_xet():
        return Path(ask(api, what, lambda: fetch(force_download=force, tqdm_class=_bounded_by(size, what))))


def _bounded_by(size: int, what: str) -> Any:
    """Return a progress bar that ends a download which is larger than it should be: the client itself never does."""
    from huggingface_hub.utils import tqdm

    class Bounded(tqdm):
        seen = 0

        def update(self, n: float | None = 1) -> bool | None:
            self.seen += int(n or 0)
            if self.seen > size:
                raise HubError(f"{what}: the server sends more than the {size:,} bytes of its size. Nothing was kept")
            return super().update(n)

    return Bounded


def _point_at(snapshot: Path, revision: str) -> None:
    """Let a branch or tag mean a commit in the cache."""
    from huggingface_hub.file_download import _cache_commit_hash_for_specific_revision

    try:
        _cache_commit_hash_for_specific_revision(str(snapshot.parents[1]), revision, snapshot.name)
    except OSError as error:  # a cache that may only be read: what is asked for is there all the same
        logger.warning("%s: %s cannot be kept in the cache: %s", snapshot, revision, error)
