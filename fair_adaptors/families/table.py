"""The table of pipeline families, and which of them a pipeline is of."""

from collections.abc import Collection
from typing import Any

from fair_adaptors.errors import WrongBaseError

from .family import Family
from .sd import STABLE_DIFFUSION
from .sdxl import STABLE_DIFFUSION_XL

FAMILIES: tuple[Family, ...] = (STABLE_DIFFUSION, STABLE_DIFFUSION_XL)


def family_of(pipe: Any) -> Family:
    """Return the family of a pipeline, told by its parts and the class of its network.

    Raises:
        WrongBaseError: none that is known.
    """
    family = find_family(pipe)
    if family is None:
        known = ", ".join(f"{one.title} has {' and '.join(one.parts)}" for one in FAMILIES)
        raise WrongBaseError(f"{type(pipe).__name__} is of no known family of pipelines: {known}")
    return family


def find_family(pipe: Any) -> Family | None:
    """Return the family of a pipeline, or of what stands in for one; None if it is of none."""
    for family in FAMILIES:
        network = getattr(pipe, family.network, None)
        if network is not None and _fits(family, network, _present(pipe)):
            return family
    return None


def family_with(parts: Collection[str]) -> Family | None:
    """Return the first family whose parts and text encoders these are; other names are left out of account."""
    return next((family for family in FAMILIES if _has(family, parts)), None)


def family_named(name: str) -> Family:
    """Return a family by its short name."""
    return next(family for family in FAMILIES if family.name == name)


def all_parts() -> tuple[str, ...]:
    """Return what a LoRA can be on in any family, in the order of files: text encoders first."""
    names = sorted({part for family in FAMILIES for part in family.parts})
    return tuple(sorted(names, key=lambda name: not name.startswith("text_encoder")))


def _present(pipe: Any) -> set[str]:
    names = {name for family in FAMILIES for name in (*family.parts, *family.text_encoders)}
    return {name for name in names if getattr(pipe, name, None) is not None}


def _fits(family: Family, network: Any, present: Collection[str]) -> bool:
    plain = getattr(network, "_orig_mod", network)  # what torch.compile wraps
    kinds = {kind.__name__ for kind in type(plain).__mro__}  # a class made from the published one is of its family
    return family.parts[family.network].class_name in kinds and _has(family, present)


def _has(family: Family, present: Collection[str]) -> bool:
    texts = {name for name in present if name.startswith("text_encoder")}
    return set(family.parts) <= set(present) and texts <= set(family.text_encoders)
