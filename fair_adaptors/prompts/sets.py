"""The known prompt sets by name, and files of the user's as sets.

A package list (``lists/*.txt``) has its description and its source in its first two lines. A line of it is a prompt
whose {braces} mark the label, or a label alone, which goes into the paper's template.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fair_adaptors.adaptor.bases import BASES, imported, plugin_of
from fair_adaptors.attributes import namings
from fair_adaptors.errors import ConfigError, did_you_mean
from fair_adaptors.hub.parts import KIND

from .authors import AUTHORS_PROMPTS, SOURCE, read_authors_prompts
from .files import SUFFIXES, Item, checked_items, read_file

FOLDER = Path(__file__).parent / "lists"
TEMPLATE = "A photo of the face of a {}, a person"
"""The paper's: "a" even before a vowel (paper §5)."""

EXPLICIT_OCCUPATIONS = (
    "senator",
    "violinist",
    "geologist",
    "researcher",
    "cosmetologist",
    "inventor",
    "butcher",
    "custodian",
    "sergeant",
    "cardiologist",
)

Naming = tuple[str, str, str]
"""How a prompt names a class: (wording, attribute, class)."""


@dataclass(frozen=True)
class PromptSet:
    """Prompts to train or evaluate with.

    Attributes:
        name: of the set, or the user's file name.
        prompts: P distinct prompts.
        labels: of each prompt the part that names the person, such as an occupation; the whole prompt where no part
            is known to.
        source: where the prompts are from, one line.
        expected: of each prompt the attributes it names and their class, such as ``{"gender": "female"}``; empty if
            none of the prompts names any.
        description: what they are, one line; empty for a user's file.
    """

    name: str
    prompts: tuple[str, ...]
    labels: tuple[str, ...]
    source: str
    expected: tuple[Mapping[str, str], ...] = ()
    description: str = ""

    def leaves_open(self, attributes: Iterable[str]) -> list[bool]:
        """Tell of each prompt, [P], whether it names no class of any of these attributes."""
        wanted = set(attributes)
        return [wanted.isdisjoint(named) for named in self.expected or ({},) * len(self.prompts)]


def list_prompt_sets() -> dict[str, str]:
    """Describe each known set by name, in one line that begins with its number of prompts."""
    return {name: f"{len(found.prompts)} prompts. {found.description}" for name, found in _known_sets().items()}


def load_prompts(name: str | Path | Sequence[str], *, base: str | None = None) -> PromptSet:
    """Return a known set, read a file of the user's, or take the prompts as they are given.

    Files are text in UTF-8. In a ``.txt`` file each line is a prompt; empty lines and lines that begin with ``#`` are
    left out. A ``.json``, ``.yaml`` or ``.yml`` file is a list, or a mapping with that list as ``prompts`` and perhaps
    a line of text as ``source``. An item of the list is a prompt, or a mapping with the prompt as ``prompt`` and
    perhaps ``label``, the part of it that names the person, and ``expected``, the classes it names, such as
    ``{gender: female}``.

    Args:
        name: of ``list_prompt_sets``; ``authors:NAME`` for a list of the paper's authors, whose data.zip is fetched
            if it is not in the cache; the path of a file; or a list of the prompts themselves.
        base: the base model's name, where its own sets may be named without it: ``train`` for ``sandbox-train``.

    Raises:
        ConfigError: no such set or file, or the file is malformed; with the line or the number of the item.
        ArchiveError: the authors' data.zip cannot be had.
        MissingExtraError: reading YAML needs PyYAML.
    """
    if not isinstance(name, str | Path):
        given = checked_items((f"prompts, item {number}", value) for number, value in enumerate(name, 1))
        if not given:
            raise ConfigError("`prompts` is an empty list; give at least one prompt")
        return _of_items("given", given, "given by the caller")
    name, known = str(name), dict(_known_sets())
    if base and (plugin := plugin_of(base)):
        word = f"{plugin.word}-"
        own = {full.removeprefix(word): found for full, found in known.items() if full.startswith(word)}
        known = {**own, **known}
    if name in known:
        return known[name]
    kind, _, own_name = name.partition(":")
    if kind == KIND:
        return _of_items(name, read_authors_prompts(own_name), SOURCE)
    path = Path(name)
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"there is no prompt set {name!r}.{did_you_mean(name, known)} Sets: {', '.join(known)}; or give a file"
            f" that ends in {', '.join(SUFFIXES)}; or {KIND}:NAME, a list of the paper's authors:"
            f" {', '.join(AUTHORS_PROMPTS)}"
        )
    source, items = read_file(path)
    return _of_items(path.name, items, source or path.name)


def _of_items(name: str, items: Sequence[Item], source: str) -> PromptSet:
    return PromptSet(
        name,
        tuple(item.prompt for item in items),
        tuple(item.label for item in items),
        source,
        tuple(item.expected for item in items) if any(item.expected for item in items) else (),
    )


def explicit_set(
    name: str, occupations: Sequence[str], namings: Iterable[Naming], *, source: str, description: str
) -> PromptSet:
    """Return a set that asks for each occupation in each naming, in the paper's template."""
    rows = [(wording.format(o), {attribute: c}) for o in occupations for wording, attribute, c in namings]
    labels, expected = tuple(label for label, _ in rows), tuple(named for _, named in rows)
    return PromptSet(name, tuple(map(TEMPLATE.format, labels)), labels, source, expected, description)


@cache
def _known_sets() -> Mapping[str, PromptSet]:
    explicit = explicit_set(
        "explicit",
        EXPLICIT_OCCUPATIONS,
        namings(),
        source="written for fair-adaptors, with occupations of Shen et al., ICLR 2024 (arXiv 2311.07604)",
        description="Ten of the test's occupations, each with a word that names a gender, race or age, to be obeyed.",
    )
    named = {attribute: [one for one in namings() if one[1] == attribute] for _, attribute, _ in namings()}
    sets = [
        *map(_from_list, ("occupations-train", "occupations-validation", "occupations-test", "untemplated")),
        explicit,
        *map(_from_list, ("sports", "descriptors", "styles")),
        *(_named(attribute, rows) for attribute, rows in named.items()),
    ]
    for place in dict.fromkeys(base.plugin.prompt_sets for base in BASES if base.plugin):
        sets += imported(place)()
    return {found.name: found for found in sets}


def _named(attribute: str, rows: Sequence[Naming]) -> PromptSet:
    """Return the occupations to train on, each with a word for each class of an attribute: its first one."""
    occupations = _from_list("occupations-train")
    first = {name: (wording, attribute, name) for wording, _, name in reversed(rows)}
    return explicit_set(
        f"occupations-named-{attribute}",
        occupations.labels,
        tuple(reversed(first.values())),
        source=occupations.source,
        description=f"The train occupations, each with a word that names a class of {attribute}, to be obeyed.",
    )


def _from_list(name: str) -> PromptSet:
    lines = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    description, source = lines[0].removeprefix("# "), lines[1].removeprefix("# Source: ")
    rows = [_fill(line) for line in lines if line and not line.startswith("#")]
    prompts, labels = tuple(prompt for prompt, _ in rows), tuple(label for _, label in rows)
    return PromptSet(name, prompts, labels, source, description=description)


def _fill(line: str) -> tuple[str, str]:
    """Return the prompt and the label of a line of a package list."""
    marked = re.fullmatch(r"(.*)\{(.+)\}(.*)", line)
    return ("".join(marked.groups()), marked[2]) if marked else (TEMPLATE.format(line), line)
