"""How a command ends when it cannot go on: one line that says why, what is kept and what to do. No traceback."""

import errno
import logging
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from fair_adaptors.errors import FairAdaptorError

from .help import Explained

logger = logging.getLogger(__name__)
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


class Command(Explained):
    """A command whose Ctrl-C is told in one line."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            print(f"\nfair-adaptors: stopped. {kept(self.name or '', ctx.params)}", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from error


def kept(command: str, given: Mapping[str, Any]) -> str:
    """Say what an interrupted command leaves, and how to go on."""
    again = f"run the same command again: {shlex.join(['fair-adaptors', *sys.argv[1:]])}"
    if command == "train":
        out = given["out"] or Path("runs") / given["recipe"]
        if any(out.glob("checkpoints/*.safetensors")):
            words = ["fair-adaptors", "train", given["recipe"], "--out", str(out), "--resume"]
            return f"The checkpoints in {out} are kept. To go on: {shlex.join(words)}"
        return f"There is no checkpoint yet, so nothing is kept. To start afresh, {again}"
    if command in ("evaluate", "demo", "reproduce"):
        return f"The images of the finished prompts are kept in {given['out']}. To go on, {again}"
    if command in ("pull", "push", "search", "info"):
        return f"What was downloaded whole is kept in the cache. To go on, {again}"
    return f"Nothing was written. To start afresh, {again}"


def told(error: Exception, spell: Mapping[str, Any]) -> str | None:
    """Return the line for an error that users can do something about; None for one of ours to mend.

    Args:
        spell: the parameters of the command, which an error names in backticks: `overwrite` becomes --overwrite.
    """
    if isinstance(error, FairAdaptorError):
        return re.sub(r"`(\w+)`", lambda found: _spelled(found[1], spell), str(error))
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in str(error):
        where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
        return f"the disk is full{where}. What was finished is kept: free some space and run the same command again"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else f"{type(error).__name__}: {error}"
    return None


def _spelled(name: str, spell: Mapping[str, Any]) -> str:
    """Return an argument's name as the command line has it, where a list is an option that may be given again."""
    option = next((one for one in (name, name.removesuffix("s")) if one in spell), None)
    return f"`{name}`" if option is None else f"--{option.replace('_', '-')}"


def close_quietly() -> None:
    """Let nothing more be written to stdout, whose reader has gone, or whose disk is full."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
