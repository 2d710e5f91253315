"""Write the tables of docs/model-zoo.md from the registry of adaptors, the table of bases and the recipes."""

from fair_adaptors.training.recipes import described

from benchmarks._report import table, write_tables
from fair_adaptors.adaptor.bases import BASES, find_base
from fair_adaptors.adaptor.registry import ADAPTORS, AdaptorInfo
from fair_adaptors.cli.adaptors import _as_published, _measured

WHERE = {
    "embedded": "in this package",
    "published": "by the paper's authors; downloaded on first use",
    "recipe-only": "a recipe to train it; no weights are published",
}


def tables() -> list[str]:
    """Return the tables in Markdown: adaptors, bases, recipes."""
    adaptors = [
        (f"`{one.name}`", one.summary, _base(one), ", ".join(one.trained_parts), WHERE[one.status]) for one in ADAPTORS
    ]
    measured = [(f"`{one.name}`", *map(_cell, (_measured(one), _as_published(one)))) for one in ADAPTORS]
    bases = [(f"`{one.short_name}`", ", ".join(one.names), one.family, one.terms) for one in BASES]
    recipes = [(f"`{name}`", *what.split(": ")) for name, what in described().items()]
    return [
        table(("adaptor", "what it does", "base", "what it changes", "where its weights are"), adaptors),
        table(("adaptor", "measured here", "published in the paper"), [row for row in measured if any(row[1:])]),
        table(("short name", "Hub ids", "family", "licence"), bases),
        table(("recipe", "what it makes fair", "what it trains"), recipes),
    ]


def _base(info: AdaptorInfo) -> str:
    base = find_base(info.base_model)
    return f"`{base.short_name if base else info.base_model}`"


def _cell(lines: str) -> str:
    return lines.replace("\n", ", ")


if __name__ == "__main__":
    write_tables("model-zoo", tables())
