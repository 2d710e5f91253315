"""Which prompts are left alone: those that name what would be drawn, show nobody, or are exempt by the user."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from .lexicon import Lexicon, Words, inflected, load_lexicon, pattern_of
from .several import Person, side_by_side

AGES = re.compile(r"(?<![\w-])\d{1,3}[ -]?(?:years?[ -]old|y/?o)(?![\w-])|(?<![\w-])aged? \d{1,3}(?!\d)", re.I)
AGED = re.compile(
    r"(?<![\w-])(?:\d{1,2}|five|six|seven|eight|nine|ten|eleven|twelve|[a-z]+teen|[a-z]+ty(?:-[a-z]+)?)-year-old"
    r"(?=\s+(?P<after>[\w'’-]+)|[^\w'’]|$)",
    re.IGNORECASE,
)
"""An age that may stand for whoever is of it, "a 20-year-old at a desk", and the word behind it."""
FIRST = re.compile(r"(?:.*\bof\s+)?(?:an?\s+|the\s+|one\s+)?", re.IGNORECASE)
"""What is before such an age, if it is whom the prompt shows, and not what somebody is like: "Jo as a 20-year-old"."""
ADJECTIVES_BEHIND = ("fr", "es")
"""Languages that have "black" behind the pianist."""
YEARS = re.compile(r"(?<!\d)(?:1[0-8]\d\d)s?(?!\d)")
TITLED = re.compile(r"(?<![\w-])(?:Herr|Frau|Doktor|Dr\.|Monsieur|Madame|Don|Doña|Señor|Señora) [A-ZÄÖÜÉÁ]\w+")
"""A title and a name; of English ones tells ``_is_name``."""
_TOKEN = re.compile(r"[\w'’-]+")


@dataclass(frozen=True)
class Look:
    """What the gate says of a prompt.

    Attributes:
        person: whom the prompt names first; None where it names nobody, or several at once.
        reasons: by attribute that is left alone, why. The others are steered.
    """

    person: Person | None
    reasons: Mapping[str, str]


class Gate:
    """Tells which prompts are left alone, and for which attributes."""

    def __init__(
        self,
        *,
        lexicon: str | Path | Mapping[str, Any] | None = None,
        exempt: Iterable[str] = (),
        history: bool = False,
    ):
        """Make a gate.

        Args:
            lexicon: what to add to the package's own, see ``load_lexicon``.
            exempt: prompts to leave alone, in which * stands for anything: ``*pope*``. Capitals make no difference.
            history: steer prompts of other times, too.

        Raises:
            ConfigError: the lexicon is none.
        """
        self.lexicon = load_lexicon(lexicon)
        self.exempt = (exempt,) if isinstance(exempt, str) else tuple(exempt)
        self.history = history
        self._of = {language: _patterns(self.lexicon, language) for language in self.lexicon.people}

    def look(self, prompt: str, attributes: Sequence[str]) -> Look:
        """Tell what is to be done with a prompt.

        Args:
            attributes: the names of those that would be steered.
        """
        if exempted := next((one for one in self.exempt if fnmatchcase(prompt.casefold(), one.casefold())), None):
            return Look(None, dict.fromkeys(attributes, f"the prompt is exempt by {exempted!r}"))
        language = self._language(prompt)
        prompt = self._without_things(prompt, language)
        person, why = self._find(prompt, language)
        if person is None:
            return Look(None, dict.fromkeys(attributes, why))
        if not self.history and (told := self._history(prompt, language)):
            return Look(person, dict.fromkeys(attributes, f"{told!r} speaks of other times, or of somebody known"))
        reasons = {
            name: f"the prompt says {told!r}"
            for name in attributes
            if (told := self._named(prompt, name, person, language))
        }
        return Look(person, reasons)

    def _named(self, prompt: str, attribute: str, person: Person, language: str) -> str | None:
        """Return the word with which a prompt names a class of an attribute; None if it names none."""
        if found := self._search(self.lexicon.anywhere.get(attribute, {}), prompt, language):
            return found
        if attribute == "age" and (age := AGES.search(prompt)):
            return age[0]
        described = self.lexicon.described.get(attribute, {})
        behind = re.match(r" [\w'’-]+", prompt[person.end :]) if language in ADJECTIVES_BEHIND else None
        said_of = prompt[person.start : person.end + (behind.end() if behind else 0)]
        if found := self._search(described, said_of, language):
            return found
        for pattern in (pattern_of(described[name]) for name in {"en": 0, language: 0} if name in described):
            said = rf"(?:(?:who|that|which) (?:is|are|looks?)|skinned|(?<![\w-])(?:is|looks?)) (?:{pattern.pattern})"
            followed = rf"(?:{pattern.pattern})[ -](?:person|people|skin|skinned|face|child|adult)"
            if match := re.search(rf"{said}|{followed}", prompt, re.IGNORECASE):
                return match[0]
        return None

    def person(self, prompt: str) -> Person | None:
        """Return whom a prompt names first; None where it names nobody, or several at once."""
        language = self._language(prompt)
        return self._find(self._without_things(prompt, language), language)[0]

    def people(self, prompt: str) -> tuple[Person, ...]:
        """Return whom an English prompt names side by side: "a nurse, a guard and a doctor".

        In another language it is the first alone; () where it names nobody, or several at once.
        """
        language = self._language(prompt)
        bare = self._without_things(prompt, language)
        first, _ = self._find(bare, language)
        if first is None or language != "en":
            return (first,) if first else ()
        of = self._of[language]
        beside = side_by_side(
            bare, first, lambda text: self._find(text, language)[0], of.surely, of.figures, of.function
        )
        return (first, *beside)

    def described(self, prompt: str, attribute: str, person: Person) -> bool:
        """Tell whether a prompt says a class of an attribute of this person: "a nurse and a Black doctor"."""
        language = person.language
        return self._named(self._without_things(prompt, language), attribute, person, language) is not None

    def _without_things(self, prompt: str, language: str) -> str:
        """Blank what shows nobody, though it has words for people, or for what they look like: "a French bulldog".

        It stays where a word for a person follows: "a French bulldog breeder".
        """
        of = self._of.get(language) or self._of["en"]

        def blank(found: re.Match[str]) -> str:
            followed = prompt[found.end() : found.end() + 1] == " " and of.surely.match(prompt, found.end() + 1)
            return found[0] if followed else "·" * len(found[0])

        return of.nobody.sub(blank, prompt)

    def _history(self, prompt: str, language: str) -> str | None:
        found = self._search(self.lexicon.history, prompt, language)
        return found or (year[0] if (year := YEARS.search(prompt)) else None)

    def _find(self, prompt: str, language: str) -> tuple[Person | None, str]:
        """Return whom the prompt names first; or None, and why that is nobody."""
        of = self._of.get(language) or self._of["en"]
        anyone = of.surely if of.signs.search(prompt) is None else of.maybe
        for found in anyone.finditer(prompt):
            end = _end_of(prompt, found.end(), anyone, of.function)
            after = re.match(r"\s+([\w'’-]+)", prompt[end:])
            if prompt[end : end + 1] in ("'", "’") or (after and of.things.fullmatch(after[1])):
                continue  # "a doctor's office", "a guard dog"
            start = _start_of(prompt, found.start(), end, of.function)
            text = prompt[start:end]
            before = _TOKEN.findall(prompt[:start])[-1:]
            if before and of.numbers.fullmatch(before[0]):
                return None, f"'{before[0]} {text}' are several people"
            groups = of.several.findall(text)
            if groups and (language == "de" or text.endswith(groups[-1])):  # "eine Gruppe Taucher"
                return None, f"{text!r} are several people"
            if titled := TITLED.search(prompt):
                return None, f"{titled[0]!r} speaks of somebody"
            if language != "de" and after and _is_name(prompt, after[1], of.function):
                return None, f"{text!r} and the name {after[1]!r} speak of somebody"
            return Person(start, end, text, language), ""
        aged = AGED.search(prompt)
        if aged and (not aged["after"] or of.function.fullmatch(aged["after"])):
            start = _start_of(prompt, *aged.span(), of.function)
            if FIRST.fullmatch(prompt[:start]):
                return Person(start, aged.end(), prompt[start : aged.end()], language), ""
        return None, "it names no person that the lexicon knows"

    def _language(self, prompt: str) -> str:
        """Return the language whose articles and the like are the most, then whose people and what is said of them.

        Where nothing but people tells, it takes two such words for another language than English: "Jägermeister" and
        "Turner" are names as well.
        """
        counts = {name: len(pattern_of(words).findall(prompt)) for name, words in self.lexicon.function.items()}
        most = max(counts.values(), default=0)
        best = [name for name, count in counts.items() if count == most]
        if len(best) < 2:
            return best[0] if best else "en"
        said = {name: self._said(prompt, name) for name in best}
        if not most and max(said.values()) < 2:
            return "en"
        return max(best, key=lambda name: (said[name], name == "en"))

    def _said(self, prompt: str, language: str) -> int:
        """Count the words of a prompt that are of people in a language, or of what they look like."""
        tables = (self.lexicon.people, *self.lexicon.anywhere.values(), *self.lexicon.described.values())
        words = frozenset[str]().union(*(table.get(language, frozenset()) for table in tables))
        return len(pattern_of(words).findall(prompt))

    def _search(self, words: Words, prompt: str, language: str) -> str | None:
        """Return the first word of a prompt that is of its language, of English, or of one that nothing tells.

        An English word that is another one of the prompt's own language is passed over: "son" in French.
        """
        function, found = pattern_of(self.lexicon.function.get(language, frozenset())), []
        for name, one in words.items():
            if name in (language, "en") or name not in self.lexicon.function:
                matches = pattern_of(one).finditer(prompt)
                found += [match for match in matches if name == language or not function.fullmatch(match[0])][:1]
        first = min(found, key=lambda match: match.start(), default=None)
        return first[0] if first else None


@dataclass(frozen=True)
class _Patterns:
    """What finds the words of a lexicon in one language: for a person surely, or maybe, and so on."""

    surely: re.Pattern[str]
    maybe: re.Pattern[str]
    several: re.Pattern[str]
    signs: re.Pattern[str]
    numbers: re.Pattern[str]
    things: re.Pattern[str]
    nobody: re.Pattern[str]
    figures: re.Pattern[str]
    function: re.Pattern[str]


def _patterns(lexicon: Lexicon, language: str) -> _Patterns:
    def of(words: Words) -> frozenset[str]:
        return words.get(language, frozenset())

    one, maybe, groups = of(lexicon.people), of(lexicon.maybe), of(lexicon.groups)
    forms, maybe_forms = inflected(one, language), inflected(maybe, language)
    several = groups | (forms | maybe_forms if language == "en" else frozenset())
    surely, all_of = one | forms | groups, one | forms | groups | maybe | maybe_forms
    rest = (lexicon.signs, lexicon.numbers, lexicon.things, lexicon.nobody, lexicon.figures, lexicon.function)
    return _Patterns(*map(pattern_of, (surely, all_of, several - one - maybe, *map(of, rest))))


def _end_of(prompt: str, end: int, people: re.Pattern[str], function: re.Pattern[str]) -> int:
    """Return where what is said of a person ends: a word for one may be part of it, as in "child care worker"."""
    reached = end
    for token in _TOKEN.finditer(prompt, end):
        if prompt[reached : token.start()] != " " or function.fullmatch(token[0]) or token[0].endswith("ing"):
            break
        reached = token.end()
        if people.fullmatch(token[0]):
            end = reached
    return end


def _start_of(prompt: str, start: int, end: int, function: re.Pattern[str]) -> int:
    """Return where what is said of a person begins: behind an article, or the like."""
    for token in reversed(list(_TOKEN.finditer(prompt, 0, start))):
        between = prompt[token.end() : start]
        listed = between == ", " and " and " in prompt[start:end]  # "a car, taxi and van driver"
        if (between.strip() and not listed) or function.fullmatch(token[0]):
            break
        start = token.start()
    joined = re.match(r"(?:and|or|und|oder|et|ou|y|o)\s+", prompt[start:], re.IGNORECASE)
    return start + (joined.end() if joined else 0)


def _is_name(prompt: str, word: str, function: re.Pattern[str]) -> bool:
    """Tell whether a word is a name: it has a capital in a prompt whose words have none."""
    plain = [
        one for one in _TOKEN.findall(prompt)[1:] if one.islower() and len(one) > 3 and not function.fullmatch(one)
    ]
    return word[:1].isupper() and not word.isupper() and bool(plain)
