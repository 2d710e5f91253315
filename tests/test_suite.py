"""What the tests themselves keep to."""

from types import SimpleNamespace

import pytest

from tests.conftest import MAY_BE_SKIPPED, NO_SKIPS, fail_if_skipped


@pytest.mark.parametrize(
    ("may_be", "reason", "outcome"),
    [("0", "no Chromium", "skipped"), ("1", "no Chromium", "failed"), ("1", [*MAY_BE_SKIPPED][0], "skipped")],
)
def test_where_nothing_may_be_skipped_a_skip_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, may_be: str, reason: str, outcome: str
) -> None:
    monkeypatch.setenv(NO_SKIPS, may_be)
    report = SimpleNamespace(outcome="skipped", longrepr=("file.py", 1, f"Skipped: {reason}"))
    assert fail_if_skipped(report).outcome == outcome
    assert (reason in str(report.longrepr)) and (NO_SKIPS in str(report.longrepr)) == (outcome == "failed")


def test_an_expected_failure_is_no_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NO_SKIPS, "1")
    assert fail_if_skipped(SimpleNamespace(outcome="skipped", longrepr="", wasxfail="known")).outcome == "skipped"
