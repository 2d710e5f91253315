"""The report of an evaluation: one HTML file that needs no other and no network, with plots beside it."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fair_adaptors.adaptor.bases import imported, plugin_of
from fair_adaptors.adaptor.results import Estimate, Figures, Results, VariantResults, headline
from fair_adaptors.adaptor.results_file import load_results, to_json
from fair_adaptors.evaluation.harm import class_judgement, fit_losses, judgement, lost_prompts
from fair_adaptors.evaluation.metrics import CONFIDENCE
from fair_adaptors.evaluation.obeyed import disobeyed_attributes, never_open, where_open
from fair_adaptors.evaluation.store import PLOTS, REPORT_FILE, RESULTS_FILE, TIMING_FILE
from fair_adaptors.evaluation.variety_words import VarietyRow, leads_with_variety, variety_rows
from fair_adaptors.evaluation.verdict import smallest_share, verdicts
from fair_adaptors.evaluation.wording import direction, fine, number, percent, points, signed

from . import gallery
from .page_data import page_data
from .png_plots import write_grids, write_plots

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATE = "page.html.jinja"
KeptTable = tuple[str, Callable[[float], str], list[tuple[str, list[tuple[Estimate, bool]]]]]
SENTENCES = 6
"""Variants whose sentence is shown at once."""
OPEN_TARGETS = 4
"""Targets whose class frequencies are shown at once."""
_ARROWS = {"falls": "▼ ", "rises": "▲ ", "no clear change": ""}


def write_report(out: Path, *, command: str) -> Path:
    """Write ``report.html``, and ``plots/`` beside it, from the results in an evaluation's folder.

    The page is written before the plots, which need matplotlib.

    Args:
        out: the folder of ``evaluate``; its pictures are shown if they were saved.
        command: what was typed, for those who want to do it again.

    Returns:
        The page's path.

    Raises:
        InvalidResultsError: there are no results in the folder, or of another version.
        MissingExtraError: matplotlib is not installed. The page and the picture grids are there.
    """
    results, pictures = _read(out)
    path = out / REPORT_FILE
    path.write_text(page(results, _read_timing(out / TIMING_FILE), pictures, command), encoding="utf-8")
    write_grids(out / PLOTS, results, pictures)
    write_plots(out / PLOTS, results)
    return path


def page_of(folder: Path, *, command: str) -> str:
    """Return the page of the evaluation in a folder, as ``write_report`` writes it."""
    results, pictures = _read(folder)
    return page(results, _read_timing(folder / TIMING_FILE), pictures, command)


def _read(folder: Path) -> tuple[Results, gallery.Pictures]:
    results = load_results(folder / RESULTS_FILE)
    chosen = gallery.chosen_prompts(results, gallery.PROMPTS)
    return results, gallery.find_pictures(folder, results, chosen, gallery.IMAGES)


def page(results: Results, timing: Mapping[str, float], pictures: gallery.Pictures, command: str) -> str:
    """Return the page as text; ``timing`` is the seconds per image by variant."""
    plugin = plugin_of(results.settings.base)
    first_target = next(iter(results.targets.items()))
    return _environment().get_template(TEMPLATE).render(
        results=results,
        timing=timing,
        command=command,
        verdicts=list(zip(verdicts(results), [variant.summary for variant in results.variants], strict=True)),
        sentences=SENTENCES,
        open_targets=OPEN_TARGETS,
        figure=_figure(results),
        variety=_variety(results),
        variety_first=leads_with_variety(results),
        kept=_kept(results),
        gallery=gallery.shown_prompts(results, pictures),
        open_prompts=gallery.OPEN_PROMPTS,
        first_target=first_target,
        letters=gallery.marks(first_target[1].classes),
        confidence=CONFIDENCE,
        comparisons=(len(results.variants) - 1) * len(results.targets),
        facts=_facts(results),
        note=imported(plugin.note) if plugin else "",
        data=page_data(results),
    )  # fmt: skip


def _environment() -> "Environment":
    """Return what renders the page: whatever it prints is escaped, but the page's own style and script."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.globals |= {
        "aim": lambda results, variant, name: (
            "–" if variant is results.original else "yes" if name in variant.aimed else "no"
        ),
        "arrow": lambda change: _ARROWS[direction(change)],
        "asset": lambda name: (folder / name).read_text(encoding="utf-8"),
        "change_in_points": _change_in_points,
        "class_judgement": class_judgement,
        "disobeyed_attributes": disobeyed_attributes,
        "encoders_of": _encoders_of,
        "fine": fine,
        "headline": headline,
        "interval": _interval,
        "judgement": judgement,
        "is_told": lambda found: found is not None and not math.isnan(found.value),
        "key": lambda value: "" if math.isnan(value) else f"{value:.6g}",
        "nan": math.nan,
        "never_open": never_open,
        "number": number,
        "obeyed_attributes": _obeyed_attributes,
        "percent": percent,
        "signed": signed,
        "smallest_share": smallest_share,
        "thumbnail": gallery.thumbnail,
        "where_open": where_open,
        "width": lambda share: f"{0.0 if math.isnan(share) else 100 * share:.2f}",
    }
    return environment


def _read_timing(path: Path) -> dict[str, float]:
    """Return the seconds per image by variant; nothing where they were not noted."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: float(row["seconds_per_image"]) for name, row in found.items()}
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return {}


def _interval(found: Estimate, write: Any) -> str:
    low, high = write(found.low), write(found.high)
    return f"{low} to {high}" if {low[:1], high[:1]} & {"+", "−"} else f"{low.removesuffix('%')}–{high}"


def _change_in_points(found: Figures, k: int) -> str:
    """Say how the share of class ``k`` changed; nothing for the original."""
    row = found.change.classes[k] if found.change else None
    return f"{points(row.value)} ({points(row.low)} to {points(row.high)})" if row else ""


def _kept(results: Results) -> list[KeptTable]:
    """Return what should stay: its name, how to write it, and the prompts that lost most first.

    Each prompt has an estimate of every variant, and whether it is clearly lost; the fit to the prompt is where its
    interval is wholly below the original's.
    """
    variants = results.variants
    tables: list[KeptTable] = []
    if results.kept is not None and results.original.kept_prompts is not None:
        lost = [lost_prompts(results, variant) for variant in variants]
        rows = [
            (label, [((one.kept_prompts or ())[p], p in gone) for one, gone in zip(variants, lost, strict=True)])
            for p, label in enumerate(results.labels)
        ]
        tables.append((results.kept, fine, rows))
    for encoder in results.original.text_prompts:
        lost = [fit_losses(results, variant, encoder) for variant in variants]
        rows = [
            (label, [(one.text_prompts[encoder][p], p in gone) for one, gone in zip(variants, lost, strict=True)])
            for p, label in enumerate(results.labels)
        ]
        tables.append((f"fit to prompt ({encoder})", number, rows))
    for _, _, rows in tables:
        rows.sort(key=lambda row: _lost_most(row[1]))
    return tables


def _variety(results: Results) -> list[tuple[str, VarietyRow]]:
    """Return the figures of variety, each with its variant's name: figure by figure."""
    rows = [(variant.name, row) for variant in results.variants for row in variety_rows(results, variant)]
    order = list(dict.fromkeys(row.what for _, row in rows))
    return sorted(rows, key=lambda pair: order.index(pair[1].what))


def _lost_most(cells: Sequence[tuple[Estimate, bool]]) -> float:
    """Return the largest fall among the variants of a prompt; one whose label says nothing comes last."""
    fell = min(found.value for found, _ in cells) - cells[0][0].value
    return math.inf if math.isnan(fell) else fell


def _encoders_of(results: Results, figure: str) -> list[str]:
    """Return the encoders that a figure is known of for some variant."""
    return [name for name in results.encoders if any(name in getattr(variant, figure) for variant in results.variants)]


def _obeyed_attributes(variant: VariantResults) -> list[str]:
    """Return the attributes that some prompt names, as any classifier knows them."""
    return sorted({name for rates in (variant.obeyed or {}).values() for name in rates})


def _figure(results: Results) -> str:
    """Say which figure the plots show."""
    uniform = [target.is_uniform for target in results.targets.values()]
    distance = "total variation, the distance from the target"
    if all(uniform):
        return "bias"
    return (
        f"bias, or where a target is not the same share for every class the {distance}," if any(uniform) else distance
    )


def _facts(results: Results) -> dict[str, str]:
    """Return what the numbers follow from, in words."""
    left_out = ("prompts", "labels", "format", "versions")
    settings = to_json(results.settings)
    facts = {name.replace("_", " "): str(value) for name, value in settings.items() if name not in left_out}
    return facts | {
        "prompts": f"{len(results.labels)}, from {results.prompt_source}",
        "classifiers": ", ".join(results.classifiers),
        "encoders": ", ".join(results.encoders) or "none",
        "face detector": results.face_detector or "none: the whole image is the face",
        "versions": ", ".join(f"{name} {version}" for name, version in results.versions.items()),
    }
