"""The command that draws a prompt."""

from pathlib import Path
from typing import Annotated

import typer

from fair_adaptors.adaptor.bases import base_place
from fair_adaptors.errors import ConfigError
from fair_adaptors.files import check_writable_file
from fair_adaptors.progress import bar, waiting

from .common import Base, BaseConfig, Device, Dtype, Images, Seed, Variant, adaptors, load_base, quiet


def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    adaptor: Annotated[
        str | None, typer.Option(help="Name, folder or Hub id; none for the plain model.", autocompletion=adaptors)
    ] = None,
    base: Base = "sandbox",
    images: Images = 8,
    out: Annotated[Path, typer.Option(help="Picture to write.")] = Path("grid.png"),
    seed: Seed = 0,
    steps: Annotated[int | None, typer.Option(min=1, max=1000, help="Sampling steps.")] = None,
    guidance: Annotated[
        float | None, typer.Option(min=0, help="Classifier-free guidance: how closely images follow the prompt.")
    ] = None,
    weight: Annotated[float | None, typer.Option(help="Strength of the adaptor.")] = None,
    device: Device = None,
    dtype: Dtype = None,
    variant: Variant = None,
    base_config: BaseConfig = None,
) -> None:
    """Draw a prompt, with or without an adaptor, into one picture grid."""
    base = base_place(base)
    quiet()
    from fair_adaptors.adaptor.bases import defaults_of
    from fair_adaptors.adaptor.registry import check_base
    from fair_adaptors.evaluation.drawing import generate as generate_images
    from fair_adaptors.load import load_fair_adaptor
    from fair_adaptors.report.grid import plain_grid

    if guidance is not None and not guidance < 1000:
        raise ConfigError(f"--guidance is {guidance}; it must be a number below 1000, usually 1 to 10")
    if weight is not None and adaptor is None:
        raise ConfigError("--weight is the strength of an adaptor: name one with --adaptor")
    check_writable_file(out, ".png", ".jpg", ".jpeg", ".webp")
    check_base([adaptor] if adaptor else [], base)
    pipe = load_base(base, device=device, dtype=dtype, variant=variant, base_config=base_config)
    if adaptor is not None:
        with waiting(f"loading {adaptor}"):
            load_fair_adaptor(pipe, adaptor, weight=weight)
    usual = defaults_of(base, pipe)
    strength = "" if weight is None else f" × {weight:g}"
    made = 0
    with bar(transient=True) as (_, advance):

        def follow(count: int) -> None:
            nonlocal made
            advance(made := made + count, images)

        follow(0)
        drawn = generate_images(
            pipe,
            [prompt],
            images_per_prompt=images,
            seed=seed,
            num_steps=steps or usual.num_steps,
            guidance_scale=guidance if guidance is not None else usual.guidance_scale,
            batch_size=usual.batch_size,
            on_batch=follow,
        )[0]
    out.parent.mkdir(parents=True, exist_ok=True)
    title = f"{adaptor or 'no adaptor'}{strength} · seed {seed} · {prompt}"
    plain_grid(drawn, title=title, tile=usual.tile).save(out)
    print(f"{images} image{'s' if images > 1 else ''} in {out}")
