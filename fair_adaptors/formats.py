"""The adaptor folder: weights under diffusers' own name and layout, and ``fair_adaptor.json`` that says what they are.

Keys are ``text_encoder.text_model.<module>.lora_A.weight`` and ``unet.<module>.lora_A.weight`` (and ``lora_B``), with
alpha = rank folded in: diffusers' ``pipe.load_lora_weights`` reads the same file. Nothing here reads pickles.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InvalidAdaptorError

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS_FILE = "pytorch_lora_weights.safetensors"
TOKENS_FILE = "fair_tokens.safetensors"
CONFIG_FILE = "fair_adaptor.json"
RESULTS_FILE = "results.json"
CARD_FILE = "README.md"
SCHEMA_VERSION = 1
RESULTS_SCHEMA = 2
"""Of an evaluation's results, see docs/evaluation.md."""
PARTS = ("text_encoder", "text_encoder_2", "unet")
"""Parts of a pipeline that a LoRA can be on; Stable Diffusion XL has two encoders. ``trained_parts`` of an adaptor may
also hold ``tokens``."""

_ENDS = (".lora_A.weight", ".lora_B.weight")
_MOST_CONFIG_BYTES = 4_000_000  # some thousand times what we write


@dataclass(frozen=True)
class AdaptorFiles:
    """An adaptor read from disk and checked against its own record.

    Attributes:
        config: ``fair_adaptor.json``.
        tensors: of the LoRAs, by key.
        tokens: soft tokens [n, width], by text encoder.
    """

    config: dict[str, Any]
    tensors: "dict[str, Tensor]"
    tokens: "dict[str, Tensor]"

    @property
    def identity(self) -> str:
        """What tells this adaptor from others: the sha256 of its files."""
        return "+".join(record["sha256"] for _, record in sorted(self.config["files"].items()))


def linear_modules(pipe: Any, part: str) -> "dict[str, nn.Linear | nn.Conv2d]":
    """Return the linear and convolution modules of a part of a pipeline under their names in the file.

    The names do not depend on ``torch.compile``, or on a peft adapter: of a module with one, it is the base layer. A
    pipeline without the part has none.
    """
    from torch import nn

    model = getattr(pipe, part, None)
    return {
        name_in_file(part, name): module
        for name, module in (model.named_modules() if model is not None else ())
        if isinstance(module, nn.Linear | nn.Conv2d) and ".lora_" not in name
    }


def name_in_file(part: str, module: str) -> str:
    """Return a module's name in our files, whatever the transformers version: a text encoder's has ``text_model.``."""
    plain = module.replace("_orig_mod.", "").replace(".base_layer", "")
    if part.startswith("text_encoder") and plain.startswith("encoder."):
        plain = f"text_model.{plain}"
    return f"{part}.{plain}"


def shape_signature(pipe: Any) -> dict[str, str]:
    """Return a hash of the names and shapes of all linear and convolution weights of each part that a base model has.

    It tells architectures apart, and does not change with dtype, device or an installed transformers version.
    """
    signature = {}
    for part in (part for part in PARTS if getattr(pipe, part, None) is not None):
        rows = sorted(f"{name}:{tuple(module.weight.shape)}" for name, module in linear_modules(pipe, part).items())
        signature[part] = hashlib.sha256("\n".join(rows).encode()).hexdigest()[:32]
    return signature


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Return a hash of some values of every weight of a pipeline's parts: another one for other weights or a dtype.

    Args:
        parts: by name; what is no module is left out.
    """
    import torch

    digest = hashlib.sha256()
    for part, module in sorted(parts.items()):
        if isinstance(module, torch.nn.Module):
            for name, value in sorted(module.state_dict().items()):
                flat = value.detach().flatten()
                some = flat[:: max(1, len(flat) // 64)].float().cpu().numpy().tobytes()
                digest.update(f"{part}.{name} {tuple(value.shape)} {value.dtype} {some.hex()}\n".encode())
    return digest.hexdigest()[:32]


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
    tokens: "dict[str, Tensor] | None" = None,
    default_weight: float = 1.0,
) -> Path:
    """Write an adaptor folder. Each file is complete or absent: it is written aside, then moved into place.

    Args:
        tensors: of the LoRAs, by key, as above; may be empty if there are tokens.
        tokens: soft tokens [n, width], by text encoder.
        attributes: of each attribute its ``classes`` and ``target`` shares.
        pipe: the base, for its shape signature.
        training: how it was trained, JSON-serialisable.
    """
    from safetensors.torch import save

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = {WEIGHTS_FILE: tensors, TOKENS_FILE: tokens or {}}
    parts = [part for part in PARTS if any(key.startswith(part + ".") for key in tensors)]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as temporary:
        aside = Path(temporary)
        records = {}
        for file, content in files.items():
            if content:
                ordered = {key: tensor.contiguous() for key, tensor in sorted(content.items())}
                data = save(ordered, {"format": "pt"})
                (aside / file).write_bytes(data)
                records[file] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        config = {
            "schema_version": SCHEMA_VERSION,
            "name": name,
            "base_model": base_model,
            "base_signature": shape_signature(pipe),
            "attributes": attributes,
            "trained_parts": [*parts, *(["tokens"] if tokens else [])],
            "rank": rank,
            "default_weight": default_weight,
            "training": training,
            "versions": library_versions(),
            "files": records,
        }
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (aside / CONFIG_FILE).write_text(text, encoding="utf-8")
        for file in (*records, CONFIG_FILE):
            os.replace(aside / file, folder / file)
    for file in files.keys() - records.keys():  # of an adaptor of other parts that was here before
        (folder / file).unlink(missing_ok=True)
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
    if not wrong and _files_of(config["trained_parts"]) != config["files"].keys():
        wrong = ["files"]
    if wrong:
        raise InvalidAdaptorError(f"{path}: missing, or not what it should be: {', '.join(wrong)}")
    return config


def is_text(value: Any) -> bool:
    """Tell whether a value is a name or a line of text that can be shown as it is."""
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= 500


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6  # nor NaN


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _are_attributes(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(
            isinstance(row, dict)
            and isinstance(row.get("classes"), list)
            and isinstance(row.get("target"), list)
            and len(row["classes"]) == len(row["target"]) > 1
            and all(map(is_text, row["classes"]))
            and all(_is_number(share) and share >= 0 for share in row["target"])
            for row in value.values()
        )
        and all(map(is_text, value))
    )


def _are_parts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(part in (*PARTS, "tokens") for part in value)


def _files_of(parts: list[str]) -> set[str]:
    """Return the weight files that an adaptor of these parts has."""
    return {TOKENS_FILE if part == "tokens" else WEIGHTS_FILE for part in parts}


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_text, value.values()))


def _are_files(value: Any) -> bool:
    """Only files that are read: another would be a part of the adaptor that we would leave out, or a trap."""
    return isinstance(value, dict) and all(
        file in (WEIGHTS_FILE, TOKENS_FILE)
        and isinstance(record, dict)
        and isinstance(record.get("sha256"), str)
        and _is_count(record.get("bytes"))
        for file, record in value.items()
    )


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "name": is_text,
    "base_model": is_text,
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
    config = read_config(folder)
    found = {file: _load_recorded(Path(folder) / file, record) for file, record in config["files"].items()}
    tensors, tokens = found.get(WEIGHTS_FILE, {}), found.get(TOKENS_FILE, {})
    if WEIGHTS_FILE in found:
        _check_pairs(tensors, config, Path(folder) / WEIGHTS_FILE)
    if TOKENS_FILE in found:
        _check_tokens(tokens, Path(folder) / TOKENS_FILE)
    return AdaptorFiles(config, tensors, tokens)


def _load_recorded(path: Path, recorded: dict[str, Any]) -> "dict[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = _read_recorded(path, recorded)
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        told = "".join(letter for letter in str(error) if letter.isprintable())[:300]  # it quotes the file
        raise InvalidAdaptorError(f"{path} is no safetensors file: {told}") from error


def _read_recorded(path: Path, recorded: dict[str, Any]) -> bytes:
    """Read a file that has to have the recorded size and sha256; of a longer one, not more than its first bytes."""
    if not path.is_file():
        raise InvalidAdaptorError(f"{path.parent} has no {path.name}{_pickles(path.parent)}. Download it again")
    try:
        with path.open("rb") as file:
            size, start = os.fstat(file.fileno()).st_size, file.read(2)
            # Only a file of the recorded size is read: neither number alone says how much memory it may take.
            file.seek(0)
            data = file.read(size) if size == recorded["bytes"] else b""
    except OSError as error:
        raise InvalidAdaptorError(f"{path} cannot be read: {error}") from error
    if start in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05"):
        raise InvalidAdaptorError(f"{path} is a pickle (torch.save), which can run code: only safetensors is read")
    if size < recorded["bytes"]:
        raise InvalidAdaptorError(
            f"{path} is truncated: {size} of {recorded['bytes']} bytes. Download or copy it again"
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
    prefixes = tuple(part + "." for part in config["trained_parts"] if part in PARTS)
    foreign = [key for key in tensors if not (key.startswith(prefixes) and key.endswith(_ENDS))]
    stems = {key.removesuffix(_ENDS[0]).removesuffix(_ENDS[1]) for key in tensors.keys() - set(foreign)}
    lonely = [stem + end for stem in sorted(stems) for end in _ENDS if stem + end not in tensors]
    absent = [prefix + "*" for prefix in prefixes if not any(key.startswith(prefix) for key in tensors)]
    if foreign or lonely or absent:
        raise InvalidAdaptorError(
            f"{path}: unexpected keys: {some(foreign)}; missing keys: {some(lonely + absent)}. Expected pairs"
            f" '<part>.<module>{_ENDS[0]}' and '…{_ENDS[1]}' of {' and '.join(config['trained_parts'])}"
        )
    for stem in sorted(stems):
        down, up = (tensors[stem + end] for end in _ENDS)
        if not {down.dtype, up.dtype} <= {torch.float32, torch.bfloat16, torch.float16}:
            raise InvalidAdaptorError(f"{path}: {stem}: {down.dtype} and {up.dtype} are no floating dtypes of weights")
        shapes = f"shapes {list(down.shape)} and {list(up.shape)}"
        if down.ndim != up.ndim or down.ndim not in (2, 4) or not down.shape[0] == up.shape[1] == config["rank"]:
            raise InvalidAdaptorError(f"{path}: {stem}: {shapes} are no pair of rank {config['rank']}")
        if not (is_finite(down) and is_finite(up)):
            raise InvalidAdaptorError(f"{path}: {stem} holds values that are not finite")


def is_finite(tensor: "Tensor") -> bool:
    """Tell whether every value is finite. The norm, ten times as quick, is only in doubt where it overflows."""
    import torch

    return bool(torch.linalg.vector_norm(tensor, dtype=torch.float32).isfinite()) or bool(tensor.isfinite().all())


def _check_tokens(tokens: "dict[str, Tensor]", path: Path) -> None:
    import torch

    if tokens.keys() != {"text_encoder"}:
        raise InvalidAdaptorError(f"{path}: expected the key 'text_encoder', found {some(list(tokens))}")
    for key, rows in tokens.items():
        if rows.dtype not in (torch.float32, torch.bfloat16, torch.float16) or rows.ndim != 2 or not rows.numel():
            raise InvalidAdaptorError(f"{path}: {key}: {rows.dtype} {list(rows.shape)} are no tokens [n, width]")
        if not rows.isfinite().all():
            raise InvalidAdaptorError(f"{path}: {key} holds values that are not finite")


def some(names: list[str] | set[str]) -> str:
    """Return a few names, quoted, and how many more there are."""
    shown = ", ".join(f"{name[:100]!r}" for name in sorted(names)[:3]) or "none"
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _pickles(folder: Path) -> str:
    names = sorted(p.name for p in folder.glob("*") if p.suffix in (".pth", ".pt", ".bin", ".ckpt", ".pkl"))
    return f" (it has {some(names)}: pickles can run code, and are never loaded)" if names else ""


def library_versions() -> dict[str, str]:
    """Return the versions of this package and of the libraries that weights depend on."""
    from importlib.metadata import version

    return {name: version(name) for name in ("fair-adaptors", "torch", "diffusers", "transformers", "peft")}
