"""An evaluation at the terminal: its progress, the headline as a table, and where its report lies."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fair_adaptors.adaptor.results import FlooredEstimate, Results, VariantResults, headline
from fair_adaptors.errors import MissingExtraError
from fair_adaptors.evaluation import Evaluation, evaluate
from fair_adaptors.evaluation.bounds import NO_BOUNDS, Bounds, failures
from fair_adaptors.evaluation.obeyed import never_open, obeyed_rates
from fair_adaptors.evaluation.spec import Instruments
from fair_adaptors.evaluation.store import IMAGES_FILE, RESULTS_FILE
from fair_adaptors.evaluation.variants import Variant
from fair_adaptors.evaluation.variety_words import leads_with_variety, variety_rows
from fair_adaptors.evaluation.verdict import smallest_share, verdicts
from fair_adaptors.evaluation.wording import fine, number
from fair_adaptors.progress import bar, waiting

from .page import write_report

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SAID = 6
"""Variants that are told of in words."""


def run_and_report(
    pipe: Any,
    evaluation: Evaluation,
    variants: Sequence[Variant],
    instruments: Instruments,
    out: Path,
    *,
    overwrite: bool = False,
    bounds: Bounds = NO_BOUNDS,
    to_stderr: bool = False,
) -> Results:
    """Evaluate with a progress bar, print the headline, write the report, and say which bounds do not hold.

    Of several processes the first one does so. The others wait for it, so that none ends before all is written.
    """
    from rich.console import Console

    console = Console(quiet=os.environ.get("RANK", "0") != "0", stderr=to_stderr)
    with bar(console=console) as (progress, advance):

        def finish(results: Results) -> None:
            progress.stop()
            _say(console, results, out)
            for line in failures(results, bounds):
                print(f"fair-adaptors: {line}", file=sys.stderr)

        return evaluate(
            pipe, evaluation, variants, instruments, out,
            overwrite=overwrite, on_images=advance, on_results=finish,
        )  # fmt: skip


def _say(console: "Console", results: Results, out: Path) -> None:
    """Print the headline, and write the report."""
    print_headline(console, results)
    try:
        with waiting("writing the report"):
            write_report(out, command=shlex.join(["fair-adaptors", *sys.argv[1:]]))
    except MissingExtraError as error:  # the page is written before the plots beside it
        console.print(f"without plots: {error}", highlight=False, soft_wrap=True, markup=False)
    console.print(
        f"{results.settings.images_per_prompt} images per prompt, the same noise in every row; a perfectly fair model"
        f" scores the noise floor.\nIn {out}: report.html, every number in {RESULTS_FILE},"
        f" every image in {IMAGES_FILE}.",
        highlight=False, soft_wrap=True, markup=False,
    )  # fmt: skip


def headline_text(results: Results) -> str:
    """Return what ``print_headline`` prints, without colours, in lines of at most 100 characters."""
    from io import StringIO

    from rich.console import Console

    text = StringIO()
    print_headline(Console(file=text, width=100, no_color=True), results)
    return text.getvalue().rstrip()


def print_headline(console: "Console", results: Results) -> None:
    """Print the tables of figures, and below them in words how each variant fared, and what else it changed.

    Variety within a prompt comes first where the base draws in few steps.
    """
    from rich.markup import escape

    first = leads_with_variety(results)
    for table in sorted((headline_table, variety_table), key=lambda one: (one is variety_table) != first):
        if (written := table(results)).row_count:
            console.print(written)
    said = verdicts(results)
    for one in said[:SAID]:
        variety = [(one.variety, one.variety_harms)]
        parts = [(one.aim, one.aim_harms), (one.beside, one.beside_harms), (one.notes, False)]
        parts[0 if first else 2 : 0] = variety
        told = [f"[{'bold red' if harm else 'none'}]{escape(text)}[/]" if text else "" for text, harm in parts]
        console.print(f"[bold]{escape(one.name)}[/]: {' '.join(filter(None, told))}\n", highlight=False)
    if len(said) > SAID:
        console.print(f"The report says the same of {len(said) - SAID} more.")


def headline_table(results: Results) -> "Table":
    """Return a table of every variant, target by target, as the first classifier that knows it sees it; 80 columns.

    Of the original, and of what a variant is aimed at, the figure is the bias, or the total variation where the target
    is not uniform. Of what it is not aimed at, it is the shift: how far it moved from the original. They are over the
    prompts that leave the target open; where there are none, it is how often the class that they name is shown.
    """
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Column, Table

    figure = Column("figure", no_wrap=True)
    columns = (Column("", overflow="fold"), "aimed\nat", figure, "95 %", "floor", "smallest\nshare", "un-\nsure")
    table = Table(*columns, box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for name, target in results.targets.items():
        number = len(results.open_prompts(name))
        some = f"in {number} of {len(results.labels)} prompts" if number < len(results.labels) else ""
        table.add_row(f"[bold]{escape(name)}[/]\n{escape(never_open(results, name) or some)}".strip())
        for variant in results.variants:
            found = results.figures(variant, name)
            aimed = name in variant.aimed
            table.add_row(
                escape(variant.name),
                "–" if found.change is None else "yes" if aimed else "no",
                *_figure(results, variant, name),
                escape(smallest_share(found, target)),
                fine(found.undetermined.value),
            )
        table.add_section()
    return table


def variety_table(results: Results) -> "Table":
    """Return a table of how varied the images of a prompt are, figure by figure and variant by variant; 80 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Column, Table

    columns = (Column("variety within a prompt", overflow="fold"), "figure", "95 %", "fair")
    table = Table(*columns, box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    rows = [(row, variant.name) for variant in results.variants for row in variety_rows(results, variant)]
    for what in dict.fromkeys(row.what for row, _ in rows):
        ours = [(row, name) for row, name in rows if row.what == what]
        most = f", of {ours[0][0].most}" if ours[0][0].most else ""
        table.add_row(f"[bold]{escape(what)}{most}[/]")
        for row, name in ours:
            interval = row.interval if row.change is None else f"change {row.interval}"
            style = "bold red" if row.is_worse else None
            table.add_row(escape(name), row.numbers, interval, number(row.fair), style=style)
        table.add_section()
    return table


def _figure(results: Results, variant: VariantResults, name: str) -> tuple[str, str, str]:
    """Return the figure of a target with its name, its interval, and its floor."""
    found, target = results.figures(variant, name), results.targets[name]
    if never_open(results, name):
        rates = [obeyed_rates(results, one).get(name) for one in (results.original, variant)]
        if not rates[1]:
            return "–", "–", "–"
        said = " → ".join(fine(rate.value) for rate in (rates if found.change else rates[1:]) if rate)
        return f"obeyed {said}", f"{fine(rates[1].low).removesuffix('%')}–{fine(rates[1].high)}", "–"
    if found.change is not None and name not in variant.aimed:
        shown: FlooredEstimate = found.change.shift
        said = f"shift {number(shown.value)}"
    else:
        shown = headline(found, target)
        before = headline(results.figures(results.original, name), target)
        was = "" if found.change is None else f"{number(before.value)} → "
        said = f"{'bias' if target.is_uniform else 'off'} {was}{number(shown.value)}"
    return said, f"{number(shown.low)}–{number(shown.high)}", number(shown.floor)
