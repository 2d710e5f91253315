"""The command that opens the interactive page."""

from typing import Annotated

import typer

from fair_adaptors.adaptor.bases import base_place
from fair_adaptors.progress import waiting

from .common import Base, BaseConfig, Device, Dtype, Variant, adaptors, load_base, quiet


def app(
    base: Base = "sandbox",
    adaptor: Annotated[
        list[str] | None,
        typer.Option(
            help="Another adaptor to offer: name, folder or Hub id; may be given again.", autocompletion=adaptors
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; by default only this machine reaches it.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any that is free.")] = 7860,
    classifier: Annotated[
        list[str] | None,
        typer.Option(
            help="For a base other than the sandbox: what counts people, such as clip:ORG/NAME; may be given again."
        ),
    ] = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(help="Measures how alike images are, such as clip:ORG/NAME; may be given again."),
    ] = None,
    max_waiting: Annotated[int, typer.Option(min=1, help="How many visitors may wait for their turn.")] = 20,
    visitor_images: Annotated[
        int | None,
        typer.Option(
            min=1, help="Images an hour for each visitor; 256 by default, no limit if only this machine reaches it."
        ),
    ] = None,
    all_images: Annotated[
        int | None,
        typer.Option(
            min=1, help="Images an hour for all visitors; 4096 by default, no limit if only this machine reaches it."
        ),
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Show the page in the browser.")] = True,
    device: Device = None,
    dtype: Dtype = None,
    variant: Variant = None,
    base_config: BaseConfig = None,
) -> None:
    """Try adaptors in the browser: before and after from the same noise, side by side, with counts."""
    base = base_place(base)
    quiet()
    from fair_adaptors.app.limits import limits_for
    from fair_adaptors.app.page import leave, require_gradio, serve
    from fair_adaptors.evaluation.spec import instruments_for

    with waiting("loading the page"):
        require_gradio()  # before the base is loaded, which takes its time
    limits = limits_for(host, waiting=max_waiting, visitor_images=visitor_images, all_images=all_images)
    counts = instruments_for(base, classifier or (), encoder or ()) if classifier or encoder else None
    pipe = load_base(base, device=device, dtype=dtype, variant=variant, base_config=base_config)
    serve(
        pipe,
        base=base,
        adaptors=adaptor or [],
        host=host,
        port=port,
        open_browser=browser,
        instruments=counts,
        limits=limits,
    )
    leave()
