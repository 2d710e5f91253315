"""Fair Diffusion: guides each image towards a class that is drawn for it, by diffusers' semantic guidance."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from fair_adaptors.errors import ConfigError
from fair_adaptors.families.sd import STABLE_DIFFUSION
from fair_adaptors.families.table import find_family
from fair_adaptors.steering.draw import Attribute, distinct_attributes, draw_class, hash_of, names_of

from .variants import Variant

if TYPE_CHECKING:
    import torch

PARTS = ("vae", "text_encoder", "tokenizer", "unet", "scheduler", "safety_checker", "feature_extractor")


def semantic_guidance(
    attributes: Sequence[Attribute], *, scale: float = 4.0, warmup: float = 0.1, threshold: float = 0.95
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

    Raises:
        ConfigError: a share is not in [0, 1). In the block: the pipeline or a call does not fit.
    """
    for name, share in (("warmup", warmup), ("threshold", threshold)):
        if not 0 <= share < 1:
            raise ConfigError(f"{name} is {share}; semantic guidance takes 0 or more, and less than 1")
    chosen = tuple(distinct_attributes(attributes))
    settings = {
        "edit_guidance_scale": float(scale),
        "edit_threshold": float(threshold),
        "edit_momentum_scale": 0.5,
        "edit_mom_beta": 0.6,
    }

    @contextmanager
    def applied(pipe: Any) -> Iterator[Any]:
        yield _guided(_semantic_pipeline(pipe), chosen, warmup, settings)

    return Variant(
        "Fair Diffusion",
        hash_of("semantic guidance", *map(astuple, chosen), float(warmup), settings),
        applied,
        aimed=tuple(attribute.name for attribute in chosen),
        summary=f"Guidance of strength {scale:g} to a {names_of(chosen)} drawn for each image"
        " (Friedrich et al. 2023).",
    )


def _guided(
    semantic: Any, attributes: tuple[Attribute, ...], warmup: float, settings: dict[str, float]
) -> Callable[..., SimpleNamespace]:
    """Return what is called like a pipeline and guides each image to the classes of its generator's seed."""
    concepts = [f"{word} person" for attribute in attributes for word in attribute.classes]

    def call(
        prompt: Sequence[str],
        *,
        generator: "Sequence[torch.Generator]",
        num_inference_steps: int,
        guidance_scale: float,
        output_type: str = "pt",
    ) -> SimpleNamespace:
        import torch

        if isinstance(prompt, str) or not isinstance(generator, Sequence) or len(prompt) != len(generator):
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
                [prompt[i] for i in members],
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
        return SimpleNamespace(images=torch.stack([images[i] for i in range(len(prompt))]))

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

    parts = {name: getattr(pipe, name, None) for name in PARTS}
    if find_family(pipe) is not STABLE_DIFFUSION or any(parts[name] is None for name in PARTS[:5]):
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
            "the installed diffusers has no SemanticStableDiffusionPipeline; install diffusers 0.42, or leave semantic"
            " guidance out"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
    semantic.set_progress_bar_config(disable=True)
    return semantic
