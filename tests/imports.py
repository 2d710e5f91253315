"""What a fresh interpreter loads when it imports something."""

import subprocess
import sys
from pathlib import Path

HEAVY = ("torch", "diffusers", "transformers", "peft")


def loaded_by(code: str, tmp_path: Path) -> set[str]:
    """Names of the top-level modules that a fresh interpreter, started elsewhere, has loaded after `code`."""
    script = f"import sys\nbefore = set(sys.modules)\n{code}\nprint(*(set(sys.modules) - before))"
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in ran.stdout.splitlines()[-1].split()}
