"""A one-page HTML report of a comparison, with everything inside it."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from .metrics import BiasEstimate
from .run import Comparison

if TYPE_CHECKING:
    from PIL import Image


def write_report(
    path: Path,
    *,
    title: str,
    comparisons: Mapping[str, Comparison],
    upper_bounds: Mapping[str, float],
    kept: tuple[str, float, float],
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    grid: "Image.Image",
    method: Sequence[str],
) -> None:
    """Write the report.

    Args:
        comparisons: measure by attribute.
        upper_bounds: the worst value of each attribute's bias.
        kept: what should not change: its name, and its share before and after.
        header, rows: the table of prompts.
        grid: the picture.
        method: paragraphs on how it was measured.
    """
    template = Template((Path(__file__).parent / "report.html").read_text(encoding="utf-8"))
    cards = [_card(name, comparison, upper_bounds[name]) for name, comparison in comparisons.items()]
    what, before, after = kept
    cards.append(
        f'<div class="card"><b>{escape(what)}</b><div class="big"><span class="b">{before:.0%}</span> → '
        f'<span class="a">{after:.0%}</span></div><small>of the images; this should stay as it was</small></div>'
    )
    page = template.substitute(
        title=escape(title),
        verdict=escape(verdict(comparisons, kept)),
        measures="\n".join(cards),
        grid=_data_uri(grid),
        table=_table(header, rows),
        method="".join(f"<p>{escape(paragraph)}</p>" for paragraph in method),
    )
    path.write_text(page, encoding="utf-8")


def verdict(comparisons: Mapping[str, Comparison], kept: tuple[str, float, float]) -> str:
    """Say in a sentence or two what the numbers show, and no more than they show."""
    sentences = []
    for name, comparison in comparisons.items():
        before, after = comparison.before, comparison.after
        if after.high < before.low:
            said = f"The {name} bias falls from {before.value:.2f} to {after.value:.2f}"
        elif before.high < after.low:
            said = f"The {name} bias rises from {before.value:.2f} to {after.value:.2f}"
        else:
            said = f"The {name} bias shows no clear change ({before.value:.2f} before, {after.value:.2f} after)"
        sentences.append(f"{said}; a perfectly fair model would score {after.floor:.2f} with as many images.")
    what, was, now = kept
    sentences.append(f"{what}: {was:.0%} before, {now:.0%} after.")
    return " ".join(sentences)


def _card(name: str, comparison: Comparison, bound: float) -> str:
    before, after = comparison.before, comparison.after
    return (
        f'<div class="card"><b>{escape(name.capitalize())} bias</b>'
        f'<div class="big"><span class="b">{before.value:.2f}</span> → <span class="a">{after.value:.2f}</span></div>'
        f"<small>95 % interval {before.low:.2f}–{before.high:.2f} before, {after.low:.2f}–{after.high:.2f} after ·"
        f" noise floor {after.floor:.2f} · undetermined {before.undetermined:.1%} and {after.undetermined:.1%}</small>"
        f"{_chart(before, after, bound)}</div>"
    )


def _chart(before: BiasEstimate, after: BiasEstimate, bound: float) -> str:
    """Draw both values with their intervals on an axis from 0 to the worst value, the noise floor dashed."""
    left, width = 60, 680

    def x(value: float) -> float:
        return left + width * min(value / bound, 1)

    floor = x(after.floor)
    parts = [f'<line x1="{left}" x2="{left + width}" y1="62" y2="62" stroke="var(--rule)"/>']
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<text x="{x(tick * bound):.1f}" y="78" text-anchor="middle">{tick * bound:.3g}</text>')
    parts.append(
        f'<line x1="{floor:.1f}" x2="{floor:.1f}" y1="6" y2="62" stroke="var(--faint)" stroke-dasharray="3 3"/>'
        f'<text x="{floor + 4:.1f}" y="12">noise floor</text>'
    )
    for y, label, estimate in ((26, "before", before), (46, "after", after)):
        colour = f"var(--{label})"
        parts.append(
            f'<text x="0" y="{y + 4}">{label}</text>'
            f'<line x1="{x(estimate.low):.1f}" x2="{x(estimate.high):.1f}" y1="{y}" y2="{y}" stroke="{colour}"'
            f' stroke-width="4" stroke-linecap="round" opacity=".45"/>'
            f'<circle cx="{x(estimate.value):.1f}" cy="{y}" r="6" fill="{colour}"/>'
        )
    return f'<svg viewBox="0 0 760 84" role="img" aria-label="before and after">{"".join(parts)}</svg>'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _data_uri(image: "Image.Image") -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
