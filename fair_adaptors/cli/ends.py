"""How a command ends when it cannot go on: one line that says why, what is kept and what to do. No traceback."""

import errno
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

from fair_adaptors.errors import FairAdaptorError, did_you_mean

from .help import EXAMPLES, Explained

logger = logging.getLogger(__name__)
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""
UsageError: Any = typer.BadParameter.__base__
KINDS: Mapping[str, str] = {"bool": "true or false", "int": "a whole number", "float": "a number"}
WORDS = "fair_adaptors.words"
"""Where a context keeps the words of its command."""


class Command(Explained):
    """A command whose Ctrl-C is told in one line, and what is wrong with its words as well."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[WORDS] = list(args)
        ctx.allow_extra_args = True
        try:
            super().parse_args(ctx, args)
        except UsageError as error:
            error.ctx = ctx
            raise
        if ctx.args and not ctx.resilient_parsing:
            raise typer.BadParameter(f"{self.name} does not take {ctx.args[0]!r}; {_see(ctx)}", ctx)
        return ctx.args

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
            return f"The checkpoints in {out} are kept. To go on: {resuming(sys.argv[1:])}"
        return f"There is no checkpoint yet, so nothing is kept. To start afresh, {again}"
    if command in ("evaluate", "demo", "reproduce"):
        return f"The images of the finished prompts are kept in {given['out']}. To go on, {again}"
    if command in ("pull", "push", "search", "info"):
        return f"What was downloaded whole is kept in the cache. To go on, {again}"
    return f"Nothing was written. To start afresh, {again}"


def resuming(words: Sequence[str]) -> str:
    """Return the command that goes on with the run of a command: the same, but from its latest checkpoint."""
    same = [word for word in without_option(words, "--checkpoint") if word not in ("--resume", "--overwrite")]
    return shlex.join(["fair-adaptors", *same, "--resume"])


def without_option(words: Sequence[str], name: str) -> list[str]:
    """Leave out an option and its value, in either way of writing it."""
    kept: list[str] = []
    for word in words:
        if kept and kept[-1] == name:
            kept.pop()
        elif not word.startswith(name + "="):
            kept.append(word)
    return kept


def misused(error: Any, command: Callable[..., None]) -> str:
    """Say in one line what is wrong with the words of a command, and what would be right.

    Args:
        error: a usage error of Typer, which speaks in a library's words.
    """
    ctx, one = error.ctx, getattr(error, "param", None)
    option: Any = getattr(error, "option_name", None)
    if one is None and option is None:
        return str(error.message)
    if one is None:
        known = {word: each for each in ctx.command.params for word in (*each.opts, *each.secondary_opts)}
        if option not in known:
            return f"{ctx.info_name} has no option {option}.{did_you_mean(option, known)} {_see(ctx).capitalize()}"
        one = known[option]
        return f"{option} takes no value" if one.is_flag else f"{option} needs {_taken(command, one)}"
    spelled = one.metavar if one.param_type_name == "argument" else max(one.opts, key=len)
    values, *_ = ctx.command.make_parser(ctx).parse_args(list(ctx.meta[WORDS]))
    given = values.get(one.name, ctx.lookup_default(one.name))
    if not given or not isinstance(given, str | list | tuple):
        return f"{ctx.info_name} needs {spelled}. For example: {EXAMPLES[ctx.info_name].splitlines()[0]}"
    shown = given if isinstance(given, str) else ", ".join(given)
    return f"{spelled} takes {_taken(command, one)}, not {shown!r}"


def _taken(command: Callable[..., None], one: Any) -> str:
    """Return in words what a parameter of a command takes."""
    kind, option = get_args(get_type_hints(command, include_extras=True)[one.name])
    words = next((words for name, words in KINDS.items() if name in str(kind)), one.metavar)
    if option.min is not None and option.max is not None:
        return f"{words} from {option.min:,} to {option.max:,}"
    return words if option.min is None else f"{words} of at least {option.min:,}"


def _see(ctx: Any) -> str:
    return f"see {ctx.command_path} -h"


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
