"""Requests to the Hub: bounded in time, repeated after a fault that may pass, and with errors that say what to do."""

import json
import logging
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fair_adaptors.errors import FairAdaptorError, HubError, HubUnreachableError, UnknownAdaptorError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PATIENCE = 20.0
"""Seconds after which a request that keeps failing is given up. One that is under way is not cut short."""
TIMEOUT = 30.0
"""Seconds without a byte after which a request has failed."""

logger = logging.getLogger(__name__)
_TIMEOUTS = ("connect", "read", "write", "pool")
_LOCK = threading.Lock()
_limited: list[Any] = []
_users = 0
_T = TypeVar("_T")


def connect(endpoint: str | None, token: str | bool | None) -> "HfApi":
    """Return a client of the Hub.

    Args:
        endpoint: another server than the Hub's, or than ``HF_ENDPOINT``.
        token: None or True for the one that ``hf auth login`` or ``HF_TOKEN`` left, False for none.

    Raises:
        HubError: the endpoint is no address, or the token no token.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint and endpoint.rstrip("/"), token=token, library_name="fair-adaptors")
    if not api.endpoint.startswith(("http://", "https://")):
        raise HubError(f"the Hub's address is {api.endpoint!r}; it must begin with https:// (see HF_ENDPOINT)")
    if not re.fullmatch("[!-~]*", _secret(api) or ""):  # an error that shows it would come later
        raise HubError("the token holds spaces, line ends or other signs that no token has; copy it again")
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
            with _bounded():
                return call()
        except FairAdaptorError:
            raise
        except Exception as error:  # the client raises whatever it stumbles over in an answer that it did not expect
            wait = max(pause, _retry_after(error))
            if not may_pass(error) or time.monotonic() + wait > end:
                secret = _secret(api)
                known = _explained(api, what, error, secret)
                shown = secret is not None and secret in "".join(traceback.format_exception(error))
                raise known from (None if shown else error)
            logger.warning("%s: %s. Trying again in %.0f s.", what, type(error).__name__, wait)
        time.sleep(wait)
        pause = min(2 * pause, 8.0)


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error of the client stands for."""
    response = getattr(_root(error), "response", None)
    return None if response is None else int(response.status_code)


def _root(error: BaseException) -> BaseException:
    """Return the error of the request itself, which the client may have put into others."""
    from huggingface_hub.errors import FileMetadataError, HTTPError, OfflineModeIsEnabled

    of_requests = (HTTPError, FileMetadataError, OfflineModeIsEnabled, json.JSONDecodeError, UnicodeDecodeError)
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, of_requests):
        seen = seen.__cause__
    return seen or error


def may_pass(error: BaseException) -> bool:
    """Tell whether the same request may succeed a little later."""
    from huggingface_hub.errors import FileMetadataError, HTTPError, OfflineModeIsEnabled

    status = status_of(error)
    if status is not None:
        return status in (408, 429) or status >= 500
    root = _root(error)
    if isinstance(root, OfflineModeIsEnabled):
        return False
    cut_short = isinstance(error, OSError) and "onsistency check" in str(error)
    of_xet = isinstance(root, ConnectionError | TimeoutError) and "client error" not in str(root)
    garbled = json.JSONDecodeError, UnicodeDecodeError, FileMetadataError
    return cut_short or of_xet or isinstance(root, (HTTPError, *garbled))


def _retry_after(error: BaseException) -> float:
    response = getattr(_root(error), "response", None)
    text = response.headers.get("Retry-After", "") if response is not None else ""
    return float(text) if text.strip().isdigit() else 0.0


@contextmanager
def _bounded() -> Iterator[None]:
    """Give the client's requests a timeout: most of them ask for none, and would wait for ever.

    The client is shared with whoever else uses it in this process, so it gets back what it had.
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
    limits = {kind: TIMEOUT if asked.get(kind) is None else asked[kind] for kind in _TIMEOUTS}
    request.extensions["timeout"] = limits


def _secret(api: "HfApi") -> str | None:
    from huggingface_hub import get_token

    if isinstance(api.token, str):
        return api.token
    return None if api.token is False else get_token()


def _explained(api: "HfApi", what: str, error: BaseException, secret: str | None) -> FairAdaptorError:
    """Return our error for one of the client's, without the token, should a server have repeated it."""
    from huggingface_hub.errors import (
        GatedRepoError,
        OfflineModeIsEnabled,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    outer, error = error, _root(error)
    said = str(getattr(error, "server_message", None) or str(error).partition("\n")[0] or type(error).__name__)
    said = said if outer is error else f"{outer}: {said}"
    said = " ".join((said.replace(secret, "<token>") if secret else said).split())[:300]
    status = status_of(error)
    login = "give another token (`hf auth login`, HF_TOKEN or token=)"
    if isinstance(error, OfflineModeIsEnabled):
        return UnknownAdaptorError(f"{what}: the Hub was not asked, because HF_HUB_OFFLINE is set; unset it")
    if isinstance(error, GatedRepoError):
        have = login if secret else "log in (`hf auth login`, HF_TOKEN or token=)"
        return HubError(f"{what}: it is gated. Ask for access on its page at {api.endpoint}, then {have}")
    if isinstance(error, RevisionNotFoundError):
        return UnknownAdaptorError(f"{what}: there is no such revision; give a branch, tag or commit of it")
    if isinstance(error, RemoteEntryNotFoundError):
        return UnknownAdaptorError(f"{what}: the file is not there")
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        private = login if secret else "log in (`hf auth login`, HF_TOKEN or token=)"
        return UnknownAdaptorError(
            f"{what}: {api.endpoint} has none of that name, or it is private; check the name, or {private}"
        )
    if status == 401:
        return HubError(f"{what}: {api.endpoint} does not accept the token ({said}); {login}")
    if status == 403:
        return HubError(f"{what}: the token may not do this ({said}); {login}, with the right to it")
    if status == 409:
        return HubError(f"{what}: {said}")
    if may_pass(error):
        kind = f"status {status}" if status else said
        return HubUnreachableError(
            f"{what}: {api.endpoint} did not answer as it should ({kind}). Check the network, and HF_ENDPOINT if it is"
            " set, or try again later"
        )
    if status is not None:
        return HubError(f"{what}: {api.endpoint} refuses: {said}")
    if "xet-" in said and "404" in said:
        return HubError(f"{what}: {api.endpoint} has no Xet storage; set HF_HUB_DISABLE_XET=1 and try again")
    return HubError(f"{what}: {type(error).__name__}: {said}")
