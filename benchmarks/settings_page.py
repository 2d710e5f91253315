"""Write the tables of docs/settings.md from what ``TrainConfig`` and ``evaluate`` say of their own settings."""

import ast
import dataclasses
import inspect
import re
from itertools import pairwise
from typing import Any, get_args

from fair_adaptors.training.bounds import Part
from fair_adaptors.training.config import TrainConfig

from benchmarks._report import table, write_tables
from fair_adaptors import evaluate


def documentation() -> dict[str, str]:
    """Return what stands under each field of ``TrainConfig``, on one line."""
    (body,) = (node.body for node in ast.parse(inspect.getsource(TrainConfig)).body if isinstance(node, ast.ClassDef))
    return {
        field.target.id: " ".join(below.value.value.split()).replace("``", "`")
        for field, below in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }


def tables() -> list[str]:
    """Return the tables in Markdown: the parts of a training run in their order, then an evaluation."""
    said, fields = documentation(), dataclasses.fields(TrainConfig)
    return [
        table(
            ("setting", "what it is", "default", "allowed"),
            [
                (f"`{field.name}`", said[field.name], _default(field), _allowed(field))
                for field in fields
                if field.metadata["part"] == part
            ],
        )
        for part in get_args(Part)
    ] + [table(("argument", "what it is", "default"), _arguments())]


def _arguments() -> list[tuple[str, str, str]]:
    """Return name, meaning and default of every argument of ``evaluate``, in the order of its docstring."""
    text = inspect.cleandoc(evaluate.__doc__ or "").split("Args:\n")[1].split("\n\n")[0]
    said = {name: " ".join(what.split()).replace("``", "`") for name, what in re.findall(_ARGUMENT, text)}
    parameters = inspect.signature(evaluate).parameters
    defaults = {name: "–" if one.default is one.empty else f"`{one.default!r}`" for name, one in parameters.items()}
    return [(f"`{name}`", said[name], default) for name, default in defaults.items()]


_ARGUMENT = re.compile(r"^    (\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)
"""An argument in a docstring: its name, and its lines."""


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING:
        return "the recipe's"
    if not isinstance(field.default, tuple):
        return (
            f"`{str(field.default).lower() if field.type is bool else field.default}`"
            if field.default != ""
            else "empty"
        )
    words = [":".join(map(str, each)) if isinstance(each, tuple) else each for each in field.default]
    return f"`{','.join(words)}`" if words else "none"


def _allowed(field: dataclasses.Field[Any]) -> str:
    choices = get_args(field.type)
    if choices and all(isinstance(choice, str) for choice in choices):
        return ", ".join(f"`{choice}`" for choice in choices)
    words = {int: "whole number", float: "number", bool: "`true` or `false`", str: "text"}.get(field.type, "list")
    return f"{words} {field.metadata['bounds']}".strip()


if __name__ == "__main__":
    write_tables("settings", tables())
