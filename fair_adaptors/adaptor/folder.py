"""The adaptor folder: weights under diffusers' own name and layout, and ``fair_adaptor.json`` that says what they are.

Keys are ``text_encoder.text_model.<module>.lora_A.weight`` and ``unet.<module>.lora_A.weight`` (and ``lora_B``), with
alpha = rank folded in: diffusers' ``pipe.load_lora_weights`` reads the same file. Nothing here reads pickles.
"""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fair_adaptors.errors import InvalidAdaptorError
from fair_adaptors.families.table import all_parts, family_of, token_encoders

if TYPE_CHECKING:
    from torch import Tensor
from .modules import shape_signature
from .record import (
    CONFIG_FILE,
    DIRECTIONS_FILE,
    TOKENS_FILE,
    WEIGHTS_FILE,
    AdaptorRecord,
    AttributeTarget,
    WeightFile,
    library_versions,
    pickles_in,
    read_record,
    some,
)

_ENDS = (".lora_A.weight", ".lora_B.weight")
_PICKLES = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How files of torch.save begin: zips, and pickles of every protocol that begins in a way of its own."""


@dataclass(frozen=True)
class AdaptorFiles:
    """An adaptor read from disk and checked against its own record.

    Attributes:
        record: ``fair_adaptor.json``.
        tensors: of the LoRAs, by key.
        tokens: soft tokens [n, width], by text encoder.
        directions: as ``steering/directions.py`` names them.
    """

    record: AdaptorRecord
    tensors: "dict[str, Tensor]"
    tokens: "dict[str, Tensor]"
    directions: "dict[str, Tensor]"


def write_adaptor(
    folder: str | Path,
    tensors: "dict[str, Tensor]",
    *,
    name: str,
    pipe: Any,
    base_model: str,
    attributes: Mapping[str, AttributeTarget],
    rank: int,
    training: dict[str, Any],
    tokens: "dict[str, Tensor] | None" = None,
    directions: "dict[str, Tensor] | None" = None,
    default_weight: float = 1.0,
) -> Path:
    """Write an adaptor folder. Each file is complete or absent: it is written aside, then moved into place.

    Args:
        tensors: of the LoRAs, by key, as above; may be empty if there is something else, or for words.
        tokens: soft tokens [n, width], by text encoder.
        directions: in place of both.
        attributes: what it makes fair, by name.
        pipe: the base, for its shape signature.
        training: how it was trained, JSON-serialisable. Files and folders of this machine are recorded by their names.
    """
    from safetensors.torch import save

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = {WEIGHTS_FILE: tensors, TOKENS_FILE: tokens or {}, DIRECTIONS_FILE: directions or {}}
    parts = [part for part in all_parts() if any(key.startswith(part + ".") for key in tensors)]
    parts += (["tokens"] if tokens else []) + (["directions"] if directions else [])
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as temporary:
        aside = Path(temporary)
        written = {}
        for file, content in files.items():
            if content:
                ordered = {key: tensor.contiguous() for key, tensor in sorted(content.items())}
                data = save(ordered, {"format": "pt"})
                (aside / file).write_bytes(data)
                written[file] = WeightFile(hashlib.sha256(data).hexdigest(), len(data))
        record = AdaptorRecord(
            name=name,
            base_model=base_model,
            base_signature=shape_signature(pipe),
            attributes=attributes,
            trained_parts=tuple(parts or ["words"]),
            rank=rank,
            default_weight=default_weight,
            training=training,
            versions=library_versions(),
            files=written,
            family=family_of(pipe).name,
        ).public()
        (aside / CONFIG_FILE).write_text(record.text(), encoding="utf-8")
        for file in (*written, CONFIG_FILE):
            os.replace(aside / file, folder / file)
    for file in files.keys() - written.keys():  # of an adaptor of other parts that was here before
        (folder / file).unlink(missing_ok=True)
    return folder


def read_adaptor(folder: str | Path) -> AdaptorFiles:
    """Read an adaptor folder and check it against its own record.

    Raises:
        InvalidAdaptorError: a file is absent, truncated, a pickle, changed since it was written, or its keys are not
            pairs of ``lora_A`` and ``lora_B`` of the recorded parts and largest rank with finite values.
    """
    record = read_record(folder)
    data = {Path(folder) / file: _read_recorded(Path(folder) / file, known) for file, known in record.files.items()}
    with ThreadPoolExecutor(max_workers=1) as beside:  # hashing takes longer than all else here, and holds no lock
        hashes = {path: beside.submit(hashlib.sha256, content) for path, content in data.items()}
        try:
            return _read_tensors(Path(folder), record, data)
        finally:  # a file that was changed is called so, whatever is in it now
            for path, found in hashes.items():
                if found.result().hexdigest() != record.files[path.name].sha256:
                    raise InvalidAdaptorError(
                        f"{path} is not the file that {CONFIG_FILE} describes: its sha256 differs. Download or copy it"
                        " again"
                    )


def _read_tensors(folder: Path, record: AdaptorRecord, data: Mapping[Path, bytes]) -> AdaptorFiles:
    """Read the tensors of an adaptor's files, and check them against its record."""
    found = {path.name: _load(path, content) for path, content in data.items()}
    tensors, tokens, directions = (found.get(file, {}) for file in (WEIGHTS_FILE, TOKENS_FILE, DIRECTIONS_FILE))
    if WEIGHTS_FILE in found:
        _check_pairs(tensors, record, folder / WEIGHTS_FILE)
    if TOKENS_FILE in found:
        _check_tokens(tokens, folder / TOKENS_FILE)
    for key, tensor in directions.items():
        gates = key.endswith(".gate")  # whose last number may be infinite
        if str(tensor.dtype) != "torch.float32" or not (tensor[:-1] if gates else tensor).isfinite().all():
            raise InvalidAdaptorError(f"{folder / DIRECTIONS_FILE}: {key} must hold finite float32 numbers")
    return AdaptorFiles(record, tensors, tokens, directions)


def _load(path: Path, data: bytes) -> "dict[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:  # of dtypes and sizes that torch lacks
        told = "".join(letter for letter in str(error) if letter.isprintable())[:300]  # it quotes the file
        raise InvalidAdaptorError(f"{path} is not a safetensors file: {told}") from error


def _read_recorded(path: Path, recorded: WeightFile) -> bytes:
    """Read a file that has to have the recorded size; of a longer one, not more than its first bytes."""
    if not path.is_file():
        raise InvalidAdaptorError(f"{path.parent} has no {path.name}{pickles_in(path.parent)}. Download it again")
    try:
        with path.open("rb") as file:
            size, start = os.fstat(file.fileno()).st_size, file.read(9)
            # Only a file of the recorded size is read: neither number alone says how much memory it may take.
            file.seek(0)
            data = file.read(size) if size == recorded.bytes else b""
    except OSError as error:
        raise InvalidAdaptorError(f"{path} cannot be read: {error}") from error
    if start[:2] in _PICKLES and start[8:] != b"{":  # or it is the length of a safetensors header
        raise InvalidAdaptorError(f"{path} is a pickle (torch.save), which can run code: only safetensors is read")
    if size < recorded.bytes:
        raise InvalidAdaptorError(f"{path} is truncated: {size} of {recorded.bytes} bytes. Download or copy it again")
    return data


def _check_pairs(tensors: "dict[str, Tensor]", record: AdaptorRecord, path: Path) -> None:
    import torch

    if not tensors:
        raise InvalidAdaptorError(f"{path} holds no tensors")
    prefixes = tuple(part + "." for part in record.trained_parts if part in all_parts())
    foreign = [key for key in tensors if not (key.startswith(prefixes) and key.endswith(_ENDS))]
    stems = {key.removesuffix(_ENDS[0]).removesuffix(_ENDS[1]) for key in tensors.keys() - set(foreign)}
    lonely = [stem + end for stem in sorted(stems) for end in _ENDS if stem + end not in tensors]
    absent = [prefix + "*" for prefix in prefixes if not any(key.startswith(prefix) for key in tensors)]
    if foreign or lonely or absent:
        raise InvalidAdaptorError(
            f"{path}: unexpected keys: {some(foreign)}; missing keys: {some(lonely + absent)}. Expected pairs"
            f" '<part>.<module>{_ENDS[0]}' and '…{_ENDS[1]}' of {' and '.join(record.trained_parts)}"
        )
    for stem in sorted(stems):
        down, up = (tensors[stem + end] for end in _ENDS)
        if not {down.dtype, up.dtype} <= {torch.float32, torch.bfloat16, torch.float16}:
            raise InvalidAdaptorError(f"{path}: {stem}: {down.dtype} and {up.dtype} are not floating-point")
        shapes = f"shapes {list(down.shape)} and {list(up.shape)}"
        if down.ndim != up.ndim or down.ndim not in (2, 4) or not 0 < down.shape[0] == up.shape[1]:
            raise InvalidAdaptorError(f"{path}: {stem}: {shapes} do not make a LoRA, whose two share their rank")
        if not (is_finite(down) and is_finite(up)):
            raise InvalidAdaptorError(f"{path}: {stem} holds values that are not finite")
    if (largest := max(len(tensors[stem + _ENDS[0]]) for stem in stems)) != record.rank:
        raise InvalidAdaptorError(f"{path}: the largest rank is {largest}; {CONFIG_FILE} says {record.rank}")


def is_finite(tensor: "Tensor") -> bool:
    """Tell whether every value is finite. The norm, ten times as quick, is only in doubt where it overflows."""
    import torch

    return bool(torch.linalg.vector_norm(tensor, dtype=torch.float32).isfinite()) or bool(tensor.isfinite().all())


def _check_tokens(tokens: "dict[str, Tensor]", path: Path) -> None:
    import torch

    if len(tokens) != 1 or not tokens.keys() <= {*token_encoders()}:
        known = " or ".join(map(repr, token_encoders()))
        raise InvalidAdaptorError(f"{path}: expected the key {known}, found {some(list(tokens))}")
    for key, rows in tokens.items():
        if rows.dtype not in (torch.float32, torch.bfloat16, torch.float16) or rows.ndim != 2 or not rows.numel():
            raise InvalidAdaptorError(
                f"{path}: {key}: expected soft tokens [n, width], found {rows.dtype} {list(rows.shape)}"
            )
        if not rows.isfinite().all():
            raise InvalidAdaptorError(f"{path}: {key} holds values that are not finite")
