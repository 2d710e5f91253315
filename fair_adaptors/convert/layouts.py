"""What a LoRA's tensors are called: our names, which are diffusers', and those of kohya, peft and the paper's authors.

A *stem* is a module under its name in our file format, such as ``unet.mid_block.attentions.0.….to_out.0``. A *role* is
``lora_A`` (down), ``lora_B`` (up) or ``alpha``: the change is alpha / rank · B·A, and B·A where there is no alpha.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Literal

from fair_adaptors.families.family import Family

from .original_names import original_names
from .stacked import original_layers

Role = Literal["lora_A", "lora_B", "alpha"]
Key = tuple[str, Role]

_ENDS: tuple[Key, ...] = (("lora_down.weight", "lora_A"), ("lora_up.weight", "lora_B"), ("alpha", "alpha"))

_PAIR: tuple[Role, Role] = ("lora_A", "lora_B")
_EARLY_ATTENTION = re.compile(r"(.*)\.(?:(to_q|to_k|to_v|to_out)(?:\.0)?|(q|k|v|out)_proj)")
_AUTHORS_LAYERS = re.compile(r"text_encoder\..*\.layers\.\d+\..*|unet\..*\.attn[12]\.(to_q|to_k|to_v|to_out\.0)")


def trained_by_the_authors(stem: str) -> bool:
    """Whether the authors' LoRAs have it: every linear layer of the text encoder, every attention of the U-Net."""
    return _AUTHORS_LAYERS.fullmatch(stem) is not None


def authors_keys(stem: str, family: Family) -> list[Key]:
    """Return the keys in the authors' files, which do not say what part they are of."""
    if not trained_by_the_authors(stem):
        return []
    part, _, module = stem.partition(".")
    if part == "text_encoder":
        start = f"{module}.lora_linear_layer."
    else:
        attention, _, layer = module.removesuffix(".0").rpartition(".")
        start = f"{attention}.processor.{layer}_lora."
    return [(start + "down.weight", "lora_A"), (start + "up.weight", "lora_B")]


def diffusers_keys(stem: str, family: Family) -> list[Key]:
    """Return the keys in diffusers' files: first ours, then those of newer transformers and early diffusers."""
    part, _, module = stem.partition(".")
    flat = f"{part}.{module.removeprefix('text_model.')}"
    starts = dict.fromkeys((stem, flat))
    early = [f"{stem}.lora", f"{stem}.lora_linear_layer"]
    if match := _EARLY_ATTENTION.fullmatch(stem):
        attention, layer, text_layer = match.groups()
        layer = layer or f"to_{text_layer}"
        early += [f"{attention}.{layer}_lora", f"{attention}.processor.{layer}_lora"]
    return [
        *((f"{start}.{role}.weight", role) for start in starts for role in _PAIR),
        *((f"{start}.{end}.weight", role) for start in early for end, role in zip(("down", "up"), _PAIR, strict=True)),
    ]


def kohya_keys(stem: str, family: Family) -> list[Key]:
    """Return the keys in a file of kohya's scripts, which ComfyUI and A1111 read: first those of the family."""
    part, _, module = stem.partition(".")
    return [
        (f"{prefix}{module.replace('.', '_')}.{end}", role)
        for prefix in family.parts[part].kohya_prefixes
        for end, role in _ENDS
    ]


def comfy_keys(stem: str, family: Family) -> list[Key]:
    """Return the keys in a file with ComfyUI's own names, as other trainers of flow-matching models write them."""
    part, _, module = stem.partition(".")
    ends = [*((f"{role}.weight", role) for role in _PAIR), *_ENDS]
    prefix = family.parts[part].comfy_prefix
    return [(f"{prefix}{module}.{end}", role) for end, role in ends if prefix]


def peft_keys(stem: str, family: Family) -> list[Key]:
    """Return the keys in peft's file of one part: a pair for transformers from 5.6 on, then one for older ones."""
    part, _, module = stem.partition(".")
    names = dict.fromkeys((module.removeprefix(family.parts[part].dropped_level.partition(".")[0] + "."), module))
    return [(f"base_model.model.{name}.{role}.weight", role) for name in names for role in _PAIR]


LAYOUTS: Mapping[str, Callable[[str, Family], list[Key]]] = {
    "authors": authors_keys,
    "diffusers": diffusers_keys,
    "kohya": kohya_keys,
    "ComfyUI": comfy_keys,
    "peft": peft_keys,
}


def known_keys(stems: Collection[str], family: Family) -> dict[str, tuple[str, str, Role]]:
    """Return what every key in every layout stands for: (layout, stem, role).

    A key of peft that could be of either of two text encoders is taken for the second one's. In kohya's and ComfyUI's
    layouts the network's layers have their original names too; those that stand for several modules are stems of
    their own, see ``stacks``.
    """
    found: dict[str, tuple[str, str, Role]] = {}
    others = _other_names(stems, family)
    for layout, keys in LAYOUTS.items():
        renamed = others if layout in ("kohya", "ComfyUI") else {}
        for name, stem in [*((stem, stem) for stem in sorted(stems)), *renamed.items()]:  # the second encoder's later
            for key, role in keys(name, family):
                other = found.get(key, ("", "", ""))[1]
                # else a tensor would be taken for another one's
                ours = not other or other == stem
                assert ours or (layout == "peft" and other.partition(".")[0] in family.text_encoders), key
                found[key] = layout, stem, role
    return found


def stacks(stems: Collection[str], family: Family) -> dict[str, tuple[str, ...]]:
    """Return the network's layers that the original code keeps as one, as stems, with the stems of their members."""
    start, part = f"{family.network}.", family.parts[family.network]
    modules = [stem.removeprefix(start) for stem in stems if stem.startswith(start)]
    found = original_layers(part, modules)
    return {start + layer: tuple(start + name for name in members) for layer, members in found.items()}


def _other_names(stems: Collection[str], family: Family) -> dict[str, str]:
    """Return the original names of layers, as stems, with the stem that each stands for."""
    if family.parts[family.network].original:
        found = stacks(stems, family)
        return {layer: members[0] if len(members) == 1 else layer for layer, members in found.items()}
    start = f"{family.network}."
    names = original_names([stem.removeprefix(start) for stem in stems if stem.startswith(start)])
    return {start + name: start + module for module, name in names.items()}
