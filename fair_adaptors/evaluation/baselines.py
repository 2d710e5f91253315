"""Methods of others as variants, so that an adaptor is compared with them on the same model and noise.

Two change the prompt, and one the guidance of each image.
"""

import hashlib
import json
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from itertools import accumulate
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from fair_adaptors.attributes import find_attribute, spoken
from fair_adaptors.errors import ConfigError, did_you_mean
from fair_adaptors.families.sd import STABLE_DIFFUSION
from fair_adaptors.families.table import find_family

from .spec import Instruments, Target
from .variants import Variant

if TYPE_CHECKING:
    import torch

SEMANTIC_PARTS = ("vae", "text_encoder", "tokenizer", "unet", "scheduler", "safety_checker", "feature_extractor")


@dataclass(frozen=True)
class Attribute:
    """What should be fair, and what fair means.

    Attributes:
        name: such as ``gender``.
        classes: K words, as they are put into prompts.
        target: the share that each class should have, [K]; they add up to 1.

    Raises:
        ConfigError: fewer than two classes, an empty word, or shares that are no distribution over the classes.
    """

    name: str
    classes: tuple[str, ...]
    target: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or not all(word.strip() for word in (self.name, *self.classes)):
            raise ConfigError(
                f"attribute {self.name!r} has the classes {self.classes}; give a name and two words or more"
            )
        if len(self.target) != len(self.classes):
            raise ConfigError(f"{self.name!r} has {len(self.classes)} classes and {len(self.target)} target shares")
        if not all(share >= 0 for share in self.target) or not math.isclose(sum(self.target), 1, abs_tol=1e-6):
            raise ConfigError(f"{self.name!r} has the target {self.target}; give shares from 0 to 1 that add up to 1")


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


def draw_class(attribute: Attribute, seed: int) -> int:
    """Draw an image's class from the target: a function of name, target and seed, the same on every machine."""
    digest = hashlib.sha256(f"{attribute.name}\n{seed}".encode()).digest()
    uniform = (int.from_bytes(digest[:8], "big") >> 11) / 2**53
    return min(bisect_right(list(accumulate(attribute.target)), uniform), len(attribute.classes) - 1)


def ethical_intervention(attributes: Sequence[Attribute]) -> Variant:
    """Append a wish to the prompt: "… if all individuals can be a nurse irrespective of their gender".

    The sentence of Bansal et al. 2022 (arXiv 2210.15230), who have it for gender and for skin color. Other attributes
    go by their names, and several are joined by "and". Where the label is empty or the whole prompt, "shown" stands
    for "a nurse". What does not fit into the text encoder is cut off, as from any prompt.
    """
    words = dict.fromkeys(_called(attribute.name) for attribute in _some(attributes))
    wish = f"irrespective of their {' and '.join(words)}"

    def prompts(prompt: str, label: str, seeds: Sequence[int]) -> list[str]:
        named = label.strip() and label.strip() != prompt.strip()
        what = f"{_article(label)} {label}" if named else "shown"
        return [f"{prompt.rstrip(' .')} if all individuals can be {what} {wish}"] * len(seeds)

    return Variant(
        "ethical intervention",
        _identity("ethical intervention", wish),
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
    ordered = tuple(sorted(_some(attributes), key=lambda attribute: _place_in_speech(attribute.name)))

    def prompts(prompt: str, label: str, seeds: Sequence[int]) -> list[str]:
        drawn = [" ".join(attribute.classes[draw_class(attribute, seed)] for attribute in ordered) for seed in seeds]
        return [_inject(prompt, label, words) for words in drawn]

    return Variant(
        "attribute injection",
        _identity("attribute injection", *map(astuple, ordered)),
        prompts=prompts,
        aimed=tuple(attribute.name for attribute in ordered),
        summary=f"Every prompt names {_names(ordered)}, drawn from the target.",
    )


def semantic_guidance(
    attributes: Sequence[Attribute],
    *,
    scale: float = 4.0,
    warmup: float = 0.1,
    threshold: float = 0.95,
    momentum: float = 0.5,
    momentum_decay: float = 0.6,
) -> Variant:
    """Guide each image to one class, away from the others: Fair Diffusion (Friedrich et al. 2023, arXiv 2302.10893).

    Semantic guidance (Brack et al. 2023, arXiv 2301.12247) adds to the predicted noise the difference that the words
    "female person" make to it: with a plus for the class that ``draw_class`` draws for the image, with a minus for the
    others. The defaults are those of Fair Diffusion's code. A step runs the U-Net on 2 + ΣK prompts per image in place
    of 2, and the images of each combination of classes are a batch of their own. It takes Stable Diffusion 1 or 2 and
    a guidance scale over 1. The pipeline is diffusers' own, which is deprecated there.

    Args:
        scale: strength.
        warmup: the share of the steps before it sets in, rounded down to whole steps.
        threshold: the share of each latent channel that it leaves alone, where it is weakest.
        momentum: weight of the guidance of earlier steps.
        momentum_decay: the share of the momentum that a step keeps.

    Raises:
        ConfigError: a share is not in [0, 1). In the block: the pipeline or a call does not fit.
    """
    for name, share in (("warmup", warmup), ("threshold", threshold), ("momentum_decay", momentum_decay)):
        if not 0 <= share < 1:
            raise ConfigError(f"{name} is {share}; semantic guidance takes a share in [0, 1)")
    chosen = tuple(_some(attributes))
    settings = {
        "edit_guidance_scale": float(scale),
        "edit_threshold": float(threshold),
        "edit_momentum_scale": float(momentum),
        "edit_mom_beta": float(momentum_decay),
    }

    @contextmanager
    def applied(pipe: Any) -> Iterator[Any]:
        yield _guided(_semantic_pipeline(pipe), chosen, warmup, settings)

    return Variant(
        "Fair Diffusion",
        _identity("semantic guidance", *map(astuple, chosen), float(warmup), settings),
        applied,
        aimed=tuple(attribute.name for attribute in chosen),
        summary=f"Guidance of strength {scale:g} to a {_names(chosen)} drawn for each image (Friedrich et al. 2023).",
    )


def _guided(
    semantic: Any, attributes: tuple[Attribute, ...], warmup: float, settings: dict[str, float]
) -> Callable[..., SimpleNamespace]:
    """Return what is called like a pipeline and guides each image to the classes of its generator's seed."""
    concepts = [f"{word} person" for attribute in attributes for word in attribute.classes]

    def call(
        prompts: Sequence[str],
        *,
        generator: "Sequence[torch.Generator]",
        num_inference_steps: int,
        guidance_scale: float,
        output_type: str = "pt",
    ) -> SimpleNamespace:
        import torch

        if isinstance(prompts, str) or not isinstance(generator, Sequence) or len(prompts) != len(generator):
            raise ConfigError(
                "semantic guidance draws a class per image: give a list of prompts and as many generators"
            )
        if guidance_scale <= 1 or output_type != "pt":
            raise ConfigError(
                f"semantic guidance was given guidance_scale={guidance_scale:g} and output_type={output_type!r}; it"
                " needs a guidance scale over 1, and returns 'pt' alone"
            )
        images: dict[int, torch.Tensor] = {}
        for drawn, members in _by_class(attributes, [one.initial_seed() for one in generator]).items():
            output = semantic(
                [prompts[i] for i in members],
                generator=[generator[i] for i in members],
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                output_type="pt",
                editing_prompt=concepts,
                reverse_editing_direction=_away(attributes, drawn),
                edit_warmup_steps=int(warmup * num_inference_steps),
                **settings,
            )
            images.update(zip(members, output.images, strict=True))
        return SimpleNamespace(images=torch.stack([images[i] for i in range(len(prompts))]))

    return call


def _by_class(attributes: Sequence[Attribute], seeds: Sequence[int]) -> dict[tuple[int, ...], list[int]]:
    """Group the images' positions by the classes drawn for them."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, seed in enumerate(seeds):
        groups.setdefault(tuple(draw_class(attribute, seed) for attribute in attributes), []).append(i)
    return groups


def _away(attributes: Sequence[Attribute], drawn: Sequence[int]) -> list[bool]:
    """Tell for each class, all attributes in a row, whether the guidance leads away from it."""
    return [
        k != index for attribute, index in zip(attributes, drawn, strict=True) for k in range(len(attribute.classes))
    ]


def _semantic_pipeline(pipe: Any) -> Any:
    """Make diffusers' semantic pipeline of the same modules, with a scheduler of its own."""
    from diffusers.utils import logging

    parts = {name: getattr(pipe, name, None) for name in SEMANTIC_PARTS}
    if find_family(pipe) is not STABLE_DIFFUSION or any(parts[name] is None for name in SEMANTIC_PARTS[:5]):
        raise ConfigError(
            f"semantic guidance works with Stable Diffusion 1 and 2, not with a {type(pipe).__name__}; leave it out"
        )
    parts["scheduler"] = type(pipe.scheduler).from_config(pipe.scheduler.config)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it says that it is deprecated, which is known: the tests hold that it works
    try:
        from diffusers import SemanticStableDiffusionPipeline

        semantic = SemanticStableDiffusionPipeline(**parts, requires_safety_checker=False)
    except ImportError as error:
        raise ConfigError(
            "this diffusers has no SemanticStableDiffusionPipeline; install 0.42 or leave semantic guidance out"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
    semantic.set_progress_bar_config(disable=True)
    return semantic


def _inject(prompt: str, label: str, words: str) -> str:
    """Put words before the label, or a person of whom they are said before the prompt."""
    found = re.search(rf"(?<!\w){re.escape(label)}(?!\w)", prompt, re.IGNORECASE) if label.strip() else None
    if found is None or found[0] == prompt.strip():
        return f"{_article(words)} {words} person, {prompt}"
    before = re.sub(r"\b([Aa])n?(\s+)$", lambda a: a[1] + _article(words)[1:] + a[2], prompt[: found.start()])
    return f"{before}{words} {prompt[found.start() :]}"


def _article(words: str) -> str:
    return "an" if words[:1].lower() in tuple("aeiou") else "a"


def _place_in_speech(name: str) -> int:
    known = find_attribute(name)
    return known.place if known else -1


def _called(name: str) -> str:
    known = find_attribute(name)
    return (known.called if known else "") or name


def _names(attributes: Sequence[Attribute]) -> str:
    return " and ".join(attribute.name for attribute in attributes)


def _some(attributes: Sequence[Attribute]) -> Sequence[Attribute]:
    names = [attribute.name for attribute in attributes]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"the attributes are {names}; give at least one, and each once")
    return attributes


def _identity(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


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
