"""From a registry name, a folder or a Hub repository to a local folder with an adaptor's files."""

from pathlib import Path

from .errors import NotPublishedError, UnknownAdaptorError
from .formats import CONFIG_FILE, WEIGHTS_FILE
from .registry import AdaptorInfo, find


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
        name: an existing folder, a name of the registry, or a Hub repository ``owner/name``.
        revision: branch, tag or commit on the Hub.
        cache_dir, local_files_only, token: as for ``huggingface_hub.snapshot_download``.

    Raises:
        UnknownAdaptorError: nothing goes by that name, or the Hub cannot be asked.
        NotPublishedError: known, but only as a recipe.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    text = str(name)
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
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            repo_id,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
            allow_patterns=[WEIGHTS_FILE, CONFIG_FILE],
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        at = f" at revision {revision!r}" if revision else ""
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UnknownAdaptorError(
            f"{repo_id!r}{at} is neither a folder here nor a Hub repository that can be read: {reason}"
        ) from error
    return Path(folder)
