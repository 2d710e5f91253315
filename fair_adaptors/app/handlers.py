"""What the page's buttons call: it draws, says how far it is, and tells in the page what went wrong."""

import math
import threading
import traceback
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from fair_adaptors.errors import FairAdaptorError
from fair_adaptors.evaluation.wording import number, percent

from .counting import Comparison
from .limits import Allowance
from .session import Request, Session, Stopped, Tell


class Handlers(NamedTuple):
    """What is called when the page opens, by its buttons, and when it is left."""

    open: Callable[..., Any]
    compare: Callable[..., Any]
    stop: Callable[..., None]


def handlers(session: Session, allowance: Allowance) -> Handlers:
    """Make the functions for all visitors of a page, who may have as many images as the allowance has left."""
    import gradio as gr

    running: dict[str | None, threading.Event] = {}  # what ends the last drawing of each open page

    def drawn(draw: Callable[[Tell], tuple[Request, Comparison]], visitor: gr.Request, progress: gr.Progress) -> Any:
        halt = running[visitor.session_hash] = threading.Event()

        def tell(done: int, total: int) -> None:
            if halt.is_set():
                raise Stopped
            progress((done, total), desc="Drawing", unit="images")

        try:
            request, found = draw(tell)
        except Stopped:
            return gr.skip(), gr.skip(), gr.skip()
        except FairAdaptorError as error:
            raise gr.Error(escape(str(error)), print_exception=False) from error
        except Exception as error:
            traceback.print_exc()
            said = str(error).strip().partition("\n")[0] or type(error).__name__
            message = f"drawing failed: {escape(said)} (more in the terminal)"
            raise gr.Error(message, print_exception=False) from error
        columns = min(6, max(2, math.ceil(math.sqrt(request.images))))
        sides = [list(zip(side.pictures, side.captions, strict=True)) for side in (found.before, found.after)]
        return *(gr.Gallery(side, columns=columns) for side in sides), render(session, request, found)

    def open_page(visitor: gr.Request, progress: gr.Progress = gr.Progress()) -> Any:  # noqa: B008
        return drawn(session.open, visitor, progress)

    def compare(
        prompt: str,
        adaptors: list[str],
        strength: float,
        images: int,
        seed: int,
        visitor: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (Gradio finds it by its default)
    ) -> Any:
        def draw(tell: Tell) -> tuple[Request, Comparison]:
            request = session.read(prompt, adaptors, strength=strength, images=images, seed=seed)
            allowance.spend(visitor.client.host, 2 * request.images)
            return request, session.compare(request, tell)

        return drawn(draw, visitor, progress)

    def stop(visitor: gr.Request) -> None:
        if halt := running.pop(visitor.session_hash, None):
            halt.set()

    return Handlers(open_page, compare, stop)


def render(session: Session, request: Request | None = None, found: Comparison | None = None) -> str:
    """Write the page's head, or with what was found, its figures."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.globals |= {"number": number, "percent": percent}
    return environment.get_template("page.html.jinja").render(session=session, request=request, found=found)
