"""The shapes of base models, known without their weights: the real classes, built on torch's meta device."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fair_adaptors.errors import ConfigError, did_you_mean
from fair_adaptors.families.family import Family
from fair_adaptors.families.table import FAMILIES, family_named, family_with
from fair_adaptors.files import public_name

from .base_model import BaseModel
from .bases import BASES, by_short_name, imported
from .modules import all_modules, shape_signature


@dataclass(frozen=True)
class Architecture:
    """A base model's modules without weights.

    Attributes:
        name: as it was asked for.
        base_model: what an adaptor's record calls it.
        family: its family of pipelines.
        pipe: its text encoders and network, without memory for weights; stands in for a pipeline where shapes count.
        autoencoder: what makes its pictures of latents, without memory for weights too; None if its folder has none.
        readers: its text encoders that no adaptor can be on, likewise, by name.
    """

    name: str
    base_model: str
    family: Family
    pipe: Any
    autoencoder: Any
    readers: Mapping[str, Any]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the weight shapes of the linear and convolution modules under their names in the file format."""
        return {name: tuple(module.weight.shape) for name, module in all_modules(self.pipe).items()}


def load_architecture(base: str) -> Architecture:
    """Return the architecture of a base.

    Args:
        base: a short name of the table of bases, or a pipeline's folder, of which only configurations are read.

    Raises:
        ConfigError: nothing goes by that name, or the folder is not a pipeline of a known family.
    """
    if known := by_short_name(base):
        return _read(base, imported(known.plugin.folder)(), known.names[0]) if known.plugin else _build(known)
    if Path(base).is_dir():
        return _read(base, Path(base), hub_id_of(Path(base)) or public_name(base))
    names = [base.short_name for base in BASES]
    raise ConfigError(
        f"there is no base {base!r}, and no folder of that name.{did_you_mean(base, names)} Give"
        f" {', '.join(names)} or a pipeline's folder"
    )


def kind_of(signature: Mapping[str, str]) -> str | None:
    """Return which of the published bases has this shape signature, by its network; None if none has."""
    for base in BASES:
        family = family_named(base.family)
        network = family.network
        if not base.configurations or family.parts.keys() != signature.keys():
            continue
        if shape_signature(_build(base).pipe)[network] == signature.get(network):
            return base.short_name
    return None


def _build(base: BaseModel) -> Architecture:
    family, found = family_named(base.family), base.configurations
    pipe = SimpleNamespace(**{name: _model(part.model, found[name]) for name, part in family.parts.items()})
    name, kind = family.autoencoder
    readers = {reader: _model(place, found[reader]) for reader, place in family.readers.items()}
    return Architecture(base.short_name, base.names[0], family, pipe, _model(kind, found[name]), readers)


def _read(name: str, folder: Path, base_model: str) -> Architecture:
    present = {path.parent.name: _class_in(path) for path in folder.glob("*/config.json")}
    family = family_with(present)
    try:
        if family is None:
            raise OSError(_why_none(present))
        pipe = SimpleNamespace(**{part: _model(row.model, folder / part) for part, row in family.parts.items()})
        part, kind = family.autoencoder
        autoencoder = _model(kind, folder / part) if part in present else None
        readers = {one: _model(place, folder / one) for one, place in family.readers.items() if one in present}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{folder} is not a folder of a known pipeline: {str(error).strip().partition(chr(10))[0]}"
        ) from error
    return Architecture(name, base_model, family, pipe, autoencoder, readers)


def _class_in(file: Path) -> str:
    """Return the class that a configuration of diffusers is of; empty where it does not say one."""
    try:
        return str(json.loads(file.read_text(encoding="utf-8")).get("_class_name") or "")
    except (OSError, ValueError, AttributeError):
        return ""


def _why_none(present: Mapping[str, str]) -> str:
    """Say why a folder's parts, by name with their classes, are those of no family."""
    missing = min(([part for part in one.parts if part not in present] for one in FAMILIES), key=len)
    if missing:
        return f"{missing[0]}/config.json is not there"
    known = {name for one in FAMILIES for name in one.parts[one.network].class_names}
    networks = {one.network: present[one.network] for one in FAMILIES if present.get(one.network)}
    other = [f"its {part} is a {kind}" for part, kind in networks.items() if kind not in known]
    return other[0] if other else "it has a text encoder too many"


def _model(place: str, configuration: Mapping[str, Any] | Path) -> Any:
    """Return a model without memory for weights.

    Args:
        place: of its class, as ``module:object``.
        configuration: or the folder that it is saved in.
    """
    import torch
    from transformers import PreTrainedModel

    kind = imported(place)
    with torch.device("meta"):
        if issubclass(kind, PreTrainedModel):
            config = kind.config_class
            if isinstance(configuration, Path):
                return kind(config.from_pretrained(str(configuration), local_files_only=True))
            return kind(config(**configuration))
        if isinstance(configuration, Path):
            configuration = kind.load_config(str(configuration), local_files_only=True)
        return kind.from_config(configuration)


def hub_id_of(folder: Path) -> str | None:
    """Return the Hub id that a saved pipeline came from; None if it does not say one, and for a file."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        origin = str(index.get("_name_or_path") or "")
    except (OSError, ValueError, AttributeError):
        origin = ""
    return origin if origin.count("/") == 1 and not origin.startswith((".", "/", "~")) else None
