"""From a registry name, a folder or a Hub repository to a local folder with an adaptor's files."""

from pathlib import Path

from .errors import NotPublishedError, UnknownAdaptorError
from .formats import CONFIG_FILE
from .hub_cache import download
from .registry import AdaptorInfo, find, list_adaptors


def resolve(
    name: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    endpoint: str | None = None,
) -> Path:
    """Return the local folder of an adaptor, downloaded if need be. Its files are checked by ``read_adaptor``.

    Args:
        name: an existing folder, a name of the registry, or a Hub repository ``owner/name``. A folder goes first,
            but one without ``fair_adaptor.json`` does not hide an adaptor of the same name.
        revision: branch, tag or commit on the Hub.
        cache_dir, local_files_only, token, endpoint: as for ``huggingface_hub.snapshot_download``.

    Raises:
        UnknownAdaptorError: nothing goes by that name, or the Hub may not be asked.
        NotPublishedError: known, but not published.
        InvalidAdaptorError: the Hub repository is none of ours.
        HubError: the Hub gives no access or no answer.
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
    return download(
        text, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only, token=token, endpoint=endpoint
    )


def _how_to_get(info: AdaptorInfo) -> str:
    return (
        f"{info.name!r} is not published: nobody has put its weights on the Hub. It is for {info.base_model}; give"
        " load_fair_adaptor the folder or Hub id of one that you have"
    )
