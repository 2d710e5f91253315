"""A short training and evaluation give the very bytes that they gave before the code was moved about."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BEFORE = json.loads((ROOT / "tests" / "data" / "short_run.json").read_text())


def test_a_short_run_gives_the_same_adaptor_and_the_same_results() -> None:
    """Bit for bit where the processor rounds as the one that wrote the file; nearly so on another."""
    ran = subprocess.run([sys.executable, "-m", "tests.short_run"], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    now = json.loads(ran.stdout)
    if now["arithmetic"] == BEFORE["arithmetic"]:
        assert now == BEFORE
    assert now["norm"] == pytest.approx(BEFORE["norm"], rel=0.02)
    assert now["bias"] == pytest.approx(BEFORE["bias"], abs=0.26)
