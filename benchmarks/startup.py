"""Time to import the package and to show the command line's help, and that neither loads a framework."""

import argparse
import subprocess
import sys
import time

from benchmarks._report import report

FRAMEWORKS = ("torch", "diffusers", "transformers", "numpy", "PIL")
HELP = """import sys
sys.argv = ["fair-adaptors", "--help"]
from fair_adaptors.cli import main
main()
"""
CASES = {"import fair_adaptors": ("import fair_adaptors", 0.15), "fair-adaptors --help": (HELP, 0.5)}


def seconds(code: str, repeats: int) -> float:
    """Return the least time that a fresh Python takes for ``code``, in seconds, less that of an empty one."""
    return _least(code, repeats) - _least("pass", repeats)


def _least(code: str, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return min(times)


def loaded(code: str) -> list[str]:
    """Return the frameworks that ``code`` has loaded when it ends."""
    at_exit = f"""import atexit, sys
atexit.register(lambda: print(*(name for name in {FRAMEWORKS} if name in sys.modules), file=sys.stderr))
"""
    done = subprocess.run([sys.executable, "-c", at_exit + code], check=True, capture_output=True, text=True)
    return done.stderr.splitlines()[-1].split()


def main() -> None:
    """Print one row per case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    repeats = parser.parse_args().repeats
    rows = []
    for what, (code, bar) in CASES.items():
        took, frameworks = seconds(code, repeats), loaded(code)
        held = took <= bar and not frameworks
        rows.append({"what": what, "seconds": took, "bar": bar, "loads": ", ".join(frameworks) or "–", "held": held})
    report("startup", rows)


if __name__ == "__main__":
    main()
