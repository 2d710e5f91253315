"""Fixtures of the tests that need a Hub: a client that may talk to loopback, and servers for it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fair_adaptors.adaptor.bases import EMBEDDED
from fair_adaptors.adaptor.record import RESULTS_FILE
from fair_adaptors.hub import client

from . import olah
from .repos import Repository
from .server import Hub, Server

TOKENS = {"hf_annsecret": "ann", "hf_bobsecret": "bob"}
ANN, BOB = TOKENS
ADAPTOR = EMBEDDED / "sandbox-gender"
NOWHERE = "http://127.0.0.1:9"  # nobody listens
CHUNK = 10_000
"""Bytes that the client keeps at once; the adaptors of the tests are smaller than its own ten million."""


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Lets the client use the network, soon gives up, and keeps it from this machine's token and cache."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    home = tmp_path_factory.mktemp("hf-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 2)
        patch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 2)
        patch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)
        patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        patch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        patch.setattr(client, "TIMEOUT", 2.0)
        patch.setattr(client, "PATIENCE", 12.0)
        patch.delenv("HF_TOKEN", raising=False)
        disable_progress_bars()
        yield
        enable_progress_bars()


@pytest.fixture(scope="module")
def hub(online: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A Hub with two users, ann and bob, and the organisation ``org`` of both."""
    state = Hub(tmp_path_factory.mktemp("hub"), dict(TOKENS), {"ann": {"org"}, "bob": {"org"}})
    with Server(state):
        yield state


@pytest.fixture
def online_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The Hub, as the one that all libraries ask."""
    import huggingface_hub
    from huggingface_hub import constants

    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.url)
    return hub


@pytest.fixture(scope="module")
def mirror(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of olah, which serves the repositories of the Hub."""
    if not olah.PROGRAM.is_file():
        pytest.skip("olah is not installed: make test-slow does it")
    with olah.serve(hub.root, tmp_path_factory.mktemp("olah")) as url:
        yield url


def publish(hub: Hub, name: str, files: dict[str, bytes]) -> str:
    """Put a repository with these files on the Hub; return its commit."""
    repository = hub.repositories[name] = Repository.create(hub.root, name)
    return repository.commit("main", "a base", files=files, parent=None)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def retitle(folder: Path, title: str) -> Path:
    """Give a folder results that no other has."""
    (folder / RESULTS_FILE).write_text(json.dumps({"title": title}))
    return folder


@pytest.fixture
def sandbox_copy(tmp_path: Path) -> Path:
    """A copy of the sandbox's adaptor that may be changed."""
    return Path(shutil.copytree(ADAPTOR, tmp_path / "adaptor"))
