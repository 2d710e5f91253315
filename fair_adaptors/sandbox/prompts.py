"""The prompts of the sandbox: occupations made of a sector and a role, and their fixed split.

Every word carries a part of the world's bias (see ``world``), so a held-out pair is made of words that training has
seen in other company: what a training run learns about the words can reach it.
"""

from typing import Literal, get_args

SECTORS = ("hospital", "school", "farm", "factory", "airport", "hotel", "museum", "bank", "harbor", "theater")
ROLES = ("manager", "guard", "technician", "gardener", "assistant", "nurse", "cleaner", "cook")
OCCUPATIONS = tuple(f"{sector} {role}" for sector in SECTORS for role in ROLES)

GENDERS = ("female", "male")
TONES = ("pale", "tan", "brown", "dark")
AGES = ("young", "old")
ATTRIBUTES = {"gender": GENDERS, "tone": TONES, "age": AGES}
"""The classes of each attribute, in index order. Gender and age are ordered as in the paper (female 0, young 0)."""

TEMPLATE = "A photo of the face of a {}, a person"

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


def split_of(occupation: str) -> Split:
    """Tell which split an occupation belongs to. A Latin-square rule: every word stands in all three."""
    sector, role = occupation.split()
    return _SPLIT_BY_DIAGONAL.get((SECTORS.index(sector) + ROLES.index(role)) % len(SECTORS), "train")


def occupations(split: Split) -> tuple[str, ...]:
    """List the occupations of one split: 56 for training, 8 for validation, 16 for test."""
    return tuple(occupation for occupation in OCCUPATIONS if split_of(occupation) == split)


def prompts(split: Split) -> tuple[str, ...]:
    """List the prompts of one split, in the paper's template (paper §5)."""
    return tuple(TEMPLATE.format(occupation) for occupation in occupations(split))


_SPLIT_BY_DIAGONAL: dict[int, Split] = {0: "test", 5: "test", 3: "validation"}
