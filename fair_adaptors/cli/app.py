"""The command that opens the interactive page."""

from typing import Annotated

import typer

from fair_adaptors.adaptor.bases import base_place

from .common import BaseConfig, Device, Dtype, Variant, load_base, quiet


def app(
    base: Annotated[str, typer.Option(help="Pipeline folder or Hub id; the sandbox's by default.")] = "sandbox",
    adaptor: Annotated[list[str] | None, typer.Option(help="One more: name, folder or Hub id; as often.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; this machine alone by default.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 7860,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Show the page in the browser.")] = True,
    device: Device = None,
    dtype: Dtype = None,
    variant: Variant = None,
    base_config: BaseConfig = None,
) -> None:
    """Try adaptors in the browser: the same noise before and after, side by side, and what is counted."""
    base = base_place(base)
    quiet()
    from fair_adaptors.app.page import leave, require_gradio, serve

    require_gradio()  # before the base is loaded, which takes its time
    pipe = load_base(base, device=device, dtype=dtype, variant=variant, base_config=base_config)
    serve(pipe, base=base, adaptors=adaptor or [], host=host, port=port, open_browser=browser)
    leave()
