"""An evaluation at the terminal: its progress, the headline as a table, and where its report lies."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fair_adaptors.adaptor.results import Results, headline
from fair_adaptors.errors import MissingExtraError
from fair_adaptors.evaluation import Evaluation, evaluate
from fair_adaptors.evaluation.spec import Instruments
from fair_adaptors.evaluation.store import IMAGES_FILE, RESULTS_FILE
from fair_adaptors.evaluation.variants import Variant
from fair_adaptors.evaluation.wording import fine, number

from .page import write_report

if TYPE_CHECKING:
    from rich.table import Table


def run_and_report(
    pipe: Any,
    evaluation: Evaluation,
    variants: Sequence[Variant],
    instruments: Instruments,
    out: Path,
    *,
    overwrite: bool = False,
) -> None:
    """Evaluate with a progress bar, print the headline, and write the report."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    main = os.environ.get("RANK", "0") == "0"
    console = Console(quiet=not main)
    columns = (TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("images", total=None)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        results = evaluate(pipe, evaluation, variants, instruments, out, overwrite=overwrite, on_images=advance)
    if not main:
        return
    console.print(headline_table(results))
    try:
        write_report(out, command=shlex.join(["fair-adaptors", *sys.argv[1:]]))
    except MissingExtraError as error:  # the page is written before the plots beside it
        console.print(f"without plots: {error}", highlight=False, soft_wrap=True, markup=False)
    console.print(
        f"{evaluation.images_per_prompt} images per prompt, the same noise in every row; a perfectly fair model scores"
        f" the noise floor.\nIn {out}: report.html, every number in {RESULTS_FILE}, every image in {IMAGES_FILE}.",
        highlight=False, soft_wrap=True, markup=False,
    )  # fmt: skip


def headline_table(results: Results) -> "Table":
    """Return a table of every variant, target by target, as the first classifier sees it; it fits 80 columns.

    The figure is the bias, or the total variation where a target is not uniform; ``change`` is the interval of its
    change.
    """
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Column, Table

    columns = (Column("", overflow="fold"), "95 %", "floor", "change, 95 %", "undetermined")
    table = Table(*columns, box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for name, target in results.targets.items():
        table.add_row(f"[bold]{escape(name)} {'bias' if target.is_uniform else 'off target'}")
        for variant in results.variants:
            found = results.figures(variant, name)
            now = headline(found, target)
            change = headline(found.change, target) if found.change else None
            table.add_row(
                escape(variant.name),
                f"{number(now.value)} ({number(now.low)}–{number(now.high)})",
                number(now.floor),
                f"{number(change.low)} to {number(change.high)}" if change else "–",
                fine(found.undetermined.value),
            )
        table.add_section()
    return table
