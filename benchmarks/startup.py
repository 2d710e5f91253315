"""Processor time to import the package, to show the help and the list, and to plan a training run; what each loads.

It is processor time, so that it does not matter what else the machine does.
"""

import argparse
import resource
import subprocess
import sys

from benchmarks._report import report

FRAMEWORKS = ("torch", "diffusers", "transformers", "numpy", "PIL")
CASES = {
    "import fair_adaptors": ("import fair_adaptors", 0.15, True),
    **{
        words: (f"import sys; sys.argv = {words.split()}; from fair_adaptors.cli import main; main()", bar, light)
        for words, bar, light in (
            ("fair-adaptors --help", 0.5, True),
            ("fair-adaptors list", 0.5, True),
            ("fair-adaptors info sandbox-gender", 1.0, False),
            ("fair-adaptors train gender-race --dry-run", 10.0, False),
        )
    },
}
"""Python code, the seconds that it may take, and whether it must load no framework."""


def seconds(code: str, repeats: int) -> float:
    """Return the least processor seconds that a fresh Python takes for ``code``, less those of an empty one."""
    return _least(code, repeats) - _least("pass", repeats)


def _least(code: str, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
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
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    rows = []
    for what, (code, bar, light) in CASES.items():
        took, frameworks = seconds(code, repeats), loaded(code)
        held = took <= bar and not (light and frameworks)
        rows.append({"what": what, "seconds": took, "bar": bar, "loads": ", ".join(frameworks) or "–", "held": held})
    report("startup", rows)


if __name__ == "__main__":
    main()
