"""Fixtures of the tests that need a Hub: a client that may talk to loopback, and servers for it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fair_adaptors import hub_requests
from fair_adaptors.registry import EMBEDDED

from . import olah
from .server import Hub, Server

TOKENS = {"hf_annsecret": "ann", "hf_bobsecret": "bob"}
ANN, BOB = TOKENS
ADAPTOR = EMBEDDED / "sandbox-gender"


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
        patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        patch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        patch.setattr(hub_requests, "TIMEOUT", 2.0)
        patch.setattr(hub_requests, "PATIENCE", 12.0)
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


@pytest.fixture(scope="module")
def mirror(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of olah, which serves the repositories of the Hub; it is installed from a package index at first."""
    if os.environ.get(olah.WITHOUT) == "1":
        pytest.skip(f"{olah.WITHOUT}=1: this machine has no package index")
    with olah.serve(hub.root, tmp_path_factory.mktemp("olah")) as url:
        yield url


@pytest.fixture
def adaptor(tmp_path: Path) -> Path:
    """A copy of the sandbox's adaptor that may be changed."""
    return Path(shutil.copytree(ADAPTOR, tmp_path / "adaptor"))
