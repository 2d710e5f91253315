"""The benchmark for a GPU runs on small models on the CPU, with every lever on and off."""

import sys
from typing import Any

import pytest

from benchmarks import gpu


def test_every_form_is_measured_and_no_other_is_begun_when_the_minutes_are_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr(gpu, "report", lambda name, rows, **details: told.update({name: (rows, details["left_out"])}))
    small = ["gpu", "--tiny", "--images", "2", "--steps", "4"]
    for words in (["sd15"], ["sdxl", "--minutes", "0"]):
        monkeypatch.setattr(sys, "argv", small + words)
        gpu.main()
    rows, left_out = told["gpu_sd15_tiny"]
    names = [row["form"] for row in rows]
    assert names[0] == "published form" and {f"{lever}, beside" for lever in gpu.LEVERS} < set(names) and not left_out
    assert all(row["seconds"] > 0 and row["updates/s"] >= row["images/s"] / 2 for row in rows)
    (first,), rest = told["gpu_sdxl_tiny"]
    assert first["form"] == names[0] and rest == names[1:]
