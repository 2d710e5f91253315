"""From a registry name, a folder or a Hub repository to a local folder with an adaptor's files."""

import shlex
from functools import partial
from pathlib import Path

from fair_adaptors.adaptor.record import CONFIG_FILE, pickles_in, read_record
from fair_adaptors.adaptor.registry import AdaptorInfo, find, list_adaptors
from fair_adaptors.errors import InvalidAdaptorError, NotPublishedError, UnknownAdaptorError

from .download import download
from .files import Wanted
from .published import fetch_published

_WEIGHTS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".zip")


def resolve(
    name: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    endpoint: str | None = None,
    wanted: Wanted = "needed",
) -> Path:
    """Return the local folder of an adaptor, downloaded if need be. Its files are checked by ``read_adaptor``.

    Args:
        name: an existing folder, a name of the registry, or a Hub repository ``owner/name``. A folder goes first,
            but one without ``fair_adaptor.json`` does not hide an adaptor of the same name.
        revision: branch, tag or commit on the Hub.
        wanted: which files, of an adaptor on the Hub. One that the authors published is always had whole.
        cache_dir, local_files_only, token, endpoint: as for ``huggingface_hub.snapshot_download``.

    Raises:
        UnknownAdaptorError: nothing goes by that name, it is a file, or the Hub may not be asked.
        NotPublishedError: known, but not published.
        InvalidAdaptorError: the folder has other people's weights, or the Hub repository is none of ours, or not the
            one that the registry's name stands for.
        HubError: the Hub gives no access or no answer.
        ArchiveError: the archive of the paper's authors cannot be had.
    """
    if not str(name).strip():
        raise UnknownAdaptorError("the name is empty; give a name of `fair-adaptors list`, a folder or a Hub id")
    text = str(name)
    try:
        folder = Path(name).expanduser()
        folder.is_dir()
    except (OSError, RuntimeError) as error:  # too long a name; a user that is not known
        raise UnknownAdaptorError(f"{text[:100]!r} is neither a folder nor a name: {error}") from error
    known = isinstance(name, str) and any(name == info.name for info in list_adaptors())
    if folder.is_dir() and not (known and not (folder / CONFIG_FILE).is_file()):
        _refuse_revision(text, revision)
        if not (folder / CONFIG_FILE).is_file() and any(path.suffix in _WEIGHTS for path in folder.iterdir()):
            raise InvalidAdaptorError(
                f"{folder} is not an adaptor folder: it has no {CONFIG_FILE}{pickles_in(folder)}. {_converted(folder)}"
            )
        return folder
    if folder.suffix in _WEIGHTS and folder.is_file() and not (folder.parent / CONFIG_FILE).is_file():
        raise UnknownAdaptorError(f"{text!r} is a file, not an adaptor folder. {_converted(folder)}")
    if folder.is_file():
        raise UnknownAdaptorError(f"{text!r} is a file; give the folder that holds it and its {CONFIG_FILE}")
    if isinstance(name, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1:
        raise UnknownAdaptorError(f"there is no folder {text!r}")
    fetch = partial(
        download, cache_dir=cache_dir, local_files_only=local_files_only, token=token, endpoint=endpoint, wanted=wanted
    )
    if "/" in text:
        return fetch(text, revision=revision)
    info = find(text)
    if info.folder:
        _refuse_revision(text, revision)
        return info.folder
    if info.checkpoint is not None:
        if revision is not None:
            raise UnknownAdaptorError(
                f"{text!r} is one of the authors' adaptors, which have no revisions; leave out {revision!r}"
            )
        return fetch_published(info, cache_dir=cache_dir, local_files_only=local_files_only)
    if info.repo_id is None:
        raise NotPublishedError(
            f"{text!r} is not published: nobody has put its weights on the Hub. It is for {info.base_model}:"
            f" {info.how_to_get}, and give load_fair_adaptor the folder"
        )
    folder = fetch(info.repo_id, revision=revision or info.revision)
    if revision is None:
        check_pinned(folder, info)
    return folder


def _converted(place: Path) -> str:
    """Name the command that makes an adaptor of other people's weights."""
    command = f"fair-adaptors convert {shlex.quote(str(place))} --base sd15 --attribute gender --out FOLDER"
    return f"If it is a LoRA or a checkpoint of sd15, sd21 or sdxl, `{command}` makes an adaptor of it"


def _refuse_revision(text: str, revision: str | None) -> None:
    if revision is not None:
        raise UnknownAdaptorError(f"{text!r} is on this machine and has no revisions; leave out {revision!r}")


def check_pinned(folder: Path, info: AdaptorInfo) -> None:
    """Refuse an adaptor that has other weights than those the table names by their sha256.

    Raises:
        InvalidAdaptorError: it has.
    """
    if info.sha256 is not None and (found := read_record(folder).identity) != info.sha256:
        raise InvalidAdaptorError(
            f"{folder} is not the adaptor {info.name!r} that this package knows: its weights have the sha256"
            f" {found[:12]}…, not {info.sha256[:12]}…. Do not use it"
        )
