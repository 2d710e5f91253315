"""The command that trains a classifier of people's attributes."""

from pathlib import Path
from typing import Annotated

import typer

from fair_adaptors.errors import missing_extra
from fair_adaptors.files import check_writable
from fair_adaptors.progress import REFRESHES, REMEMBERED, hidden, waiting

from .common import Device, quiet


def train_classifier(
    dataset: Annotated[str, typer.Option(help="celeba, fairface, a folder, or ORG/NAME on the Hub.")],
    attributes: Annotated[str, typer.Option(help="What to tell apart, such as gender,race.")],
    out: Annotated[Path, typer.Option(help="New folder for the classifier.")],
    model: Annotated[
        str, typer.Option(help="Folder or Hub id of transformers, mobilenet, or mobilenet:WEIGHTS.")
    ] = "mobilenet",
    epochs: Annotated[int, typer.Option(help="How often every image is seen.")] = 3,
    steps: Annotated[int | None, typer.Option(help="Number of batches, instead of --epochs.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images at once.")] = 64,
    lr: Annotated[float, typer.Option(help="Learning rate; about 1e-3 from random weights.")] = 1e-4,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of everything random.")] = 0,
    limit: Annotated[int | None, typer.Option(help="Use at most this many images of each split.")] = None,
    margin: Annotated[
        float, typer.Option(help="How much wider than the face pictures are cut; saved with the weights.")
    ] = 0.5,
    device: Device = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be read and done.")] = False,
) -> None:
    """Finetune and calibrate a classifier of gender, race, age or a folder's own labels, and write its card."""
    import os

    check_writable(out)
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    try:
        quiet()
        with waiting("loading what trains"):
            from fair_adaptors.training.classifier.train import ClassifierConfig, plan
            from fair_adaptors.training.classifier.train import train_classifier as train
    except ModuleNotFoundError as error:
        raise missing_extra(error.name, "classifier") from error
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from fair_adaptors.devices import choose_device

    choose_device(device)
    names = tuple(name.strip() for name in attributes.split(","))
    config = ClassifierConfig(dataset, names, model, epochs, steps, batch_size, lr, seed, limit, margin)
    with waiting("reading the data set"):
        planned = plan(config)
    print("\n".join(planned), flush=True)
    if dry_run:
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("loss {task.fields[loss]:.2f}"))
    with Progress(
        *columns,
        console=Console(stderr=True),
        disable=hidden(),
        refresh_per_second=REFRESHES,
        speed_estimate_period=REMEMBERED,
    ) as progress:
        task = progress.add_task("", total=None, loss=float("nan"))
        results = train(
            config,
            out,
            on_step=lambda step, total, loss: progress.update(task, completed=step, total=total, loss=loss),
        )
    for name, row in results["attributes"].items():
        rate = row["accuracy"]
        print(f"{name}: {rate['value']:.1%} right ({rate['low']:.1%}–{rate['high']:.1%})")
    kind = "mobilenet" if model.partition(":")[0] == "mobilenet" else "transformers"
    print(f"How often it is right for each class is in {out / 'README.md'}. To use it: --classifier {kind}:{out}")
