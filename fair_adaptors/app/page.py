"""The interactive page: adaptors tried in the browser, before and after side by side, with Gradio.

Nothing is fetched from elsewhere, and nothing is reported to anybody.
"""

import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from typing import Any

from fair_adaptors.errors import ConfigError, missing_extra
from fair_adaptors.evaluation.spec import Instruments

from .guard import LOOPBACK, Door
from .handlers import handlers, render
from .limits import ALONE, Allowance, Limits, limits_for
from .session import MAX_SEED, MAX_STRENGTH, Session

STRENGTH = "0 is the model as it is, 1 the adaptor as it was trained."


def require_gradio() -> None:
    """See that Gradio is there, and switch off its reports and its look for newer versions.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    if find_spec("gradio") is None:
        raise missing_extra("Gradio", "app")


def serve(
    pipe: Any,
    *,
    base: str,
    adaptors: Sequence[str] = (),
    host: str = "127.0.0.1",
    port: int = 7860,
    open_browser: bool = True,
    instruments: Instruments | None = None,
    limits: Limits | None = None,
) -> None:
    """Show the page until Ctrl-C.

    Args:
        pipe: a text-to-image pipeline of a known family, without adaptors.
        base: its name, see ``Session``.
        adaptors: names, folders or Hub ids to offer beside the registry's for the base.
        host: address to listen on; others than this machine's own can be reached by whoever is in the network.
        port: 0 for any that is free.
        open_browser: show the page in the user's browser.
        instruments: what the images are counted with, see ``Session``.
        limits: what visitors may ask for; None for no limit on this machine alone, and ``PUBLIC`` on other addresses.

    Raises:
        FairAdaptorError: Gradio is not installed, an adaptor cannot be loaded, or the address cannot be listened on.
    """
    require_gradio()
    import uvicorn

    with listen(host, port) as listener, TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # before its import: its own is everybody's, and stays behind
        session = Session(pipe, base=base, adaptors=adaptors, instruments=instruments)
        local = host in LOOPBACK
        door = Door(build_app(session, limits or limits_for(host)), local=local)
        server = uvicorn.Server(uvicorn.Config(door, log_level="critical", timeout_graceful_shutdown=1))
        url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/"
        print(f"The page is {url} (Ctrl-C ends it)", flush=True)
        if not local:
            print(f"Whoever can reach {host} can use it: there is no password", file=sys.stderr)
        if open_browser:
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
        session.close()


def leave() -> None:
    """End the process, also where a thread is still drawing: it would abort while Python takes its modules down."""
    if threading.active_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def listen(host: str, port: int) -> socket.socket:
    """Open the address.

    Raises:
        ConfigError: it is taken, or not this machine's.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        why = str(error.strerror).partition(" (")[0]  # the address follows, a second time
        raise ConfigError(f"cannot listen on {host} port {port}: {why}. Try another port") from error


def build_app(session: Session, limits: Limits = ALONE) -> Any:
    """Make the page an ASGI application."""
    import gradio as gr
    from fastapi import FastAPI

    return gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        build_page(session, limits),
        "/",
        theme=look(),
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size="1kb",
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        app_kwargs={"openapi_url": None},
    )


def look() -> Any:
    """Choose colours of enough contrast, and the system's own fonts, which nobody has to fetch."""
    import gradio as gr

    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    return gr.themes.Soft(primary_hue="teal", neutral_hue="slate", **fonts).set(
        body_background_fill="*neutral_50",
        body_text_color_subdued="*neutral_500",
        block_info_text_color="*neutral_500",
        checkbox_border_color="*neutral_400",
        block_title_background_fill="none",
        block_label_text_color="*body_text_color",
        block_title_padding="0",
        block_title_text_color="*body_text_color",
        block_title_text_color_dark="*body_text_color",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_600",
        checkbox_label_background_fill_selected="*primary_50",
        checkbox_label_background_fill_selected_dark="*primary_950",
        checkbox_label_text_color_selected="*body_text_color",
        checkbox_label_text_color_selected_dark="*body_text_color",
        slider_color="*primary_600",
    )


def build_page(session: Session, limits: Limits = ALONE) -> Any:
    """Lay out the page, a ``gradio.Blocks``. One drawing is made at a time; who waits is shown their place."""
    import gradio as gr

    calls = handlers(session, Allowance(limits))
    offers = [(f"{offer.label} · {offer.summary}", key) for key, offer in session.offers.items()]
    with gr.Blocks(
        analytics_enabled=False, title="fair-adaptors: before and after", fill_width=True, delete_cache=(600, 3600)
    ) as page:
        gr.HTML(render(session), apply_default_css=False)
        with gr.Row():
            with gr.Column(scale=1, min_width=320, elem_classes=["controls"]):
                prompt = gr.Textbox(next(iter(session.examples.values())), label="Prompt", info=session.hint, lines=2)
                examples = [[example] for example in session.examples.values()]
                gr.Examples(examples, prompt, label="For example", example_labels=list(session.examples))
                adaptors = gr.CheckboxGroup(offers, value=[offers[0][1]], label="Adaptors")
                strength = gr.Slider(0, MAX_STRENGTH, 1, step=0.05, label="Strength", info=STRENGTH)
                images = gr.Slider(1, session.max_images, session.images, step=1, label="Images")
                with gr.Row(equal_height=True):
                    seed = gr.Number(0, label="Seed", precision=0, min_width=120)
                    new = gr.Button("New seed", min_width=120, scale=0)
                with gr.Row():
                    go = gr.Button("Compare", variant="primary", min_width=120)
                    halt = gr.Button("Stop", min_width=120, scale=0)
            with gr.Column(scale=3, elem_classes=["results"]):
                with gr.Row(elem_classes=["sides"]):
                    sides = [
                        gr.Gallery(
                            label=name,
                            format="png",
                            interactive=False,
                            buttons=[],
                            height="auto",
                            fit_columns=False,
                            min_width=140,
                            elem_classes=["side", mark],
                        )
                        for name, mark in (("Before", "was"), ("After", "now"))
                    ]
                figures = gr.HTML(apply_default_css=False)
        wanted = [prompt, adaptors, strength, images, seed]
        shown = {"outputs": [*sides, figures], "show_progress_on": sides, "api_visibility": "private"}
        # Whoever opens the page waits for nobody: the first example is drawn once, and then there for all.
        opening = page.load(calls.open, **shown, concurrency_limit=None)
        drawing = go.click(calls.compare, wanted, **shown, concurrency_limit=1, scroll_to_output=True)
        halt.click(calls.stop, cancels=[opening, drawing], queue=False, api_visibility="private")
        new.click(None, outputs=seed, js=f"() => Math.floor(Math.random() * {MAX_SEED})", api_visibility="private")
        page.unload(calls.stop)
    return page.queue(max_size=limits.waiting)
