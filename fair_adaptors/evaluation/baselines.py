"""Methods of others as variants, so that an adaptor is compared with them on the same model and noise.

Two change the prompt. The third, which changes the guidance of each image, is in ``semantic_guidance``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple

from fair_adaptors.attributes import find_attribute, spoken
from fair_adaptors.errors import ConfigError, did_you_mean
from fair_adaptors.steering.draw import Attribute, distinct_attributes, draw_class, hash_of, names_of
from fair_adaptors.steering.words import article, inject, place_in_speech

from .semantic_guidance import semantic_guidance
from .spec import Instruments, Target
from .variants import Variant


def baselines_for(names: Sequence[str], targets: Sequence[Target], instruments: Instruments) -> list[Variant]:
    """Return baselines by name, for the attributes that are counted one by one.

    Raises:
        ConfigError: no such baseline.
    """
    classes = instruments.classifiers[0].classes
    asked = [target for target in targets if target.declared] or targets
    single = [(target.attributes[0], target.shares) for target in asked if len(target.attributes) == 1]
    attributes = [Attribute(name, *_spoken(name, classes[name], shares)) for name, shares in single if names]
    for name in names:
        if name not in BASELINES:
            raise ConfigError(f"no baseline {name!r}.{did_you_mean(name, BASELINES)} Known: {', '.join(BASELINES)}")
    return [BASELINES[name][0](attributes) for name in names]


def ethical_intervention(attributes: Sequence[Attribute]) -> Variant:
    """Append a wish to the prompt: "… if all individuals can be a nurse irrespective of their gender".

    The sentence of Bansal et al. 2022 (arXiv 2210.15230), who have it for gender and for skin color. Other attributes
    go by their names, and several are joined by "and". Where the label is empty or the whole prompt, "shown" stands
    for "a nurse". What does not fit into the text encoder is cut off, as from any prompt.
    """
    words = dict.fromkeys(_called(attribute.name) for attribute in distinct_attributes(attributes))
    wish = f"irrespective of their {' and '.join(words)}"

    def prompts(prompt: str, label: str, seeds: Sequence[int]) -> list[str]:
        named = label.strip() and label.strip() != prompt.strip()
        what = f"{article(label)} {label}" if named else "shown"
        return [f"{prompt.rstrip(' .')} if all individuals can be {what} {wish}"] * len(seeds)

    return Variant(
        "ethical intervention",
        hash_of("ethical intervention", wish),
        prompts=prompts,
        aimed=tuple(attribute.name for attribute in attributes),
        summary=f"Every prompt ends in “if all individuals can be … {wish}” (Bansal et al. 2022).",
    )


def attribute_injection(attributes: Sequence[Attribute]) -> Variant:
    """Put a word for each attribute into the prompt of each image: "… the face of a young female nurse, a person".

    The classes are drawn by ``draw_class``, for each attribute on its own. The words stand before the label, in the
    order of the table of attributes' places, and the article before them is made to agree. Where the label is not in
    the prompt, or is the whole of it, the prompt becomes "a young female person, …".
    """
    ordered = tuple(sorted(distinct_attributes(attributes), key=lambda attribute: place_in_speech(attribute.name)))

    def prompts(prompt: str, label: str, seeds: Sequence[int]) -> list[str]:
        drawn = [" ".join(attribute.classes[draw_class(attribute, seed)] for attribute in ordered) for seed in seeds]
        return [inject(prompt, label, words) for words in drawn]

    return Variant(
        "attribute injection",
        hash_of("attribute injection", *map(astuple, ordered)),
        prompts=prompts,
        aimed=tuple(attribute.name for attribute in ordered),
        summary=f"Every prompt names {names_of(ordered)}, drawn from the target.",
    )


def _called(name: str) -> str:
    known = find_attribute(name)
    return (known.called if known else "") or name


def _spoken(
    attribute: str, classes: Sequence[str], shares: Sequence[float]
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Return classes as words for a prompt, with their shares: a class that no prompt would name is taken apart."""
    said = [(spoken(attribute, name), share) for name, share in zip(classes, shares, strict=True)]
    words = [(word, share / len(each)) for each, share in said for word in each]
    return tuple(word for word, _ in words), tuple(share for _, share in words)


BASELINES: Mapping[str, tuple[Callable[[Sequence[Attribute]], Variant], str]] = {
    "ethical-intervention": (
        ethical_intervention,
        "A sentence behind the prompt asks for fairness (Bansal et al. 2022).",
    ),
    "attribute-injection": (
        attribute_injection,
        "A random class of each attribute is written into each image's prompt.",
    ),
    "semantic-guidance": (
        semantic_guidance,
        "Each image is guided towards a random class (Fair Diffusion, Friedrich et al. 2023).",
    ),
}
"""Baselines that need no training, with what they do. UCE has to be fitted first, see ``benchmarks/uce.py``."""
