"""Write the tables of docs/make.md, which kind of adaptor does what on each sandbox, from the JSON files in results/.

Rows of ``benchmarks.untrained`` and of ``benchmarks.sandbox_bias`` are taken where they have been measured.
"""

import json
from collections.abc import Mapping
from typing import Any

from benchmarks._report import RESULTS, table, text_of, write_tables

MEASURED = {"sandbox": ("untrained", "sandbox_bias"), "sandbox-flow": ("untrained_flow", "sandbox_flow")}
"""By base, the files with what takes no training and with what was trained."""
COLUMNS = ("bias", "shift of others", "occupation", "similarity", "variety", "obeyed")


def rows(base: str) -> list[dict[str, Any]]:
    """Return a row per kind: its figures on a base, and what it takes to make one."""
    untrained, measured = (_read(name).get("rows", ()) for name in MEASURED[base])
    found = []
    for row in untrained:
        found.append({"kind": row["adaptor"], **row, "to make": f"{text_of(row.get('s to make', 0.0))} s"})
    trained = [row for row in measured if row["prompts"] == "test"]
    minutes = {row["recipe"]: row["after"] for row in measured if row["what"] == "minutes"}
    for recipe in dict.fromkeys(row["recipe"] for row in trained):
        each = {row["what"]: row["after"] for row in trained if row["recipe"] == recipe}
        shifts = [value for what, value in each.items() if what in ("tone shift", "age shift")]
        figures = {"bias": each["gender"], "shift of others": max(shifts), "occupation": each["occupation"]}
        figures |= {"obeyed": each.get("gender obeyed", "–"), "to make": f"{minutes[recipe]:.0f} min"}
        found.append({"kind": f"{recipe}, trained", **figures})
    return found


def _read(name: str) -> Mapping[str, Any]:
    path = RESULTS / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


if __name__ == "__main__":
    columns = ("kind", *COLUMNS, "to make")
    cells = {base: [[text_of(row.get(name, "–")) for name in columns] for row in rows(base)] for base in MEASURED}
    write_tables("make", [table(columns, each) for each in cells.values()])
