"""The command that trains an adaptor."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fair_adaptors.adaptor.bases import base_place
from fair_adaptors.adaptor.registry import list_adaptors
from fair_adaptors.devices import PRECISIONS
from fair_adaptors.errors import ConfigError, missing_extra
from fair_adaptors.files import check_writable
from fair_adaptors.progress import waiting

from .common import Device, bases, completed_by, print_pairs, quiet
from .ends import resuming, without_option
from .hub import push_trained

IMAGES = 32
"""Images of each prompt, for the numbers before and after."""


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="Name of a recipe, such as sandbox-gender; `list` for all.",
            autocompletion=completed_by(lambda: ["list", *(info.name for info in list_adaptors())]),
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder of the adaptor; runs/RECIPE by default.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**32, help="Seed of everything random.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting, or paper=true for all of the paper's; may be given again."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; --set takes precedence.")] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="An attribute to make fair, such as age=0.75,0.25; may be given again.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, with its settings.")] = False,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="With --resume: this checkpoint instead of the latest.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete an earlier run's checkpoints.")] = False,
    num_processes: Annotated[int | None, typer.Option(help="Start this many processes on this machine.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the settings, the plan and what is missing; train nothing.")
    ] = False,
    with_numbers: Annotated[
        bool, typer.Option("--numbers/--no-numbers", help="Measure before and after training.")
    ] = True,
    base: Annotated[
        str | None, typer.Option(help="Train on this base instead; same as --set base=BASE.", autocompletion=bases)
    ] = None,
    device: Device = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Precision of the base: float32, bfloat16 or float16; same as --set dtype=DTYPE.",
            autocompletion=completed_by(lambda: PRECISIONS),
        ),
    ] = None,
    push_to: Annotated[
        str | None, typer.Option(metavar="ORG/NAME", help="Publish the finished adaptor on the Hub.")
    ] = None,
) -> None:
    """Train an adaptor: progress, sample grids, numbers before and after, and the adaptor's folder."""
    try:
        quiet()
        with waiting("reading the recipe"):
            from fair_adaptors.training.run.launch import REFUSED, launch, refusals_told
            from fair_adaptors.training.run.record import refuse_earlier_run, was_restarted
            from fair_adaptors.training.settings import read_config_file
            from fair_adaptors.training.start import configured
    except ModuleNotFoundError as error:
        raise missing_extra(error.name, "train") from error

    from rich.console import Console

    from fair_adaptors.devices import choose_device
    from fair_adaptors.steering.draw import parse_target

    choose_device(device)
    if recipe == "list":
        from fair_adaptors.training.recipes import described

        print_pairs("recipe", "what is trained", described())
        return
    values = read_config_file(config) if config else {}
    targets = dict(parse_target(text) for text in target or [])
    if len(targets) < len(target or []):
        raise ConfigError("an attribute is given twice with --target")
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: write it as KEY=VALUE, such as --set iterations=50")
        values[key] = value
    values |= {"seed": str(seed)} if seed is not None else {}
    values |= {"base": base_place(base)} if base is not None else {}
    values |= {"dtype": dtype} if dtype is not None else {}
    if push_to:
        from fair_adaptors.hub.client import check_repo_id

        check_repo_id(push_to)
    folder = out or Path("runs") / recipe
    restarted = was_restarted(folder)
    if restarted:
        checkpoint = None  # the latest one is further on
    resume = resume or restarted or checkpoint is not None
    with waiting("reading the recipe"):
        wanted = configured(recipe, folder, settings=values, targets=targets, resume=resume)
    if dry_run:
        with waiting("counting, and asking the Hub what would be fetched"):
            lines = _plan(wanted, num_processes or 1)
        Console().print("\n".join(lines), highlight=False, soft_wrap=True, markup=False)
        return
    check_writable(folder)
    if num_processes is not None and "WORLD_SIZE" not in os.environ:
        if not (resume or overwrite):
            refuse_earlier_run(folder / "checkpoints")
        after = sys.argv[sys.argv.index("train") + 1 :]
        launch(without_option(after, "--num-processes"), num_processes)
    else:
        try:
            with waiting("loading what trains"):
                from fair_adaptors.training.run.train import train as run_training
        except ModuleNotFoundError as error:
            raise missing_extra(error.name, "train") from error

        from_where = str(checkpoint) if checkpoint else "latest" if resume else None
        with refusals_told() as refused:
            finished = not refused and run_training(
                wanted,
                folder,
                recipe=recipe,
                resume=from_where,
                overwrite=overwrite,
                images_per_prompt=IMAGES if with_numbers else 0,
            )
            if push_to and finished and os.environ.get("RANK", "0") == "0":
                push_trained(folder, push_to)
        if not (finished or refused) and os.environ.get("RANK", "0") == "0":
            again = ["--num-processes", os.environ["WORLD_SIZE"]] if REFUSED in os.environ else []
            print(f"To go on: {resuming([*sys.argv[1:], *again])}")


def _plan(config: Any, num_processes: int) -> list[str]:
    """Return the lines of a dry run: a YAML file for --config, and in its comments what would be done and needed."""
    from fair_adaptors.training.paper import deviations
    from fair_adaptors.training.plan import make_plan
    from fair_adaptors.training.run.due import described
    from fair_adaptors.training.settings import as_yaml

    plan = make_plan(config, num_processes)
    plain, trained = plan.rows
    return [
        as_yaml(config),
        f"# {plan.iterations:,} iterations of {plan.images} images on {num_processes} process(es):",
        f"# {plan.images * plan.iterations:,} images; per iteration {plain:,.0f} rows through the network without"
        f" gradient and {trained:,.0f} with",
        f"# {plan.time}",
        *([f"# {plan.licence}"] if plan.licence else []),
        f"# {f'{plan.trained:,}' if plan.megabytes else 'not known how many'} numbers are trained; estimated memory of"
        " a process, without classifiers and encoders:",
        *(f"#   {megabytes:>10,.1f} MB  {what}" for what, megabytes in plan.megabytes.items()),
        *(["#   not known: the base's shapes are not"] if not plan.megabytes else []),
        *(f"# {line}" for line in described(config)),
        *(f"# {line}" for line in plan.kept),
        *(f"# to be fetched: {download}" for download in plan.downloads),
        *(f"# not as the paper: {line}" for line in deviations(config)),
        f"# missing: {'; '.join(plan.missing) or 'nothing'}",
    ]
