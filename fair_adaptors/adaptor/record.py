"""The record of an adaptor, ``fair_adaptor.json``: what it holds, and how it is read and checked."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from fair_adaptors.errors import InvalidAdaptorError
from fair_adaptors.families.family import Family
from fair_adaptors.families.table import all_parts, family_called, family_with
from fair_adaptors.files import public_name, without_places

WEIGHTS_FILE = "pytorch_lora_weights.safetensors"

TOKENS_FILE = "fair_tokens.safetensors"

DIRECTIONS_FILE = "fair_directions.safetensors"

CONFIG_FILE = "fair_adaptor.json"

RESULTS_FILE = "results.json"

CARD_FILE = "README.md"
EVAL_RESULTS_FILE = ".eval_results/fair-adaptors.yaml"

TAG = "fair-adaptors"
"""The tag on the Hub of every adaptor of this package."""
SCHEMA_VERSION = 1

RESULTS_SCHEMA = 3
"""Of an evaluation's results, see docs/evaluation.md."""

_MOST_CONFIG_BYTES = 4_000_000  # some thousand times what we write


@dataclass(frozen=True)
class AttributeTarget:
    """The classes of an attribute, and the share of people that each is to have."""

    classes: tuple[str, ...]
    target: tuple[float, ...]


@dataclass(frozen=True)
class WeightFile:
    """What a weight file has to be, byte for byte."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class AdaptorRecord:
    """What ``fair_adaptor.json`` says.

    Attributes:
        base_model: that it was made for.
        base_signature: of the base's modules, by part; see ``shape_signature``.
        family: of the base, by name. Older records do not say it: then the names of the parts tell it.
        attributes: what it makes fair, by name.
        trained_parts: parts of the pipeline, ``tokens``, ``directions``, or ``words``, which need no files.
        rank: of its LoRAs, or maps; the largest, where layers differ; 0 for words.
        default_weight: the strength that loading takes if none is given.
        training: how it was trained, or converted.
        versions: of the libraries that wrote it.
        files: its weights, by name.
    """

    name: str
    base_model: str
    base_signature: Mapping[str, str]
    attributes: Mapping[str, AttributeTarget]
    trained_parts: tuple[str, ...]
    rank: int
    default_weight: float
    training: Mapping[str, Any]
    versions: Mapping[str, str]
    files: Mapping[str, WeightFile]
    family: str = ""

    @property
    def identity(self) -> str:
        """What tells this adaptor from others: the sha256 of its files; its name, if it needs none."""
        return "+".join(file.sha256 for _, file in sorted(self.files.items())) or self.name

    @property
    def aim(self) -> str:
        """What it aims at, such as "gender: female 50%, male 50%"."""
        return "; ".join(
            f"{name}: " + ", ".join(f"{one} {share:.0%}" for one, share in zip(row.classes, row.target, strict=True))
            for name, row in self.attributes.items()
        )

    @property
    def family_of_base(self) -> Family | None:
        """The family of the base; None if it is none that is known."""
        return family_called(self.family) if self.family else family_with(self.base_signature.keys())

    @property
    def changes_prompts(self) -> bool:
        """Whether a text encoder is changed, which reads negative prompts too."""
        family = self.family_of_base
        return family is not None and not set(self.trained_parts).isdisjoint(family.text_encoders)

    @classmethod
    def from_json(cls, content: Any, name: str | Path = CONFIG_FILE) -> Self:
        """Return the record of what a file holds, once it was checked. Fields that are not known are left out.

        Args:
            content: what JSON made of it.
            name: what errors call the file.

        Raises:
            InvalidAdaptorError: no object, another schema version, or a field missing or of the wrong type.
        """
        if not isinstance(content, dict):
            raise InvalidAdaptorError(f"{name} holds a {type(content).__name__}, not a JSON object")
        version = content.get("schema_version")
        if version != SCHEMA_VERSION or isinstance(version, bool):
            raise InvalidAdaptorError(
                f"{name} has schema version {version!r}; this fair-adaptors reads {SCHEMA_VERSION}. Update the"
                " package, or write the adaptor again with the version you have"
            )
        wrong = [field for field, holds in _FIELDS.items() if not holds(content.get(field))]
        if not isinstance(content.get("family", ""), str):
            wrong.append("family")
        # Only files that are read: another would be a part of the adaptor that we would leave out, or a trap.
        if not wrong and files_of(content["trained_parts"]) != content["files"].keys():
            wrong = ["files"]
        if not wrong and (content["rank"] == 0) != (content["trained_parts"] == ["words"]):
            wrong = ["rank"]
        if wrong:
            raise InvalidAdaptorError(f"{name}: these fields are missing or wrong: {', '.join(wrong)}")
        typed = {
            "family": content.get("family", ""),
            "attributes": {
                attribute: AttributeTarget(tuple(row["classes"]), tuple(row["target"]))
                for attribute, row in content["attributes"].items()
            },
            "trained_parts": tuple(content["trained_parts"]),
            "files": {file: WeightFile(row["sha256"], row["bytes"]) for file, row in content["files"].items()},
        }
        return cls(**{field: content[field] for field in _FIELDS} | typed)

    def to_json(self) -> dict[str, Any]:
        """Return what the file holds."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    def text(self) -> str:
        """Return the file as it is written."""
        return json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n"

    def public(self) -> Self:
        """Return the record for others, in which files and folders of this machine go by their names."""
        return replace(self, base_model=public_name(self.base_model), training=without_places(self.training))


def read_record(folder: str | Path) -> AdaptorRecord:
    """Read and check ``fair_adaptor.json``.

    Raises:
        InvalidAdaptorError: absent, no JSON, another schema version, or a field missing or of the wrong type.
    """
    path = Path(folder) / CONFIG_FILE
    if not path.is_file():
        found = pickles_in(path.parent)
        raise InvalidAdaptorError(f"{folder} is not an adaptor folder: it has no {CONFIG_FILE}{found}")
    try:
        if path.stat().st_size > _MOST_CONFIG_BYTES:
            raise ValueError(f"it has more than {_MOST_CONFIG_BYTES} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidAdaptorError(f"{path} cannot be read as JSON: {error}. Download or copy it again") from error
    return AdaptorRecord.from_json(content, path)


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
    known = {*all_parts(), "tokens"}
    if not isinstance(value, list) or not value or not all(map(is_text, value)):
        return False
    return set(value) <= known or value in (["directions"], ["words"])


def files_of(parts: Iterable[str]) -> set[str]:
    """Return the weight files that an adaptor of these parts has."""
    files = {"tokens": {TOKENS_FILE}, "directions": {DIRECTIONS_FILE}, "words": set[str]()}
    return {file for part in parts for file in files.get(part, {WEIGHTS_FILE})}


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
    "rank": lambda value: _is_count(value) or (value == 0 and type(value) is int),
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
