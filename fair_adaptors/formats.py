"""The adaptor folder: weights under diffusers' own name and layout, and ``fair_adaptor.json`` that says what they are.

Keys are ``text_encoder.text_model.<module>.lora_A.weight`` and ``unet.<module>.lora_A.weight`` (and ``lora_B``), with
alpha = rank folded in: diffusers' ``pipe.load_lora_weights`` reads the same file. Nothing here reads pickles.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InvalidAdaptorError

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS_FILE = "pytorch_lora_weights.safetensors"
CONFIG_FILE = "fair_adaptor.json"
RESULTS_FILE = "results.json"
CARD_FILE = "README.md"
SCHEMA_VERSION = 1
PARTS = ("text_encoder", "unet")

_ENDS = (".lora_A.weight", ".lora_B.weight")
_MOST_CONFIG_BYTES = 4_000_000  # some thousand times what we write


@dataclass(frozen=True)
class AdaptorFiles:
    """An adaptor read from disk and checked against its own record: the configuration and the tensors by key."""

    config: dict[str, Any]
    tensors: "dict[str, Tensor]"


def linear_modules(pipe: Any, part: str) -> "dict[str, nn.Linear | nn.Conv2d]":
    """Return the linear and convolution modules of a part of a pipeline under their names in the file.

    The names do not depend on the transformers version (a text encoder's always carry ``text_model.``), on
    ``torch.compile`` or on a peft adapter: of a module with one, it is the base layer.
    """
    from torch import nn

    prefix = "text_encoder.text_model." if part == "text_encoder" else f"{part}."
    found = {}
    for name, module in getattr(pipe, part).named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and ".lora_" not in name:
            plain = name.replace("_orig_mod.", "").removeprefix("text_model.").replace(".base_layer", "")
            found[prefix + plain] = module
    return found


def shape_signature(pipe: Any) -> dict[str, str]:
    """Return a hash of the names and shapes of all linear and convolution weights of each part of a base model.

    It tells architectures apart, and does not change with dtype, device or an installed transformers version.
    """
    signature = {}
    for part in PARTS:
        rows = sorted(f"{name}:{tuple(module.weight.shape)}" for name, module in linear_modules(pipe, part).items())
        signature[part] = hashlib.sha256("\n".join(rows).encode()).hexdigest()[:32]
    return signature


def write_adaptor(
    folder: str | Path,
    tensors: "dict[str, Tensor]",
    *,
    name: str,
    pipe: Any,
    base_model: str,
    attributes: dict[str, dict[str, list]],
    rank: int,
    training: dict[str, Any],
    default_weight: float = 1.0,
) -> Path:
    """Write an adaptor folder. Each file is complete or absent: it is written aside, then moved into place.

    Args:
        tensors: by key, as above.
        attributes: of each attribute its ``classes`` and ``target`` shares.
        pipe: the base, for its shape signature.
        training: how it was trained, JSON-serialisable.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as temporary:
        weights = Path(temporary) / WEIGHTS_FILE
        save_file({key: tensor.contiguous() for key, tensor in sorted(tensors.items())}, weights, {"format": "pt"})
        data = weights.read_bytes()
        config = {
            "schema_version": SCHEMA_VERSION,
            "name": name,
            "base_model": base_model,
            "base_signature": shape_signature(pipe),
            "attributes": attributes,
            "trained_parts": [part for part in PARTS if any(key.startswith(part + ".") for key in tensors)],
            "rank": rank,
            "default_weight": default_weight,
            "training": training,
            "versions": _versions(),
            "files": {WEIGHTS_FILE: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}},
        }
        written = Path(temporary) / CONFIG_FILE
        written.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(weights, folder / WEIGHTS_FILE)
        os.replace(written, folder / CONFIG_FILE)
    return folder


def read_config(folder: str | Path) -> dict[str, Any]:
    """Read and check ``fair_adaptor.json``.

    Raises:
        InvalidAdaptorError: absent, no JSON, another schema version, or a field missing or of the wrong type.
    """
    path = Path(folder) / CONFIG_FILE
    if not path.is_file():
        raise InvalidAdaptorError(f"{folder} is no adaptor folder: it has no {CONFIG_FILE}{_pickles(path.parent)}")
    try:
        if path.stat().st_size > _MOST_CONFIG_BYTES:
            raise ValueError(f"it has more than {_MOST_CONFIG_BYTES} bytes")
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidAdaptorError(f"{path} cannot be read as JSON: {error}. Download or copy it again") from error
    if not isinstance(config, dict):
        raise InvalidAdaptorError(f"{path} holds a {type(config).__name__}, not an object")
    version = config.get("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise InvalidAdaptorError(
            f"{path} has schema version {version!r}; this fair-adaptors reads {SCHEMA_VERSION}. Update the package, or"
            " write the adaptor again with the version you have"
        )
    wrong = [field for field, holds in _FIELDS.items() if not holds(config.get(field))]
    if wrong:
        raise InvalidAdaptorError(f"{path}: missing, or not what it should be: {', '.join(wrong)}")
    return config


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= 500


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6  # nor NaN


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _are_attributes(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(row, dict)
        and isinstance(row.get("classes"), list)
        and isinstance(row.get("target"), list)
        and len(row["classes"]) == len(row["target"]) > 1
        and all(map(_is_text, row["classes"]))
        and all(_is_number(share) and share >= 0 for share in row["target"])
        for row in value.values()
    )


def _are_parts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(part, str) and part in PARTS for part in value)


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _are_files(value: Any) -> bool:
    """Only the one file that is read: another would be a part of the adaptor that we would leave out, or a trap."""
    return (
        isinstance(value, dict)
        and value.keys() == {WEIGHTS_FILE}
        and isinstance(value[WEIGHTS_FILE], dict)
        and isinstance(value[WEIGHTS_FILE].get("sha256"), str)
        and _is_count(value[WEIGHTS_FILE].get("bytes"))
    )


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "name": _is_text,
    "base_model": _is_text,
    "base_signature": _are_texts,
    "attributes": _are_attributes,
    "trained_parts": _are_parts,
    "rank": _is_count,
    "default_weight": _is_number,
    "training": lambda value: isinstance(value, dict),
    "versions": _are_texts,
    "files": _are_files,
}


def read_adaptor(folder: str | Path) -> AdaptorFiles:
    """Read an adaptor folder and check it against its own record.

    Raises:
        InvalidAdaptorError: a file is absent, truncated, a pickle, changed since it was written, or its keys are not
            pairs of ``lora_A`` and ``lora_B`` of the recorded parts and rank with finite values.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    config = read_config(folder)
    path = Path(folder) / WEIGHTS_FILE
    data = _read_recorded(path, config["files"][WEIGHTS_FILE])
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InvalidAdaptorError(f"{path} is no safetensors file: {error}") from error
    _check_pairs(tensors, config, path)
    return AdaptorFiles(config, tensors)


def _read_recorded(path: Path, recorded: dict[str, Any]) -> bytes:
    """Read a file that has to have the recorded size and sha256; of a longer one, not more than its first bytes."""
    if not path.is_file():
        raise InvalidAdaptorError(f"{path.parent} has no {path.name}{_pickles(path.parent)}. Download it again")
    try:
        with path.open("rb") as file:
            data = file.read(recorded["bytes"] + 1)
    except OSError as error:
        raise InvalidAdaptorError(f"{path} cannot be read: {error}") from error
    if data[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05"):
        raise InvalidAdaptorError(f"{path} is a pickle (torch.save), which can run code: only safetensors is read")
    if len(data) < recorded["bytes"]:
        raise InvalidAdaptorError(
            f"{path} is truncated: {len(data)} of {recorded['bytes']} bytes. Download or copy it again"
        )
    if hashlib.sha256(data).hexdigest() != recorded["sha256"]:
        raise InvalidAdaptorError(
            f"{path} is not the file that {CONFIG_FILE} describes: its sha256 differs. Download or copy it again"
        )
    return data


def _check_pairs(tensors: "dict[str, Tensor]", config: dict[str, Any], path: Path) -> None:
    import torch

    if not tensors:
        raise InvalidAdaptorError(f"{path} holds no tensors")
    prefixes = tuple(part + "." for part in config["trained_parts"])
    foreign = [key for key in tensors if not (key.startswith(prefixes) and key.endswith(_ENDS))]
    stems = {key.removesuffix(_ENDS[0]).removesuffix(_ENDS[1]) for key in tensors.keys() - set(foreign)}
    lonely = [stem + end for stem in sorted(stems) for end in _ENDS if stem + end not in tensors]
    absent = [prefix + "*" for prefix in prefixes if not any(key.startswith(prefix) for key in tensors)]
    if foreign or lonely or absent:
        raise InvalidAdaptorError(
            f"{path}: unexpected keys: {_some(foreign)}; missing keys: {_some(lonely + absent)}. Expected pairs"
            f" '<part>.<module>{_ENDS[0]}' and '…{_ENDS[1]}' of {' and '.join(config['trained_parts'])}"
        )
    for stem in sorted(stems):
        down, up = (tensors[stem + end] for end in _ENDS)
        if not {down.dtype, up.dtype} <= {torch.float32, torch.bfloat16, torch.float16}:
            raise InvalidAdaptorError(f"{path}: {stem}: {down.dtype} and {up.dtype} are no floating dtypes of weights")
        shapes = f"shapes {list(down.shape)} and {list(up.shape)}"
        if down.ndim != up.ndim or down.ndim not in (2, 4) or not down.shape[0] == up.shape[1] == config["rank"]:
            raise InvalidAdaptorError(f"{path}: {stem}: {shapes} are no pair of rank {config['rank']}")
        if not (down.isfinite().all() and up.isfinite().all()):
            raise InvalidAdaptorError(f"{path}: {stem} holds values that are not finite")


def _some(names: list[str]) -> str:
    shown = ", ".join(f"{name[:100]!r}" for name in sorted(names)[:3]) or "none"
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _pickles(folder: Path) -> str:
    names = sorted(p.name for p in folder.glob("*") if p.suffix in (".pth", ".pt", ".bin", ".ckpt", ".pkl"))
    return f" (it has {_some(names)}: pickles can run code, and are never loaded)" if names else ""


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("fair-adaptors", "torch", "diffusers", "transformers", "peft")}
