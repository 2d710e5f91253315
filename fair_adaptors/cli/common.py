"""What several commands share."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from fair_adaptors.errors import ConfigError

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
    """Load the sandbox, or any pipeline of diffusers, on the accelerator if there is one.

    Args:
        base: ``sandbox``, a folder, or a Hub repository, as ORG/NAME or ORG/NAME@COMMIT.
    """
    if base == "sandbox":
        from fair_adaptors.sandbox.pipeline import load_sandbox_pipeline

        return load_sandbox_pipeline()
    from diffusers import DiffusionPipeline

    from fair_adaptors.hub.client import split_revision
    from fair_adaptors.vision.types import accelerator

    place, revision = split_revision(base)
    try:
        pipe = DiffusionPipeline.from_pretrained(place, revision=revision, dtype="auto")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{base} is no pipeline that can be loaded: {str(error).strip().splitlines()[0]}") from error
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(accelerator())


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
