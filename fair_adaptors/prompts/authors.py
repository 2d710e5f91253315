"""The prompts of the paper's authors by name, out of their data.zip: for training, for validation and for tests."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fair_adaptors.errors import ConfigError
from fair_adaptors.hub.parts import KIND, Part, find_part, unpacked

from .files import Item, plain_text

SOURCE = "data.zip of Shen et al., ICLR 2024 (arXiv 2311.07604)"
TEMPLATES_FOR_TESTS = "prompt_templates_test"
_PLACE = "{occupation}"
_MOST_BYTES = 10_000_000


@dataclass(frozen=True)
class AuthorsPrompts(Part):
    """A list of prompts.

    Attributes:
        key: of the list in its JSON file.
        templates: key of the templates that the list's occupations go into; empty where it has whole prompts.
    """

    key: str
    templates: str = ""


def _lists(name: str, file: str, what: str) -> dict[str, AuthorsPrompts]:
    """Return the three lists of a file of whole prompts."""
    keys = {name: "train_prompts", f"{name}-validation": "val_prompts", f"{name}-test": "test_prompts"}
    return {full: AuthorsPrompts(f"1-prompts/{file}.json", what, key) for full, key in keys.items()}


_OCCUPATIONS = "1-prompts/occupation.json"

AUTHORS_PROMPTS: Mapping[str, AuthorsPrompts] = {
    "occupations": AuthorsPrompts(_OCCUPATIONS, "occupations", "occupations_train_set", "prompt_templates_train"),
    "occupations-validation": AuthorsPrompts(_OCCUPATIONS, "occupations", "occupations_val_set", TEMPLATES_FOR_TESTS),
    "occupations-test": AuthorsPrompts(_OCCUPATIONS, "occupations", "test_prompts"),
    **_lists("styles", "occupation_w_style_and_context", "occupations with style and context"),
    **_lists("descriptors", "personal_descriptor", "descriptions of people"),
    **_lists("sports", "sports", "sports"),
    "laion-test": AuthorsPrompts(
        "1-prompts/LAION-aesthetics-V2-occupation-related.json", "captions that name occupations", "test_prompts"
    ),
}
"""By the name behind ``authors:``. The keys are those that their exp-1, exp-5 and ``gen-images.py`` read."""


def list_authors_prompts() -> dict[str, str]:
    """Describe each list of the authors' by the word for it. How many prompts one has, its file tells."""
    return {f"{KIND}:{name}": f"The authors' {row.key}: {row.what}." for name, row in AUTHORS_PROMPTS.items()}


def read_authors_prompts(name: str) -> list[Item]:
    """Return the prompts of a list of the authors'; their archive is fetched if it is not in the cache.

    Args:
        name: of ``AUTHORS_PROMPTS``.

    Raises:
        ConfigError: there is none of that name, or its file is not as it should be.
        ArchiveError: the archive cannot be had.
    """
    row = find_part(AUTHORS_PROMPTS, name, of="prompt set")
    path = unpacked(row)
    content = _read(path)
    words = _texts(content, row.key, path)
    if row.templates:
        templates = _texts(content, row.templates, path)
        pairs = {template.replace(_PLACE, word): word for template in templates for word in words}
    else:
        templates = _texts(content, TEMPLATES_FOR_TESTS, path) if TEMPLATES_FOR_TESTS in content else []
        pairs = {prompt: _label(prompt, templates) for prompt in words}
    return [Item(prompt, label, {}) for prompt, label in pairs.items()]


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes()) if path.stat().st_size <= _MOST_BYTES else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ConfigError(f"{path} is not one of the authors' lists of prompts: not a JSON object, or too long")
    return found


def _texts(content: Mapping[str, Any], key: str, path: Path) -> list[str]:
    found = content.get(key)
    if not isinstance(found, list) or not found:
        raise ConfigError(f"{path} is not one of the authors' lists of prompts: it has no list {key!r}")
    return [plain_text(text, f"{path}, {key}, item {number}", "prompt") for number, text in enumerate(found, 1)]


def _label(prompt: str, templates: Sequence[str]) -> str:
    """Return the occupation that a template was filled with; the whole prompt where none was."""
    for template in templates:
        before, _, after = template.partition(_PLACE)
        if found := re.fullmatch(f"{re.escape(before)}(.+){re.escape(after)}", prompt):
            return found[1]
    return prompt
