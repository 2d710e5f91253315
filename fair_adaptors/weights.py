"""From a registry name, a folder or a Hub repository to a local folder with an adaptor's files."""

from pathlib import Path

from .errors import InvalidAdaptorError, NotPublishedError, UnknownAdaptorError
from .formats import CONFIG_FILE, TOKENS_FILE, WEIGHTS_FILE
from .registry import AdaptorInfo, find, list_adaptors


def resolve(
    name: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """Return the local folder of an adaptor, downloaded if need be. Its files are checked by ``read_adaptor``.

    Args:
        name: an existing folder, a name of the registry, or a Hub repository ``owner/name``. A folder goes first,
            but one without ``fair_adaptor.json`` does not hide an adaptor of the same name.
        revision: branch, tag or commit on the Hub.
        cache_dir, local_files_only, token: as for ``huggingface_hub.snapshot_download``.

    Raises:
        UnknownAdaptorError: nothing goes by that name, or the Hub cannot be asked.
        NotPublishedError: known, but not published.
        InvalidAdaptorError: the Hub repository is none of ours.
    """
    if not str(name).strip():
        raise UnknownAdaptorError("the name is empty; give a name of `fair-adaptors list`, a folder or a Hub id")
    text = str(name)
    try:
        folder = Path(name).expanduser()
        folder.is_dir()
    except (OSError, RuntimeError) as error:  # too long a name; a user that is not known
        raise UnknownAdaptorError(f"{text[:100]!r} is no folder and no name: {error}") from error
    known = isinstance(name, str) and any(name == info.name for info in list_adaptors())
    if folder.is_dir() and not (known and not (folder / CONFIG_FILE).is_file()):
        return folder
    if folder.is_file():
        raise UnknownAdaptorError(f"{text!r} is a file; give the folder that has it and its {CONFIG_FILE}")
    if isinstance(name, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1:
        raise UnknownAdaptorError(f"there is no folder {text!r}")
    if "/" not in text:
        info = find(text)
        if info.folder:
            return info.folder
        if info.repo_id is None:
            raise NotPublishedError(_how_to_get(info))
        text, revision = info.repo_id, revision or info.revision
    return _download(text, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only, token=token)


def _how_to_get(info: AdaptorInfo) -> str:
    return (
        f"{info.name!r} is not published: nobody has put its weights on the Hub. It is for {info.base_model}; give"
        " load_fair_adaptor the folder or Hub id of one that you have"
    )


def _download(
    repo_id: str,
    *,
    revision: str | None,
    cache_dir: str | Path | None,
    local_files_only: bool,
    token: str | bool | None,
) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    at = f" at revision {revision!r}" if revision else ""
    try:
        folder = snapshot_download(
            repo_id,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
            allow_patterns=[WEIGHTS_FILE, TOKENS_FILE, CONFIG_FILE],
        )
    except (HFValidationError, OSError) as error:  # all that the Hub's client raises for HTTP and its cache is OSError
        raise UnknownAdaptorError(
            f"{repo_id!r}{at} is neither a folder here nor a Hub repository that can be read: {_reason(error)}"
        ) from error
    if not (Path(folder) / CONFIG_FILE).is_file():
        raise InvalidAdaptorError(
            f"the Hub repository {repo_id!r}{at} has no {CONFIG_FILE}, so it is no adaptor of this package (or only a"
            " part of it is in the cache). Try pipe.load_lora_weights"
        )
    return Path(folder)


def _reason(error: Exception) -> str:
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    if isinstance(error, LocalEntryNotFoundError):
        return "it is not in the cache, and the Hub was not asked or did not answer"
    if isinstance(error, RepositoryNotFoundError):
        return "there is none of that name, or it is private (see token)"
    return str(error).strip().partition("\n")[0] or type(error).__name__
