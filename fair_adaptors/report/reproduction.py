"""The paper's rows beside what was measured: a table at the terminal, and the same as a file in the folder."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fair_adaptors.adaptor.results import Results
from fair_adaptors.evaluation.published import SOURCE
from fair_adaptors.evaluation.reproduction import Row
from fair_adaptors.evaluation.wording import fine, number

if TYPE_CHECKING:
    from rich.table import Table

FILE = "reproduction.md"
COLUMNS = (
    "", "figure", "published in the paper", "measured here", "95 %", "spread", "floor", "undetermined", "no face"
)  # fmt: skip
LEGEND = (
    "published in the paper: " + SOURCE + "; with ± the spread over prompts, which is not an error of the mean.",
    "measured here: this evaluation, with its 95 % interval, and with its own spread over prompts. floor: what a"
    " perfectly fair model scores with as many images. undetermined: images whose class the classifier is not sure of."
    " –: none is known, or nothing measures it.",
)


def cells(row: Row) -> list[str]:
    """Return the cells of a row; what was published and what was measured are columns of their own."""
    low, high = (row.measured.low, row.measured.high) if row.measured else (math.nan, math.nan)
    return [
        row.model,
        row.figure,
        str(row.published or "–"),
        number(row.measured.value if row.measured else math.nan),
        "–" if math.isnan(low) else f"{number(low)}–{number(high)}",
        number(row.spread),
        number(row.floor),
        "–" if math.isnan(row.undetermined) else fine(row.undetermined),
        "–" if math.isnan(row.no_face) else fine(row.no_face),
    ]


def table(rows: Sequence[Row]) -> "Table":
    """Return the rows as a table for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Column, Table

    heads = [Column(head.replace(" ", "\n", 1), overflow="fold") for head in COLUMNS]
    found = Table(*heads, box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for row in rows:
        found.add_row(*map(escape, cells(row)))
    return found


def write_reproduction(out: Path, rows: Sequence[Row], results: Results, differs: Sequence[str]) -> Path:
    """Write the table, what its columns are, and how the evaluation differs from the paper's, into its folder."""
    settings = results.settings
    said = [
        f"# {rows[-1].model} on {settings.base}: the paper's figures and ours",
        f"{len(settings.prompts)} prompts ({settings.prompt_set}), {settings.images_per_prompt} images of each, in"
        f" {settings.num_steps} steps with guidance {settings.guidance_scale:g}. Classes by {results.classifier}.",
        "\n".join("| " + " | ".join(line) + " |" for line in [COLUMNS, ["---"] * len(COLUMNS), *map(cells, rows)]),
        "\n\n".join(LEGEND),
        "How this evaluation differs from the paper's:\n\n" + "\n".join(f"* {line}" for line in differs),
    ]
    path = out / FILE
    path.write_text("\n\n".join(said) + "\n", encoding="utf-8")
    return path
