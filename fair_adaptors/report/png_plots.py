"""PNG plots and picture grids of an evaluation, for slides and papers; the page draws its own."""

import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fair_adaptors.adaptor.results import Estimate, PromptFigures, Results, TargetClasses, VariantResults, headline
from fair_adaptors.errors import MissingExtraError, install_hint
from fair_adaptors.evaluation.obeyed import never_open, where_open
from fair_adaptors.evaluation.verdict import figure_name, largest
from fair_adaptors.evaluation.wording import number, percent

from .gallery import Picture, Pictures
from .grid import AFTER, BEFORE, FAINT, INK, RULE, before_after_grid

Box = tuple[float, float, float, float]
"""Left, bottom, right and top."""

if TYPE_CHECKING:
    from matplotlib.axes import Axes  # type: ignore[import-not-found, unused-ignore]
    from matplotlib.figure import Figure  # type: ignore[import-not-found, unused-ignore]
    from torch import Tensor

    Label = tuple[Axes, tuple[float, float], str, str]
    """Where, words and their colour."""

COLOURS = ("#4f74b3", "#d8a13a", "#6aa57c", "#9a6aa8", "#c9705b", "#4ea3ad", "#8c8f5a", "#7b7f8c")
SHAPES = "osD^vP"
GRID_PROMPTS, GRID_IMAGES = 4, 8
COLUMNS = 3
NAME = 36
"""Letters of a variant's name."""
HIGHEST = 200
"""Inches; beyond it an image could not be opened."""


def write_plots(folder: Path, results: Results) -> list[Path]:
    """Write ``bias.png`` and, where an encoder tells how alike the images are, ``pareto.png``.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    drawn = {"bias.png": bias_figure(results)}
    if any(variant.preservation for variant in results.variants):
        drawn["pareto.png"] = pareto_figure(results)
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # names in scripts that the font lacks
        for name, figure in drawn.items():
            figure.savefig(folder / name, dpi=150)
    return [folder / name for name in drawn]


def write_grids(folder: Path, results: Results, pictures: Pictures) -> list[Path]:
    """Write a grid of pictures before and after for each variant, where its images were saved."""
    name, target = next(iter(results.targets.items()))
    first, *others = results.variants
    paths: list[Path] = []
    for variant in others:
        both = {
            prompt: (pictures[first.name, prompt][:GRID_IMAGES], pictures[variant.name, prompt][:GRID_IMAGES])
            for prompt in range(min(GRID_PROMPTS, len(results.labels)))
            if (first.name, prompt) in pictures and (variant.name, prompt) in pictures
        }
        if not both:
            continue
        of_prompts = (results.figures(one, name).prompts for one in (first, variant))
        was, now = (
            [_note(rows[prompt], target, results.named(name, prompt)) for prompt in both] for rows in of_prompts
        )
        sheet = before_after_grid(
            _stacked([pair[0] for pair in both.values()]),
            _stacked([pair[1] for pair in both.values()]),
            [results.settings.prompts[prompt] for prompt in both],
            title=variant.name,
            subtitle=f"{results.settings.base}, the same seed in each column; {name} of all"
            f" {results.settings.images_per_prompt} images of a prompt",
            notes=list(zip(was, now, strict=True)),
        )
        folder.mkdir(parents=True, exist_ok=True)
        paths.append(_free(folder, variant, paths))
        sheet.save(paths[-1])
    return paths


def _note(row: PromptFigures, target: TargetClasses, named: str) -> str:
    """Say in a few words what was counted of a prompt.

    That is the share of the class that it names, or of the first of two classes; else how unequal they are.
    """
    first, *others = target.classes
    if named in target.classes:
        return f"{percent(row.frequencies[target.classes.index(named)])} {named}" if row.images else "–"
    if len(others) == 1:
        return f"{percent(row.frequencies[0])} {first}" if row.images else "–"
    return f"{'bias' if target.is_uniform else 'off target'} {number(headline(row, target).value)}"


def _free(folder: Path, variant: VariantResults, taken: Sequence[Path]) -> Path:
    """Return a readable file name that no other variant has, on any file system."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", variant.name)[:60]
    if f"grid_{name}.png".lower() in {path.name.lower() for path in taken}:
        name += f"-{variant.identity[:8]}"
    return folder / f"grid_{name}.png"


def _stacked(rows: Sequence[Sequence[Picture]]) -> "Tensor":
    """Read pictures as [P, n, 3, H, W] in [0, 1]."""
    import numpy as np
    import torch
    from PIL import Image

    def read(path: Path) -> "Tensor":
        with Image.open(path) as picture:
            return torch.from_numpy(np.asarray(picture.convert("RGB")).copy()).permute(2, 0, 1).float() / 255

    return torch.stack([torch.stack([read(picture.path) for picture in row]) for row in rows])


def bias_figure(results: Results) -> "Figure":
    """Draw the headline figure of every variant with its interval and the noise floor, a panel per target.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    variants = results.variants
    figure, panels = _panels(results, 0.3 * len(variants) + 1.1, f"As {results.classifier} sees it; 95 % intervals")
    short = _short([variant.name for variant in variants])
    for k, (axes, (name, target)) in enumerate(zip(panels, _told(results).items(), strict=True)):
        _style(axes, figure_name(name, target))
        for row, variant in enumerate(variants):
            found = headline(results.figures(variant, name), target)
            if math.isnan(found.value):
                continue
            colour = BEFORE if not row else AFTER if name in variant.aimed else FAINT
            axes.plot([found.low, found.high], [row, row], color=colour, alpha=0.35, linewidth=5,
                      solid_capstyle="round")  # fmt: skip
            axes.plot([found.value], [row], "o", color=colour, markersize=6)
            if not math.isnan(found.floor):
                axes.plot([found.floor] * 2, [row - 0.4, row + 0.4], color=INK, linewidth=1.2, linestyle=":")
        axes.set_yticks(range(len(variants)), list(short.values()) if k % COLUMNS == 0 else [""] * len(variants))
        axes.set_ylim(len(variants) - 0.4, -0.6)
        axes.set_xlim(0, largest(target) * 1.03)
        axes.set_xlabel(f"dotted: noise floor{_aim(results, name)}", fontsize=8, color=FAINT)
    return figure


def _told(results: Results) -> dict[str, TargetClasses]:
    """Return the targets that some prompt leaves open, which have a figure; all of them where there are none."""
    return {name: one for name, one in results.targets.items() if not never_open(results, name)} or {**results.targets}


def _aim(results: Results, name: str) -> str:
    """Say in which prompts a target is counted, if not in all, and which variants are not aimed at it.

    Nothing of it is better or worse for these for being lower.
    """
    aimed = [name in variant.aimed for variant in results.variants[1:]]
    said = "" if all(aimed) else "; grey: not aimed at" if any(aimed) else "; not aimed at"
    return said + (f";{where}" if (where := where_open(results, name)) else "")


def pareto_figure(results: Results) -> "Figure":
    """Draw the headline figure against similarity to the original, a line per adaptor, a panel per target.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    variants = results.variants
    encoder = next(name for name in results.encoders if any(name in one.preservation for one in variants))
    figure, panels = _panels(results, 3.6, f"Fairness against similarity to the original ({encoder}); 95 % intervals")
    labels: list[Label] = []
    groups = lines(variants)
    short = _short(list(groups))
    for axes, (name, target) in zip(panels, _told(results).items(), strict=True):
        _style(axes, figure_name(name, target))
        before = headline(results.figures(results.original, name), target)
        if not math.isnan(before.value):
            axes.plot([1, 1], [before.low, before.high], color=BEFORE, alpha=0.35, linewidth=1.5)
            axes.plot([1], [before.value], "o", color=BEFORE, markersize=8, label=_label(results.original.name))
            labels.append((axes, (1.0, before.value), "", BEFORE))
            axes.axhline(before.floor, color=INK, linewidth=1, linestyle=":")
        for k, (label, members) in enumerate(groups.items()):
            points = [
                (one.preservation[encoder], headline(results.figures(one, name), target), one.weight)
                for one in members
            ]
            points = [point for point in points if not math.isnan(point[0].value + point[1].value)]
            colour = COLOURS[k % len(COLOURS)]
            _draw_line(axes, points, colour, SHAPES[k % len(SHAPES)], short[label])
            labels += [
                (axes, (x.value, y.value), "" if weight is None else f"× {weight:g}", colour)
                for x, y, weight in points
            ]
        axes.set_ylim(bottom=0)
        said = _aim(results, name).replace("grey: ", "partly ")
        axes.set_xlabel(f"similarity to the original (dotted: noise floor{said})", fontsize=8, color=FAINT)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7,
                  frameon=False)  # fmt: skip
    _write_apart(figure, labels)
    return figure


def _write_apart(figure: "Figure", labels: "Sequence[Label]") -> None:
    """Write words beside points, each at the first of four corners that is free; those without one are left out."""
    from matplotlib.patheffects import withStroke  # type: ignore[import-not-found, unused-ignore]

    figure.draw_without_rendering()  # where things are is known only now
    scale = 72 / figure.dpi
    at = [axes.transData.transform(point) * scale for axes, point, _, _ in labels]
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in at]
    for (axes, point, text, colour), (x, y) in zip(labels, at, strict=True):
        wide, high, most = 4.4 * len(text), 8.0, axes.get_window_extent().x1 * scale
        for right, up in ((5.0, 3.0), (-5 - wide, 3.0), (5.0, -3 - high), (-5 - wide, -3 - high)):
            box = x + right, y + up, x + right + wide, y + up + high
            if text and box[2] <= most and not any(_overlap(box, other) for other in taken):
                axes.annotate(text, point, (right, up), textcoords="offset points", fontsize=7, color=colour,
                              path_effects=[withStroke(linewidth=2.5, foreground="white")])  # fmt: skip
                taken.append(box)
                break


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def lines(variants: Sequence[VariantResults]) -> dict[str, list[VariantResults]]:
    """Group what is compared with the original: an adaptor's strengths in ascending order, a baseline by itself."""
    found: dict[str, list[VariantResults]] = {}
    for variant in variants[1:]:
        found.setdefault(variant.adaptor or variant.name, []).append(variant)
    return {name: sorted(members, key=lambda one: one.weight or 0.0) for name, members in found.items()}


def _draw_line(
    axes: "Axes", points: Sequence[tuple[Estimate, Estimate, float | None]], colour: str, shape: str, label: str
) -> None:
    if not points:
        return
    for x, y, _ in points:
        axes.plot([x.low, x.high], [y.value] * 2, color=colour, alpha=0.35, linewidth=1.5)
        axes.plot([x.value] * 2, [y.low, y.high], color=colour, alpha=0.35, linewidth=1.5)
    values = [x.value for x, _, _ in points], [y.value for _, y, _ in points]
    axes.plot(*values, marker=shape, color=colour, markersize=6, label=label)


def _panels(results: Results, height: float, title: str) -> tuple["Figure", "list[Axes]"]:
    """Make a figure with a panel per target; it belongs to no global state."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            f"the report is written, but its plots are not: {error.name} is not installed: {install_hint('eval')}"
        ) from error
    count = len(_told(results))
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    size = (max(6.0, 4.6 * columns), min(HIGHEST, rows * height + 0.5))
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    figure.suptitle(_label(title, 200), fontsize=11, color=INK)
    panels = [figure.add_subplot(rows, columns, k + 1) for k in range(count)]
    return figure, panels


def _style(axes: "Axes", title: str) -> None:
    axes.set_title(_label(title), fontsize=10, color=INK, loc="left")
    axes.tick_params(labelsize=8, colors=FAINT, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.grid(axis="x", color=RULE, linewidth=0.6)


def _short(names: Sequence[str]) -> dict[str, str]:
    """Return what names are called where room is scarce: without folders, unless these tell them apart."""
    last = [name.rsplit("/", 1)[-1] for name in names]
    apart = len(set(last)) == len(set(names))
    return {name: _label(end if apart else name, NAME) for name, end in zip(names, last, strict=True)}


def _label(text: str, width: int = 42) -> str:
    """Make a user's text one short line, without its middle if need be, that is not read as mathematics."""
    line, tail = " ".join(text.split()), width // 3
    return (line if len(line) <= width else f"{line[: width - tail - 1]}…{line[-tail:]}").replace("$", r"\$")
