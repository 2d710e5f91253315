"""The plot of what training leaves over what it has computed."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any


def plot(curves: Sequence[Mapping[str, Any]], bars: Mapping[str, float], points: Collection[str], path: Path) -> None:
    """Draw each figure that has a bar over the operations; what has one point only, as a level."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    drawn, panels = pyplot.subplots(1, len(bars), figsize=(4 * len(bars), 3.8), layout="constrained")
    names = list(dict.fromkeys(one["tried"] for one in curves))
    for panel, (figure, bar) in zip(panels, bars.items(), strict=True):
        for one in curves:
            xs, ys = ([point[key] for point in one["points"]] for key in ("teraflops", figure))
            label = (
                one["tried"] if one["seed"] == min(e["seed"] for e in curves if e["tried"] == one["tried"]) else None
            )
            color = pyplot.get_cmap("tab20")(names.index(one["tried"]))
            if one["tried"] in points:
                panel.axhline(*ys, color=color, linestyle="--", label=label)
            else:
                panel.plot([x / 1_000 for x in xs], ys, color=color, label=label)
        panel.axhline(bar, color="grey", linestyle=":")
        panel.set(title=figure, xlabel="petaflops", xscale="log")
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_minor_formatter(ticker.NullFormatter())
    drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    drawn.savefig(path, dpi=110)
