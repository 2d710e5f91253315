"""Write docs/commands.md from what each command of the command line says of itself."""

from typing import Any

from typer.core import TyperGroup
from typer.main import get_command

from benchmarks._report import write_tables
from fair_adaptors.cli.commands import app

WIDTH = 100
"""Columns of the help on the page."""


def text() -> str:
    """Return the help of every command in Markdown, a heading for each."""
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    top = _context(group, "fair-adaptors")
    helps = (f"## {name}\n\n{_help(_context(one, name, top))}" for name, one in group.commands.items())
    return "\n\n".join([_help(top), *helps])


def _help(context: Any) -> str:
    return f"```text\n{context.get_help()}\n```"


def _context(command: Any, name: str, parent: Any = None) -> Any:
    settings = command.context_settings | {"terminal_width": WIDTH, "max_content_width": WIDTH}
    return command.context_class(command, info_name=name, parent=parent, **settings)


if __name__ == "__main__":
    write_tables("commands", [text()])
