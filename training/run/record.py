"""What a run's folder says of it: its settings, how it was started, and whether it can be gone on with."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.settings import from_dict

from fair_adaptors.adaptor.record import library_versions
from fair_adaptors.errors import CheckpointError

from . import checkpoint

RUN_FILE = "run.json"


def run_record(config: TrainConfig, recipe: str, processes: int) -> dict[str, Any]:
    """Return the content of ``run.json``: settings, how the run was started, versions, and the state of the code."""
    return {
        "config": dataclasses.asdict(config),
        "recipe": recipe,
        "launch": os.environ.get("TORCHELASTIC_RUN_ID"),
        "command": sys.argv,
        "processes": processes,
        "versions": {**library_versions(), "python": sys.version.split()[0]},
        "git": _git_state(),
    }


def write_run(out: Path, record: dict[str, Any]) -> None:
    """Write ``run.json``, complete or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    aside = out / f".{RUN_FILE}"
    aside.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    os.replace(aside, out / RUN_FILE)


def refuse_earlier_run(folder: Path) -> None:
    """Raise CheckpointError if there are checkpoints in a folder."""
    if any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{folder} has checkpoints of an earlier run. `resume` continues it, `overwrite` deletes it;"
            " or name another `out`"
        )


def read_run(out: Path, recipe: str) -> TrainConfig:
    """Return the configuration of the run in a folder.

    Raises:
        CheckpointError: there is none, or it is of another recipe.
    """
    try:
        record = json.loads((out / RUN_FILE).read_text(encoding="utf-8"))
        if record["recipe"] != recipe:
            raise CheckpointError(f"the run in {out} is of the recipe {record['recipe']!r}, not {recipe!r}")
        return from_dict(record["config"])
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"there is no run to resume in {out}: {RUN_FILE} is not there or cannot be read. Name its folder with"
            " `out`, or leave out `resume` to start afresh"
        ) from error


def was_restarted(out: Path) -> bool:
    """Tell whether torchrun has started this process again, after the run in the folder had begun."""
    launch = os.environ.get("TORCHELASTIC_RUN_ID")
    if not launch or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        return False
    try:
        record = json.loads((out / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return record.get("launch") == launch and bool(checkpoint.list_checkpoints(out / "checkpoints"))


def _git_state() -> dict[str, Any] | None:
    """Return commit and cleanness of the working directory's repository; None outside of one."""
    try:
        commit, changes = (
            subprocess.run(["git", *words], capture_output=True, text=True, check=True, timeout=10).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "clean": not changes}
