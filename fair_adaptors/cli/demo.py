"""The command that shows a biased model before and after its adaptor."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fair_adaptors.errors import MissingExtraError
from fair_adaptors.files import check_writable
from fair_adaptors.progress import bar, waiting

from .common import Images, Seed, adaptors, quiet


def demo(
    base: Annotated[str, typer.Option(help="sandbox, or sandbox-flow in a checkout or once built.")] = "sandbox",
    adaptor: Annotated[
        str | None,
        typer.Option(
            help="An adaptor of the base: name, folder or Hub id.",
            show_default="sandbox-gender, or that of sandbox-flow",
            autocompletion=adaptors,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures and the report.")] = Path("fair-adaptors-demo"),
    images: Images = 20,
    seed: Seed = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete another evaluation in --out.")] = False,
) -> None:
    """Show a biased model before and after its fair adaptor: numbers, a picture grid and a report. Under a minute."""
    import shlex
    import time

    from rich.console import Console

    check_writable(out)
    quiet()
    from fair_adaptors.report.page import write_report
    from fair_adaptors.report.terminal import print_headline
    from fair_adaptors.sandbox.demo import run_demo

    started, console = time.perf_counter(), Console()
    with bar("drawing portraits", console, transient=True) as (_, advance):
        results = run_demo(
            out,
            base=base,
            adaptor=adaptor,
            images_per_prompt=images,
            seed=seed,
            overwrite=overwrite,
            on_images=advance,
        )
    print_headline(console, results)
    lines = [
        f"{images} images per prompt, seed {seed}, the same noise before and after. Even a perfectly fair model"
        " scores the noise floor, which is high for few images: that is why the bias here is larger than on the card."
        " Try -n 60."
    ]
    try:
        with waiting("writing the report"):
            write_report(out, command=shlex.join(["fair-adaptors", *sys.argv[1:]]))
    except MissingExtraError as error:  # the page and the picture grid are there
        lines.append(str(error))
    grids = sorted(out.glob("plots/grid_*.png"))
    lines.append(f"{time.perf_counter() - started:.0f} s. Look at:")
    lines += [f"  {path}" for path in (out / "report.html", *grids, out / "results.json")]
    console.print("\n".join(lines), highlight=False, soft_wrap=True, markup=False)
