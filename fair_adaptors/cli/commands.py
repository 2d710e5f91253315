"""The command line: one Typer app. Each command is a few lines that call the library; frameworks load when needed."""

import re
import sys
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Annotated

import typer

from fair_adaptors import __version__
from fair_adaptors.errors import FairAdaptorError

from . import adaptors, convert, demo, evaluate, face_bank, generate, hub, reproduce, train, train_classifier
from . import app as page

app = typer.Typer(
    help="Make text-to-image models show people fairly.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line; an error of ours is one line on stderr and exit status 1."""
    try:
        app()
    except FairAdaptorError as error:
        print(f"fair-adaptors: {with_options(str(error), sys.argv[1:2])}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            raise
        print(f"fair-adaptors: {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(1)


def with_options(message: str, command: list[str]) -> str:
    """Write the arguments that an error names in backticks as options of the command: `overwrite` as --overwrite."""
    known = signature(COMMANDS[command[0]]).parameters if command and command[0] in COMMANDS else {}

    def spelled(found: re.Match[str]) -> str:
        return f"--{found[1].replace('_', '-')}" if found[1] in known else found[0]

    return re.sub(r"`(\w+)`", spelled, message)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


COMMANDS: Mapping[str, Callable[..., None]] = {
    "demo": demo.demo,
    "generate": generate.generate,
    "train": train.train,
    "evaluate": evaluate.evaluate,
    "reproduce": reproduce.reproduce,
    "app": page.app,
    "list": adaptors.list_,
    "info": adaptors.info,
    "push": hub.push,
    "pull": hub.pull,
    "search": hub.search,
    "convert": convert.convert,
    "export": convert.export,
    "train-classifier": train_classifier.train_classifier,
    "face-bank": face_bank.face_bank,
}

for name, command in COMMANDS.items():
    app.command(name)(command)
