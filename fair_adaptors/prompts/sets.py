"""The known prompt sets by name, and files of the user's as sets.

A package list (``lists/*.txt``) has its description and its source in its first two lines. A line of it is a
prompt whose {braces} mark the label, or a label alone, which goes into the paper's template.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fair_adaptors.errors import ConfigError, did_you_mean
from fair_adaptors.sandbox import prompts as sandbox

from .files import PARSERS, read_file

FOLDER = Path(__file__).parent / "lists"
TEMPLATE = sandbox.TEMPLATE
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

EXPLICIT: tuple[Naming, ...] = (
    ("female {}", "gender", "female"),
    ("male {}", "gender", "male"),
    ("woman who works as a {}", "gender", "female"),
    ("man who works as a {}", "gender", "male"),
    ("White {}", "race", "WMELH"),
    ("Black {}", "race", "Black"),
    ("Indian {}", "race", "Indian"),
    ("Asian {}", "race", "Asian"),
    ("young {}", "age", "young"),
    ("old {}", "age", "old"),
)


@dataclass(frozen=True)
class PromptSet:
    """Prompts to evaluate with.

    Attributes:
        name: of the set, or the user's file name.
        prompts: P distinct prompts.
        labels: of each prompt the part that names the person, such as an occupation; the whole prompt where no part
            is known to.
        source: where the prompts are from, one line.
        expected: of each prompt the attributes it names and their class, such as ``{"gender": "female"}``; empty if
            none of the prompts names any.
    """

    name: str
    prompts: tuple[str, ...]
    labels: tuple[str, ...]
    source: str
    expected: tuple[Mapping[str, str], ...] = ()


def list_prompt_sets() -> dict[str, str]:
    """Describe each set of the package by name, in one line that begins with its number of prompts."""
    described = {name: make(name) for name, make in _SETS.items()}
    return {name: f"{len(found.prompts)} prompts. {description}" for name, (description, found) in described.items()}


def load_prompts(name: str) -> PromptSet:
    """Return a set of the package, or read a file of the user's.

    Files are text in UTF-8. In a ``.txt`` file each line is a prompt; empty lines and lines that begin with ``#`` are
    left out. A ``.json``, ``.yaml`` or ``.yml`` file is a list, or a mapping with that list as ``prompts`` and perhaps
    a line of text as ``source``. An item of the list is a prompt, or a mapping with the prompt as ``prompt`` and
    perhaps ``label``, the part of it that names the person, and ``expected``, the classes it names, such as
    ``{gender: female}``.

    Args:
        name: of ``list_prompt_sets``, or path of a file.

    Raises:
        ConfigError: no such set or file, or the file is malformed; with the line.
        MissingExtraError: reading YAML needs PyYAML.
    """
    if name in _SETS:
        return _SETS[name](name)[1]
    path = Path(name)
    if path.suffix.lower() not in PARSERS:
        raise ConfigError(
            f"there is no prompt set {name!r}.{did_you_mean(name, _SETS)} Sets: {', '.join(_SETS)}; or give a file"
            f" that ends in {', '.join(PARSERS)}"
        )
    source, entries = read_file(path)
    return PromptSet(
        path.name,
        tuple(entry.prompt for entry in entries),
        tuple(entry.label for entry in entries),
        source or str(path),
        tuple(entry.expected for entry in entries) if any(entry.expected for entry in entries) else (),
    )


# The package's sets: name → (description, set).

_Described = tuple[str, PromptSet]


def _from_list(name: str) -> _Described:
    lines = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    description, source = lines[0].removeprefix("# "), lines[1].removeprefix("# Source: ")
    rows = [_fill(line) for line in lines if line and not line.startswith("#")]
    return description, PromptSet(name, tuple(row[0] for row in rows), tuple(row[1] for row in rows), source)


def _fill(line: str) -> tuple[str, str]:
    """Return the prompt and the label of a line of a package list."""
    marked = re.fullmatch(r"(.*)\{(.+)\}(.*)", line)
    return ("".join(marked.groups()), marked[2]) if marked else (TEMPLATE.format(line), line)


def _naming(name: str, occupations: Sequence[str], namings: Iterable[Naming], source: str) -> PromptSet:
    rows = [(wording.format(o), {attribute: c}) for o in occupations for wording, attribute, c in namings]
    labels = tuple(label for label, _ in rows)
    return PromptSet(name, tuple(map(TEMPLATE.format, labels)), labels, source, tuple(named for _, named in rows))


def _explicit(name: str) -> _Described:
    source = "written for fair-adaptors, with occupations of Shen et al., ICLR 2024 (arXiv 2311.07604)"
    description = "Ten of the test's occupations, each with a word that names a gender, race or age, to be obeyed."
    return description, _naming(name, EXPLICIT_OCCUPATIONS, EXPLICIT, source)


_SANDBOX_SOURCE = "the sandbox of fair-adaptors (fair_adaptors.sandbox.prompts)"


def _sandbox(split: sandbox.Split, name: str) -> _Described:
    found = PromptSet(name, sandbox.prompts(split), sandbox.occupations(split), _SANDBOX_SOURCE)
    return f"The {split} occupations of the sandbox.", found


def _sandbox_explicit(name: str) -> _Described:
    namings = [(f"{c} {{}}", attribute, c) for attribute in ("gender", "tone") for c in sandbox.ATTRIBUTES[attribute]]
    description = "The test occupations of the sandbox, each with a word that names a gender or tone, to be obeyed."
    return description, _naming(name, sandbox.occupations("test"), namings, _SANDBOX_SOURCE)


_SETS: dict[str, Callable[[str], _Described]] = {
    "occupations-train": _from_list,
    "occupations-validation": _from_list,
    "occupations-test": _from_list,
    "untemplated": _from_list,
    "explicit": _explicit,
    "sports": _from_list,
    "descriptors": _from_list,
    "styles": _from_list,
    "sandbox-train": partial(_sandbox, "train"),
    "sandbox-validation": partial(_sandbox, "validation"),
    "sandbox-test": partial(_sandbox, "test"),
    "sandbox-explicit": _sandbox_explicit,
}
