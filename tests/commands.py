"""Runs commands as their users would, in the process of the test."""

from collections.abc import Callable

import pytest

from fair_adaptors.cli import main

from .hub.fixtures import ANN

Command = Callable[..., tuple[int, str, str]]
"""Takes the words of a command, and returns its exit status, what it printed, and its errors."""


@pytest.fixture
def command(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs a command as its user would, at the Hub of the test if it has one, and as ann: status, output, errors."""
    if "hub" in request.fixturenames:
        url = request.getfixturevalue("hub").url
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("HF_TOKEN", ANN)
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["fair-adaptors", *arguments])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run
