"""From a Hub repository to a folder in the Hub's cache with the very files of one commit."""

import logging
import os
import re
import threading
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import HubError, HubUnreachableError, InvalidAdaptorError, UnknownAdaptorError
from .formats import CONFIG_FILE, read_config
from .hub_files import MOST_BYTES, has_bytes_of, is_part
from .hub_requests import ask, check_repo_id, connect

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

_MOST_CONFIG_BYTES = 4_000_000
_MOST_FILES = 200
_MOST_ENTRIES = 10_000
_PATIENCE_WITH_A_COPY = 3.0  # seconds
_COMMIT = re.compile(r"[0-9a-f]{40}")

logger = logging.getLogger(__name__)


def download(
    repo_id: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    endpoint: str | None = None,
    everything: bool = False,
) -> Path:
    """Return the snapshot in the Hub's cache of an adaptor's repository at one commit, with only its files.

    What comes over the network is compared with the hashes of the commit before it may stay in the cache. If the
    server cannot be reached, a copy in the cache is used, and a warning is logged.

    Args:
        everything: fetch what ``is_part`` allows and not only what loading needs; check what is in the cache too.

    Raises:
        UnknownAdaptorError: no such repository or revision, or not in the cache when nothing else may be asked.
        HubError: no access, no answer, or other bytes than those of the commit.
        InvalidAdaptorError: the repository holds none of our adaptors, or one of a size that none has.
    """
    from huggingface_hub import is_offline_mode

    check_repo_id(repo_id)
    api = connect(endpoint, token)
    what = f"{repo_id!r}" + (f" at revision {revision!r}" if revision else "")
    if local_files_only or is_offline_mode():
        snapshot = _in_cache(repo_id, revision, cache_dir)
        if snapshot is None:
            raise UnknownAdaptorError(
                f"{what} is neither a folder here nor a Hub repository that can be read: it is not in the cache, and"
                " the Hub was not asked"
            )
        if not (snapshot / CONFIG_FILE).is_file():
            raise InvalidAdaptorError(_not_ours(what, " (or only a part of it is in the cache)"))
        return snapshot
    cached = _in_cache(repo_id, revision, cache_dir, whole=True)
    if cached is not None and revision == cached.name and not everything:
        return cached  # a commit never changes
    try:
        soon = None if cached is None else _PATIENCE_WITH_A_COPY
        info = ask(api, what, lambda: api.model_info(repo_id, revision=revision or "main"), patience=soon)
        commit = str(info.sha)
        if not _COMMIT.fullmatch(commit):
            raise HubError(f"{what}: {api.endpoint} names no commit; it does not seem to be a Hub")
        return _fetch(api, repo_id, what, revision, commit, cache_dir, everything)
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


def _fetch(
    api: "HfApi",
    repo_id: str,
    what: str,
    revision: str | None,
    commit: str,
    cache_dir: str | Path | None,
    everything: bool,
) -> Path:
    """Bring the files of a commit into the cache, and let the revision point at it when all are there."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.hf_api import RepoFile

    def listing() -> "list[RepoFile]":
        entries = api.list_repo_tree(repo_id, revision=commit, recursive=everything)
        files = [entry for entry in islice(entries, _MOST_ENTRIES) if isinstance(entry, RepoFile)]
        return [file for file in files if is_part(file.path, everything=everything)]

    files = sorted(ask(api, what, listing), key=lambda file: file.path == CONFIG_FILE)  # the config comes last
    if not files or files[-1].path != CONFIG_FILE:
        raise InvalidAdaptorError(_not_ours(what))
    size = sum(file.size for file in files)
    if size > MOST_BYTES or len(files) > _MOST_FILES:
        raise InvalidAdaptorError(
            f"{what} has {len(files)} files of {size / 1e9:.1f} GB; an adaptor has at most {_MOST_FILES} of"
            f" {MOST_BYTES / 1e9:g} GB. Nothing was downloaded"
        )
    # The config is the last to come: where it is, the others were checked when they came.
    begun = everything or not isinstance(try_to_load_from_cache(repo_id, CONFIG_FILE, cache_dir, commit), str)
    paths = [
        _fetch_file(api, repo_id, what, file, commit, cache_dir, check=begun or file.path == CONFIG_FILE)
        for file in files
    ]
    _point_at(paths[-1].parents[2], revision or "main", commit)
    return paths[-1].parent


def fetch_config(api: "HfApi", repo_id: str, commit: str, *, cache_dir: str | Path | None = None) -> Path:
    """Bring only the ``fair_adaptor.json`` of a commit into the cache, and return the folder that it is in.

    Raises:
        InvalidAdaptorError: there is none, or it is too large to be one of ours.
        HubError, UnknownAdaptorError: as for ``download``.
    """
    from huggingface_hub.hf_api import RepoFile

    what = f"{repo_id!r}"
    entries = ask(api, what, lambda: list(islice(api.list_repo_tree(repo_id, revision=commit), _MOST_ENTRIES)))
    for entry in entries:
        if isinstance(entry, RepoFile) and entry.path == CONFIG_FILE and entry.size <= _MOST_CONFIG_BYTES:
            return _fetch_file(api, repo_id, what, entry, commit, cache_dir, check=True).parent
    raise InvalidAdaptorError(_not_ours(what))


def _fetch_file(
    api: "HfApi",
    repo_id: str,
    what: str,
    file: "RepoFile",
    commit: str,
    cache_dir: str | Path | None,
    *,
    check: bool,
) -> Path:
    """Return one file in the cache, with the bytes that the commit says; others never stay there."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    known = try_to_load_from_cache(repo_id, file.path, cache_dir=cache_dir, revision=commit)
    if isinstance(known, str):
        if not check or has_bytes_of(Path(known), file):
            return Path(known)
        _discard(Path(known))
    url = hf_hub_url(repo_id, file.path, revision=commit, endpoint=api.endpoint)
    timeout = float(constants.HF_HUB_ETAG_TIMEOUT)

    def get() -> Path:
        # Asked first, because the download itself waits minutes for a server that does not answer this.
        size = get_hf_file_metadata(url, token=api.token, timeout=timeout, endpoint=api.endpoint).size
        if size is not None and size != file.size:
            raise HubError(f"{what}: {file.path} has {size} bytes where the commit says {file.size}. Try again later")
        path = hf_hub_download(
            repo_id, file.path, revision=commit, cache_dir=cache_dir, token=api.token, endpoint=api.endpoint,
            etag_timeout=timeout,
        )  # fmt: skip
        return Path(path)

    for _ in range(2):
        path = ask(api, f"{what}: {file.path}", get)
        if has_bytes_of(path, file):
            return path
        _discard(path)
    raise HubError(
        f"{what}: {api.endpoint} sends other bytes for {file.path} than those of commit {commit[:12]}. Nothing of them"
        " was kept; try again later or from another network"
    )


def _discard(path: Path) -> None:
    """Take a file out of the cache: its name in the snapshot and its bytes."""
    blob = path.resolve()
    path.unlink(missing_ok=True)
    blob.unlink(missing_ok=True)


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
