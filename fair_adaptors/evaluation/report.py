"""A one-page HTML report of a comparison, with everything inside it: styles, charts and pictures."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from .estimates import BiasEstimate, Estimate
from .metrics import CONFIDENCE
from .run import Comparison

if TYPE_CHECKING:
    from torch import Tensor

Kept = tuple[Estimate, Estimate]
AnyEstimate = BiasEstimate | Estimate

OPEN = 4
"""Prompts whose pictures are shown at once."""

PROTOCOL = (
    "The bias of a prompt is the mean, over pairs of classes, of the difference of their frequencies: 0 when every"
    " class is as frequent. The figure is the mean over prompts; its interval is a 95 % bootstrap over prompts and"
    " images. The noise floor is what a perfectly fair model scores with as many images. Where the classifier gives"
    f" an image's likeliest class less than {CONFIDENCE:.0%}, the image is called undetermined, and is counted all the"
    " same."
)


@dataclass(frozen=True)
class PromptResult:
    """What was seen for one prompt.

    Attributes:
        label: the prompt, or a short name for it.
        shares: by attribute, the frequency of each class before and after.
        kept: share of images in which what should stay was right, before and after.
        images: pictures to show, [m, 3, H, W] before and after; None for none.
    """

    label: str
    shares: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    kept: tuple[float, float]
    images: "tuple[Tensor, Tensor] | None" = None


@dataclass(frozen=True)
class Report:
    """All that a report shows.

    Attributes:
        adaptor: its name.
        classes: names of the classes, by attribute.
        comparisons: bias of the attributes that the adaptor was trained to make fair.
        others: bias of attributes that it was not trained for.
        kept_name: what should stay, such as "right occupation".
        kept: share of images in which it did, before and after.
        prompts: one result per prompt.
        facts: how it was measured, name and value.
        limits: sentences on what the numbers do not say.
    """

    adaptor: str
    classes: Mapping[str, Sequence[str]]
    comparisons: Mapping[str, Comparison]
    others: Mapping[str, Comparison]
    kept_name: str
    kept: Kept
    prompts: Sequence[PromptResult]
    facts: Mapping[str, str]
    limits: Sequence[str]


def write_report(path: Path, report: Report) -> None:
    """Write the report as one HTML file that needs no other."""
    template = Template((Path(__file__).parent / "report.html").read_text(encoding="utf-8"))
    cards = [_bias_card(name, found, 2 / len(report.classes[name])) for name, found in report.comparisons.items()]
    page = template.substitute(
        title=escape(f"{report.adaptor}: before and after"),
        verdict=escape(verdict(report.comparisons, report.kept_name, report.kept)),
        cards="\n".join([*cards, _kept_card(report.kept_name, report.kept)]),
        gallery=_gallery(report.prompts),
        legend="\n".join(_legend(name, report.classes[name]) for name in report.comparisons),
        table=_prompt_table(report),
        others=_other_table(report.others),
        protocol=escape(PROTOCOL),
        facts="".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in report.facts.items()),
        limits="".join(f"<li>{escape(limit)}</li>" for limit in report.limits),
    )
    path.write_text(page, encoding="utf-8")


def verdict(comparisons: Mapping[str, Comparison], kept_name: str, kept: Kept) -> str:
    """Say in one sentence what the numbers show, and no more than they show."""
    clauses = []
    for name, found in comparisons.items():
        before, after = found.before, found.after
        if after.high < before.low:
            said = f"the {name} bias falls from {before.value:.2f} to {after.value:.2f}"
        elif before.high < after.low:
            said = f"the {name} bias rises from {before.value:.2f} to {after.value:.2f}"
        else:
            said = f"the {name} bias shows no clear change ({before.value:.2f} before, {after.value:.2f} after)"
        clauses.append(f"{said}, where a perfectly fair model would score {after.floor:.2f}")
    was, now = kept
    moves = "falls" if now.value < was.value else "rises"
    stays = "is unchanged within the error" if now.low <= was.value <= now.high else moves
    clauses.append(f"{kept_name} {stays}: {was.value:.0%} before, {now.value:.0%} after")
    sentence = "; ".join(clauses) + "."
    return sentence[0].upper() + sentence[1:]


def _bias_card(name: str, found: Comparison, bound: float) -> str:
    before, after = found.before, found.after
    return (
        f'<section class="card"><h3>{escape(name.capitalize())} bias</h3>'
        f"{_change(f'{before.value:.2f}', f'{after.value:.2f}')}"
        f"{_lanes(before, after, bound, floor=after.floor)}<small>95 % interval"
        f" {before.low:.2f}–{before.high:.2f} before, {after.low:.2f}–{after.high:.2f} after."
        f" Noise floor {after.floor:.2f}. Undetermined:"
        f" {before.undetermined:.1%} of the images before, {after.undetermined:.1%} after.</small></section>"
    )


def _kept_card(name: str, kept: Kept) -> str:
    before, after = kept
    return (
        f'<section class="card"><h3>{escape(name.capitalize())}</h3>'
        f"{_change(f'{before.value:.0%}', f'{after.value:.0%}')}"
        f"{_lanes(before, after, 1.0)}<small>of the images; it should stay as it was. 95 % interval"
        f" {before.low:.1%}–{before.high:.1%} before, {after.low:.1%}–{after.high:.1%} after.</small></section>"
    )


def _change(before: str, after: str) -> str:
    return f'<div class="big"><span class="b">{before}</span> <i>→</i> <span class="a">{after}</span></div>'


def _lanes(before: AnyEstimate, after: AnyEstimate, bound: float, *, floor: float | None = None) -> str:
    """Draw value and interval before and after, on axes from 0 to ``bound``, shaded up to the noise floor.

    Places are in percent and text in pixels, so that it stays legible on a phone.
    """

    def at(value: float) -> str:
        return f"{100 * min(value / bound, 1):.2f}%"

    zone = ""
    if floor is not None:
        zone = (
            f'<rect x="0" y="0" width="{at(floor)}" height="28" fill="var(--after)" opacity=".13"/>'
            f'<line x1="{at(floor)}" x2="{at(floor)}" y1="0" y2="28" stroke="var(--after)" stroke-dasharray="2 3"/>'
        )
    lanes = []
    for word, mark, estimate in (("before", "b", before), ("after", "a", after)):
        spoken = f"{word}: {estimate.value:.2f}, 95 % interval {estimate.low:.2f} to {estimate.high:.2f}"
        lanes.append(
            f'<span class="{mark}">{word}</span><svg role="img" aria-label="{spoken}">{zone}'
            f'<line x1="0" x2="100%" y1="14" y2="14" stroke="var(--rule)" stroke-width="2"/>'
            f'<line x1="{at(estimate.low)}" x2="{at(estimate.high)}" y1="14" y2="14" stroke="var(--{word})"'
            f' stroke-width="8" stroke-linecap="round" opacity=".35"/>'
            f'<circle cx="{at(estimate.value)}" cy="14" r="6" fill="var(--{word})"/></svg>'
        )
    ticks = "".join(
        f'<text x="{100 * part:g}%" y="13" text-anchor="{anchor}">{part * bound:g}</text>'
        for part, anchor in ((0, "start"), (0.5, "middle"), (1, "end"))
    )
    if floor is not None and 0.06 < floor / bound < 0.35:
        ticks += f'<text x="{at(floor)}" y="13" text-anchor="middle">fair {floor:.2f}</text>'
    return f'<div class="chart">{"".join(lanes)}<span></span><svg class="axis" aria-hidden="true">{ticks}</svg></div>'


def _gallery(prompts: Sequence[PromptResult]) -> str:
    """Show the first prompts' pictures; the others unfold."""
    figures = [_figure(prompt.label, prompt.images) for prompt in prompts if prompt.images]
    shown, folded = "\n".join(figures[:OPEN]), "\n".join(figures[OPEN:])
    if not folded:
        return shown
    summary = f"<summary>{len(figures) - OPEN} more prompts</summary>"
    return f'{shown}<details>{summary}<div class="gallery">{folded}</div></details>'


def _figure(label: str, images: "tuple[Tensor, Tensor]") -> str:
    width = f' style="max-width:{7 * len(images[0])}rem"'
    strips = "".join(
        f'<div class="strip"><span class="{mark}">{word}</span>'
        f'<img src="{_strip(row)}" alt="{len(row)} images {word} the adaptor: {escape(label)}"'
        f' loading="lazy"{width}></div>'
        for word, mark, row in (("before", "b", images[0]), ("after", "a", images[1]))
    )
    return f'<figure class="card"><figcaption>{escape(label)}</figcaption>{strips}</figure>'


def _strip(images: "Tensor") -> str:
    """Join images [m, 3, H, W] to a row, as a data URI."""
    from .grid import pictures

    (joined,) = pictures(images.transpose(0, 1).transpose(1, 2).flatten(2, 3)[None])
    buffer = io.BytesIO()
    joined.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _legend(name: str, classes: Sequence[str]) -> str:
    marks = "".join(
        f'<span><i style="background:var(--c{k % 8})"></i>{escape(label)}</span>' for k, label in enumerate(classes)
    )
    return f'<div class="legend"><b>{escape(name)}</b>{marks}</div>'


def _prompt_table(report: Report) -> str:
    names = list(report.comparisons)
    rows = sorted(report.prompts, key=lambda prompt: prompt.shares[names[0]][0][0] if names else 0.0)
    head = "".join(f"<th>{escape(name)}</th>" for name in ("prompt", *names))
    body = []
    for prompt in rows:
        cells = "".join(f"<td>{_bars(*prompt.shares[name])}</td>" for name in names)
        was, now = prompt.kept
        body.append(
            f"<tr><td>{escape(prompt.label)}</td>{cells}{_number(report.kept_name, f'{was:.0%} → {now:.0%}')}</tr>"
        )
    kept = f'<th class="n">{escape(report.kept_name)}</th>'
    return f"<table><thead><tr>{head}{kept}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _bars(before: Sequence[float], after: Sequence[float]) -> str:
    lines = []
    for word, mark, shares in (("before", "b", before), ("after", "a", after)):
        parts = "".join(
            f'<i style="width:{100 * share:.2f}%;background:var(--c{k % 8})"></i>' for k, share in enumerate(shares)
        )
        numbers = " · ".join(f"{100 * share:.0f}" for share in shares)
        lines.append(f'<span class="{mark}">{word}</span><span class="bar">{parts}</span><span>{numbers}</span>')
    return f'<div class="pair">{"".join(lines)}</div>'


def _other_table(others: Mapping[str, Comparison]) -> str:
    if not others:
        return "<p>Nothing else was measured.</p>"
    body = "".join(
        f"<tr><td>{escape(name)} bias</td>{_number('before', _cell(found.before))}"
        f"{_number('after', _cell(found.after))}{_number('noise floor', f'{found.after.floor:.2f}')}</tr>"
        for name, found in others.items()
    )
    head = '<th></th><th class="n">before</th><th class="n">after</th><th class="n">noise floor</th>'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _number(label: str, content: str) -> str:
    """Return a cell that tells what it is where the table's head is not shown, on a phone."""
    return f'<td class="n" data-label="{escape(label)}">{content}</td>'


def _cell(estimate: BiasEstimate) -> str:
    return f'{estimate.value:.2f} <span class="faint">({estimate.low:.2f}–{estimate.high:.2f})</span>'
