"""What the benchmarks share: a table on the screen, a JSON file in ``results/``, tables in a document."""

import json
import math
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
DOCUMENTS = Path(__file__).parents[1] / "docs"
_MARKED = re.compile(r"(<!-- table -->\n)(.*?)\n?<!-- end -->", re.DOTALL)


def report(name: str, rows: list[dict[str, Any]], **details: Any) -> None:
    """Print rows as a table, also those ``beside`` them, and write all, with the machine, to ``results/NAME.json``."""
    for each in tables_of({"rows": rows, **details}):
        cells = [list(each[0]), *([text_of(row[column]) for column in each[0]] for row in each)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for line in cells:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        print()
    RESULTS.mkdir(exist_ok=True)
    record = {"benchmark": name, "rows": rows, **details, "machine": _machine()}
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def tables_of(record: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """Return the tables in a benchmark's record: its rows, and those beside them where it has any."""
    return [record[name] for name in ("rows", "beside") if name in record]


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    head, *lines = (f"| {' | '.join(map(str, line)).lstrip()} |" for line in (columns, *rows))
    return "\n".join([head, "|---" * len(columns) + "|", *lines])


def tables_in(name: str) -> list[str]:
    """Return what stands between each pair of marks in ``docs/NAME.md``."""
    return [text for _, text in _MARKED.findall((DOCUMENTS / f"{name}.md").read_text(encoding="utf-8"))]


def write_tables(name: str, texts: Iterable[str]) -> None:
    """Print texts, and put them into ``docs/NAME.md``, one between each pair of its marks."""
    document, each = DOCUMENTS / f"{name}.md", iter(texts)

    def filled(marked: re.Match[str]) -> str:
        print("", text := next(each), sep="\n")
        return f"{marked[1]}{text}\n<!-- end -->"

    document.write_text(_MARKED.sub(filled, document.read_text(encoding="utf-8")), encoding="utf-8")


def text_of(value: Any) -> str:
    """Return a cell's text: three digits of a number, yes or no of a truth."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if 1_000 <= abs(value) < math.inf else f"{value:.3g}"


def _machine() -> dict[str, Any]:
    from importlib.metadata import version

    import torch

    return {
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "diffusers", "transformers", "peft")},
    }
