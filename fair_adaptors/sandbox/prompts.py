"""The prompts of the sandbox: occupations made of a sector and a role, and their fixed split.

Every word carries a part of the world's bias (see ``world``), so a held-out pair is made of words that training has
seen in other company: what a training run learns about the words can reach it.
"""

from typing import Literal, get_args

from fair_adaptors.prompts.sets import TEMPLATE, PromptSet, explicit_set

SECTORS = ("hospital", "school", "farm", "factory", "airport", "hotel", "museum", "bank", "harbor", "theater")
ROLES = ("manager", "guard", "technician", "gardener", "assistant", "nurse", "cleaner", "cook")
OCCUPATIONS = tuple(f"{sector} {role}" for sector in SECTORS for role in ROLES)

GENDERS = ("female", "male")
TONES = ("pale", "tan", "brown", "dark")
AGES = ("young", "old")
ATTRIBUTES = {"gender": GENDERS, "tone": TONES, "age": AGES}
"""The classes of each attribute, in index order. Gender and age are ordered as in the paper (female 0, young 0)."""

HINT = f"The sandbox knows the places {', '.join(SECTORS)}, and the roles {', '.join(ROLES)}."
NOTE = (
    "The sandbox is a small drawn world with few classes, so that its truth can be counted; real people are not like"
    " that. Results in it are no evidence about photographs of people."
)
"""What its results do not show, for cards and reports."""

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


def split_of(occupation: str) -> Split:
    """Tell which split an occupation belongs to.

    A Latin-square rule: every word stands in training and in test, and every role in validation.
    """
    sector, role = occupation.split()
    return _SPLIT_BY_DIAGONAL.get((SECTORS.index(sector) + ROLES.index(role)) % len(SECTORS), "train")


def occupations(split: Split) -> tuple[str, ...]:
    """List the occupations of one split: 56 for training, 8 for validation, 16 for test."""
    return tuple(occupation for occupation in OCCUPATIONS if split_of(occupation) == split)


def prompts(split: Split) -> tuple[str, ...]:
    """List the prompts of one split, in the paper's template (paper §5)."""
    return tuple(TEMPLATE.format(occupation) for occupation in occupations(split))


def prompt_sets() -> list[PromptSet]:
    """Return the sandbox's sets for ``load_prompts``: splits, other wordings, named classes."""
    source = "the sandbox of fair-adaptors (fair_adaptors.sandbox.prompts)"
    sets = [
        PromptSet(
            f"sandbox-{split}",
            prompts(split),
            occupations(split),
            source,
            description=f"The {split} occupations of the sandbox.",
        )
        for split in SPLITS
    ]
    train = occupations("train")
    bare = tuple(f"a {occupation}" for occupation in train)
    aged = tuple(f"{age} {occupation}" for occupation in train for age in AGES)
    about = "The train occupations of the sandbox,"
    return [
        *sets,
        PromptSet("sandbox-bare", bare, train, source, description=f"{about} without a template."),
        PromptSet(
            "sandbox-aged",
            tuple(map(TEMPLATE.format, aged)),
            aged,
            source,
            description=f"{about} each with a word that names an age.",
        ),
        *(
            explicit_set(
                name,
                occupations(split),
                [(f"{c} {{}}", attribute, c) for attribute in named for c in ATTRIBUTES[attribute]],
                source=source,
                description=f"The {split} occupations of the sandbox, each with a word that names a"
                f" {' or '.join(named)}, to be obeyed.",
            )
            for name, split, named in _EXPLICIT
        ),
    ]


_SPLIT_BY_DIAGONAL: dict[int, Split] = {1: "test", 6: "test", 3: "validation"}

_EXPLICIT: tuple[tuple[str, Split, tuple[str, ...]], ...] = (
    ("sandbox-explicit", "test", ("gender", "tone")),
    ("sandbox-explicit-validation", "validation", ("gender", "tone")),
    ("sandbox-named-gender", "train", ("gender",)),
    ("sandbox-named", "train", ("gender", "tone")),
)
"""Sets of prompts that name a class: each set's name, split and attributes."""
