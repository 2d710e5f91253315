"""How long a newcomer waits, from an empty machine: install, demo, a first picture from Python, a report.

    python -m benchmarks.first_success [--files FOLDER]

The wheel of this checkout goes into a new virtual environment, with an empty home and empty caches. What has to be
downloaded is downloaded before and is not counted, since that depends on the network alone. The bar is for the clock
of an idle machine. Beside it stands the processor time of one thread, which hardly depends on what else the machine
does.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._report import report
from tests.wheels import ROOT, build_wheel

MINUTES, LINES = 2, 10
"""The bars: until the demo has finished, and of the lines of Python."""
REPORT = "fair-adaptors evaluate sandbox --adaptor sandbox-gender -n 20 --out audit"
SANDBOX = "from fair_adaptors.sandbox import load_sandbox_pipeline"


def first_example() -> str:
    """Return the first example in Python of the quick start, as far as its first picture with an adaptor."""
    text = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    code = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if SANDBOX in block)
    return str(code.partition("after.png")[0]) + 'after.png")\n'


def clean(home: Path) -> dict[str, str]:
    """Return the environment variables of somebody who has just logged in: no caches, no settings of others."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG") or name.startswith("PIP_")}
    return kept | {"HOME": str(home), "OMP_NUM_THREADS": "1"}


def timed(command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> tuple[float, float]:
    """Run a command, and return the seconds of the clock and of the processor that it took."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, cwd=cwd, env=env, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, spent


def main() -> None:
    """Print one row per step."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", type=Path, help="what was downloaded before; by default it is downloaded now")
    files = parser.parse_args().files
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        for name in ("wheel", "home", "elsewhere"):
            (work / name).mkdir()
        wheel = build_wheel(work / "wheel")
        if files is None:
            files = work / "files"
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "-c", str(ROOT / "constraints.txt")]
            subprocess.run([*pip, "--dest", str(files), f"{wheel}[eval]"], check=True)
        report("first_success", steps(work, wheel, files.resolve()))


def steps(work: Path, wheel: Path, files: Path) -> list[dict[str, Any]]:
    """Take the steps of a newcomer, one after the other, and return a row for each."""
    env, elsewhere = clean(work / "home"), work / "elsewhere"
    venv.create(work / "new", with_pip=True)
    there = work / "new" / "bin"
    local = [str(there / "pip"), "install", "--quiet", "--no-index", "--find-links", str(files)]
    code = first_example()
    (work / "first.py").write_text(code, encoding="utf-8")
    lines = sum(bool(line.strip()) for line in code.splitlines())

    install = timed([*local, f"{wheel}[eval]"], elsewhere, env)
    demo = timed([str(there / "fair-adaptors"), "demo"], elsewhere, env)
    picture = timed([str(there / "python"), str(work / "first.py")], elsewhere, env)
    audit = timed([str(there / REPORT.split()[0]), *REPORT.split()[1:]], elsewhere, env)
    for left in ("fair-adaptors-demo/report.html", "before.png", "after.png", "audit/report.html"):
        assert (elsewhere / left).stat().st_size, f"{left} is empty"
    both = tuple(map(sum, zip(install, demo, strict=True)))
    return [
        row("install, files at hand", install),
        row("fair-adaptors demo", demo),
        row("both", both, f"{60 * MINUTES} s", both[0] <= 60 * MINUTES),
        row(f"a picture with an adaptor, {lines} lines of Python", picture, f"{LINES} lines", lines <= LINES),
        row("a report, one command", audit),
    ]


def row(what: str, took: Sequence[float], bar: str = "–", held: bool | str = "–") -> dict[str, Any]:
    """Return a row of the table."""
    clock, processor = took
    return {"what": what, "seconds by the clock": clock, "of the processor": processor, "bar": bar, "held": held}


if __name__ == "__main__":
    main()
