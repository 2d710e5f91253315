"""The command line. Each command is a few lines that call the library; frameworks are imported only when needed."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from . import __version__, cli_classifier, cli_faces, cli_formats, cli_hub, cli_list, cli_train
from .cli_common import load_base, print_pairs, quiet
from .errors import ConfigError, FairAdaptorError, MissingExtraError

app = typer.Typer(
    help="Make text-to-image models show people fairly.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Seed = Annotated[int, typer.Option(min=0, max=2**32, help="Seed of everything random.")]


def main() -> None:
    """Run the command line; an error of ours is one line on stderr and exit status 1."""
    try:
        app()
    except FairAdaptorError as error:
        print(f"fair-adaptors: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            raise
        print(f"fair-adaptors: {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


@app.command()
def demo(
    adaptor: Annotated[str, typer.Option(help="A sandbox adaptor: name, folder or Hub id.")] = "sandbox-gender",
    out: Annotated[Path, typer.Option(help="Folder for the pictures and the report.")] = Path("fair-adaptors-demo"),
    images: Annotated[int, typer.Option("-n", "--images", min=1, help="Images per prompt.")] = 20,
    seed: Seed = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Give up another evaluation in --out.")] = False,
) -> None:
    """Show a biased model before and after its fair adaptor: numbers, a picture grid and a report. Under a minute."""
    import shlex
    import time

    from rich.console import Console
    from rich.progress import Progress

    quiet()
    from fair_adaptors.report.page import write_report

    from .sandbox.demo import comparison, run_demo

    started, console = time.perf_counter(), Console()
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("drawing portraits", total=None)
        results = run_demo(
            out,
            adaptor=adaptor,
            images_per_prompt=images,
            seed=seed,
            overwrite=overwrite,
            on_images=lambda done, total: progress.update(task, completed=done, total=total),
        )
    console.print(comparison(results))
    lines = [
        f"{images} images per prompt, seed {seed}, the same noise before and after; a perfectly fair model scores the"
        " noise floor. More images (-n) make the figures surer."
    ]
    try:
        write_report(out, command=shlex.join(["fair-adaptors", *sys.argv[1:]]))
    except MissingExtraError as error:  # the page and the picture grid are there
        lines.append(str(error))
    grids = sorted(out.glob("plots/grid_*.png"))
    lines.append(f"{time.perf_counter() - started:.0f} s. Look at:")
    lines += [f"  {path}" for path in (out / "report.html", *grids, out / "results.json")]
    console.print("\n".join(lines), highlight=False, soft_wrap=True, markup=False)


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    adaptor: Annotated[str | None, typer.Option(help="Name, folder or Hub id; none for the plain model.")] = None,
    base: Annotated[str, typer.Option(help="Pipeline folder or Hub id; the sandbox's by default.")] = "sandbox",
    images: Annotated[int, typer.Option("-n", "--images", min=1, help="How many images.")] = 8,
    out: Annotated[Path, typer.Option(help="Picture to write.")] = Path("grid.png"),
    seed: Seed = 0,
    steps: Annotated[int | None, typer.Option(min=1, max=1000, help="Sampling steps.")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, help="Classifier-free guidance.")] = None,
    weight: Annotated[float | None, typer.Option(help="Strength of the adaptor.")] = None,
) -> None:
    """Draw a prompt, with or without an adaptor, into one picture grid."""
    quiet()
    from fair_adaptors.report.grid import plain_grid

    from .evaluation.run import generate as generate_images
    from .load import load_fair_adaptor
    from .sandbox.pipeline import GUIDANCE, STEPS

    if guidance is not None and not guidance < 1000:
        raise ConfigError(f"--guidance is {guidance}; it must be a number below 1000, usually 1 to 10")
    if weight is not None and adaptor is None:
        raise ConfigError("--weight is the strength of an adaptor: name one with --adaptor")
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ConfigError(f"--out {out} is no picture file; name it something.png")
    pipe = load_base(base)
    if adaptor is not None:
        load_fair_adaptor(pipe, adaptor, weight=weight)
    strength = "" if weight is None else f" × {weight:g}"
    drawn = generate_images(
        pipe,
        [prompt],
        images_per_prompt=images,
        seed=seed,
        num_steps=steps or (STEPS if base == "sandbox" else 30),
        guidance_scale=guidance if guidance is not None else (GUIDANCE if base == "sandbox" else 7.5),
        batch_size=64 if base == "sandbox" else 4,
    )[0]
    out.parent.mkdir(parents=True, exist_ok=True)
    tile = 128 if base == "sandbox" else 256
    plain_grid(drawn, title=f"{adaptor or 'no adaptor'}{strength} · seed {seed} · {prompt}", tile=tile).save(out)
    print(f"{images} image{'s' if images > 1 else ''} in {out}")


@app.command()
def evaluate(
    base: Annotated[str, typer.Argument(help="sandbox, a pipeline folder, or a Hub id.")],
    adaptor: Annotated[list[str] | None, typer.Option(help="Name, folder or Hub id; may be given again.")] = None,
    weight: Annotated[list[float] | None, typer.Option(help="Strength of the adaptors; may be given again.")] = None,
    baseline: Annotated[list[str] | None, typer.Option(help="A method of others to compare with, or `list`.")] = None,
    prompts: Annotated[str | None, typer.Option(help="A prompt set, `list`, or a TXT, JSON or YAML file.")] = None,
    images: Annotated[int, typer.Option("-n", "--images-per-prompt", min=1, help="Images per prompt.")] = 60,
    out: Annotated[Path, typer.Option(help="Folder for images, numbers and report.")] = Path("evaluation"),
    target: Annotated[list[str] | None, typer.Option(help="gender, or age=0.75,0.25; may be given again.")] = None,
    classifier: Annotated[
        list[str] | None, typer.Option(help="clip:SOURCE, transformers:SOURCE or MODULE:OBJECT; may be given again.")
    ] = None,
    encoder: Annotated[
        list[str] | None, typer.Option(help="clip:SOURCE, dinov2:SOURCE or MODULE:OBJECT; may be given again.")
    ] = None,
    faces: Annotated[
        str | None,
        typer.Option(help="yunet (the default for photographs), yunet:PATH, insightface, whole or MODULE:OBJECT."),
    ] = None,
    seed: Seed = 0,
    steps: Annotated[int | None, typer.Option(min=1, max=1000, help="Sampling steps.")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, max=1000, help="Classifier-free guidance.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images drawn at once.")] = None,
    keep_images: Annotated[bool, typer.Option("--keep-images/--no-images", help="Leave the PNG files.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Give up another evaluation in --out.")] = False,
    difference: Annotated[float | None, typer.Option("--plan", help="Only say what would tell this much.")] = None,
) -> None:
    """Measure a model, with adaptors and without, on the same noise: numbers with intervals and a report."""
    from .prompts import sets as prompt_sets

    if prompts == "list":
        print_pairs("prompt set", "what it is", prompt_sets.list_prompt_sets())
        return
    if baseline == ["list"]:
        from .evaluation.request import BASELINES

        print_pairs("baseline", "what it does", BASELINES)
        return
    quiet()
    from fair_adaptors.report.terminal import run_and_report

    from .evaluation import request
    from .evaluation.evaluate import Evaluation
    from .sandbox.pipeline import GUIDANCE, STEPS

    sandbox = base == "sandbox"
    chosen = prompt_sets.load_prompts(prompts or ("sandbox-test" if sandbox else "occupations-test"))
    detector = faces if difference is None else "whole"  # a plan looks at nothing
    instruments = request.instruments_for(base, classifier or [], encoder or [], detector)
    wanted = Evaluation(
        base,
        chosen,
        request.targets_for(target or [], adaptor or [], instruments),
        images_per_prompt=images,
        seed=seed,
        num_steps=steps or (STEPS if sandbox else 30),
        guidance_scale=guidance if guidance is not None else (GUIDANCE if sandbox else 7.5),
        batch_size=batch_size or (64 if sandbox else 4),
        keep_images=keep_images,
    )
    variants = request.variants_for(adaptor or [], weight or [])
    variants += request.baselines_for(baseline or [], wanted.targets, instruments)
    if difference is not None:
        print("\n".join(request.plan(wanted, 1 + len(variants), difference)))
        return
    for warning in request.shared_classifiers(adaptor or [], instruments):
        print(f"fair-adaptors: {warning}", file=sys.stderr)
    run_and_report(load_base(base), wanted, variants, instruments, out, overwrite=overwrite)


@app.command("app")
def app_(
    base: Annotated[str, typer.Option(help="Pipeline folder or Hub id; the sandbox's by default.")] = "sandbox",
    adaptor: Annotated[list[str] | None, typer.Option(help="One more: name, folder or Hub id; as often.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; this machine alone by default.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 7860,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Show the page in the browser.")] = True,
) -> None:
    """Try adaptors in the browser: the same noise before and after, side by side, and what is counted."""
    quiet()
    from .app import leave, require_gradio, serve

    require_gradio()  # before the base is loaded, which takes its time
    serve(load_base(base), base=base, adaptors=adaptor or [], host=host, port=port, open_browser=browser)
    leave()


cli_train.register(app)
cli_hub.register(app)
cli_list.register(app)
cli_formats.register(app)
cli_faces.register(app)
cli_classifier.register(app)
