"""Makes an adaptor folder of the paper authors' checkpoints, or of a LoRA of kohya, ComfyUI, peft or diffusers."""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fair_adaptors.adaptor.architecture import load_architecture
from fair_adaptors.adaptor.bases import imported, plugin_of
from fair_adaptors.adaptor.folder import read_adaptor, write_adaptor
from fair_adaptors.adaptor.record import AttributeTarget, is_text, read_record
from fair_adaptors.adaptor.registry import list_adaptors
from fair_adaptors.attributes import labels
from fair_adaptors.errors import ConfigError, InvalidAdaptorError, UnknownAdaptorError, did_you_mean
from fair_adaptors.files import check_writable, refuse_existing, written_aside
from fair_adaptors.hub.lora import fetch_lora
from fair_adaptors.state_dicts import StateDict, read_state_dicts

from .translate import POSITIONS, Found, translate

_ON_THE_HUB = re.compile(r"\w[\w.-]*/\w[\w.-]*(/[\w./-]+)?(@[\w./-]+)?", re.ASCII)
_PUBLISHED_SHARES = {"gender-race-age": {"age": "0.75,0.25"}}


def convert(
    source: str | Path,
    out: str | Path,
    *,
    base: str = "sd15",
    name: str | None = None,
    attributes: Sequence[str] = (),
    folder: str | None = None,
) -> Path:
    """Convert a checkpoint to an adaptor folder. Every tensor is accounted for, or nothing is written.

    Args:
        source: a file, a folder or a zip: the authors' checkpoints, or a LoRA in the layout of kohya, peft or
            diffusers, which is recognised by its keys. Of a checkpoint and its moving average (``…_EMA``) the average
            is taken. Or a LoRA on the Hub: ORG/NAME, ORG/NAME/FILE, or either with @REVISION.
        out: a new folder.
        base: what it was trained on: a short name of the table of bases, or a pipeline's folder.
        name: the adaptor's name; by default the name of ``out``.
        attributes: what it makes fair, which the files do not say: ``gender``, ``race`` or ``age`` for equal shares,
            ``age=0.75,0.25`` for other shares, ``hair=dark:0.5,fair:0.5`` for other classes. May be left out if
            ``name`` is in the registry.
        folder: of a source with several checkpoints, the folder in it that has the wanted one.

    Raises:
        InvalidAdaptorError: the source is damaged, hostile, incomplete, or not for this base.
        ConfigError: a setting cannot be used, or ``out`` exists.
        UnknownAdaptorError, HubError: it cannot be had from the Hub.
    """
    out = Path(out).expanduser()
    name = name or out.resolve().name
    if not is_text(name):
        raise ConfigError(f"the name {name!r} is not allowed: give up to 500 printable characters")
    if not Path(source).expanduser().exists() and not (isinstance(source, str) and _ON_THE_HUB.fullmatch(source)):
        raise InvalidAdaptorError(f"there is no file or folder {source}")
    refuse_existing(out)
    check_writable(out)
    model = load_architecture(base)
    aimed = parse_attributes(attributes, name, base)
    source, called = _on_this_machine(source)
    files, left_out = read_state_dicts(source, folder)
    found = translate(files, model)
    with written_aside(out) as aside:
        write_adaptor(
            aside,
            found.tensors,
            tokens={model.family.token_encoder: found.tokens} if found.tokens is not None else None,
            name=name,
            pipe=model.pipe,
            base_model=model.base_model,
            attributes=aimed,
            rank=found.rank,
            training={"converted_from": _origin(source, called, files, left_out, found)},
        )
        read_adaptor(aside)  # what was written can be read
    return out


def describe(folder: str | Path) -> str:
    """Say what a converted adaptor was made of."""
    record = read_record(folder)
    origin = record.training["converted_from"]
    lines = [f"{record.name}: {' and '.join(record.trained_parts)}, converted from {origin['name']}"]
    for file in origin["files"]:
        averaged = ", moving average of the training" if file["averaged"] else ""
        lines.append(f"  {file['name']} ({file['layout']}{averaged}), sha256 {file['sha256']}")
    for name in origin.get("left_out", ()):
        lines.append(f"  {name}: left out, because its moving average is there")
    for key, reason in origin.get("not_used", {}).items():
        lines.append(f"  {key}: not used: {reason}")
    return "\n".join([*lines, f"The adaptor is in {folder}: load_fair_adaptor(pipe, {str(folder)!r})"])


def parse_attributes(texts: Sequence[str], name: str, base: str) -> dict[str, AttributeTarget]:
    """Return the classes and target shares of attributes. See ``convert``.

    Raises:
        ConfigError: none are given, one is unknown, or its shares are not a distribution.
    """
    known = {attribute: tuple(groups) for attribute, groups in labels().items()}
    if plugin := plugin_of(base):
        known |= imported(plugin.attributes)
    for info in list_adaptors():
        if info.name == name and not texts:
            shares = _PUBLISHED_SHARES.get(name, {})
            texts = [f"{a}={shares[a]}" if a in shares else a for a in info.attributes]
    if not texts:
        raise ConfigError(
            "the files do not say what the adaptor makes fair: give `attributes`, such as gender or age=0.75,0.25"
        )
    return dict(_parse_attribute(text, known) for text in texts)


def _parse_attribute(text: str, known: Mapping[str, tuple[str, ...]]) -> tuple[str, AttributeTarget]:
    attribute, equals, rest = text.partition("=")
    words = [word.rpartition(":") for word in rest.split(",")] if equals else []
    classes = tuple(word[0].strip() for word in words) if ":" in rest else known.get(attribute, ())
    if not classes:
        raise ConfigError(
            f"attribute {text!r}: its classes are not known.{did_you_mean(attribute, known)} Those of"
            f" {', '.join(known)} are; for any other, write {attribute or 'hair'}=CLASS:SHARE,CLASS:SHARE"
        )
    try:
        shares = [float(word[2]) for word in words] or [1 / len(classes)] * len(classes)
    except ValueError as error:
        raise ConfigError(f"attribute {text!r}: shares are numbers, such as 0.75,0.25") from error
    if not all(share >= 0 for share in shares) or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise ConfigError(f"attribute {text!r}: shares must not be negative, and must add up to 1")
    if len(shares) != len(classes) or len(set(classes)) < 2 or not all(map(is_text, (attribute, *classes))):
        raise ConfigError(f"attribute {text!r}: give a share for each class of {', '.join(classes)}")
    return attribute, AttributeTarget(classes, tuple(shares))


def _on_this_machine(source: str | Path) -> tuple[Path, str]:
    """Return a source's path and what the record calls it; what is not here and could be on the Hub is fetched."""
    path = Path(source).expanduser()
    if isinstance(source, str) and _ON_THE_HUB.fullmatch(source) and not path.exists():
        try:
            return fetch_lora(source)
        except UnknownAdaptorError as error:
            raise UnknownAdaptorError(f"there is no file or folder {source}, and from the Hub: {error}") from error
    return path, path.resolve().name.encode(errors="backslashreplace").decode()


def _origin(
    source: Path, called: str, files: Sequence[StateDict], left_out: Sequence[str], found: Found
) -> dict[str, Any]:
    """Return the record of what an adaptor was made from."""
    record: dict[str, Any] = {
        "name": called,
        "files": [
            {"name": file.name, "sha256": file.sha256, "layout": found.layouts[file.name], "averaged": file.averaged}
            for file in files
        ],
    }
    if source.is_file():
        with source.open("rb") as file:
            record["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    if left_out:
        record["left_out"] = list(left_out)
    if found.tokens is not None:
        record["not_used"] = dict.fromkeys(POSITIONS, "the base has these positions itself")
    return record
