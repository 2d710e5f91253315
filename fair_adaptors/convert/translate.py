"""Translates other layouts of a LoRA, and the authors' soft tokens, to our names; every tensor must fit its place."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from fair_adaptors.adaptor.architecture import Architecture
from fair_adaptors.adaptor.record import some
from fair_adaptors.errors import InvalidAdaptorError
from fair_adaptors.state_dicts import PEFT_CONFIG, StateDict

from .layouts import Role, known_keys, stacks, trained_by_the_authors
from .stacked import take_apart

if TYPE_CHECKING:
    from torch import Tensor

    Layer = dict[Role, Tensor]

TOKENS = "token_embedding.weight"
POSITIONS = ("position_ids", "position_embedding.weight")
"""Keys in the authors' file of soft tokens."""

_MORE_THAN_LORA = (
    "use_rslora",
    "use_dora",
    "use_qalora",
    "fan_in_fan_out",
    "lora_bias",
    "modules_to_save",
    "layer_replication",
    "trainable_token_indices",
    "alora_invocation_tokens",
)
_PLAIN = {"bias": "none", "peft_type": "LORA"}
_MOST_ALPHA = 1e6
_NAME = re.compile(r"\w+(\.\w+)*")


@dataclass
class Found:
    """What the files hold, under the names of the file format."""

    layouts: dict[str, str] = field(default_factory=dict)
    layers: "dict[str, Layer]" = field(default_factory=dict)
    tokens: "Tensor | None" = None

    @property
    def tensors(self) -> "dict[str, Tensor]":
        return {
            f"{stem}.{role}.weight": tensor for stem, layer in self.layers.items() for role, tensor in layer.items()
        }

    @property
    def rank(self) -> int:
        """The largest rank of the LoRAs; 1 where there are only tokens, which have none."""
        return max((len(layer["lora_A"]) for layer in self.layers.values()), default=1)


def translate(files: Sequence[StateDict], base: Architecture) -> Found:
    """Give every tensor of every file its place, and check that it fits there.

    Raises:
        InvalidAdaptorError: a tensor does not fit, two want the same place, or one is missing.
    """
    found = Found()
    for file in files:
        shapes = _candidates(file, base)
        stacked = _stacked(shapes, base)
        if TOKENS in file.tensors:
            if found.tokens is not None:
                raise InvalidAdaptorError(f"{file.name}: soft tokens are in another file too; give one of them")
            found.layouts[file.name], found.tokens = "authors", _tokens_of(file, base)
            continue
        layout, layers = _layers_of(file, known_keys(shapes, base.family), base)
        _check_complete(file, layout, layers, shapes)
        for stem, layer in layers.items():
            _check_layer(f"{file.name}: {stem}", layer, stacked.get(stem, (shapes.get(stem, ()), {}))[0], base)
        ranks = sorted({len(layer["lora_A"]) for layer in layers.values()})
        layers = {stem: _without_alpha(file, layout, stem, layer) for stem, layer in layers.items()}
        layers = _members(layers, {stem: rows for stem, (_, rows) in stacked.items()}, file)
        if twice := layers.keys() & found.layers.keys():
            raise InvalidAdaptorError(f"{file.name}: {some(twice)} are in another file too; give one of them")
        if layout == "authors" and len(ranks) > 1:  # they train all layers of a part with one
            raise InvalidAdaptorError(
                f"{file.name}: its layers must share one rank, and have {', '.join(map(str, ranks))}"
            )
        found.layouts[file.name] = layout
        found.layers |= layers
    return found


def _candidates(file: StateDict, base: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the layers that a file may change: peft's files do not name their part, but their folder does."""
    path, shapes = PurePosixPath(file.name), base.shapes()
    if path.stem != "adapter_model" or path.parent.name not in base.family.parts:
        return shapes
    return {stem: shape for stem, shape in shapes.items() if stem.startswith(f"{path.parent.name}.")}


def _stacked(
    shapes: Mapping[str, tuple[int, ...]], base: Architecture
) -> dict[str, tuple[tuple[int, ...], dict[str, int]]]:
    """Return the shape of each layer that the network's original code keeps as one, and its members' rows."""
    found = {}
    for layer, members in stacks(shapes, base.family).items():
        if len(members) > 1:
            rows = {member: shapes[member][0] for member in members}
            found[layer] = ((sum(rows.values()), *shapes[members[0]][1:]), rows)
    return found


def _members(
    layers: "dict[str, Layer]", stacked: Mapping[str, Mapping[str, int]], file: StateDict
) -> "dict[str, Layer]":
    """Return the layers with those that stand for several modules taken apart."""
    found: dict[str, Layer] = {}
    for stem, layer in layers.items():
        parts: dict[str, Layer] = {stem: layer}
        if stem in stacked:
            apart = take_apart(layer["lora_A"], layer["lora_B"], stacked[stem])
            parts = {member: {"lora_A": down, "lora_B": up} for member, (down, up) in apart.items()}
        if twice := parts.keys() & found.keys():
            raise InvalidAdaptorError(f"{file.name}: two keys stand for {some(twice)}, one of them of {stem}")
        found |= parts
    return found


def _layers_of(
    file: StateDict, known: Mapping[str, tuple[str, str, Role]], base: Architecture
) -> "tuple[str, dict[str, Layer]]":
    layers: dict[str, Layer] = {}
    unknown, layouts = [], set()
    for key, tensor in file.tensors.items():
        if key not in known:
            unknown.append(key)
            continue
        layout, stem, role = known[key]
        layouts.add(layout)
        if role in layers.setdefault(stem, {}):
            raise InvalidAdaptorError(f"{file.name}: two keys stand for {stem}, one of them {key!r}")
        layers[stem][role] = tensor
    lonely = [f"{stem}.{role}" for stem, layer in layers.items() for role in ("lora_A", "lora_B") if role not in layer]
    if unknown or lonely:
        raise InvalidAdaptorError(
            f"{file.name}: unexpected keys: {some(unknown)}; missing from a pair: {some(lonely)}. Expected LoRAs on"
            f" layers of the base {base.name}, named as by the authors, kohya, ComfyUI, peft or diffusers. Is the"
            " base right?"
        )
    if len(layouts) > 1:
        raise InvalidAdaptorError(f"{file.name} mixes the names of {' and '.join(sorted(layouts))}")
    return layouts.pop(), layers


def _check_complete(file: StateDict, layout: str, layers: "dict[str, Layer]", shapes: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of the authors that lacks a layer: they train all of a part, so the file is damaged."""
    parts = {stem.partition(".")[0] for stem in layers}
    expected = {stem for stem in shapes if trained_by_the_authors(stem) and stem.partition(".")[0] in parts}
    if layout == "authors" and (missing := expected - layers.keys()):
        raise InvalidAdaptorError(
            f"{file.name} is incomplete: {len(missing)} of {len(expected)} layers are missing: {some(missing)}"
        )


def _check_layer(where: str, layer: "Layer", shape: tuple[int, ...], base: Architecture) -> None:
    down, up = layer["lora_A"], layer["lora_B"]
    rank = up.shape[1] if up.ndim == len(shape) else 0
    fits = down.shape == (rank, *shape[1:]) and up.shape == (shape[0], rank, *(1 for _ in shape[2:]))
    if not fits or not rank:
        raise InvalidAdaptorError(
            f"{where}: shapes {list(down.shape)} and {list(up.shape)} are not a LoRA on the weight"
            f" {list(shape)} of {base.name}. Is the base right?"
        )
    if not (down.is_floating_point() and up.is_floating_point()):
        raise InvalidAdaptorError(f"{where}: expected floating-point weights, found {down.dtype} and {up.dtype}")
    if not (down.isfinite().all() and up.isfinite().all()):
        raise InvalidAdaptorError(f"{where} holds values that are not finite")


def _without_alpha(file: StateDict, layout: str, stem: str, layer: "Layer") -> "Layer":
    """Fold the scale alpha / rank into the second factor, as our format has alpha = rank."""
    down, up = layer["lora_A"].contiguous(), layer["lora_B"].contiguous()
    scale = 1.0
    if "alpha" in layer:
        alpha = layer["alpha"]
        if alpha.numel() != 1 or not 0 < float(alpha) < _MOST_ALPHA:
            raise InvalidAdaptorError(f"{file.name}: {stem}: alpha must be one number above 0")
        scale = float(alpha) / len(down)
    elif layout == "peft":
        scale = _scale(file, file.settings, stem, len(down))
    elif layout == "diffusers":
        prefix = stem.partition(".")[0] + "."
        settings = {key.removeprefix(prefix): v for key, v in file.settings.items() if key.startswith(prefix)}
        scale = _scale(file, {"lora_alpha": len(down), **settings}, stem, len(down))
    return {"lora_A": down, "lora_B": up if scale == 1 else up.float() * scale}


def _scale(file: StateDict, settings: Mapping[str, Any], stem: str, rank: int) -> float:
    """Return alpha / rank of a layer by peft's settings, where layers may differ in both.

    Raises:
        InvalidAdaptorError: they are missing, ask for more than plain LoRA, or have another rank.
    """
    if not settings:
        raise InvalidAdaptorError(
            f"{file.name}: there is no {PEFT_CONFIG} beside it; without it the scale is not known"
        )
    asked = [key for key in _MORE_THAN_LORA if settings.get(key)]
    asked += [key for key, plain in _PLAIN.items() if settings.get(key, plain) != plain]
    if asked:
        raise InvalidAdaptorError(f"{file.name}: its settings ask for more than plain LoRA: {', '.join(asked)}")
    said = _of_layer(file, settings, "rank_pattern", stem, settings.get("r", rank))
    alpha = _of_layer(file, settings, "alpha_pattern", stem, settings.get("lora_alpha"))
    if said != rank or not isinstance(alpha, int | float) or not 0 < alpha < _MOST_ALPHA:
        raise InvalidAdaptorError(f"{file.name}: r and lora_alpha in its settings do not fit {stem} of rank {rank}")
    return alpha / rank


def _of_layer(file: StateDict, settings: Mapping[str, Any], pattern: str, stem: str, default: Any) -> Any:
    """Return what a pattern says of a layer; its keys have to be plain names, where peft allows expressions."""
    values = settings.get(pattern) or {}
    if not isinstance(values, dict) or not all(_NAME.fullmatch(key) for key in values):
        raise InvalidAdaptorError(f"{file.name}: its settings have a {pattern} whose keys are not names of layers")
    return next((value for key, value in values.items() if f".{stem}".endswith(f".{key}")), default)


def _tokens_of(file: StateDict, base: Architecture) -> "Tensor":
    """Return the soft tokens [n, width] of the authors' file. Its other tensors are checked, and not needed.

    Rows 1 to n are the tokens; row 0 is empty. The positions are those of the base.
    """
    import torch

    if not base.family.token_encoder:
        raise InvalidAdaptorError(f"{file.name} has soft tokens; {base.name}, of {base.family.title}, takes none")
    config = getattr(base.pipe, base.family.token_encoder).config
    length, width = config.max_position_embeddings, config.hidden_size
    tensors = file.tensors
    if tensors.keys() != {TOKENS, *POSITIONS}:
        odd = tensors.keys() ^ {TOKENS, *POSITIONS}
        raise InvalidAdaptorError(
            f"{file.name}: expected {TOKENS}, {', '.join(POSITIONS)}; unexpected or missing: {some(odd)}"
        )
    ids, positions, rows = (tensors[key] for key in (*POSITIONS, TOKENS))
    fits = ids.shape == (1, length) and positions.shape == (length, width) and rows.shape[1:] == (width,)
    if not fits or not 2 <= len(rows) <= length - 1:
        shapes = ", ".join(f"{key} {list(tensor.shape)}" for key, tensor in tensors.items())
        raise InvalidAdaptorError(f"{file.name}: {shapes} do not fit positions [{length}, {width}] of {base.name}")
    if not torch.equal(ids[0].long(), torch.arange(length)):
        raise InvalidAdaptorError(f"{file.name}: position_ids are not 0 to {length - 1}")
    if not all(tensor.is_floating_point() and bool(tensor.isfinite().all()) for tensor in (positions, rows)):
        raise InvalidAdaptorError(f"{file.name} holds values that are not finite numbers")
    if rows[0].any():
        raise InvalidAdaptorError(f"{file.name}: row 0 of {TOKENS} is not zero, so these are not the authors' tokens")
    return rows[1:].clone()
