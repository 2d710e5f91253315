"""Requests to the Hub: bounded in time, repeated after a fault that may pass, and with errors that say what to do."""

import logging
import re
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.request import getproxies, proxy_bypass

from fair_adaptors.errors import FairAdaptorError, HubError, UnknownAdaptorError

from .errors import explained, is_offline, may_pass, retry_after

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

PATIENCE = 20.0
"""Seconds after which a request that keeps failing is given up. One that is under way is not cut short."""
TIMEOUT = 30.0
"""Seconds without a byte after which a request has failed."""

logger = logging.getLogger(__name__)
_LOCK = threading.Lock()
_limited: list[Any] = []
_users = 0
_xet_users, _xet_was = 0, False
_T = TypeVar("_T")


def connect(endpoint: str | None, token: str | bool | None) -> "HfApi":
    """Return a client of the Hub.

    Args:
        endpoint: another server than the Hub's, or than ``HF_ENDPOINT``.
        token: None or True for the one that ``hf auth login`` or ``HF_TOKEN`` left, False for none.

    Raises:
        HubError: the endpoint is not an address, or the token no token.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint and endpoint.rstrip("/"), token=token, library_name="fair-adaptors")
    if not api.endpoint.startswith(("http://", "https://")):
        raise HubError(f"the Hub's address is {api.endpoint!r}; it must begin with https:// (see HF_ENDPOINT)")
    if not re.fullmatch("[!-~]*", _secret(api) or ""):  # an error that shows it would come later
        raise HubError("the token holds spaces, line ends or other characters that no token has; copy it again")
    return api


def split_revision(source: str) -> tuple[str, str | None]:
    """Split a Hub id from the commit that may stand behind it, as in ORG/NAME@COMMIT; a folder has none."""
    if Path(source).exists():
        return source, None
    place, _, revision = source.partition("@")
    return place, revision or None


def check_repo_id(repo_id: str) -> None:
    """Refuse what is no ``owner/name`` before anybody is asked for it.

    Raises:
        UnknownAdaptorError: the Hub allows no such name.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UnknownAdaptorError(
            f"{repo_id[:100]!r} cannot be the name of a Hub repository; write it as ORG/NAME, both of alphanumeric"
            " characters, '-', '_' and '.'"
        ) from error
    if "/" not in repo_id:
        raise UnknownAdaptorError(f"{repo_id!r} has no owner: write it as ORG/NAME")


def ask(api: "HfApi", what: str, call: Callable[[], _T], *, patience: float | None = None) -> _T:
    """Call the Hub's client; after a fault that may pass, again and later, until patience ends.

    Args:
        what: what is asked for, for the error.
        patience: seconds; None for ``PATIENCE``.

    Raises:
        UnknownAdaptorError: the Hub says that it is not there, or is offline by ``HF_HUB_OFFLINE``.
        HubUnreachableError: no answer, or none of a Hub in good health.
        HubError: the Hub refuses.
    """
    end, pause = time.monotonic() + (PATIENCE if patience is None else patience), 1.0
    while True:
        try:
            with bounded():
                return call()
        except FairAdaptorError:
            raise
        except Exception as error:  # the client raises whatever it stumbles over in an answer that it did not expect
            wait = max(pause, retry_after(error))
            if is_offline(error) or not may_pass(error) or time.monotonic() + wait > end:
                secret = _secret(api)
                known = explained(error, what, str(api.endpoint), secret)
                shown = secret is not None and secret in "".join(traceback.format_exception(error))
                raise known from (None if shown else error)
            logger.warning("%s: %s. Trying again in %.0f s.", what, type(error).__name__, wait)
        time.sleep(wait)
        pause = min(2 * pause, 8.0)


def look_up(
    api: "HfApi", repo_id: str, revision: str | None = None, *, what: str | None = None, patience: float | None = None
) -> "ModelInfo":
    """Return what the Hub tells of a repository at a revision: commit, licence, and names, sizes and hashes of files.

    Args and errors are those of ``ask``; what is asked for is the repository unless it is named.
    """
    call = partial(api.model_info, repo_id, revision=revision, files_metadata=True, timeout=TIMEOUT)
    return ask(api, what or repo_id, call, patience=patience)


def size_of(api: "HfApi", repo_id: str, commit: str, file: "RepoSibling") -> int:
    """Return the size of a file in bytes; a mirror that does not tell it of all files is asked for this one.

    Raises:
        HubError: nor does it then; and as for ``ask``.
    """
    name = file.rfilename
    if file.size is not None:
        return _checked(file.size, f"{repo_id}: {name}")
    told = ask(api, repo_id, lambda: api.hf_hub_download(repo_id, name, revision=commit, dry_run=True)).file_size
    if told is None:
        raise HubError(f"{repo_id}: {api.endpoint} does not say how large {name} is, so it is not fetched")
    return _checked(told, f"{repo_id}: {name}")


def _checked(size: object, what: str) -> int:
    if not isinstance(size, int) or size < 0:
        raise HubError(f"{what}: the server gives its size as {str(size)[:50]!r}; it does not seem to be a Hub")
    return size


def fetch_file(
    repo_id: str,
    name: str,
    revision: str | None,
    *,
    what: str | None = None,
    endpoint: str | None = None,
    patience: float | None = None,
) -> Path:
    """Return a file of any repository in the Hub's cache, fetched if need be.

    Args and errors are those of ``ask``; what is asked for is the repository unless it is named.
    """
    from huggingface_hub import hf_hub_download

    api = connect(endpoint, None)
    fetch = partial(hf_hub_download, repo_id, name, revision=revision, endpoint=str(api.endpoint))
    return Path(ask(api, what or repo_id, fetch, patience=patience))


@contextmanager
def bounded() -> Iterator[None]:
    """Let no request of the Hub's client in the block wait for ever, nor be tried again where there is no network.

    Most of its requests ask for no timeout, some for None. The client is shared with whoever else uses it in this
    process, so it gets back what it had.
    """
    global _users
    from huggingface_hub.utils import get_session

    with _LOCK:
        client = get_session()
        if client not in _limited:
            client.event_hooks = {**client.event_hooks, "request": [*client.event_hooks["request"], _limit]}
            _limited.append(client)
        _users += 1
    try:
        yield
    finally:
        with _LOCK:
            _users -= 1
            if not _users:
                for client in _limited:
                    others = [hook for hook in client.event_hooks["request"] if hook is not _limit]
                    client.event_hooks = {**client.event_hooks, "request": others}
                _limited.clear()


def _limit(request: Any) -> None:
    asked = request.extensions.get("timeout") or {}
    kinds = ("connect", "read", "write", "pool")
    request.extensions["timeout"] = {kind: TIMEOUT if asked.get(kind) is None else asked[kind] for kind in kinds}
    _refuse_offline(request.url)


def _refuse_offline(url: Any) -> None:
    """Raise what the client raises when it is told to be offline, if the server's name cannot be looked up.

    It takes its cache then. It would otherwise try for half a minute, and print every try. A proxy looks names up
    itself.
    """
    from huggingface_hub.errors import OfflineModeIsEnabled

    if url.scheme in getproxies() and not proxy_bypass(url.host):
        return
    try:
        socket.getaddrinfo(url.host, None)
    except OSError as error:
        raise OfflineModeIsEnabled(f"{url.host} cannot be found: {error}") from error


@contextmanager
def without_xet() -> Iterator[None]:
    """Let the client fetch over plain HTTP, where a download can be counted and ended; Xet takes whatever comes."""
    global _xet_users, _xet_was
    from huggingface_hub import constants

    with _LOCK:
        if not _xet_users:
            _xet_was, constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_XET, True
        _xet_users += 1
    try:
        yield
    finally:
        with _LOCK:
            _xet_users -= 1
            if not _xet_users:
                constants.HF_HUB_DISABLE_XET = _xet_was


def _secret(api: "HfApi") -> str | None:
    from huggingface_hub import get_token

    if isinstance(api.token, str):
        return api.token
    return None if api.token is False else get_token()
