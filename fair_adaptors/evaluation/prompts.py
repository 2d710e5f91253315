"""Prompt sets for evaluation: the package's own lists, and files of the user's.

A package list (``prompt_sets/*.txt``) has its description and its source in its first two lines. A line of it is a
prompt whose {braces} mark the label, or a label alone, which goes into the paper's template.
"""

import codecs
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigError, MissingExtraError, did_you_mean
from ..sandbox import prompts as sandbox

FOLDER = Path(__file__).parent / "prompt_sets"
TEMPLATE = sandbox.TEMPLATE
"""The paper's: "a" even before a vowel (paper §5)."""
MAX_LENGTH = 1000
"""Characters of a prompt; the text encoders read some 77 tokens."""

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
    if path.suffix.lower() not in _PARSERS:
        raise ConfigError(
            f"there is no prompt set {name!r}.{did_you_mean(name, _SETS)} Sets: {', '.join(_SETS)}; or give a file"
            f" that ends in {', '.join(_PARSERS)}"
        )
    try:
        data = path.expanduser().read_bytes()
    except (OSError, ValueError, RuntimeError) as error:  # also: a null character, a user that is not known
        raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        source, entries = _PARSERS[path.suffix.lower()](_decode(data))
        _check_distinct(entries)
    except _Malformed as error:
        where = f", line {error.line}" if error.line else ""
        raise ConfigError(f"{path}{where}: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply; expected a list of prompts") from error
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


# Users' files: text → nodes that know their line → entries.


class _Malformed(Exception):
    """What is wrong with a file, and the line where that is known."""

    def __init__(self, line: int | None, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class _Entry:
    line: int
    prompt: str
    label: str
    expected: Mapping[str, str]


@dataclass(frozen=True)
class _Node:
    """A value in a file. ``text`` is it as written; ``parts`` its items, or its keys and values in turn."""

    line: int
    kind: Literal["text", "list", "mapping", "other"]
    text: str = ""
    parts: list["_Node"] = field(default_factory=list)


_Parsed = tuple[str | None, list[_Entry]]


def _decode(data: bytes) -> str:
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _Malformed(line, "not text in UTF-8; save the file in that encoding") from error


def _parse_txt(text: str) -> _Parsed:
    lines = ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1))
    return None, [_entry(_Node(number, "text", line)) for number, line in lines if line and line[0] != "#"]


def _parse_json(text: str) -> _Parsed:
    try:
        _JSON.decode(text)
    except json.JSONDecodeError as error:
        raise _Malformed(error.lineno, f"not valid JSON: {error.msg} (column {error.colno})") from error
    return _entries(_json_node(text, _SPACE.match(text).end())[0])  # type: ignore[union-attr]


_JSON = json.JSONDecoder(parse_int=float)  # an int of very many digits is an error
_SPACE = re.compile(r"[ \t\n]*")
_BETWEEN = re.compile(r"[ \t\n,:]*")


def _json_node(text: str, start: int) -> tuple[_Node, int]:
    """Return the value that begins at ``start`` of a valid JSON text, and where it ends."""
    line = text.count("\n", 0, start) + 1
    if text[start] not in "[{":
        value, end = _JSON.raw_decode(text, start)
        is_text = isinstance(value, str)
        return _Node(line, "text" if is_text else "other", value if is_text else text[start:end]), end
    node = _Node(line, "list" if text[start] == "[" else "mapping")
    end = start + 1
    while text[end := _BETWEEN.match(text, end).end()] not in "]}":  # type: ignore[union-attr]
        part, end = _json_node(text, end)
        node.parts.append(part)
    return node, end + 1


def _parse_yaml(text: str) -> _Parsed:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{error.name} is not installed: pip install 'fair-adaptors[eval]'") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _Malformed(line, f"control character U+{error.character:04X}; take it out") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _Malformed(mark.line + 1, f"not valid YAML: {error.problem or error.context}") from error
    except (ValueError, OverflowError) as error:  # an escape for no character
        raise _Malformed(None, f"not valid YAML: {error}") from error
    return _entries(_yaml_node(root, {}) if root else _Node(1, "list"))


def _yaml_node(node: Any, known: dict[int, _Node]) -> _Node:
    """Convert a node of PyYAML's. ``known`` has those that aliases may come back to, even from within."""
    if id(node) in known:
        return known[id(node)]
    line = node.start_mark.line + 1
    if node.id == "scalar":
        return _Node(line, "text" if node.tag == "tag:yaml.org,2002:str" else "other", node.value)
    known[id(node)] = converted = _Node(line, "list" if node.id == "sequence" else "mapping")
    children = node.value if node.id == "sequence" else [child for pair in node.value for child in pair]
    converted.parts.extend(_yaml_node(child, known) for child in children)
    return converted


_PARSERS: dict[str, Callable[[str], _Parsed]] = {
    ".txt": _parse_txt,
    ".json": _parse_json,
    ".yaml": _parse_yaml,
    ".yml": _parse_yaml,
}


def _entries(root: _Node) -> _Parsed:
    source = None
    if root.kind == "mapping":
        fields = _fields(root, ("prompts", "source"), needed="prompts")
        source = _text(fields["source"], "source") if "source" in fields else None
        root = fields["prompts"]
    if root.kind != "list":
        raise _Malformed(root.line, "expected a list of prompts, or a mapping with that list as 'prompts'")
    return source, [_entry(node) for node in root.parts]


def _entry(node: _Node) -> _Entry:
    if node.kind != "mapping":
        prompt = _text(node, "prompt")
        return _Entry(node.line, prompt, prompt, {})
    fields = _fields(node, ("prompt", "label", "expected"), needed="prompt")
    prompt = _text(fields["prompt"], "prompt")
    label = _text(fields.get("label", fields["prompt"]), "label")
    if label not in prompt:
        raise _Malformed(fields["label"].line, f"the label {label!r} is not a part of its prompt")
    return _Entry(node.line, prompt, label, _named(fields["expected"]) if "expected" in fields else {})


def _named(node: _Node) -> dict[str, str]:
    if node.kind != "mapping":
        raise _Malformed(node.line, "'expected' must be a mapping such as {gender: female}")
    return {attribute: _text(value, f"class of {attribute!r}") for attribute, value in _fields(node).items()}


def _fields(node: _Node, known: Sequence[str] = (), *, needed: str | None = None) -> dict[str, _Node]:
    """Return the values of a mapping by key. With ``known``, other keys are an error."""
    found: dict[str, _Node] = {}
    for key, value in zip(node.parts[::2], node.parts[1::2], strict=True):
        name = _text(key, "key")
        if known and name not in known:
            hint = f"{did_you_mean(name, known)} Known: {', '.join(known)}. A prompt with a colon must be quoted"
            raise _Malformed(key.line, f"there is no key {name!r}.{hint}")
        if name in found:
            raise _Malformed(key.line, f"the key {name!r} is there twice")
        found[name] = value
    if needed is not None and needed not in found:
        raise _Malformed(node.line, f"the key {needed!r} is missing")
    return found


def _text(node: _Node, what: str) -> str:
    """Return the text of a node, without spaces around it."""
    text = node.text.strip()
    if node.kind == "other" and text:
        raise _Malformed(node.line, f"the {what} {_shortened(text)} is not text; quote it if it should be")
    if node.kind in ("list", "mapping"):
        raise _Malformed(node.line, f"the {what} must be text, not a {node.kind}")
    if not text:
        raise _Malformed(node.line, f"empty {what}")
    if len(text) > MAX_LENGTH:
        raise _Malformed(node.line, f"the {what} has {len(text):,} characters; {MAX_LENGTH:,} at most")
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            raise _Malformed(node.line, f"control character U+{ord(character):04X} in the {what}; take it out")
    return text


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _check_distinct(entries: Sequence[_Entry]) -> None:
    if not entries:
        raise _Malformed(1, "no prompts at all")
    first: dict[str, int] = {}
    for entry in entries:
        if entry.prompt in first:
            said = f"{_shortened(entry.prompt)!r} is there already, on line {first[entry.prompt]}"
            raise _Malformed(entry.line, f"duplicate prompt: {said}")
        first[entry.prompt] = entry.line
