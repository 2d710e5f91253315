"""Write the tables of docs/results.md from the JSON files in results/: a row a row, as it was printed."""

import json

from benchmarks._report import RESULTS, table, tables_of, text_of, write_tables

ORDER = (
    "sandbox_bias", "keeping", "sandbox_variants", "steps", "windows", "flow_weights", "sandbox_flow", "seen_by",
    "held_back", "noises", "flow_parts", "flow_parts_named", "flow_parts_noises", "flow_student", "efficiency",
    "sandbox_quick", "one_branch", "transfer", "strength", "strength_flow", "peers", "coverage", "alarms",
    "backpropagation", "gradients", "processes", "loading", "faces", "detector", "startup", "first_success",
)  # fmt: skip
"""Of the tables in the document."""


def tables() -> list[str]:
    """Return the tables in Markdown."""
    found = []
    for name in ORDER:
        record = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        each = [
            table(list(rows[0]), [[text_of(row[column]) for column in rows[0]] for row in rows])
            for rows in tables_of(record)
        ]
        found.append("\n\n".join(each))
    return found


if __name__ == "__main__":
    write_tables("results", tables())
