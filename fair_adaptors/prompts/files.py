"""Files of prompts that users write, checked item by item: text, JSON and YAML."""

import codecs
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fair_adaptors.errors import ConfigError, MissingExtraError, did_you_mean, missing_extra

SUFFIXES = (".txt", ".json", ".yaml", ".yml")
MAX_LENGTH = 1000
"""Characters of a prompt; the text encoders read some 77 tokens."""
_MAX_BYTES = 10_000_000


@dataclass(frozen=True)
class Item:
    """A prompt of a file, see ``PromptSet``."""

    prompt: str
    label: str
    expected: Mapping[str, str]


class _Pairs(tuple[tuple[Any, Any], ...]):
    """A mapping as a file has it, so that a key that is there twice is seen."""


def read_file(path: Path) -> tuple[str | None, list[Item]]:
    """Return the source that a file names, if it does, and its prompts. See ``load_prompts``.

    Raises:
        ConfigError: the file cannot be read, is too large or malformed; with the line or the number of the item.
        MissingExtraError: reading YAML needs PyYAML.
    """
    text = _read_text(path)
    if path.suffix.lower() == ".txt":
        lines = ((f"{path}, line {number}", line.strip()) for number, line in enumerate(text.split("\n"), 1))
        source, values = None, [(where, line) for where, line in lines if line and line[0] != "#"]
    else:
        source, listed = _source_and_list(_parse(text, path), str(path))
        values = [(f"{path}, item {number}", value) for number, value in enumerate(listed, 1)]
    if not values:
        raise ConfigError(f"{path}: there are no prompts in it")
    return source, checked_items(values)


def checked_items(values: Iterable[tuple[str, Any]]) -> list[Item]:
    """Return the prompts that values are, each with where it stands.

    Raises:
        ConfigError: one is not a prompt, or is there twice.
    """
    items: dict[str, Item] = {}
    for where, value in values:
        item = _item(value, where)
        if item.prompt in items:
            raise ConfigError(f"{where}: duplicate prompt: {item.prompt[:60]!r} is there already")
        items[item.prompt] = item
    return list(items.values())


def _read_text(path: Path) -> str:
    try:
        with path.expanduser().open("rb") as file:
            data = file.read(_MAX_BYTES + 1).removeprefix(codecs.BOM_UTF8)
    except (OSError, ValueError, RuntimeError) as error:  # also: a null character, a user that is not known
        raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"{path} has more than {_MAX_BYTES:,} bytes, too many for a file of prompts")
    try:
        return data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: not text in UTF-8; save the file in that encoding") from error


def _parse(text: str, path: Path) -> Any:
    """Return the value that a JSON or YAML file holds, with its mappings as ``_Pairs``."""
    is_json = path.suffix.lower() == ".json"
    try:
        return json.loads(text, object_pairs_hook=_Pairs) if is_json else _parse_yaml(text)
    except MissingExtraError:
        raise
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply; expected a list of prompts") from error
    except Exception as error:  # a wrong tag makes PyYAML raise nearly anything
        said = " ".join(str(error).split())[:300]
        raise ConfigError(f"{path}: not valid {'JSON' if is_json else 'YAML'}: {said}") from error


def _parse_yaml(text: str) -> Any:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise missing_extra(error.name, "eval") from error

    class Loader(yaml.SafeLoader):
        """Keeps mappings as they are written. Aliases are shared, not copied, so that they cannot fill the memory."""

    Loader.add_constructor("tag:yaml.org,2002:map", lambda loader, node: _Pairs(loader.construct_pairs(node)))
    return yaml.load(text, Loader=Loader)


def _source_and_list(value: Any, where: str) -> tuple[str | None, list[Any]]:
    source = None
    if isinstance(value, _Pairs):
        fields = _fields(value, where, ("prompts", "source"), needed="prompts")
        source = plain_text(fields["source"], where, "source") if "source" in fields else None
        value = fields["prompts"]
    if value is not None and not isinstance(value, list):
        raise ConfigError(f"{where}: expected a list of prompts, or a mapping with that list as 'prompts'")
    return source, value or []


def _item(value: Any, where: str) -> Item:
    if not isinstance(value, _Pairs):
        prompt = plain_text(value, where, "prompt")
        return Item(prompt, prompt, {})
    fields = _fields(value, where, ("prompt", "label", "expected"), needed="prompt")
    prompt = plain_text(fields["prompt"], where, "prompt")
    label = plain_text(fields.get("label", prompt), where, "label")
    if label not in prompt:
        raise ConfigError(f"{where}: the label {label!r} is not a part of its prompt")
    expected = fields.get("expected", _Pairs())
    if not isinstance(expected, _Pairs):
        raise ConfigError(f"{where}: 'expected' must be a mapping such as {{gender: female}}")
    classes = _fields(expected, where)
    return Item(prompt, label, {name: plain_text(classes[name], where, f"class of {name!r}") for name in classes})


def _fields(pairs: _Pairs, where: str, known: Sequence[str] = (), *, needed: str | None = None) -> dict[str, Any]:
    """Return a mapping by its keys. With ``known``, other keys are an error."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        name = plain_text(key, where, "key")
        if known and name not in known:
            hint = f"{did_you_mean(name, known)} Known: {', '.join(known)}. A prompt with a colon must be quoted"
            raise ConfigError(f"{where}: there is no key {name!r}.{hint}")
        if name in found:
            raise ConfigError(f"{where}: the key {name!r} is there twice")
        found[name] = value
    if needed is not None and needed not in found:
        raise ConfigError(f"{where}: the key {needed!r} is missing")
    return found


def plain_text(value: Any, where: str, what: str) -> str:
    """Return a text without the spaces around it."""
    if value is None:
        raise ConfigError(f"{where}: empty {what}")
    if not isinstance(value, str):
        kind = "mapping" if isinstance(value, _Pairs) else type(value).__name__
        raise ConfigError(f"{where}: the {what} must be text, got {kind}; put it in quotes")
    text = value.strip()
    if not text:
        raise ConfigError(f"{where}: empty {what}")
    if len(text) > MAX_LENGTH:
        raise ConfigError(f"{where}: the {what} has {len(text):,} characters; {MAX_LENGTH:,} at most")
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            raise ConfigError(f"{where}: control character U+{ord(character):04X} in the {what}; take it out")
    return text
