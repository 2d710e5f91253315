"""What `fair-adaptors doctor` says of a machine, and the hint how to install what is missing."""

import json
import sys
from typing import Any

import pytest

from fair_adaptors.errors import install_hint
from tests.commands import Command


def test_the_doctor_names_what_is_missing_and_how_to_get_it(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = json.loads(command("doctor", "--json")[1])
    assert facts["versions"].startswith("fair-adaptors ") and facts["device"].startswith("cpu")
    assert "HF_HUB_OFFLINE is set" in facts["network"] and facts["[eval]"].endswith("plots: installed")
    monkeypatch.setattr("fair_adaptors.cli.doctor._is_there", lambda package: package != "matplotlib")
    said = json.loads(command("doctor", "--json")[1])["[eval]"]
    assert said.endswith(f": missing matplotlib. Install it with: {install_hint('eval')}")


@pytest.mark.parametrize(
    ("origin", "hint"),
    [
        (None, "install 'fair-adaptors[eval]'"),
        ({"url": "file:///a%20b/fair", "dir_info": {"editable": True}}, "install -e '/a b/fair[eval]'"),
        ({"url": "file:///x/fair.whl", "archive_info": {}}, "install '/x/fair.whl[eval]'"),
    ],
)
def test_an_install_hint_is_for_how_the_package_came_here(
    monkeypatch: pytest.MonkeyPatch, origin: dict[str, Any] | None, hint: str
) -> None:
    from importlib import metadata

    class Installed:
        def read_text(self, name: str) -> str | None:
            return json.dumps(origin) if origin else None

    monkeypatch.setattr(metadata, "distribution", lambda name: Installed())
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert install_hint("eval") == f"{sys.executable} -m pip {hint}"
