"""From a Hub repository to a folder in the Hub's cache with the very files of one commit."""

import logging
import os
import re
import threading
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from fair_adaptors.adaptor.record import CONFIG_FILE, read_config
from fair_adaptors.errors import HubError, HubUnreachableError, InvalidAdaptorError, UnknownAdaptorError

from .client import ask, check_repo_id, connect
from .download import Source, fetch_file
from .files import MOST_BYTES, Wanted, is_part

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

_MOST_CONFIG_BYTES = 4_000_000
_MOST_TEXT_BYTES = 3 * _MOST_CONFIG_BYTES  # record, card and results
_MOST_FILES = 200
_MOST_ENTRIES = 10_000
_PATIENCE_WITH_A_COPY = 3.0  # seconds
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REVISION = re.compile(r"[\w.@+-]+(/[\w.@+-]+)*")

logger = logging.getLogger(__name__)


def download(
    repo_id: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    endpoint: str | None = None,
    wanted: Wanted = "needed",
) -> Path:
    """Return the snapshot in the Hub's cache of an adaptor's repository at one commit, with only its files.

    What comes over the network is compared with the hashes of the commit before it may stay in the cache. If the
    server cannot be reached, a copy in the cache is used, and a warning is logged.

    Args:
        wanted: which files; see ``is_part``. Unless it is what loading needs, what is in the cache is checked too, and
            a mere description does not become what the revision means in the cache.

    Raises:
        UnknownAdaptorError: no such repository or revision, or not in the cache when nothing else may be asked.
        HubError: no access, no answer, or other bytes than those of the commit.
        InvalidAdaptorError: the repository holds none of our adaptors, or one of a size that none has.
    """
    from huggingface_hub import is_offline_mode

    check_repo_id(repo_id)
    api = connect(endpoint, token)
    what = f"{repo_id!r}" + (f" at revision {revision[:100]!r}" if revision else "")
    if revision and (len(revision) > 200 or ".." in revision or not _REVISION.fullmatch(revision)):
        raise UnknownAdaptorError(f"{what}: no branch, tag or commit can have this name")
    if local_files_only or is_offline_mode():
        snapshot = _in_cache(repo_id, revision, cache_dir)
        if snapshot is None:
            raise UnknownAdaptorError(
                f"{what} is neither a folder here nor a Hub repository that can be read: it is not in the cache, and"
                " the Hub was not asked, because HF_HUB_OFFLINE is set or local_files_only was asked for"
            )
        if not (snapshot / CONFIG_FILE).is_file():
            raise InvalidAdaptorError(_not_ours(what, " (or only a part of it is in the cache)"))
        return snapshot
    cached = _in_cache(repo_id, revision, cache_dir, whole=wanted != "description")
    if cached is not None and revision == cached.name and wanted == "needed":
        return cached  # a commit never changes
    try:
        soon = None if cached is None else _PATIENCE_WITH_A_COPY
        info = ask(api, what, lambda: api.model_info(repo_id, revision=revision or "main"), patience=soon)
        commit = str(info.sha)
        if not _COMMIT.fullmatch(commit):
            raise HubError(f"{what}: {api.endpoint} names no commit; it does not seem to be a Hub")
        return _fetch(Source(api, repo_id, commit, what, cache_dir), revision or "main", wanted)
    except HubUnreachableError as error:
        if cached is None:
            raise
        logger.warning("%s. Using the copy in the cache, of commit %s.", error, cached.name[:12])
        return cached


def _in_cache(repo_id: str, revision: str | None, cache_dir: str | Path | None, *, whole: bool = False) -> Path | None:
    """Return the snapshot of a revision; with ``whole`` only if it has all that loading needs."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    root = Path(cache_dir or constants.HF_HUB_CACHE).expanduser()
    folder = root / repo_folder_name(repo_id=repo_id, repo_type="model")
    ref = _ref(folder, revision or "main")
    commit = ref.read_text().strip() if ref is not None and ref.is_file() else revision
    snapshot = folder / "snapshots" / str(commit)
    if not (commit and _COMMIT.fullmatch(commit) and snapshot.is_dir()):
        return None
    if whole:
        try:
            files = read_config(snapshot)["files"]
            if any((snapshot / file).stat().st_size != record["bytes"] for file, record in files.items()):
                return None
        except (InvalidAdaptorError, FileNotFoundError):
            return None
    return snapshot


def _ref(folder: Path, revision: str) -> Path | None:
    """Return the file in which a repository in the cache keeps the commit of a branch or tag."""
    ref = folder / "refs" / revision
    return ref if ref.is_relative_to(folder / "refs") and ".." not in ref.parts else None


def _not_ours(what: str, perhaps: str = "") -> str:
    return (
        f"the Hub repository {what} has no {CONFIG_FILE}, so it is no adaptor of this package{perhaps}. Try"
        " pipe.load_lora_weights"
    )


def _fetch(source: Source, revision: str, wanted: Wanted) -> Path:
    """Bring the files of a commit into the cache, and let the revision point at it when all are there."""
    from huggingface_hub import try_to_load_from_cache

    listed = _listed(source, recursive=wanted == "everything")
    files = [file for file in listed if is_part(file.path, wanted)]
    files.sort(key=lambda file: file.path == CONFIG_FILE)
    if not files or files[-1].path != CONFIG_FILE:
        raise InvalidAdaptorError(_not_ours(source.what))
    size = sum(file.size for file in files)
    most = _MOST_TEXT_BYTES if wanted == "description" else MOST_BYTES
    if size > most or len(files) > _MOST_FILES:
        raise InvalidAdaptorError(
            f"{source.what} has {len(files)} files of {size:,} bytes; an adaptor has at most {_MOST_FILES} of"
            f" {most:,} bytes. Nothing was downloaded"
        )
    # The config is the last to come: where it is, the others were checked when they came.
    config = try_to_load_from_cache(source.repo_id, CONFIG_FILE, source.cache_dir, source.commit)
    check = wanted != "needed" or not isinstance(config, str)
    paths = [fetch_file(source, file, check=check or file.path == CONFIG_FILE) for file in files]
    if wanted != "description":
        _point_at(paths[-1].parents[2], revision, source.commit)
    return paths[-1].parent


def _listed(source: Source, *, recursive: bool) -> "list[RepoFile]":
    """Return the files of a commit that the server lists, without what no file is."""
    from huggingface_hub.hf_api import RepoFile

    def listing() -> "list[RepoFile]":
        entries = source.api.list_repo_tree(source.repo_id, revision=source.commit, recursive=recursive)
        files = [entry for entry in islice(entries, _MOST_ENTRIES) if isinstance(entry, RepoFile)]
        return [file for file in files if isinstance(file.path, str) and isinstance(file.size, int) and file.size >= 0]

    return ask(source.api, source.what, listing)


def fetch_config(api: "HfApi", repo_id: str, commit: str, *, cache_dir: str | Path | None = None) -> Path:
    """Bring only the ``fair_adaptor.json`` of a commit into the cache, and return the folder that it is in.

    Raises:
        InvalidAdaptorError: there is none, or it is too large to be one of ours.
        HubError, UnknownAdaptorError: as for ``download``.
    """
    source = Source(api, repo_id, commit, f"{repo_id!r}", cache_dir)
    for file in _listed(source, recursive=False):
        if file.path == CONFIG_FILE and file.size <= _MOST_CONFIG_BYTES:
            return fetch_file(source, file, check=True).parent
    raise InvalidAdaptorError(_not_ours(source.what))


def _point_at(repository: Path, revision: str, commit: str) -> None:
    """Let a branch or tag mean a commit in the cache."""
    if revision == commit:
        return
    ref = _ref(repository, revision)
    if ref is None or (ref.is_file() and ref.read_text() == commit):
        return
    try:
        ref.parent.mkdir(parents=True, exist_ok=True)
        aside = ref.with_name(f".{ref.name}-{os.getpid()}-{threading.get_ident()}")
        aside.write_text(commit)
        os.replace(aside, ref)
    except OSError as error:  # a cache that may only be read: what is asked for is there all the same
        logger.warning("%s cannot be written: %s", ref, error)
