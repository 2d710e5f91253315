"""What several commands share."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

Seed = Annotated[int, typer.Option(min=0, max=2**32, help="Seed of everything random.")]


def print_pairs(name: str, what: str, rows: Mapping[str, str]) -> None:
    """Print a table of two columns."""
    from rich.console import Console
    from rich.table import Table

    table = Table(name, what)
    for key, text in rows.items():
        table.add_row(key, text)
    Console().print(table)


def load_base(base: str) -> Any:
    """Load a base by its name, on the accelerator if there is one; an embedded base is quicker on the CPU."""
    from fair_adaptors.adaptor.bases import plugin_of
    from fair_adaptors.pipelines import load_pipeline
    from fair_adaptors.vision.types import accelerator

    pipe = load_pipeline(base)
    return pipe if plugin_of(base) else pipe.to(accelerator())


def quiet() -> None:
    """Silence loading bars and notices that do not concern the user."""
    import logging
    import os

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # peft imports it where it is installed
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # some notices come while it is imported
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
