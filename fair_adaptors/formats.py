"""The adaptor folder: weights under diffusers' own name and layout, and ``fair_adaptor.json`` that says what they are.

Keys are ``text_encoder.text_model.<module>.lora_A.weight`` and ``unet.<module>.lora_A.weight`` (and ``lora_B``), with
alpha = rank folded in: diffusers' ``pipe.load_lora_weights`` reads the same file. Nothing here reads pickles.
"""

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InvalidAdaptorError

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS_FILE = "pytorch_lora_weights.safetensors"
CONFIG_FILE = "fair_adaptor.json"
RESULTS_FILE = "results.json"
CARD_FILE = "README.md"
SCHEMA_VERSION = 1
PARTS = ("text_encoder", "unet")

_FIELDS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "base_model": str,
    "base_signature": dict,
    "attributes": dict,
    "trained_parts": list,
    "rank": int,
    "default_weight": (int, float),
    "training": dict,
    "versions": dict,
    "files": dict,
}


@dataclass(frozen=True)
class AdaptorFiles:
    """An adaptor read from disk and checked against its own record: the configuration and the tensors by key."""

    config: dict[str, Any]
    tensors: "dict[str, Tensor]"


def module_name(part: str, name: str) -> str:
    """Return a module's name in the file's spelling: a text encoder's always carries ``text_model.``."""
    return (
        f"text_encoder.text_model.{name.removeprefix('text_model.')}" if part == "text_encoder" else f"{part}.{name}"
    )


def shape_signature(pipe: Any) -> dict[str, str]:
    """Return a hash of the names and shapes of all linear and convolution weights of each part of a base model.

    It tells architectures apart, and does not change with dtype, device or an installed transformers version.
    """
    from torch import nn

    signature = {}
    for part in PARTS:
        rows = [
            f"{module_name(part, name).replace('.base_layer', '')}:{tuple(module.weight.shape)}"
            for name, module in getattr(pipe, part).named_modules()
            if isinstance(module, nn.Linear | nn.Conv2d) and ".lora_" not in name
        ]
        signature[part] = hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()[:32]
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
            "files": {WEIGHTS_FILE: {"sha256": _sha256(weights.read_bytes()), "bytes": weights.stat().st_size}},
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
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidAdaptorError(
            f"{folder} is no adaptor folder: it has no {CONFIG_FILE}{_pickles(path.parent)}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidAdaptorError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(config, dict):
        raise InvalidAdaptorError(f"{path} holds a {type(config).__name__}, not an object")
    version = config.get("schema_version")
    if version != SCHEMA_VERSION:
        raise InvalidAdaptorError(
            f"{path} has schema version {version!r}; this fair-adaptors reads {SCHEMA_VERSION}. Update the package, or"
            " write the adaptor again with the version you have"
        )
    wrong = [field for field, kind in _FIELDS.items() if not isinstance(config.get(field), kind)]
    if not wrong and not all(isinstance(part, str) and part in PARTS for part in config["trained_parts"]):
        wrong = ["trained_parts"]
    entry = config["files"].get(WEIGHTS_FILE) if isinstance(config.get("files"), dict) else None
    if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str):
        wrong = [*wrong, f"files[{WEIGHTS_FILE!r}].sha256"]
    if wrong:
        raise InvalidAdaptorError(f"{path}: missing or of the wrong type: {', '.join(wrong)}")
    return config


def read_adaptor(folder: str | Path) -> AdaptorFiles:
    """Read an adaptor folder and check it against its own record.

    Raises:
        InvalidAdaptorError: a file is absent, truncated, a pickle, changed since it was written, or its keys are not
            pairs of ``lora_A`` and ``lora_B`` of matching rank with finite values.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    config = read_config(folder)
    path = Path(folder) / WEIGHTS_FILE
    try:
        data = path.read_bytes()
    except OSError:
        raise InvalidAdaptorError(f"{folder} has no readable {WEIGHTS_FILE}{_pickles(path.parent)}") from None
    if data[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05"):
        raise InvalidAdaptorError(f"{path} is a pickle (torch.save), which can run code: only safetensors is read")
    recorded = config["files"][WEIGHTS_FILE]
    expected_bytes = recorded.get("bytes")
    if isinstance(expected_bytes, int) and len(data) < expected_bytes:
        raise InvalidAdaptorError(
            f"{path} is truncated: {len(data)} of {expected_bytes} bytes. Download or copy it again"
        )
    if _sha256(data) != recorded["sha256"]:
        raise InvalidAdaptorError(
            f"{path} is not the file that {CONFIG_FILE} describes: its sha256 differs. Download or copy it again"
        )
    try:
        tensors = load(data)
    except (SafetensorError, ValueError) as error:
        raise InvalidAdaptorError(f"{path} is no safetensors file: {error}") from error
    _check_pairs(tensors, path)
    return AdaptorFiles(config, tensors)


def _check_pairs(tensors: "dict[str, Tensor]", path: Path) -> None:
    if not tensors:
        raise InvalidAdaptorError(f"{path} holds no tensors")
    ends = (".lora_A.weight", ".lora_B.weight")
    foreign = [key for key in tensors if not key.endswith(ends) or not key.startswith(tuple(p + "." for p in PARTS))]
    stems = {key.removesuffix(ends[0]).removesuffix(ends[1]) for key in tensors}
    lonely = [stem + end for stem in sorted(stems) for end in ends if stem + end not in tensors]
    if foreign or (lonely and not foreign):
        raise InvalidAdaptorError(
            f"{path}: keys that are not ours: {_some(foreign)}; missing partners: {_some(lonely)}. Expected pairs"
            " '<part>.<module>.lora_A.weight' and '….lora_B.weight'"
        )
    for stem in stems:
        down, up = tensors[stem + ends[0]], tensors[stem + ends[1]]
        if down.ndim != up.ndim or down.ndim not in (2, 4) or down.shape[0] != up.shape[1]:
            raise InvalidAdaptorError(f"{path}: {stem}: shapes {list(down.shape)} and {list(up.shape)} are no pair")
        if not (down.isfinite().all() and up.isfinite().all()):
            raise InvalidAdaptorError(f"{path}: {stem} holds values that are not finite")


def _some(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:3]) or "none"
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _pickles(folder: Path) -> str:
    names = sorted(p.name for p in folder.glob("*") if p.suffix in (".pth", ".pt", ".bin", ".ckpt", ".pkl"))
    return f" (it has {_some(names)}: pickles can run code, and are never loaded)" if names else ""


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("fair-adaptors", "torch", "diffusers", "transformers", "peft")}
