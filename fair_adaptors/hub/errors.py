"""What an error of the Hub's client means: whether it may pass, and which of our errors it is."""

import json
from pathlib import Path

from fair_adaptors.errors import FairAdaptorError, HubError, HubUnreachableError, UnknownAdaptorError

_NO_NETWORK = (
    "Name or service not known",
    "name resolution",
    "nodename nor servname",
    "getaddrinfo failed",
    "No address associated",
    "Network is unreachable",
)
_LOGIN = "(`hf auth login`, HF_TOKEN or token=)"


def root_of(error: BaseException) -> BaseException:
    """Return the error of the request itself, which the client may have put into others."""
    from huggingface_hub.errors import FileMetadataError, HTTPError, OfflineModeIsEnabled

    of_requests = (HTTPError, FileMetadataError, OfflineModeIsEnabled, json.JSONDecodeError, UnicodeDecodeError)
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, of_requests):
        seen = seen.__cause__
    return seen or error


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error of the client stands for."""
    response = getattr(root_of(error), "response", None)
    return None if response is None else int(response.status_code)


def may_pass(error: BaseException) -> bool:
    """Tell whether the same request may succeed a little later."""
    from huggingface_hub.errors import FileMetadataError, HTTPError, OfflineModeIsEnabled

    status, root = status_of(error), root_of(error)
    if status is not None:
        return status in (408, 429) or status >= 500
    if isinstance(root, OfflineModeIsEnabled):
        return False
    cut_short = isinstance(error, OSError) and "onsistency check" in str(error)
    of_xet = isinstance(root, ConnectionError | TimeoutError) and "client error" not in str(root)
    garbled = json.JSONDecodeError, UnicodeDecodeError, FileMetadataError
    return cut_short or of_xet or isinstance(root, (HTTPError, *garbled))


def retry_after(error: BaseException) -> float:
    """Return how many seconds the server asks to be left alone."""
    response = getattr(root_of(error), "response", None)
    text = response.headers.get("Retry-After", "") if response is not None else ""
    return float(text) if text.strip().isdigit() else 0.0


def is_offline(error: BaseException | None) -> bool:
    """Tell whether no name of a server can be looked up, or no network reached: nothing that passes in seconds."""
    while error is not None:
        if any(words in str(error) for words in _NO_NETWORK):
            return True
        error = error.__cause__ or error.__context__
    return False


def when_offline() -> str:
    """Say that this machine seems to be offline, and what it has in its cache."""
    return f"you seem to be offline. Downloaded before: {', '.join(cached_repositories()) or 'nothing'}"


def cached_repositories() -> list[str]:
    """Return the names of the models of the Hub that are in its cache, whole or in part."""
    from huggingface_hub import constants

    return sorted(path.name[8:].replace("--", "/") for path in Path(constants.HF_HUB_CACHE).glob("models--*/"))


def explained(error: BaseException, what: str, endpoint: str, secret: str | None) -> FairAdaptorError:
    """Return our error for one of the client's.

    Args:
        what: what was asked for.
        secret: the token, which is left out should a server have repeated it.
    """
    from huggingface_hub import errors

    root, status = root_of(error), status_of(error)
    said = str(getattr(root, "server_message", None) or str(root).partition("\n")[0] or type(root).__name__)
    said = said if root is error else f"{error}: {said}"
    said = " ".join((said.replace(secret, "<token>") if secret else said).split())[:300]
    other = f"give another token {_LOGIN}"
    have = other if secret else f"log in {_LOGIN}"
    if is_offline(error):
        return HubUnreachableError(f"{what}: {when_offline()}")
    if isinstance(root, errors.OfflineModeIsEnabled):
        return UnknownAdaptorError(f"{what}: the Hub was not asked, because HF_HUB_OFFLINE is set; unset it to ask")
    if isinstance(root, errors.GatedRepoError):
        return HubError(f"{what}: it is gated. Ask for access on its page at {endpoint}, then {have}")
    if isinstance(root, errors.RevisionNotFoundError):
        return UnknownAdaptorError(f"{what}: there is no such revision; give a branch, tag or commit of it")
    if isinstance(root, errors.RemoteEntryNotFoundError):
        return UnknownAdaptorError(f"{what}: the file is not there")
    if isinstance(root, errors.RepositoryNotFoundError) or status == 404:
        return UnknownAdaptorError(
            f"{what}: {endpoint} has none of that name, or it is private; check the name, or {have}"
        )
    if may_pass(error):
        kind = f"status {status}" if status else said
        return HubUnreachableError(
            f"{what}: {endpoint} did not answer as it should ({kind}). Check the network, and HF_ENDPOINT if it is"
            " set, or try again later"
        )
    if status == 401:
        return HubError(f"{what}: {endpoint} does not accept the token ({said}); {other}")
    if status == 403:
        return HubError(f"{what}: the token may not do this ({said}); {other}, with the right to it")
    if status is not None:
        return HubError(f"{what}: {endpoint} refuses: {said}")
    if isinstance(root, OSError) and root.errno is not None:
        place = root.filename or "the cache"
        return HubError(
            f"{what}: {place} cannot be written: {root.strerror}. Choose another folder for the cache: HF_HOME or"
            " cache_dir"
        )
    if "xet-" in said and "404" in said:
        return HubError(f"{what}: {endpoint} has no Xet storage; set HF_HUB_DISABLE_XET=1 and try again")
    return HubError(f"{what}: {type(root).__name__}: {said}")
