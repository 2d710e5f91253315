"""What tests make adaptors of without training."""

import json
from pathlib import Path
from typing import Any

import pytest

PEOPLE = ("cook", "nurse", "poet", "pilot", "judge", "clerk")


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of prompts that are short enough for the small models, whose every letter is a token."""
    file = tmp_path_factory.mktemp("prompts") / "people.json"
    file.write_text(json.dumps([{"prompt": f"a {one}", "label": one} for one in PEOPLE]))
    return file


def made(folder: Path, pipe: Any, prompts: Path, method: Any = "directions", *attributes: str) -> Path:
    from fair_adaptors import make

    return make(pipe, attributes or "gender", out=folder / method, method=method, prompts=prompts)
