"""What the tests themselves keep to."""

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import NO_SKIPS, fail_if_skipped

HERE = Path(__file__).parent


@pytest.mark.parametrize(("may_not_be", "outcome"), [("0", "skipped"), ("1", "failed")])
def test_where_nothing_may_be_skipped_a_skip_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, may_not_be: str, outcome: str
) -> None:
    monkeypatch.setenv(NO_SKIPS, may_not_be)
    report = SimpleNamespace(outcome="skipped", longrepr=("file.py", 1, "Skipped: no Chromium"))
    assert fail_if_skipped(report).outcome == outcome
    assert "no Chromium" in str(report.longrepr) and (NO_SKIPS in str(report.longrepr)) == (outcome == "failed")


def test_an_expected_failure_is_no_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NO_SKIPS, "1")
    assert fail_if_skipped(SimpleNamespace(outcome="skipped", longrepr="", wasxfail="known")).outcome == "skipped"


def test_no_file_of_tests_imports_another() -> None:
    """What several need is in a file of its own."""
    found = [
        (path.name, module)
        for path in HERE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for module in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [])
        if module.rpartition(".")[2].startswith("test_")
    ]
    assert found == []
