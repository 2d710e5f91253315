"""Write the tables of docs/models.md from the tables of bases, families and denoisers."""

from fair_adaptors.training.engine.denoisers import DENOISERS

from benchmarks._report import table, write_tables
from fair_adaptors.adaptor.bases import BASES
from fair_adaptors.families.table import FAMILIES, family_named


def tables() -> list[str]:
    """Return the tables in Markdown: a row for each base, and one for each family."""
    bases = []
    for one in BASES:
        family = family_named(one.family)
        usual = f"{one.defaults.num_steps}, {one.defaults.guidance_scale:g}"
        trains, parts = "yes" if family.name in DENOISERS else "no", ", ".join(family.parts)
        bases.append((f"{one.names[0]} (`{one.short_name}`)", "yes", trains, parts, usual, one.terms))
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
        table(("model", "loads", "trains", "an adaptor can be on", "steps, guidance", "licence"), bases),
        table(("family", "told by the network's class", "an adaptor can be on", "where all text enters"), families),
    ]


if __name__ == "__main__":
    write_tables("models", tables())
