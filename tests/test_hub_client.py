"""Requests to the Hub end in time, are counted, and say what is wrong with an address, a token or an answer."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import get_session

from fair_adaptors.errors import ConfigError, HubError
from fair_adaptors.hub import client, pull, push, search
from fair_adaptors.hub.client import connect, size_of, split_revision
from fair_adaptors.hub.download import download
from tests.hub.connection import Hub
from tests.hub.fixtures import ADAPTOR, ANN, NOWHERE
from tests.hub.repos import Repository


def test_a_folder_with_an_at_in_its_name_is_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "me@work"
    assert split_revision(str(folder)) == (f"{tmp_path}/me", "work")
    folder.mkdir()
    assert split_revision(str(folder)) == (str(folder), None)


def test_a_server_that_names_no_commit_is_no_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(ADAPTOR, "ann/strange", token=ANN, endpoint=hub.url)
    monkeypatch.setattr(Repository, "info", lambda self, commit, blobs: {"id": self.repo_id, "sha": "../../up"})
    with pytest.raises(HubError, match="names no commit; it does not seem to be a Hub"):
        pull("ann/strange", cache_dir=tmp_path, endpoint=hub.url)


@pytest.mark.parametrize(("token", "endpoint"), [("hf_a b", NOWHERE), ("hf_a\n", NOWHERE), (None, "file:///etc")])
def test_what_is_no_token_or_no_address_is_refused_unseen(token: str | None, endpoint: str) -> None:
    with pytest.raises(HubError, match="characters that no token has|must begin with https") as raised:
        pull("ann/any", token=token, endpoint=endpoint)
    assert "hf_a" not in str(raised.value)


def test_a_token_that_is_not_known_is_said_not_to_be(hub: Hub, tmp_path: Path) -> None:
    push(ADAPTOR, "ann/known", token=ANN, endpoint=hub.url)
    with pytest.raises(HubError, match="does not accept the token .*give another token") as raised:
        pull("ann/known", cache_dir=tmp_path, token="hf_nobodyssecret", endpoint=hub.url)
    assert "nobodys" not in str(raised.value)


def test_a_name_is_not_looked_up_where_a_proxy_does_that(monkeypatch: pytest.MonkeyPatch) -> None:
    url = SimpleNamespace(scheme="https", host="nowhere.invalid")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    client._refuse_offline(url)
    monkeypatch.setenv("no_proxy", url.host)
    with pytest.raises(OfflineModeIsEnabled, match="cannot be found"):
        client._refuse_offline(url)


def test_an_error_of_ours_on_the_way_is_passed_on_as_it_is() -> None:
    error = ConfigError("of ours")

    def fails() -> None:
        raise error

    with pytest.raises(ConfigError) as raised:
        client.ask(connect(endpoint=NOWHERE, token=False), "it", fails)
    assert raised.value is error


def test_a_list_that_never_comes_is_not_waited_for(hub: Hub, tmp_path: Path) -> None:
    """The client asks for pages of a list without a timeout, and says so: its own default does not help."""
    hub.faults.add(None, "list", "hang")
    started = time.monotonic()
    assert search(namespace="nobody", cache_dir=tmp_path, endpoint=hub.url) == []  # it is asked once more
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("asked", [None, 1.5])
def test_a_request_without_a_timeout_gets_ours_and_only_while_we_ask(hub: Hub, asked: float | None) -> None:
    def timeouts() -> set[float | None]:
        request = get_session().get(f"{hub.url}/api/models", timeout=asked).request
        return set(request.extensions["timeout"].values())

    assert client.ask(client.connect(hub.url, False), "a list", timeouts) == {asked or client.TIMEOUT}
    assert timeouts() == {asked}


def test_what_is_fetched_can_be_counted_and_so_does_not_come_through_xet(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    seen, fetch = [], HfApi.hf_hub_download

    def note(*words: object, **named: object) -> object:
        seen.append(constants.HF_HUB_DISABLE_XET)
        return fetch(*words, **named)  # type: ignore[arg-type]

    push(ADAPTOR, "ann/counted", token=ANN, endpoint=hub.url)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setattr(HfApi, "hf_hub_download", note)
    download("ann/counted", cache_dir=tmp_path, endpoint=hub.url)
    assert seen and all(seen)
    assert constants.HF_HUB_DISABLE_XET is False


@pytest.mark.parametrize("size", [-1, "many", 1.5])
def test_a_size_that_no_file_has_is_no_size(size: object) -> None:
    with pytest.raises(HubError, match="it does not seem to be a Hub"):
        size_of(connect(NOWHERE, False), "ann/x", 40 * "a", SimpleNamespace(size=size, rfilename="y"))  # type: ignore[arg-type]


def test_a_file_whose_size_nobody_tells_is_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HfApi, "hf_hub_download", lambda *words, **named: SimpleNamespace(file_size=None))
    with pytest.raises(HubError, match="does not say how large y is, so it is not fetched"):
        size_of(connect(NOWHERE, False), "ann/x", 40 * "a", SimpleNamespace(size=None, rfilename="y"))  # type: ignore[arg-type]
