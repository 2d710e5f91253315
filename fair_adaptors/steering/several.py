"""People whom an English prompt names side by side: "a nurse, a guard and a doctor".

Whoever is found here beside the first gets a class of their own. So it is better to miss somebody than to take a thing
for one, or two roles of one person for two people.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

MOST = 8
"""People in a prompt that are told from each other."""
_JOINED = re.compile(r",?\s+(?:(?P<last>and|&)\s+)?(?:an?|another|the)\s+", re.IGNORECASE)
_ONE_BEFORE = re.compile(
    r"(?:\b(?:is|am|was|as|be)\s+(?:both\s+)?an?\s+|\w,\s+an?\s+"
    r"|\b(?:between|half|my|our|your|his|her|their|one|this|that)\b.*"
    r"|\b(?:mix|cross|fusion|hybrid|blend|combination|mashup|exposure)\s+of\s+(?:an?|the)\s+)$"
    r"|\b(?:headshot|selfie|self-portrait|profile picture|split portrait)\b",
    re.IGNORECASE,
)
"""What is before somebody of whom more is said: "Alex, an artist and an activist", "a mix of a pirate and an elf"."""
_GOES_ON = re.compile(
    r"\s+(?:and|&|or|next|both|together|talk|sit|stand|walk|look|work|argue|shake|hug|dance|play|seated|dressed|outside"
    r"|inside|\w+ing)\b",
    re.IGNORECASE,
)
"""What may be behind somebody, besides words of grammar. Any other word makes a thing of them: "a student loan"."""


@dataclass(frozen=True)
class Person:
    """Where a prompt names a person.

    Attributes:
        start, end: of the words in the prompt, without the article: "hospital nurse".
        text: these words.
        language: of the prompt.
    """

    start: int
    end: int
    text: str
    language: str


def side_by_side(
    prompt: str,
    first: Person,
    find: Callable[[str], Person | None],
    surely: re.Pattern[str],
    figures: re.Pattern[str],
    function: re.Pattern[str],
) -> list[Person]:
    """Return whom a prompt names beside the first, in their order.

    What follows a comma counts only before an "and": "a nurse, a person" is one.

    Args:
        find: tells where a text names a person first.
        surely: words for a person that are none for a thing.
        figures: words that make nobody of such a word, or nobody with a class of their own.
        function: words of grammar, "in" and "the".
    """
    if _ONE_BEFORE.search(prompt[: first.start]):
        return []
    found, listed, end = list[Person](), list[Person](), first.end
    known = {first.text.casefold()}
    while len(found) + len(listed) < MOST - 1 and (joined := _JOINED.match(prompt, end)):
        start = joined.end()
        one = find(prompt[start:])
        if one is None or one.start or not _is_somebody(prompt[start:], one.end, surely, figures, function):
            break
        if joined[0].split()[-1].casefold() == "the" and one.text.casefold() in known:
            break  # "a boxer and the boxer in the mirror"
        end = start + one.end
        known.add(one.text.casefold())
        listed.append(replace(one, start=start, end=end))
        if joined["last"]:
            found, listed = [*found, *listed], []
    return found


def _is_somebody(
    rest: str, end: int, surely: re.Pattern[str], figures: re.Pattern[str], function: re.Pattern[str]
) -> bool:
    """Tell whether the first words of a text, up to an end, are of a person, and no part of a thing's name."""
    text = rest[:end]
    if figures.search(text) or not any(match.end() == end for match in surely.finditer(text)):
        return False
    after = re.match(r"\s+([\w'’-]+)", rest[end:])
    if after is None:
        return True
    named = after[1].casefold() in ("named", "called")
    return not named and bool(function.fullmatch(after[1]) or _GOES_ON.match(rest, end))
