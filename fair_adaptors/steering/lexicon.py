"""The words that tell whom a prompt shows, and what it says of them: read from a table that a user can add to."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fair_adaptors.errors import ConfigError

FILE = Path(__file__).parent / "lexicon.json"

_KEYS = ("people", "maybe", "signs", "groups", "numbers", "things", "nobody", "figures", "function", "history")

Words = Mapping[str, frozenset[str]]
"""By language: lower-case words and phrases, in which * stands for any letters of a word."""


@dataclass(frozen=True)
class Lexicon:
    """What words mean, by language (``en``, ``de``, ``fr``, ``es`` or any other).

    Attributes:
        people: words for one person. Of the English ones, the plurals are known too.
        maybe: words for a person or for a thing, such as "carrier": for a person, if the prompt has one of ``signs``.
        signs: what tells that a prompt shows a person.
        groups: words for several.
        numbers: what makes several of the person behind it, where its plural is not known: "drei Schüler".
        things: what makes a thing of a word for a person that stands before it: "a guard dog".
        nobody: what shows nobody, though words for people or for origins are in it: "a pilot light", "a French
            bulldog". No such word counts then, unless a person follows: "a French bulldog breeder".
        figures: what is no person of its own beside another, or is like its parents: "a child and a toy soldier".
        function: articles, prepositions and the like, which part what is said of a person from the rest. They tell
            first which language a prompt is in.
        history: what tells that a prompt is of other times, or of somebody known.
        anywhere: by attribute, words that name it wherever they stand; those for people are among ``people``, too.
        described: by attribute, words that name it only where they stand with the person: "a black coat" says nothing
            of whom it is on.
    """

    people: Words
    maybe: Words
    signs: Words
    groups: Words
    numbers: Words
    things: Words
    nobody: Words
    figures: Words
    function: Words
    history: Words
    anywhere: Mapping[str, Words]
    described: Mapping[str, Words]


@cache
def usual_lexicon() -> Lexicon:
    """Return the package's own lexicon."""
    return _of_table(json.loads(FILE.read_text(encoding="utf-8")))


def load_lexicon(more: str | Path | Mapping[str, Any] | None) -> Lexicon:
    """Return the package's lexicon with what a user adds to it.

    Args:
        more: a table as ``fair_adaptors/steering/lexicon.json``, or the path of one. A word with a minus before it is
            taken out; ``_`` stands for a space.

    Raises:
        ConfigError: it cannot be read, or is no such table.
    """
    if more is None:
        return usual_lexicon()
    if isinstance(more, str | Path):
        try:
            more = dict(json.loads(Path(more).expanduser().read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"the lexicon {more} cannot be read: {error}. Give a JSON file") from error
    try:
        return _of_table(_joined(json.loads(FILE.read_text(encoding="utf-8")), dict(more)))
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        raise ConfigError(
            'this is no lexicon. Write it as {"people": {"en": ["glassblower"]}, "attributes": {"gender": {"anywhere":'
            ' {"en": ["lass"]}}}}; docs/steering.md explains it'
        ) from error


@cache
def pattern_of(words: frozenset[str]) -> re.Pattern[str]:
    """Return what finds any of these words, whole, the longest first."""
    parts = (
        re.escape(word).replace(r"\*", r"[\w'’-]*") for word in sorted(words, key=lambda word: (-len(word), word))
    )
    return re.compile(rf"(?<![\w-])(?:{'|'.join(parts) or '(?!)'})(?![\w-])", re.IGNORECASE)


def inflected(words: Iterable[str], language: str) -> frozenset[str]:
    """Return the English plurals of words, or their German genitives; of other languages nothing."""
    if language == "de":
        return frozenset(word + end for word in words for end in ("s", "es"))
    return frozenset(map(_plural, words)) if language == "en" else frozenset()


def _plural(word: str) -> str:
    if re.search(r"[^aeiou]y$", word):
        return word[:-1] + "ies"
    if word.endswith("person"):
        return word.removesuffix("person") + "people"
    return word + ("es" if re.search(r"(s|x|ch|sh)$", word) else "s")


def _joined(usual: Any, more: Any) -> Any:
    """Return a table with the leaves of another added to its own."""
    if isinstance(usual, Mapping) or isinstance(more, Mapping):
        usual, more = usual or {}, more or {}
        return {key: _joined(usual.get(key), more.get(key)) for key in (*usual, *more)}
    if isinstance(more, str) or isinstance(usual, str):
        raise TypeError("a list of words is expected")
    return [*(usual or []), *(more or [])]


def _of_table(table: Mapping[str, Any]) -> Lexicon:
    attributes = table.get("attributes", {})
    if unknown := table.keys() - {*_KEYS, "attributes"}:
        raise KeyError(*unknown)
    plain = {key: _words(table.get(key, {})) for key in _KEYS}
    who, anywhere, described = (
        {name: _words(row.get(place, {})) for name, row in attributes.items()}
        for place in ("people", "anywhere", "described")
    )
    plural = {name: {key: inflected(one, key) for key, one in words.items()} for name, words in who.items()}
    named = {name: _both(_both(words, plural[name]), anywhere[name]) for name, words in who.items()}
    for words in who.values():
        plain["people"] = _both(plain["people"], words)
    return Lexicon(**plain, anywhere=named, described=described)


def _both(one: Words, other: Words) -> Words:
    """Return the words of two tables."""
    none: frozenset[str] = frozenset()
    return {language: one.get(language, none) | other.get(language, none) for language in {**one, **other}}


def _words(languages: Mapping[str, Sequence[str]]) -> Words:
    found = {}
    for language, bundles in languages.items():
        words = [word.replace("_", " ").casefold() for bundle in bundles for word in bundle.split()]
        dropped = {word[1:] for word in words if word.startswith("-")}
        found[language] = frozenset(word for word in words if not word.startswith("-")) - dropped
    return found
