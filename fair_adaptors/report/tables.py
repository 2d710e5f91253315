"""The tables of an evaluation's report, as HTML that reads without JavaScript; the page's script makes them sortable.

A cell tells what it is (``data-label``), for phones, where a table's head is not shown, and what it sorts by
(``data-v``), if that is not its text.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from fair_adaptors.evaluation.verdict import Results, direction, figure_of, fine, number, percent, signed

OPEN = 4
"""Targets whose class frequencies are shown at once."""
_MARK = {"falls": "▼ ", "rises": "▲ ", "no clear change": ""}


def main_table(results: Results, timing: Mapping[str, Any], classifiers: Sequence[str]) -> str:
    """Return the table of every variant and target, as these classifiers see them."""
    many = len(results["classifiers"]) > 1 and list(classifiers) != results["classifiers"][:1]
    rows = [
        _row(_name_cells(variant, target, judge if many else None) + _figure_cells(results, variant, target, judge)
             + _variant_cells(results, variant, timing))
        for judge in classifiers for variant in results["variants"] for target in variant["bias"][judge]
    ]  # fmt: skip
    return table([*(["classifier"] if many else []), "variant", "target"], _columns(results), rows)


def table(names: Sequence[str], numbers: Sequence[str], rows: Iterable[str], *, sortable: bool = True) -> str:
    """Return a table with columns of names, then columns of numbers, and rows that are HTML."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    head += "".join(f'<th scope="col" class="n">{escape(name)}</th>' for name in numbers)
    kind = ' class="sortable"' if sortable else ""
    return f"<table{kind}><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def frequency_tables(results: Results) -> str:
    """Return how often each class was seen, against the target; one table per target, the later ones folded."""
    judge = results["classifiers"][0]
    made = []
    for name, target in results["targets"].items():
        rows = [_frequency_row("target", [{"value": share} for share in target["shares"]], target["classes"])]
        for variant in results["variants"]:
            rows.append(
                _frequency_row(variant["name"], variant["bias"][judge][name]["frequencies"], target["classes"])
            )
        found = table(["", "shares"], target["classes"], rows, sortable=False)
        made.append(
            f'<section class="card">{legend(name, target["classes"])}<div class="scroll">{found}</div></section>'
        )
    return folded(made, OPEN, "more targets")


def agreement_table(results: Results) -> str:
    """Return Cohen's κ of every two classifiers; nothing where there is one."""
    rows = [
        _row(
            _name(variant["name"]) + _text("target", found["target"]) + _text("classifiers", " and ".join(
                found["classifiers"])) + estimate_cell("κ", found["kappa"])
        )
        for variant in results["variants"] for found in variant["agreement"]
    ]  # fmt: skip
    return table(["variant", "target", "classifiers"], ["Cohen’s κ"], rows) if rows else ""


def obeyed_table(results: Results) -> str:
    """Return in how many images an attribute that the prompt names is seen; nothing where no prompt names any."""
    judges = results["classifiers"]
    rows = []
    for variant in results["variants"]:
        obeyed = variant.get("obeyed", {})
        for attribute in sorted({name for rates in obeyed.values() for name in rates}):
            cells = "".join(estimate_cell(judge, obeyed.get(judge, {}).get(attribute), fine) for judge in judges)
            rows.append(_row(_name(variant["name"]) + _text("attribute", attribute) + cells))
    return table(["variant", "attribute"], judges, rows) if rows else ""


def calibration_table(results: Results) -> str:
    """Return how far each classifier's bias is off where the truth is known; nothing where it is not known."""
    rows = []
    for judge, attributes in (results.get("calibration") or {}).items():
        for attribute, found in attributes.items():
            cells = _text("attribute", attribute) + _text("recognised", _recognised(found))
            cells += number_cell("true bias", found["true"]) + number_cell("measured bias", found["measured"])
            rows.append(_row(_name(judge) + cells + number_cell("error", found["error"], signed)))
    names = ["classifier", "attribute", "recognised, by class"]
    return table(names, ["true bias", "measured bias", "error"], rows) if rows else ""


def legend(name: str, classes: Sequence[str]) -> str:
    """Return the colours of an attribute's classes."""
    marks = "".join(
        f'<span><i style="background:var(--c{k % 8})"></i>{escape(label)}</span>' for k, label in enumerate(classes)
    )
    return f'<div class="legend"><b>{escape(name)}</b>{marks}</div>'


def folded(parts: Sequence[str], shown: int, what: str) -> str:
    """Join parts of HTML; those behind the first few unfold."""
    first, rest = "\n".join(parts[:shown]), "\n".join(parts[shown:])
    if not rest:
        return first
    return f"{first}<details><summary>{len(parts) - shown} {what}</summary>{rest}</details>"


def number_cell(label: str, value: float | None, write: Any = number) -> str:
    """Return a cell with one number."""
    return f'<td class="n" data-label="{escape(label)}" data-v="{_key(value)}">{write(value)}</td>'


def estimate_cell(label: str, found: Mapping[str, Any] | None, write: Any = number, *, mark: str = "") -> str:
    """Return a cell with a value and its interval below; a dash where there is none."""
    if found is None or found["value"] is None:
        return number_cell(label, None)
    low, high = write(found["low"]), write(found["high"])
    between = f"{low} to {high}" if write is signed or (found["low"] or 0) < 0 else f"{low.removesuffix('%')}–{high}"
    return (
        f'<td class="n" data-label="{escape(label)}" data-v="{_key(found["value"])}">{mark}{write(found["value"])}'
        f" <small>{between}</small></td>"
    )


def _columns(results: Results) -> list[str]:
    columns = ["bias", "noise floor", "floor removed", "change", "total variation", "worst decile", "undetermined"]
    columns += ["no face", *([results["kept"]] if results["kept"] else [])]
    several = len(results["encoders"]) > 1
    for what, key in (("similarity", "preservation"), ("fit to prompt", "text_alignment"), ("diversity", "diversity")):
        columns += [f"{what} ({name})" if several else what for name in _encoders(results, key)]
    return [*columns, "s per image"]


def _encoders(results: Results, key: str) -> list[str]:
    """Return the encoders that a figure is known of for some variant."""
    return [name for name in results["encoders"] if any(name in variant[key] for variant in results["variants"])]


def _figure_cells(results: Results, variant: Mapping[str, Any], target: str, judge: str) -> str:
    found = variant["bias"][judge][target]
    change = found.get("change", {}).get(figure_of(results["targets"][target]))
    return "".join(
        [
            estimate_cell("bias", found["bias"]),
            number_cell("noise floor", found["bias"]["floor"]),
            estimate_cell("floor removed", found["floor_removed"]),
            estimate_cell("change", change, signed, mark=_MARK[direction(change)]),
            _floored("total variation", found["total_variation"]),
            _floored("worst decile", found["worst_decile"]),
            estimate_cell("undetermined", found["undetermined"], fine),
        ]
    )


def _variant_cells(results: Results, variant: Mapping[str, Any], timing: Mapping[str, Any]) -> str:
    cells = estimate_cell("no face", variant["no_face"], fine)
    if results["kept"]:
        cells += estimate_cell(results["kept"], variant["kept"], fine)
    several = len(results["encoders"]) > 1
    for what, key in (("similarity", "preservation"), ("fit to prompt", "text_alignment"), ("diversity", "diversity")):
        for name in _encoders(results, key):
            cells += estimate_cell(f"{what} ({name})" if several else what, variant[key].get(name))
    return cells + number_cell("s per image", timing.get(variant["name"], {}).get("seconds_per_image"))


def _floored(label: str, found: Mapping[str, Any]) -> str:
    """Return a cell with a value, its interval and, in words, its floor."""
    return estimate_cell(label, found).replace("</td>", f"<small>fair {number(found['floor'])}</small></td>")


def _name_cells(variant: Mapping[str, Any], target: str, judge: str | None) -> str:
    first = "" if judge is None else _text("classifier", judge)
    return first + _name(variant["name"]) + _text("target", target)


def _frequency_row(name: str, found: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> str:
    parts = "".join(
        f'<i style="width:{100 * (one["value"] or 0):.2f}%;background:var(--c{k % 8})"></i>'
        for k, one in enumerate(found)
    )
    cells = "".join(
        estimate_cell(label, one, percent) if "low" in one else number_cell(label, one["value"], fine)
        for label, one in zip(classes, found, strict=True)
    )
    kind = ' class="aim"' if name == "target" and "low" not in found[0] else ""
    return f'<tr{kind}>{_name(name)}<td><span class="bar">{parts}</span></td>{cells}</tr>'


def _recognised(found: Mapping[str, Any]) -> str:
    """Say how many images of each class were given to it."""
    rows = zip(found.get("classes", ()), found.get("confusion", ()), strict=True)
    return " · ".join(f"{name} {fine(row[k])}" for k, (name, row) in enumerate(rows))


def _row(cells: str) -> str:
    return f"<tr>{cells}</tr>"


def _name(name: str) -> str:
    return f'<th scope="row">{escape(name)}</th>'


def _text(label: str, text: str) -> str:
    return f'<td data-label="{escape(label)}">{escape(text)}</td>'


def _key(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
