"""The command that makes an adaptor without training."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from fair_adaptors.files import check_writable
from fair_adaptors.progress import bar, waiting

from .common import quiet


def make(
    base: Annotated[str, typer.Argument(help="sd15, sd21, sdxl, a pipeline's folder or its Hub id.")],
    attribute: Annotated[list[str], typer.Option(help="gender, or gender=0.6,0.4; may be given again.")],
    out: Annotated[Path, typer.Option(help="New folder for the adaptor.")],
    method: Annotated[str, typer.Option(help="directions, edit or words.")] = "directions",
    prompts: Annotated[
        str | None, typer.Option(help="Prompts that name no class, to make it from; by default occupations.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the adaptor; that of --out by default.")] = None,
) -> None:
    """Make an adaptor without training, in about a minute on a CPU. Only the base's text encoders are loaded."""
    check_writable(out)
    quiet()
    from fair_adaptors.adaptor.record import read_record
    from fair_adaptors.making import make as make_adaptor

    with waiting("reading the text encoders"), ExitStack() as stack:
        moves: list[Callable[[int, int | None], None]] = []

        def move(done: int, total: int) -> None:
            if not moves:  # what is refused is refused before there is a bar
                moves.append(stack.enter_context(bar("reading prompts", transient=True))[1])
            moves[0](done, total)

        folder = make_adaptor(
            base,
            attribute,
            out=out,
            method=method,  # type: ignore[arg-type]
            prompts=prompts,
            name=name,
            on_texts=move,
        )
    record = read_record(folder)
    size = sum(file.bytes for file in record.files.values()) / 1e6
    took = f", {record.training['seconds']} s" if "seconds" in record.training else ""
    print(f"written: {folder} ({method} for {' and '.join(record.attributes)}, {size:.1f} MB{took})")
    print(f"To use it: load_fair_adaptor(pipe, {str(folder)!r}). To measure it:")
    print(f"  fair-adaptors evaluate {base} --adaptor {folder}")
