"""The command that measures a model."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .common import BaseConfig, Device, Dtype, Seed, Variant, load_base, print_pairs, quiet


def evaluate(
    base: Annotated[str, typer.Argument(help="sandbox, a pipeline folder, or a Hub id.")],
    adaptor: Annotated[list[str] | None, typer.Option(help="Name, folder or Hub id; may be given again.")] = None,
    weight: Annotated[list[float] | None, typer.Option(help="Strength of the adaptors; may be given again.")] = None,
    baseline: Annotated[list[str] | None, typer.Option(help="A method of others to compare with, or `list`.")] = None,
    prompts: Annotated[str | None, typer.Option(help="A prompt set, `list`, authors:NAME, or a file.")] = None,
    images: Annotated[int, typer.Option("-n", "--images-per-prompt", min=1, help="Images per prompt.")] = 60,
    out: Annotated[Path, typer.Option(help="Folder for images, numbers and report.")] = Path("evaluation"),
    target: Annotated[list[str] | None, typer.Option(help="gender, or age=0.75,0.25; may be given again.")] = None,
    classifier: Annotated[
        list[str] | None,
        typer.Option(help="clip:, transformers:, mobilenet:, onnx:, authors: or MODULE:OBJECT; may be given again."),
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
        bool, typer.Option("--fail-on-harm", help="Exit with 1 if a variant does harm beside its aim.")
    ] = False,
    device: Device = None,
    dtype: Dtype = None,
    variant: Variant = None,
    base_config: BaseConfig = None,
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
    quiet()
    from fair_adaptors.adaptor.bases import defaults_of
    from fair_adaptors.devices import choose_device
    from fair_adaptors.evaluation import bounds, spec
    from fair_adaptors.evaluation.baselines import baselines_for
    from fair_adaptors.evaluation.variants import distinct, variants_for
    from fair_adaptors.report.terminal import run_and_report

    choose_device(device)  # before the instruments are loaded, which go there too
    usual = defaults_of(base)
    chosen = prompt_sets.load_prompts(prompts or usual.test_prompts)
    detector = faces if difference is None else "whole"  # a plan looks at nothing
    instruments = spec.instruments_for(base, classifier or [], encoder or [], detector)
    wanted = spec.Evaluation(
        base,
        chosen,
        spec.targets_for(target or [], adaptor or [], instruments),
        images_per_prompt=images,
        seed=seed,
        num_steps=steps or usual.num_steps,
        guidance_scale=guidance if guidance is not None else usual.guidance_scale,
        batch_size=batch_size or usual.batch_size,
        keep_images=keep_images,
    )
    compared = variants_for(adaptor or [], weight or []) + baselines_for(baseline or [], wanted.targets, instruments)
    variants = distinct(compared)
    limits = bounds.read_bounds(fail_above or [], wanted, variants=compared, fail_on_harm=fail_on_harm)
    if difference is not None:
        print("\n".join(spec.plan(wanted, len(variants), difference)))
        return
    for warning in spec.shared_classifiers(adaptor or [], instruments):
        print(f"fair-adaptors: {warning}", file=sys.stderr)
    pipe = load_base(base, device=device, dtype=dtype, variant=variant, base_config=base_config)
    results = run_and_report(pipe, wanted, variants, instruments, out, overwrite=overwrite, bounds=limits)
    if bounds.failures(results, limits):
        raise typer.Exit(1)
