"""The table of attributes of people: whatever has to know one asks here, and a new attribute is a new row."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PersonClass:
    """A class of an attribute.

    Attributes:
        name: what adaptors, targets and results call it.
        labels: of data sets and classifiers, in lower case, that belong to it.
        clip: what CLIP is asked for it, in its authors' template "a photo of …"; of several the likeliest counts.
        spoken: words for it in a prompt, if nobody says its name.
        namings: ways in which a prompt names it; {} is the occupation.
        people: what a sentence calls the people who look like it.
    """

    name: str
    labels: tuple[str, ...] = ()
    clip: tuple[str, ...] = ()
    spoken: tuple[str, ...] = ()
    namings: tuple[str, ...] = ()
    people: str = ""


@dataclass(frozen=True)
class PersonAttribute:
    """An attribute of people, as they look.

    Attributes:
        name: what adaptors, targets and results call it.
        classes: in index order.
        factors: what may change with it, outside and inside the face (paper §4).
        place: where its word stands before an occupation, the lowest first.
        called: what a sentence calls it, if not by its name.
    """

    name: str
    classes: tuple[PersonClass, ...]
    factors: tuple[float, float]
    place: int
    called: str = ""


ATTRIBUTES: tuple[PersonAttribute, ...] = (
    PersonAttribute(
        "gender",
        (
            PersonClass(
                "female", ("female", "woman"), ("a woman",), (), ("female {}", "woman who works as a {}"), "women"
            ),
            PersonClass("male", ("male", "man"), ("a man",), (), ("male {}", "man who works as a {}"), "men"),
        ),
        factors=(0.2, 0.2),
        place=3,
    ),
    PersonAttribute(
        "race",
        (
            PersonClass(
                "WMELH",
                ("wmelh", "white", "middle eastern", "latino hispanic"),
                ("a white person", "a Middle Eastern person", "a Latino person"),
                ("White", "Middle Eastern", "Latino"),
                ("White {}",),
                "White, Middle Eastern and Latino people",
            ),
            PersonClass("Black", ("black",), ("a Black person",), (), ("Black {}",), "Black people"),
            PersonClass("Indian", ("indian",), ("an Indian person",), (), ("Indian {}",), "Indian people"),
            PersonClass(
                "Asian",
                ("east asian", "southeast asian", "asian"),
                ("an East Asian person", "a Southeast Asian person"),
                (),
                ("Asian {}",),
                "Asian people",
            ),
        ),
        factors=(0.6, 0.3),
        place=1,
        called="skin color",
    ),
    PersonAttribute(
        "age",
        (
            PersonClass(
                "young",
                ("0-2", "3-9", "10-19", "20-29", "30-39", "young"),
                ("a young person",),
                (),
                ("young {}",),
                "young people",
            ),
            PersonClass(
                "old",
                ("40-49", "50-59", "60-69", "more than 70", "70+", "old"),
                ("an old person",),
                (),
                ("old {}",),
                "old people",
            ),
        ),
        factors=(0.6, 0.3),
        place=0,
    ),
    # No labels are known for it, and CLIP is not asked: only classifiers that name it themselves see it.
    PersonAttribute(
        "tone",
        tuple(PersonClass(name, people=f"{name}-skinned people") for name in ("pale", "tan", "brown", "dark")),
        factors=(0.8, 0.8),
        place=2,
        called="skin color",
    ),
)
"""The paper's attributes first. Labels are such as FairFace's seven races and nine ages; that old begins at 40 is this
package's choice."""


def find_attribute(name: str) -> PersonAttribute | None:
    """Return what is known of an attribute."""
    return next((attribute for attribute in ATTRIBUTES if attribute.name == name), None)


def labels() -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the labels of each class, by attribute, of the attributes that labels are known of."""
    return {
        attribute.name: {one.name: one.labels for one in attribute.classes}
        for attribute in ATTRIBUTES
        if all(one.labels for one in attribute.classes)
    }


def clip_words() -> dict[str, dict[str, tuple[str, ...]]]:
    """Return what CLIP is asked for each class, by attribute, of the attributes that it is asked for."""
    return {
        attribute.name: {one.name: one.clip for one in attribute.classes}
        for attribute in ATTRIBUTES
        if all(one.clip for one in attribute.classes)
    }


def factors() -> dict[str, tuple[float, float]]:
    """Return what may change with each attribute, outside and inside the face."""
    return {attribute.name: attribute.factors for attribute in ATTRIBUTES}


def namings() -> tuple[tuple[str, str, str], ...]:
    """Return how prompts name a class, as (wording, attribute, class): first each class's first wording."""
    rows = []
    for attribute in ATTRIBUTES:
        most = max(len(one.namings) for one in attribute.classes)
        rows += [
            (one.namings[index], attribute.name, one.name)
            for index in range(most)
            for one in attribute.classes
            if index < len(one.namings)
        ]
    return tuple(rows)


def spoken(attribute: str, name: str) -> tuple[str, ...]:
    """Return the words that a prompt has for a class: its own name, unless nobody would say that."""
    known = find_attribute(attribute)
    words: Mapping[str, tuple[str, ...]] = {one.name: one.spoken for one in known.classes} if known else {}
    return words.get(name) or (name,)


def people(attribute: str, name: str) -> str:
    """Return what a sentence calls the people of a class; images of it where the table has no words for them."""
    known = find_attribute(attribute)
    words = {one.name: one.people for one in known.classes} if known else {}
    return words.get(name) or f"images of {attribute} {name}"
