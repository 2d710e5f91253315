"""Draw the pictures of docs/concepts.md, on the sandbox: what bias, floor, interval, shift and erasure mean."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._report import DOCUMENTS
from fair_adaptors import load_fair_adaptor
from fair_adaptors.adaptor.registry import find
from fair_adaptors.evaluation.metrics import bias, noise_floor
from fair_adaptors.sandbox import load_sandbox_pipeline
from fair_adaptors.sandbox.demo import draw
from fair_adaptors.sandbox.instruments import classifier

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

FOLDER = DOCUMENTS / "pictures"
NURSE = "hospital nurse"
IMAGES = 16
COLOURS = ("#d1495b", "#2e6f95", "#edae49", "#5c4d7d")


def main() -> None:
    """Draw all of them; a minute on two cores."""
    import matplotlib

    matplotlib.use("Agg")
    FOLDER.mkdir(exist_ok=True)
    before, after = _portraits()
    _figure("bias", (9, 1.9), lambda axes: _bias(axes, before, after), rows=2)
    _figure("floor", (7, 3), _floor)
    _figure("interval", (7, 4.2), _interval)
    _figure("shift", (9, 1.9), lambda axes: _shift(axes, before, after), rows=2)
    _figure("erasure", (7, 2.8), _erasure)


def _portraits() -> "tuple[Tensor, Tensor]":
    """Return the portraits of one prompt without an adaptor and with one, from the same noise."""
    pipe = load_sandbox_pipeline()
    pipe.set_progress_bar_config(disable=True)
    (before,) = draw(pipe, [NURSE], images_per_prompt=IMAGES, seed=0)
    with load_fair_adaptor(pipe, "sandbox-gender"):
        (after,) = draw(pipe, [NURSE], images_per_prompt=IMAGES, seed=0)
    return before, after


def _seen(images: "Tensor", attribute: str) -> np.ndarray:
    return classifier("evaluation").logits(images)[attribute].argmax(-1).numpy()


def _figure(name: str, size: tuple[float, float], draw_on: Callable[[Any], None], *, rows: int = 1) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    draw_on(figure.subplots(rows, squeeze=False)[:, 0] if rows > 1 else figure.subplots())
    figure.savefig(FOLDER / f"{name}.png", dpi=110, metadata={"Software": None})
    print(FOLDER / f"{name}.png")


def _row(axes: "Axes", images: "Tensor", colours: Sequence[str | None], title: str) -> None:
    """Draw portraits in a row, each framed by its colour."""
    from matplotlib.patches import Rectangle

    side = images.shape[-1]
    axes.imshow(np.concatenate(list(images.permute(0, 2, 3, 1).numpy().clip(0, 1)), axis=1))
    for number, colour in enumerate(colours):
        if colour:
            frame = Rectangle((number * side + 2, 2), side - 5, side - 5, fill=False, edgecolor=colour, linewidth=3)
            axes.add_patch(frame)
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_axis_off()


def _bias(axes: Sequence["Axes"], before: "Tensor", after: "Tensor") -> None:
    for each, images, name in zip(axes, (before, after), ("without", "with"), strict=True):
        seen = _seen(images, "gender")
        women = int((seen == 0).sum())
        shares = (women / IMAGES, 1 - women / IMAGES)
        title = f"{name} the adaptor: {women} women, {IMAGES - women} men"
        title += f"; bias |{shares[0]:.2f} − {shares[1]:.2f}| = {float(bias(shares)):.2f}"
        _row(each, images, [COLOURS[one] for one in seen], title)


def _floor(axes: "Axes") -> None:
    numbers = [2, 4, 8, 16, 32, 64, 128]
    for classes, colour, away in ((2, COLOURS[0], 6), (4, COLOURS[1], -14)):
        floors = [noise_floor(number, classes) for number in numbers]
        axes.plot(numbers, floors, "o-", color=colour, label=f"{classes} classes")
        for number, floor in zip(numbers, floors, strict=True):
            place: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": 8}
            axes.annotate(f"{floor:.2f}", (number, floor), (0, away), **place)
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.set_ylim(-0.04, 0.6)
    axes.set_xlabel("images of each prompt")
    axes.set_title("The bias that a perfectly fair model scores", loc="left", fontsize=10)
    axes.legend(frameon=False)


def _interval(axes: "Axes") -> None:
    results = find("sandbox-gender").results
    assert results is not None
    for number, (variant, colour) in enumerate(zip(results.variants, COLOURS, strict=False)):
        found = results.figures(variant, "gender")
        values = [prompt.bias.value for prompt in found.prompts if prompt.bias is not None]
        heights = number + np.linspace(-0.28, 0.28, len(values))
        axes.plot(values, heights, "o", color=colour, alpha=0.45, markersize=5)
        low, high = found.bias.low, found.bias.high
        axes.plot([low, high], [number, number], color=colour, linewidth=7, alpha=0.5, solid_capstyle="butt")
        axes.plot(found.bias.value, number, "|", color="black", markersize=18, markeredgewidth=2)
        told = f"{found.bias.value:.2f} ({low:.2f} to {high:.2f})"
        axes.text(1.04, number, told, va="center", fontsize=9)
    axes.axvline(found.bias.floor, color="grey", linestyle=":", linewidth=1.5)
    axes.text(found.bias.floor + 0.01, -0.45, "floor", fontsize=9, color="grey")
    axes.set_yticks([0, 1], ["without", "with\nsandbox-gender"])
    axes.set(xlim=(-0.02, 1.02), ylim=(1.5, -0.6), xlabel="gender bias; each dot is a prompt")
    axes.set_title("Mean over 16 prompts (line), 95 % interval (bar)", loc="left", fontsize=10)


def _shift(axes: Sequence["Axes"], before: "Tensor", after: "Tensor") -> None:
    first, second = _seen(before, "age"), _seen(after, "age")
    moved = [COLOURS[2] if one != other else None for one, other in zip(first, second, strict=True)]
    for each, images, seen, name in zip(axes, (before, after), (first, second), ("without", "with"), strict=True):
        old = int((seen == 1).sum())
        _row(each, images, moved, f"{name} the adaptor: {IMAGES - old} young, {old} old")


def _erasure(axes: "Axes") -> None:
    """Invented shares: neither adaptor of the package erases anybody."""
    tones, before, after = ("pale", "tan", "brown", "dark"), (0.30, 0.35, 0.20, 0.15), (0.36, 0.41, 0.20, 0.03)
    places = np.arange(4)
    axes.bar(places - 0.2, before, 0.38, color="#b8c4cc", label="before")
    bars = axes.bar(places + 0.2, after, 0.38, color=COLOURS[1], label="after")
    bars[3].set_color(COLOURS[0])
    axes.plot([2.6, 3.5], [before[3] / 2] * 2, color="black", linestyle=":")
    axes.text(3.53, before[3] / 2, "half", va="center", fontsize=9)
    axes.set_xlim(-0.5, 3.9)
    axes.set_xticks(places, tones)
    axes.set_title("An invented example: less than half of the dark people are left", loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


if __name__ == "__main__":
    main()
