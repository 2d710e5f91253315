"""The table of pipeline families, and which of them a pipeline is of."""

import inspect
from collections.abc import Collection, Mapping
from typing import Any

from fair_adaptors.errors import WrongBaseError

from .family import Family
from .flux import FLUX_1
from .flux2 import FLUX_2
from .qwen_image import QWEN_IMAGE
from .sana import SANA
from .sd import STABLE_DIFFUSION
from .sd3 import STABLE_DIFFUSION_3
from .sdxl import STABLE_DIFFUSION_XL
from .z_image import Z_IMAGE

FAMILIES: tuple[Family, ...] = (
    STABLE_DIFFUSION,
    STABLE_DIFFUSION_XL,
    STABLE_DIFFUSION_3,
    FLUX_1,
    FLUX_2,
    Z_IMAGE,
    QWEN_IMAGE,
    SANA,
)


def family_of(pipe: Any) -> Family:
    """Return the family of a pipeline, told by the names of its parts and the class of its network.

    Parts may be None, as in a pipeline that only encodes prompts or only denoises, but not all of them.

    Raises:
        WrongBaseError: none that is known.
    """
    family = find_family(pipe)
    if family is None:
        known = "; ".join(f"{one.title} ({', '.join(one.parts)})" for one in FAMILIES)
        raise WrongBaseError(f"{type(pipe).__name__} is not of a known family of pipelines. Adaptors are for: {known}")
    return family


def find_family(pipe: Any) -> Family | None:
    """Return the family of a pipeline, or of what stands in for one; None if it is of none."""
    return next((family for family in FAMILIES if _fits(family, pipe)), None)


def guided(pipe: Any, scale: float, count: int) -> dict[str, Any]:
    """Return the arguments of a pipeline's call with N prompts by which it is guided, as its family has it.

    Args:
        scale: of guidance.
        count: N.
    """
    family = find_family(pipe)
    if family is None:
        return {"guidance_scale": scale}
    negative = {"negative_prompt": [family.negative_prompt] * count} if family.negative_prompt and scale > 1 else {}
    return {family.guidance: scale, **negative}


def default_of(pipe: Any, argument: str) -> Any:
    """Return what a pipeline's call takes for an argument that is not given."""
    return inspect.signature(type(pipe).__call__).parameters[argument].default


def family_with(parts: Collection[str]) -> Family | None:
    """Return the first family whose parts and text encoders these are; other names are left out of account.

    Args:
        parts: their names; or a mapping of names to the classes' names, as families may have parts of the same names.
            A class that is not known is the empty text.
    """
    classes = parts if isinstance(parts, Mapping) else {}
    return next(
        (one for one in FAMILIES if _has(one, parts) and _is_network(one, {classes.get(one.network) or ""})), None
    )


def family_called(name: str) -> Family | None:
    """Return the family of a short name; None if there is none."""
    return next((family for family in FAMILIES if family.name == name), None)


def family_named(name: str) -> Family:
    """Return the family of a short name, which is known."""
    return next(family for family in FAMILIES if family.name == name)


def all_parts() -> tuple[str, ...]:
    """Return what a LoRA can be on in any family, in the order of files: text encoders first."""
    names = sorted({part for family in FAMILIES for part in family.parts})
    return tuple(sorted(names, key=lambda name: not name.startswith("text_encoder")))


def token_encoders() -> tuple[str, ...]:
    """Return the text encoders that soft tokens are for, of all families."""
    return tuple(dict.fromkeys(family.token_encoder for family in FAMILIES if family.token_encoder))


def _fits(family: Family, pipe: Any) -> bool:
    names = {name for one in FAMILIES for name in (*one.parts, *one.text_encoders)}
    absent = object()
    parts = {name: part for name in names if (part := getattr(pipe, name, absent)) is not absent}
    if not _has(family, parts) or all(parts[name] is None for name in family.parts):
        return False
    network = getattr(parts[family.network], "_orig_mod", parts[family.network])  # what torch.compile wraps
    if network is None:  # then the text encoders tell
        return set(family.text_encoders) <= parts.keys()
    return _is_network(family, {kind.__name__ for kind in type(network).__mro__})  # one made from it is of its family


def _is_network(family: Family, kinds: Collection[str]) -> bool:
    return "" in kinds or not set(family.parts[family.network].class_names).isdisjoint(kinds)


def _has(family: Family, parts: Collection[str]) -> bool:
    texts = {name for name in parts if name.startswith("text_encoder")}
    return set(family.parts) <= set(parts) and texts <= set(family.text_encoders)
