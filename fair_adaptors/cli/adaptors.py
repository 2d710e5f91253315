"""The commands that tell of adaptors: list and info."""

from pathlib import Path
from typing import Annotated

import typer

from fair_adaptors.adaptor.registry import AUTHORS, AdaptorInfo


def list_() -> None:
    """List the known adaptors, and what it takes to have them."""
    from rich.console import Console
    from rich.table import Column, Table

    from fair_adaptors.adaptor.registry import list_adaptors

    rows = list_adaptors()
    table = Table("name", "status", Column("base", overflow="fold"), "what it does", "before → after", "needs")
    for row in rows:
        table.add_row(row.name, row.status, row.base_model, row.summary, _measured(row), _needs(row))
    console = Console()
    console.print(table)
    lines = [
        "embedded: in this package. recipe-only: nobody has published it.",
        f"published: by the paper's authors ({AUTHORS}) or on the Hub; the first use fetches it.",
        "training: fair-adaptors train NAME",
    ]
    console.print("\n".join(lines), highlight=False, soft_wrap=True, markup=False)


def info(
    name: Annotated[str, typer.Argument(help="Name of a known adaptor, a folder, or ORG/NAME on the Hub.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
) -> None:
    """Tell what an adaptor does, where it is from, and what was measured. No weights are fetched."""
    from rich.console import Console
    from rich.markdown import Markdown

    from fair_adaptors.adaptor.record import CARD_FILE, read_record
    from fair_adaptors.adaptor.registry import find
    from fair_adaptors.hub.resolve import resolve
    from fair_adaptors.report.card import card_of

    console = Console()
    if "/" not in name and not Path(name).expanduser().exists():
        known = find(name)
        console.print(f"{known.name} ({known.status}): {known.summary}\nbase: {known.base_model}", markup=False)
        if known.checkpoint is not None:
            console.print(_origin(known), soft_wrap=True, markup=False, highlight=False)
        if known.status == "recipe-only":
            console.print(f"Not published. To have it, {known.how_to_get}.", soft_wrap=True, markup=False)
        if not (known.is_here or known.repo_id):
            return
    folder = resolve(name, revision=revision, wanted="description")
    record = read_record(folder)
    shares = "; ".join(
        f"{attribute}: " + ", ".join(f"{c} {t:.0%}" for c, t in zip(row.classes, row.target, strict=True))
        for attribute, row in record.attributes.items()
    )
    console.print(
        f"target: {shares}\nparts: {', '.join(record.trained_parts)}, rank {record.rank}\nfolder: {folder}",
        markup=False,
    )
    card = folder / CARD_FILE
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else card_of(folder)
    shown = "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")  # a terminal obeys others
    console.print(Markdown(shown.split("---\n", 2)[-1]))


def _origin(row: AdaptorInfo) -> str:
    """Say where the authors published an adaptor, and whether it is here."""
    from fair_adaptors.adaptor.archives import ARCHIVES

    assert row.checkpoint is not None
    here = "it is in the cache" if row.is_here else f"fetched on first use, or with: fair-adaptors pull {row.name}"
    return (
        f"parts: {', '.join(row.trained_parts)}; trained for {row.checkpoint.step:,} steps by the paper's authors"
        f" ({AUTHORS})\n"
        f"source: {row.checkpoint.member} in {row.checkpoint.archive}, {ARCHIVES[row.checkpoint.archive].page}\n"
        f"licence: {row.licence}, as its base; the authors' code is under the MIT licence\n"
        f"here: {here}"
    )


def _measured(row: AdaptorInfo) -> str:
    """Return the headline figures of an embedded adaptor: what it is aimed at, then how far all else shifts."""
    from fair_adaptors.adaptor.record import read_record
    from fair_adaptors.adaptor.results_file import variant_of
    from fair_adaptors.evaluation.harm import not_aimed_at, shift_of
    from fair_adaptors.evaluation.wording import number
    from fair_adaptors.report.card_tables import trained_figures

    results = row.results
    if row.folder is None or results is None:
        return ""
    record = read_record(row.folder)
    lines = [
        f"{name} {number(before.value)} → {number(after.value)}"
        for name, _, before, after in trained_figures(record, results)
    ]
    variant = variant_of(record, results)
    shifts = {name: shift_of(results, variant, name) for name in not_aimed_at(results, variant)}
    return "\n".join(lines + [f"{name} shift {number(found.value)}" for name, found in shifts.items() if found])


def _needs(row: AdaptorInfo) -> str:
    if row.is_here:
        return "nothing"
    if row.status == "published":
        return f"download of {row.repo_id or (row.checkpoint and row.checkpoint.archive)}"
    return "training"
