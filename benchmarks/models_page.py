"""Write the tables of docs/models.md from the tables of bases, families and denoisers, and what recipes cost."""

import json
import math
from typing import Any

from fair_adaptors.training.engine.denoisers import DENOISERS

from benchmarks._report import RESULTS, table, write_tables
from benchmarks.cost import ROOM
from fair_adaptors.adaptor.base_model import BaseModel
from fair_adaptors.adaptor.bases import BASES
from fair_adaptors.families.table import FAMILIES, family_named

TOLD = ("model", "loads", "trains", "an adaptor can be on", "steps, guidance", "licence", "verified on")
COSTS = ("model", "recipe", "trains", "memory", "RTX 4090", "A100", "H100")
GIGABYTES = {"RTX 4090": ROOM}
"""Of the one that some do not fit on."""
STAND_INS = "small random models of its classes"


def tables() -> list[str]:
    """Return the tables in Markdown: a row for each base, what training costs on it, and a row for each family."""
    bases = []
    for one in BASES:
        family = family_named(one.family)
        usual = f"{one.defaults.num_steps}, {one.defaults.guidance_scale:g}"
        trains, parts = "yes" if family.name in DENOISERS else "no", ", ".join(family.parts)
        name = f"{one.names[0]} (`{one.short_name}`)"
        bases.append((name, "yes", trains, parts, usual, one.terms, _verified(one)))
    families = [
        (
            family.title,
            ", ".join(f"`{name}`" for row in (family.parts[family.network],) for name in row.class_names),
            ", ".join(family.parts),
            ", ".join(family.text_entry) or "–",
        )
        for family in FAMILIES
    ]
    return [
        table(TOLD, bases),
        table(COSTS, _costs()),
        table(("family", "told by the network's class", "an adaptor can be on", "where words enter"), families),
    ]


def _verified(base: BaseModel) -> str:
    """Return what was tried with a base; an embedded one is itself, once its adaptors were measured."""
    measured = {"sandbox": "sandbox_bias", "sandbox-flow": "sandbox_flow"}.get(base.short_name, "")
    return "itself, trained and measured" if measured and (RESULTS / f"{measured}.json").is_file() else STAND_INS


def _costs() -> list[tuple[str, ...]]:
    """Return what the recipe for gender and race costs on each base that has one, as docs/cost.md has it."""
    from fair_adaptors.training.recipes import get_recipe

    rows: list[dict[str, Any]] = json.loads((RESULTS / "cost.json").read_text(encoding="utf-8"))["rows"]
    return [
        (
            f"`{row['base']}`",
            f"`{row['recipe']}`",
            ", ".join(get_recipe(row["recipe"]).parts),
            f"{row['gigabytes']:.0f} GB",
            *(
                f"{row[f'{card}, hours']:,.0f} h" if row["gigabytes"] <= GIGABYTES.get(card, math.inf) else "too small"
                for card in COSTS[4:]
            ),
        )
        for row in rows
        if row["recipe"].endswith("gender-race")
    ]


if __name__ == "__main__":
    write_tables("models", tables())
