"""The commands that measure a model, and that lay two measurements side by side."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from fair_adaptors.adaptor.bases import base_place
from fair_adaptors.files import check_writable
from fair_adaptors.progress import waiting

from .common import (
    NAMES,
    AsJson,
    BaseConfig,
    Device,
    Dtype,
    Images,
    Seed,
    Variant,
    adaptors,
    bases,
    load_base,
    print_json,
    print_pairs,
    quiet,
)
from .config_file import take_options


def evaluate(
    base: Annotated[str, typer.Argument(help=f"{NAMES}, a pipeline's folder, or a Hub id.", autocompletion=bases)],
    adaptor: Annotated[
        list[str] | None, typer.Option(help="Name, folder or Hub id; may be given again.", autocompletion=adaptors)
    ] = None,
    weight: Annotated[list[float] | None, typer.Option(help="Strength of the adaptors; may be given again.")] = None,
    baseline: Annotated[
        list[str] | None, typer.Option(help="A published method to compare with, or `list`; may be given again.")
    ] = None,
    prompts: Annotated[str | None, typer.Option(help="A prompt set, `list`, authors:NAME, or a file.")] = None,
    images: Images = 60,
    out: Annotated[Path, typer.Option(help="Folder for images, numbers and report.")] = Path("evaluation"),
    target: Annotated[list[str] | None, typer.Option(help="gender, or age=0.75,0.25; may be given again.")] = None,
    classifier: Annotated[
        list[str] | None,
        typer.Option(
            help="clip:, transformers:, mobilenet:, onnx:, authors:, MODULE:OBJECT or ./FILE.py:OBJECT; may be given"
            " again."
        ),
    ] = None,
    encoder: Annotated[
        list[str] | None, typer.Option(help="clip:SOURCE, dinov2:SOURCE or MODULE:OBJECT; may be given again.")
    ] = None,
    faces: Annotated[
        str | None,
        typer.Option(help="yunet (the default for photographs), yunet:PATH, insightface, whole or MODULE:OBJECT."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            callback=take_options, is_eager=True, help="YAML file of options; the command line takes precedence."
        ),
    ] = None,
    seed: Seed = 0,
    steps: Annotated[int | None, typer.Option(min=1, max=1000, help="Sampling steps.")] = None,
    guidance: Annotated[
        float | None,
        typer.Option(min=0, max=1000, help="Classifier-free guidance: how closely images follow the prompt."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images drawn at once.")] = None,
    keep_images: Annotated[bool, typer.Option("--keep-images/--no-images", help="Keep the PNG files.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete another evaluation in --out.")] = False,
    difference: Annotated[
        float | None,
        typer.Option("--plan", help="Print how many images you need to detect this difference of bias, then exit."),
    ] = None,
    fail_above: Annotated[
        list[str] | None,
        typer.Option(help="Exit with 1 if a bias is above this, such as gender=0.3; may be given again."),
    ] = None,
    fail_on_harm: Annotated[
        bool, typer.Option("--fail-on-harm", help="Exit with 1 if an adaptor or baseline does harm.")
    ] = False,
    device: Device = None,
    dtype: Dtype = None,
    variant: Variant = None,
    base_config: BaseConfig = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model, with adaptors and without, on the same noise: numbers with intervals and a report."""
    from fair_adaptors.prompts import sets as prompt_sets
    from fair_adaptors.prompts.authors import list_authors_prompts

    if prompts == "list":
        print_pairs("prompt set", "what it is", prompt_sets.list_prompt_sets() | list_authors_prompts())
        return
    if baseline == ["list"]:
        from fair_adaptors.evaluation.baselines import BASELINES

        print_pairs("baseline", "what it does", {name: what for name, (_, what) in BASELINES.items()})
        return
    base = base_place(base)
    quiet()
    from fair_adaptors.adaptor.results_file import to_json
    from fair_adaptors.devices import choose_device
    from fair_adaptors.evaluation import bounds, spec
    from fair_adaptors.evaluation.asked import Asked, drawn_as_usual, prepare
    from fair_adaptors.report.terminal import run_and_report

    choose_device(device)  # before the instruments are loaded, which go there too
    asked = Asked(
        base,
        adaptor or [],
        weight or [],
        baseline or [],
        prompts,
        target or [],
        classifier or [],
        encoder or [],
        faces if difference is None else "whole",  # a plan looks at nothing
        images,
        seed,
        steps,
        guidance,
        batch_size,
        keep_images,
    )
    with waiting("loading what measures"):
        found = prepare(asked)
    limits = bounds.read_bounds(
        fail_above or [], found.evaluation, variants=found.variants[1:], fail_on_harm=fail_on_harm
    )
    if difference is not None:
        print("\n".join(spec.plan(found.evaluation, len(found.variants), difference)))
        return
    for warning in found.warnings:
        print(f"fair-adaptors: {warning}", file=sys.stderr)
    check_writable(out)
    pipe = load_base(base, device=device, dtype=dtype, variant=variant, base_config=base_config)
    results = run_and_report(
        pipe, drawn_as_usual(found.evaluation, asked, pipe), found.variants, found.instruments, out,
        overwrite=overwrite, bounds=limits, to_stderr=as_json,
    )  # fmt: skip
    if as_json and os.environ.get("RANK", "0") == "0":
        print_json(to_json(results))
    if bounds.failures(results, limits):
        raise typer.Exit(1)


def compare(
    first: Annotated[Path, typer.Argument(help="Folder of an evaluation, or its results.json.")],
    second: Annotated[Path, typer.Argument(help="Another one, with the same prompts and the same classifier.")],
) -> None:
    """Compare two evaluations: every figure with its interval, and whether the two clearly differ."""
    from rich.console import Console
    from rich.table import Table

    from fair_adaptors.adaptor.results_file import load_results
    from fair_adaptors.evaluation.comparison import compare as compare_results
    from fair_adaptors.evaluation.store import RESULTS_FILE

    files = [path / RESULTS_FILE if path.is_dir() else path for path in (first, second)]
    rows = compare_results(*map(load_results, files), names=(str(first), str(second)))
    table = Table("variant", "figure", str(first), str(second), "differ")
    for row in rows:
        table.add_row(row.variant, row.figure, row.first, row.second, row.said)
    Console().print(table)
    print("differ: yes where the 95 % intervals do not overlap. Where they overlap, the two may still differ.")
