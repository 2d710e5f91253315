"""The commands that change an adaptor's format: convert and export."""

from pathlib import Path
from typing import Annotated

import typer

from fair_adaptors.files import check_writable
from fair_adaptors.progress import waiting

from .common import NAMES, adaptors, bases, quiet


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE_OR_ZIP", help="One file or zip, a folder of checkpoints, or a Hub id: ORG/NAME[/FILE]."
        ),
    ],
    out: Annotated[Path, typer.Option(help="New folder for the adaptor.")],
    base: Annotated[str, typer.Option(help=f"{NAMES}, or a pipeline's folder.", autocompletion=bases)] = "sd15",
    name: Annotated[str | None, typer.Option(help="Name of the adaptor; that of --out by default.")] = None,
    attribute: Annotated[
        list[str] | None, typer.Option(help="gender, age=0.75,0.25 or hair=dark:0.5,fair:0.5; may be given again.")
    ] = None,
) -> None:
    """Convert the paper authors' checkpoints, or a LoRA of kohya, ComfyUI, peft or diffusers, into an adaptor."""
    quiet()
    from fair_adaptors.convert.importing import convert as convert_files
    from fair_adaptors.convert.importing import describe

    with waiting(f"converting {source}"):
        made = convert_files(source, out, base=base, name=name, attributes=attribute or [])
    print(describe(made))


def export(
    adaptor: Annotated[str, typer.Argument(help="Name, folder or Hub id.", autocompletion=adaptors)],
    out: Annotated[Path, typer.Option(help="New folder; for one file, a new .safetensors file.")],
    format: Annotated[str, typer.Option("--format", help="kohya, diffusers, peft, merged or textual-inversion.")],
    base: Annotated[
        str | None, typer.Option(help="For merged: pipeline folder or Hub id; its own by default.")
    ] = None,
) -> None:
    """Write an adaptor for other programs, or bake it into a copy of its base."""
    from fair_adaptors.adaptor.record import read_record
    from fair_adaptors.convert.exporting import export as export_adaptor
    from fair_adaptors.hub.resolve import resolve
    from fair_adaptors.pipelines import load_pipeline

    folder = resolve(adaptor)
    pipe = None
    if format == "merged":
        check_writable(out)
        quiet()
        with waiting("loading the base"):
            pipe = load_pipeline(base or read_record(folder).base_model)
    with waiting("writing"):
        written = export_adaptor(folder, out, format=format, pipe=pipe)
    print(f"written: {written}")
