"""The commands that tell of adaptors: list, info and card."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fair_adaptors.adaptor.bases import find_base
from fair_adaptors.adaptor.registry import AUTHORS, AdaptorInfo, list_adaptors
from fair_adaptors.errors import ConfigError
from fair_adaptors.progress import waiting

from .common import AsJson, adaptors, print_json

if TYPE_CHECKING:
    from rich.console import Console


WORDS = ("words:gender", "The prompt of each image names a class that is drawn for it (docs/steering.md).")


def list_(as_json: AsJson = False) -> None:
    """List the known adaptors and how to get them."""
    if as_json:
        print_json([_row(info) for info in list_adaptors()])
        return
    from rich.console import Console

    console = Console()
    if not console.is_terminal:  # a line each, for grep and cut
        for row in list_adaptors():
            print(f"{row.name:26}{_base(row):9}{row.status:13}{_needs(row):10}{row.summary}")
        print(f"{WORDS[0]:26}{'any':9}{'no files':13}{'nothing':10}{WORDS[1]}")
        return
    from rich.table import Column, Table

    table = Table(Column("adaptor", width=25), Column("base, status, needs", overflow="fold"))
    table.add_column("measured")
    table.add_column("as published")
    for row in list_adaptors():
        state = f"{_base(row)}\n{row.status}\n{_needs(row)}"
        table.add_row(f"{row.name}\n{row.summary}", state, _measured(row), _as_published(row), end_section=True)
    table.add_row("\n".join(WORDS), "any\nno files\nnothing")
    console.print(table)
    lines = [
        "embedded: in this package. recipe-only: nobody has published it.",
        f"published: by the paper's authors ({AUTHORS}) or on the Hub; the first use fetches it.",
        "measured: here, before → after. as published: the paper's figures, of its original and its adaptor.",
        "base: sd15, sd21 and sdxl are Stable Diffusion 1.5, 2.1 and XL; all bases: docs/models.md.",
        "training: fair-adaptors train NAME",
    ]
    console.print("\n".join(lines), highlight=False, soft_wrap=True, markup=False)


def info(
    name: Annotated[
        str, typer.Argument(help="Name of a known adaptor, a folder, or ORG/NAME on the Hub.", autocompletion=adaptors)
    ],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what an adaptor does, where it is from, and what was measured. No weights are downloaded."""
    from rich.console import Console
    from rich.markdown import Markdown

    from fair_adaptors.adaptor.record import CARD_FILE, read_record
    from fair_adaptors.adaptor.registry import find
    from fair_adaptors.adaptor.results_file import read_results, to_json
    from fair_adaptors.hub.resolve import resolve
    from fair_adaptors.load import record_of
    from fair_adaptors.report.card import card_of
    from fair_adaptors.steering.words import is_words

    console = Console()
    if is_words(name):
        record = record_of(name)
        if as_json:
            print_json({"known": None, "record": to_json(record), "results": None})
            return
        console.print(f"{record.name}: no files, any base. {WORDS[1]}\ntarget: {record.aim}", markup=False)
        return
    folder = Path(name).expanduser()
    known = None if "/" in name or folder.exists() else find(name)
    if known and not as_json:
        _print_known(known, console)
    if known and not (known.is_here or known.repo_id):
        if as_json:
            print_json({"known": _row(known), "record": None, "results": None})
        return
    with waiting(f"looking for {name}"):
        folder = resolve(name, revision=revision, wanted="description")
    record, results = read_record(folder), read_results(folder)
    if as_json:
        found = {"folder": str(folder), "record": to_json(record), "results": to_json(results) if results else None}
        print_json({"known": _row(known) if known else None, **found})
        return
    console.print(
        f"target: {record.aim}\nparts: {', '.join(record.trained_parts)}, rank {record.rank}\nfolder: {folder}",
        markup=False,
    )
    file = folder / CARD_FILE
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else card_of(folder)
    shown = "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")  # a terminal obeys others
    console.print(Markdown(shown.split("---\n", 2)[-1]))


def card(
    folder: Annotated[Path, typer.Argument(help="Folder of an adaptor, such as one that you have trained.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the card that is there.")] = False,
) -> None:
    """Write the card of an adaptor folder, README.md, from its record and results. `push` writes one as well."""
    from fair_adaptors.adaptor.record import CARD_FILE
    from fair_adaptors.report.card import card_of

    file = folder.expanduser() / CARD_FILE
    if file.exists() and not overwrite:
        raise ConfigError(f"{file} is there already; --overwrite replaces it")
    file.write_text(card_of(folder.expanduser()), encoding="utf-8")
    print(f"written: {file}")


def _print_known(known: AdaptorInfo, console: "Console") -> None:
    console.print(f"{known.name} ({known.status}): {known.summary}\nbase: {known.base_model}", markup=False)
    if known.checkpoint is not None:
        console.print(_origin(known), soft_wrap=True, markup=False, highlight=False)
    if known.status == "recipe-only":
        console.print(f"Not published. To have it, {known.how_to_get}.", soft_wrap=True, markup=False)


def _base(row: AdaptorInfo) -> str:
    base = find_base(row.base_model)
    return base.short_name if base else row.base_model


def _origin(row: AdaptorInfo) -> str:
    """Say where the authors published an adaptor, and whether it is here."""
    from fair_adaptors.adaptor.archives import ARCHIVES
    from fair_adaptors.evaluation.published import SOURCE, comparisons

    figures = comparisons(row.name)
    assert row.checkpoint is not None
    here = "it is in the cache" if row.is_here else f"fetched on first use, or with: fair-adaptors pull {row.name}"
    return (
        f"parts: {', '.join(row.trained_parts)}; trained for {row.checkpoint.step:,} steps by the paper's authors"
        f" ({AUTHORS})\n"
        f"source: {row.checkpoint.member} in {row.checkpoint.archive}, {ARCHIVES[row.checkpoint.archive].page}\n"
        f"licence: {row.licence}, as its base; the authors' code is under the MIT licence\n"
        f"here: {here}\n"
        f"as published, not measured here ({SOURCE}; ± is the spread over prompts):\n  "
        + ("\n  ".join(f"{prompts}, {name}: {before or '–'} → {after}" for prompts, name, before, after in figures)
           or "no figures of this run")
    )  # fmt: skip


def _as_published(row: AdaptorInfo) -> str:
    """Return the paper's headline figures of an adaptor of its authors: the biases that it is aimed at."""
    from fair_adaptors.evaluation.published import OCCUPATIONS, comparisons
    from fair_adaptors.evaluation.wording import number

    found = comparisons(row.name) if row.checkpoint is not None else []
    aimed = [one for one in found if one[0] == OCCUPATIONS and set(one[1].split(" × ")) <= set(row.attributes)]
    pairs = [f"{name} {number(before.value)} → {number(after.value)}" for _, name, before, after in aimed if before]
    return "\n".join(pairs)


def _row(row: AdaptorInfo) -> dict[str, Any]:
    """Return a row of the table for programs. What was measured and what others published stand apart."""
    from fair_adaptors.adaptor.archives import ARCHIVES
    from fair_adaptors.adaptor.results_file import to_json
    from fair_adaptors.evaluation.published import SOURCE, comparisons

    source = row.checkpoint and asdict(row.checkpoint) | {
        "folder": row.checkpoint.member,
        "page": ARCHIVES[row.checkpoint.archive].page,
        "sha256": ARCHIVES[row.checkpoint.archive].sha256,
    }
    figures = [
        {"prompts": prompts, "figure": name, "original": before and asdict(before), "adaptor": asdict(after)}
        for prompts, name, before, after in (comparisons(row.name) if source else [])
    ]
    return asdict(row) | {
        "checkpoint": source,
        "licence": row.licence,
        "is_here": row.is_here,
        "measured": to_json(row.results) if row.results else None,
        "as_published": {"source": SOURCE, "figures": figures} if figures else None,
    }


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
        return f"download of {row.repo_id}" if row.repo_id else "download"
    return "training"
