"""The record of an adaptor, ``fair_adaptor.json``: what it holds, and how it is read and checked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fair_adaptors.errors import InvalidAdaptorError
from fair_adaptors.families.table import all_parts

if TYPE_CHECKING:
    pass

WEIGHTS_FILE = "pytorch_lora_weights.safetensors"

TOKENS_FILE = "fair_tokens.safetensors"

CONFIG_FILE = "fair_adaptor.json"

RESULTS_FILE = "results.json"

CARD_FILE = "README.md"

TAG = "fair-adaptors"
"""The tag on the Hub of every adaptor of this package."""
SCHEMA_VERSION = 1

RESULTS_SCHEMA = 2
"""Of an evaluation's results, see docs/evaluation.md."""

_MOST_CONFIG_BYTES = 4_000_000  # some thousand times what we write


def read_config(folder: str | Path) -> dict[str, Any]:
    """Read and check ``fair_adaptor.json``.

    Raises:
        InvalidAdaptorError: absent, no JSON, another schema version, or a field missing or of the wrong type.
    """
    path = Path(folder) / CONFIG_FILE
    if not path.is_file():
        raise InvalidAdaptorError(f"{folder} is no adaptor folder: it has no {CONFIG_FILE}{pickles_in(path.parent)}")
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
    # Only files that are read: another would be a part of the adaptor that we would leave out, or a trap.
    if not wrong and files_of(config["trained_parts"]) != config["files"].keys():
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
    return isinstance(value, list) and bool(value) and all(part in (*all_parts(), "tokens") for part in value)


def files_of(parts: list[str]) -> set[str]:
    """Return the weight files that an adaptor of these parts has."""
    return {TOKENS_FILE if part == "tokens" else WEIGHTS_FILE for part in parts}


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_text, value.values()))


def _are_files(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(record, dict) and isinstance(record.get("sha256"), str) and _is_count(record.get("bytes"))
        for record in value.values()
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


def some(names: list[str] | set[str]) -> str:
    """Return a few names, quoted, and how many more there are."""
    shown = ", ".join(f"{name[:100]!r}" for name in sorted(names)[:3]) or "none"
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def pickles_in(folder: Path) -> str:
    names = sorted(p.name for p in folder.glob("*") if p.suffix in (".pth", ".pt", ".bin", ".ckpt", ".pkl"))
    return f" (it has {some(names)}: pickles can run code, and are never loaded)" if names else ""


def library_versions() -> dict[str, str]:
    """Return the versions of this package and of the libraries that weights depend on."""
    from importlib.metadata import version

    return {name: version(name) for name in ("fair-adaptors", "torch", "diffusers", "transformers", "peft")}
