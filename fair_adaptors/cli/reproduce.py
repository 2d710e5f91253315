"""The command that does the paper's evaluation of an adaptor again."""

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from fair_adaptors.files import check_writable
from fair_adaptors.progress import waiting

from .common import BaseConfig, Device, Dtype, Seed, Variant, adaptors, load_base, quiet


def reproduce(
    adaptor: Annotated[
        str,
        typer.Argument(
            help="A published adaptor, such as gender-race; or a folder or Hub id.", autocompletion=adaptors
        ),
    ],
    images: Annotated[
        int | None,
        typer.Option(
            "-n", "--images-per-prompt", min=1, help="Images per prompt; by default as many as in the paper."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for images, numbers and report.")] = Path("reproduction"),
    classifier: Annotated[
        str | None, typer.Option(help="A classifier of your own; then nothing of the authors' is downloaded.")
    ] = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(help="clip:SOURCE or dinov2:SOURCE, for the paper's cosines; may be given again."),
    ] = None,
    faces: Annotated[str, typer.Option(help="yunet, yunet:PATH, or insightface, as the authors.")] = "yunet",
    unpadded: Annotated[
        bool, typer.Option("--unpadded/--padded", help="Prompts as the authors give them, or as stock pipelines do.")
    ] = True,
    base: Annotated[
        str | None, typer.Option(help="Pipeline folder or Hub id; by default the adaptor's own base.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only this many prompts.")] = None,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Sampling steps; the paper's are 30.")] = 30,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images drawn at once.")] = None,
    seed: Seed = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete another evaluation in --out.")] = False,
    device: Device = None,
    dtype: Dtype = None,
    variant: Variant = None,
    base_config: BaseConfig = None,
) -> None:
    """Measure an adaptor as the paper does, and print the paper's figures beside the measured ones."""
    check_writable(out)
    quiet()
    from fair_adaptors.adaptor.bases import base_place, defaults_of
    from fair_adaptors.adaptor.record import read_record
    from fair_adaptors.devices import choose_device
    from fair_adaptors.evaluation import protocol, published, reproduction, spec
    from fair_adaptors.hub.resolve import resolve

    choose_device(device)  # before the instruments are loaded, which go there too
    with waiting("loading what measures"):
        record = read_record(resolve(adaptor))
        place, lists = base_place(base or record.base_model), reproduction.prompts_of(record.name)
        prompts = [
            reproduction.load_test_prompts(name, padded=not unpadded, own_list=classifier is not None)
            for name in lists
        ]
        words = classifier or reproduction.classifiers_of(tuple(record.attributes))
        instruments = spec.instruments_for(place, [words], encoder or [], faces)
        targets = reproduction.paper_targets(adaptor, instruments)
    for warning in spec.shared_classifiers([adaptor], instruments):
        print(f"fair-adaptors: {warning}", file=sys.stderr)
    pipe = load_base(place, device=device, dtype=dtype, variant=variant, base_config=base_config)
    protocol.draw_as_authors(pipe)
    for name, chosen in zip(lists, prompts, strict=True):
        folder = out / name if len(lists) > 1 else out
        wanted = spec.Evaluation(
            place,
            reproduction.first(chosen, limit),
            targets,
            images_per_prompt=images or published.images_per_prompt(tuple(record.attributes)),
            seed=seed,
            num_steps=steps,
            guidance_scale=published.GUIDANCE,
            batch_size=batch_size or defaults_of(place).batch_size,
        )
        with protocol.unpadded(pipe) if unpadded else nullcontext():
            results = _evaluate(pipe, wanted, adaptor, instruments, folder, overwrite)
        differs = reproduction.differences(
            results,
            record.name,
            attributes=tuple(record.attributes),
            padded=not unpadded,
            num_prompts=len(chosen.prompts),
            dtype=str(pipe.dtype).removeprefix("torch."),
        )
        _show(results, reproduction.rows(results, record.name, name), differs, folder)


def _evaluate(pipe: Any, wanted: Any, adaptor: str, instruments: Any, out: Path, overwrite: bool) -> Any:
    from fair_adaptors.evaluation.variants import distinct, variants_for
    from fair_adaptors.report.terminal import run_and_report

    return run_and_report(pipe, wanted, distinct(variants_for([adaptor], [])), instruments, out, overwrite=overwrite)


def _show(results: Any, rows: Any, differs: list[str], out: Path) -> None:
    """Print the table and what differs, and write both; of several processes the first one does."""
    from rich.console import Console

    from fair_adaptors.report.reproduction import LEGEND, table, write_reproduction

    if os.environ.get("RANK", "0") != "0":
        return
    console = Console()
    console.print(table(rows))
    said = [*LEGEND, "How this differs from the paper's evaluation:", *(f"* {line}" for line in differs)]
    said.append(f"The same table is {write_reproduction(out, rows, results, differs)}")
    console.print("\n".join(said), highlight=False, soft_wrap=True, markup=False)
