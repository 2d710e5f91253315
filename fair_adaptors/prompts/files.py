"""Files of prompts that users write: text → nodes that know their line → entries."""

import codecs
import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fair_adaptors.errors import ConfigError, MissingExtraError, did_you_mean

MAX_LENGTH = 1000
"""Characters of a prompt; the text encoders read some 77 tokens."""


def read_file(path: Path) -> "tuple[str | None, list[Entry]]":
    """Return the source that a file names, if it does, and its prompts, see ``load_prompts``."""
    try:
        data = path.expanduser().read_bytes()
    except (OSError, ValueError, RuntimeError) as error:  # also: a null character, a user that is not known
        raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        source, entries = PARSERS[path.suffix.lower()](_decode(data))
        _check_distinct(entries)
    except _Malformed as error:
        where = f", line {error.line}" if error.line else ""
        raise ConfigError(f"{path}{where}: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply; expected a list of prompts") from error
    return source, entries


class _Malformed(Exception):
    """What is wrong with a file, and the line where that is known."""

    def __init__(self, line: int | None, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class Entry:
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


_Parsed = tuple[str | None, list[Entry]]


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


PARSERS: dict[str, Callable[[str], _Parsed]] = {
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


def _entry(node: _Node) -> Entry:
    if node.kind != "mapping":
        prompt = _text(node, "prompt")
        return Entry(node.line, prompt, prompt, {})
    fields = _fields(node, ("prompt", "label", "expected"), needed="prompt")
    prompt = _text(fields["prompt"], "prompt")
    label = _text(fields.get("label", fields["prompt"]), "label")
    if label not in prompt:
        raise _Malformed(fields["label"].line, f"the label {label!r} is not a part of its prompt")
    return Entry(node.line, prompt, label, _named(fields["expected"]) if "expected" in fields else {})


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


def _check_distinct(entries: Sequence[Entry]) -> None:
    if not entries:
        raise _Malformed(1, "no prompts at all")
    first: dict[str, int] = {}
    for entry in entries:
        if entry.prompt in first:
            said = f"{_shortened(entry.prompt)!r} is there already, on line {first[entry.prompt]}"
            raise _Malformed(entry.line, f"duplicate prompt: {said}")
        first[entry.prompt] = entry.line
