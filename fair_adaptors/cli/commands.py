"""The command line: one Typer app. Each command is a few lines that call the library; frameworks load when needed."""

import atexit
import gc
import logging
import os
import sys
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Annotated

import typer

from fair_adaptors import __version__

from . import (
    adaptors,
    convert,
    demo,
    doctor,
    evaluate,
    face_bank,
    generate,
    hub,
    make,
    reproduce,
    train,
    train_classifier,
)
from . import app as page
from .ends import INTERRUPTED, Command, UsageError, close_quietly, misused, told
from .help import Group, epilog

LOG = "FAIR_ADAPTORS_LOG"
"""Environment variable: from which level on messages are shown: debug, info, warning (the default) or error."""
LEVELS = ("debug", "info", "warning", "error")
HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

app = typer.Typer(
    help="Make text-to-image models show people fairly.",
    cls=Group,
    context_settings=HELP,
    epilog="\b\nStart with:\n  fair-adaptors demo",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line; an error that users can do something about is one line on stderr and exit status 1."""
    atexit.register(gc.freeze)  # else Python looks through all that is loaded for garbage before it ends: a second
    command = next((COMMANDS[word] for word in sys.argv[1:] if word in COMMANDS), main)
    try:
        try:
            status = app(prog_name="fair-adaptors", standalone_mode=False)
        finally:
            sys.stdout.flush()
    except typer.Abort:  # Ctrl-C before a command has begun
        print("\nfair-adaptors: stopped. Nothing was written.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except UsageError as error:
        print(f"fair-adaptors: {misused(error, command)}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # whoever read it has seen enough
        close_quietly()
        sys.exit(1)
    except Exception as error:
        line = told(error, signature(command).parameters)
        if line is None:
            raise
        print(f"fair-adaptors: {line}", file=sys.stderr)
        logging.getLogger(__name__).debug("where it comes from", exc_info=error)
        try:
            sys.stdout.flush()
        except OSError:
            close_quietly()
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help=f"Say what is being done; same as {LOG}=debug.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help=f"Show only errors, no bars; same as {LOG}=error.")
    ] = False,
) -> None:
    level = "debug" if verbose else "error" if quiet else os.environ.get(LOG, "warning").lower()
    if level not in LEVELS:
        raise typer.BadParameter(f"{LOG} is {level!r}; it must be one of {', '.join(LEVELS)}")
    handler, logger = Messages(), logging.getLogger("fair_adaptors")
    handler.setFormatter(logging.Formatter("fair-adaptors: %(message)s"))
    logger.handlers = [handler]
    logger.setLevel(level.upper())


class Messages(logging.Handler):
    """Writes messages to what stderr is now: while something is waited for, a line there gives way to them."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


COMMANDS: Mapping[str, Callable[..., None]] = {
    "demo": demo.demo,
    "generate": generate.generate,
    "make": make.make,
    "train": train.train,
    "evaluate": evaluate.evaluate,
    "compare": evaluate.compare,
    "reproduce": reproduce.reproduce,
    "app": page.app,
    "list": adaptors.list_,
    "info": adaptors.info,
    "card": adaptors.card,
    "push": hub.push,
    "pull": hub.pull,
    "search": hub.search,
    "convert": convert.convert,
    "export": convert.export,
    "train-classifier": train_classifier.train_classifier,
    "face-bank": face_bank.face_bank,
    "doctor": doctor.doctor,
}

for name, command in COMMANDS.items():
    app.command(name, cls=Command, epilog=epilog(name), context_settings=HELP)(command)
