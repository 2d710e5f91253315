"""Bring adaptors here: from the Hub, or from the archives of the paper's authors."""

import os
import shutil
from functools import partial
from pathlib import Path

from fair_adaptors.adaptor.archives import ARCHIVES
from fair_adaptors.adaptor.folder import read_adaptor
from fair_adaptors.adaptor.registry import find, list_adaptors
from fair_adaptors.errors import ConfigError, InvalidAdaptorError, UnknownAdaptorError
from fair_adaptors.files import check_writable, refuse_existing, written_aside

from .archive import fetch_archive
from .download import download
from .files import is_part
from .published import fetch_published
from .resolve import check_pinned, resolve


def pull(
    name: str,
    *,
    out: str | Path | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
    source: str | Path | None = None,
) -> Path:
    """Download an adaptor with its card, results and pictures, and check it.

    Args:
        name: a Hub repository, a name from ``fair-adaptors list``, or an archive of the paper's authors, such as
            ``data.zip``, which always stays in the cache.
        out: a new or empty folder to copy it to. By default it stays in the cache.
        revision: branch, tag or commit on the Hub.
        cache_dir: cache folder, as in ``from_pretrained``.
        token: as for ``huggingface_hub.HfApi``.
        endpoint: another server than huggingface.co.
        source: the authors' archive, if you have downloaded it yourself.

    Returns:
        The folder with the adaptor, or the archive.

    Raises:
        UnknownAdaptorError, NotPublishedError, HubError, ArchiveError: it cannot be had.
        InvalidAdaptorError: it is not an adaptor, or not the one that its own record describes.
        ConfigError: ``out`` is taken, or cannot be written; or a file at hand was given for something else.
    """
    if archive := ARCHIVES.get(name):
        if out is not None:
            raise ConfigError(f"{name} always stays in the cache; leave out `out`")
        return fetch_archive(archive, source=source, cache_dir=cache_dir)
    target = Path(out).expanduser() if out is not None else None
    if target is not None:
        refuse_existing(target)
        check_writable(target)
    _refuse_path(name)
    info = None if "/" in name else find(name)
    if info is not None and info.checkpoint is not None and revision is None:
        folder = fetch_published(info, source=source, cache_dir=cache_dir)
        try:
            read_adaptor(folder)
        except InvalidAdaptorError:  # it was damaged in the cache
            folder = fetch_published(info, cache_dir=cache_dir, force=True)
    elif source is not None:
        raise ConfigError(f"{name} is not an adaptor of the paper's authors, so no archive of theirs can have it")
    elif info is not None and info.repo_id is None:
        folder = resolve(name, revision=revision)
    else:
        repo_id, pinned = (name, None) if info is None else (str(info.repo_id), info.revision)
        fetch = partial(
            download,
            repo_id,
            revision=revision or pinned,
            cache_dir=cache_dir,
            token=token,
            endpoint=endpoint,
            wanted="everything",
        )
        folder = fetch()
        try:
            read_adaptor(folder)
        except InvalidAdaptorError:  # of a mirror that tells no hashes, the cache may have a damaged copy
            folder = fetch(force=True)
        if info is not None and revision is None:
            check_pinned(folder, info)
    read_adaptor(folder)
    if target is None:
        return folder
    with written_aside(target) as aside:
        for path in sorted(folder.rglob("*")):
            part = path.relative_to(folder).as_posix()
            if path.is_file() and is_part(part):
                (aside / part).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, aside / part)
    return target


def _refuse_path(name: str) -> None:
    """Say of a folder on this machine, which can be neither a Hub repository nor a known name, that it is here."""
    known = "/" in name or any(name == info.name for info in list_adaptors())
    if name and (name.startswith((".", "/", "~")) or not known) and os.path.exists(os.path.expanduser(name)):
        raise UnknownAdaptorError(
            f"{name!r} is a folder on this machine: give it to load_fair_adaptor as it is. From the Hub, pull ORG/NAME"
        )
