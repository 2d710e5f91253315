"""Names the class of each image in its prompt: "a photo of a nurse" becomes "a photo of a male nurse"."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from fair_adaptors.adaptor.record import AdaptorRecord, AttributeTarget
from fair_adaptors.attributes import ATTRIBUTES, find_attribute, spoken
from fair_adaptors.errors import ConfigError, did_you_mean

from .calls import PROMPTS, Call
from .draw import parse_target, uniform_of
from .gate import Gate
from .handle import Steering

KIND = "words:"


def is_words(name: Any) -> bool:
    """Tell whether a name is of words, such as ``words:gender``, and not of files."""
    return isinstance(name, str) and name.startswith(KIND)


def read_words(spec: str) -> "Words":
    """Read ``words:gender=0.5,0.5+age``: attributes of the table with their targets, equal shares if none is given.

    Raises:
        ConfigError: it is not of that form, or an attribute is not known.
    """
    return Words(parse_targets(spec.removeprefix(KIND).split("+"), spec))


def parse_targets(texts: Sequence[str], said: str) -> dict[str, tuple[float, ...]]:
    """Read attributes of the table, each as ``gender`` for equal shares or ``gender=0.5,0.5``; return the shares.

    Args:
        said: what errors say they are from.

    Raises:
        ConfigError: one is not of that form, not known, or given twice.
    """
    targets: dict[str, tuple[float, ...]] = {}
    for text in texts:
        name, shares = parse_target(text.strip()) if "=" in text else (text.strip(), ())
        known = {one.name: len(one.classes) for one in ATTRIBUTES}
        if name not in known:
            raise ConfigError(
                f"{'' if said == name else f'{said!r}: '}there is no attribute {name!r}.{did_you_mean(name, known)}"
                f" Known: {', '.join(known)}. Write gender, or gender=0.5,0.5"
            )
        if name in targets:
            raise ConfigError(f"{said!r} names {name} twice")
        targets[name] = shares or (1 / known[name],) * known[name]
        if len(targets[name]) != known[name]:
            raise ConfigError(f"{said!r}: {name} has {known[name]} classes, and {len(shares)} shares are given")
    return targets


def targets_of(shares: Mapping[str, Sequence[float]]) -> dict[str, AttributeTarget]:
    """Return what a record says of attributes of the table with these shares."""
    return {
        name: AttributeTarget(tuple(one.name for one in known.classes), tuple(each))
        for name, each in shares.items()
        if (known := find_attribute(name))
    }


class Words(Steering):
    """Words for the classes that are drawn. Negative prompts stay as they are."""

    def __init__(self, targets: Mapping[str, Sequence[float]]):
        """Take the share of each class of some attributes of the table, by the attribute's name."""
        said = "+".join(f"{name}={','.join(f'{share:g}' for share in shares)}" for name, shares in targets.items())
        self.record = AdaptorRecord(
            KIND + said, "any", {}, targets_of(targets), ("words",), 0, 1.0, training={}, versions={}, files={}
        )
        self.place = -max(place_in_speech(name) for name in targets)  # what stands last is put in first

    @classmethod
    def of(cls, record: AdaptorRecord) -> "Words":
        """Return the words of a folder's record.

        Raises:
            ConfigError: one of its attributes is not in the table.
        """
        shares = {name: row.target for name, row in record.attributes.items()}
        texts = [f"{name}={','.join(map(str, each))}" for name, each in shares.items()]
        words = cls(parse_targets(texts, record.name))
        words.record = record
        return words

    def rewrite(self, call: Call, drawn: Sequence[Mapping[str, str]], gate: Gate, strength: float) -> None:
        """Name what was drawn for each image in its prompt."""
        for name in PROMPTS:
            prompts = call.arguments.get(name)
            if isinstance(prompts, list) and len(prompts) == len(drawn):
                told = drawn if name == "prompt" else map(partial(_told, gate), prompts, call.prompts, drawn)
                call.arguments[name] = [
                    self.reword(prompt, classes, gate, key)
                    for prompt, classes, key in zip(prompts, told, call.keys, strict=True)
                ]

    def people(self, prompt: str, attribute: str, gate: Gate) -> tuple[str, ...]:
        """Return whose class is drawn: the first one's, and that of each who is named next to them."""
        others = enumerate(gate.people(prompt)[1:], 2)
        return ("", *(_of(place) for place, one in others if not gate.described(prompt, attribute, one)))

    def reword(self, prompt: str, classes: Mapping[str, str], gate: Gate, key: int) -> str:
        """Return a prompt that names classes, by attribute, and by "attribute of person 2" for those behind the first.

        Args:
            gate: finds the people.
            key: draws the word, where a class has several.
        """
        if not classes:
            return prompt
        people = gate.people(prompt)
        for place, person in reversed(list(enumerate(people[1:], 2))):
            if words := _said(classes, _of(place), key):
                prompt = put_before(prompt, person.start, words)
        words = _said(classes, "", key)
        if not words:
            return prompt
        if not people or people[0].language != "en":
            return f"{article(words)} {words} person, {prompt}"
        return put_before(prompt, people[0].start, words)

    def example(self, prompt: str, classes: Mapping[str, str], gate: Gate) -> str:
        """Say what becomes of a prompt for these classes."""
        return f"the prompt becomes {self.reword(prompt, classes, gate, 0)!r}"


def inject(prompt: str, label: str, words: str) -> str:
    """Put words before the label, or a person of whom they are said before the prompt."""
    found = re.search(rf"(?<!\w){re.escape(label)}(?!\w)", prompt, re.IGNORECASE) if label.strip() else None
    if found is None or found[0] == prompt.strip():
        return f"{article(words)} {words} person, {prompt}"
    return put_before(prompt, found.start(), words)


def put_before(prompt: str, start: int, words: str) -> str:
    """Put words into a prompt, and make the article before them agree."""
    before = re.sub(r"\b([Aa])n?(\s+)$", lambda a: a[1] + article(words)[1:] + a[2], prompt[:start])
    return f"{before}{words} {prompt[start:]}"


def article(words: str) -> str:
    """Return ``a`` or ``an``, as the first letter asks for."""
    return "an" if words[:1].lower() in tuple("aeiou") else "a"


def place_in_speech(name: str) -> int:
    """Return where the words of an attribute stand before an occupation, the lowest first."""
    known = find_attribute(name)
    return known.place if known else -1


def _told(gate: Gate, prompt: str, first: str, drawn: Mapping[str, str]) -> Mapping[str, str]:
    """Return what is named in a prompt for a further text encoder, of what was drawn for the people of the first one.

    If several were drawn, it has to name the same people and no class of them: its first may be the other's second.
    """
    if all(find_attribute(name) for name in drawn):
        return drawn
    here, there = gate.people(prompt), gate.people(first)
    same = len(here) == len(there) and all(a.text.endswith(b.text) for a, b in zip(here, there, strict=True))
    attributes = {name.partition(" of person ")[0] for name in drawn}
    return drawn if same and not any(gate.described(prompt, name, one) for name in attributes for one in here) else {}


def _of(place: int) -> str:
    """Return what tells a class of one of the people behind the first, by their place in the prompt."""
    return f" of person {place}"


def _said(classes: Mapping[str, str], of: str, key: int) -> str:
    """Return the words for one person's classes, in the order of speech."""
    names = sorted((one.name for one in ATTRIBUTES if one.name + of in classes), key=place_in_speech)
    return " ".join(_word(name, classes[name + of], key, of) for name in names)


def _word(attribute: str, name: str, key: int, of: str) -> str:
    said = spoken(attribute, name)
    return said[int(uniform_of(f"{attribute} word{of}", key) * len(said))]
