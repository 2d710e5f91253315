"""Weights from strangers, read without running or unpacking anything: safetensors, torch.save files and zips of them.

Sizes are bounded before memory is taken. A pickle is read by ``torch.load(weights_only=True)`` alone, from a copy of
its archive that holds nothing but what was checked.
"""

import hashlib
import io
import json
import os
import stat
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from fair_adaptors.errors import InvalidAdaptorError
from fair_adaptors.formats import CONFIG_FILE, is_text, some

if TYPE_CHECKING:
    from torch import Tensor

PEFT_CONFIG = "adapter_config.json"
DIFFUSERS_METADATA = "lora_adapter_metadata"

_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".safetensors")
_AVERAGED = "_EMA"
_MOST_BYTES = 2**30  # ten times what is published for Stable Diffusion 1.5
_MOST_FILES = 5_000
_MOST_TEXT_BYTES = 4_000_000

_Files = Mapping[str, Callable[[], bytes]]


@dataclass(frozen=True)
class StateDict:
    """A file of weights.

    Attributes:
        name: inside the folder or zip.
        settings: what peft or diffusers wrote beside the tensors.
    """

    name: str
    sha256: str
    tensors: "dict[str, Tensor]"
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def averaged(self) -> bool:
        """Whether its name says that it holds the exponential moving average of the training."""
        return PurePosixPath(self.name).stem.endswith(_AVERAGED)


def read_state_dicts(source: Path) -> tuple[list[StateDict], list[str]]:
    """Read the files of weights of a source: one file, a folder, or a zip.

    Returns:
        The files, and the names of those left out because their exponential moving average (``_EMA``) is there too.

    Raises:
        InvalidAdaptorError: not there, too large, damaged, or anything but plain tensors.
    """
    files = _open(source)
    names = [name for name in files if _is_of_weights(PurePosixPath(name))]
    if not names:
        raise InvalidAdaptorError(f"{source} has no file of weights: none ends with {', '.join(_SUFFIXES)}")
    if odd := [name for name in names if not is_text(name)]:
        raise InvalidAdaptorError(f"{source} has a file whose name cannot be shown: {some(odd)}. Rename it")
    left_out = [name for name in names if _average_of(name) in names]
    found, size = [], 0
    for name in names:
        if name not in left_out:
            data = files[name]()
            size += len(data)
            if size > _MOST_BYTES:
                raise InvalidAdaptorError(f"{source} holds more than {_MOST_BYTES:,} bytes of weights")
            found.append(_parse(name, data, files))
    return found, left_out


def _said(error: Exception) -> str:
    """Return what an error says of a stranger's file, so that it can be printed: it may quote the file."""
    text = " ".join(str(error).split())
    return "".join(letter for letter in text if letter.isprintable())[:200]


def _is_of_weights(path: PurePosixPath) -> bool:
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")  # as the Finder's ._ files do


def _is_pickle_of_torch(member: zipfile.ZipInfo) -> bool:
    return PurePosixPath(member.filename).name == "data.pkl"


def _average_of(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(path.stem + _AVERAGED + path.suffix))


def _open(source: Path) -> _Files:
    """Return the files of a source by name; each is read when it is called."""
    if source.is_dir():
        return _files_of_folder(source)
    if source.is_file():
        data = _read_file(source)
        members = _open_archive(data, str(source)) if data[:2] == b"PK" else None
        if members and not any(map(_is_pickle_of_torch, members.infolist())):
            return {member.filename: partial(_read_member, members, member) for member in members.infolist()}
        config = source.with_name(PEFT_CONFIG)
        beside = {config.name: partial(_read_file, config)} if config.is_file() else {}
        return {source.name: lambda: data, **beside}
    raise InvalidAdaptorError(f"there is no file or folder {source}")


def _files_of_folder(folder: Path) -> _Files:
    if (folder / CONFIG_FILE).is_file():
        raise InvalidAdaptorError(f"{folder} is an adaptor of this package already: load_fair_adaptor reads it")
    paths = list(islice(folder.rglob("*"), _MOST_FILES + 1))
    if len(paths) > _MOST_FILES:
        raise InvalidAdaptorError(f"{folder} has more than {_MOST_FILES:,} files; give the folder of the checkpoint")
    return {path.relative_to(folder).as_posix(): partial(_read_file, path) for path in sorted(paths) if path.is_file()}


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > _MOST_BYTES:
                raise InvalidAdaptorError(f"{path} has {size:,} bytes; an adaptor has less than {_MOST_BYTES:,}")
            return file.read(size)
    except OSError as error:
        raise InvalidAdaptorError(f"{path} cannot be read: {error.strerror}") from error


class _Bounded(io.BytesIO):
    """Bytes of which not too many are read at once, so that a zip's table of contents cannot fill the memory."""

    most: int | None = _MOST_TEXT_BYTES

    def read(self, size: int | None = -1) -> bytes:
        if self.most is not None and (size or 0) > self.most:
            raise zipfile.BadZipFile("its table of contents is too long")
        return super().read(size)


def _open_archive(data: bytes, name: str) -> zipfile.ZipFile:
    """Open a zip whose members may all be read: plain names, and no more bytes than allowed."""
    try:
        bounded = _Bounded(data)
        archive = zipfile.ZipFile(bounded)
    except Exception as error:  # a damaged zip makes zipfile raise nearly anything
        raise InvalidAdaptorError(f"{name} is a damaged zip: {_said(error)}. Download or copy it again") from error
    bounded.most = None
    if problem := _problem_of(archive.infolist()):
        raise InvalidAdaptorError(f"{name} is refused: {problem}. Nothing was unpacked")
    return archive


def _problem_of(members: list[zipfile.ZipInfo]) -> str | None:
    if len(members) > _MOST_FILES:
        return f"it has {len(members):,} members, more than {_MOST_FILES:,}"
    if len({member.filename for member in members}) < len(members):
        return "two of its members have one name"
    size = sum(member.file_size for member in members)
    if size > _MOST_BYTES:
        return f"unpacked it would have {size:,} bytes, more than {_MOST_BYTES:,}"
    for member in members:
        # orig_filename too: zipfile cuts the other one at a NUL, and turns separators.
        for name in (member.filename, member.orig_filename):
            path = PurePosixPath(name)
            if not is_text(name) or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
                return f"the member {name[:100]!r} has a name that leads elsewhere"
        if stat.S_ISLNK(member.external_attr >> 16):
            return f"the member {member.filename!r} is a link"
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others inflate without a bound
            return f"the member {member.filename!r} is compressed by a method that is not read"
        if member.flag_bits & 1:
            return f"the member {member.filename!r} is encrypted; unpack it with its password and give the folder"
    return None


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Read a member; what goes beyond its declared size is not read."""
    try:
        with archive.open(member) as file:
            data = file.read(member.file_size + 1)
        if len(data) != member.file_size:
            raise ValueError("it is not as long as declared")
    except Exception as error:  # damage makes zipfile and its decompressor raise nearly anything
        raise InvalidAdaptorError(
            f"the member {member.filename!r} is damaged: {_said(error)}. Download or copy the zip again"
        ) from error
    return data


def _parse(name: str, data: bytes, files: _Files) -> StateDict:
    settings: dict[str, Any] = {}
    if data[:2] == b"PK":
        loaded = _load_torch(name, data)
    else:
        loaded, metadata = _load_safetensors(name, data)
        if DIFFUSERS_METADATA in metadata:
            settings = _json(metadata[DIFFUSERS_METADATA], f"{name}: {DIFFUSERS_METADATA}")
    beside = str(PurePosixPath(name).with_name(PEFT_CONFIG))
    if PurePosixPath(name).stem == "adapter_model" and beside in files:
        settings = _json(files[beside](), beside)
    _check_plain(name, loaded)
    tensors = {key: value.detach() for key, value in loaded.items()}
    return StateDict(name, hashlib.sha256(data).hexdigest(), tensors, settings)


def _json(text: str | bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text) if len(text) < _MOST_TEXT_BYTES else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidAdaptorError(f"{where} is no JSON object, or too long")
    return value


def _load_safetensors(name: str, data: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidAdaptorError(
            f"{name} is neither safetensors nor a file of torch.save (since version 1.6): {_said(error)}"
        ) from error
    return tensors, metadata


def _load_torch(name: str, data: bytes) -> Any:
    import torch

    clean = io.BytesIO()
    archive = _open_archive(data, name)
    with zipfile.ZipFile(clean, "w") as copy:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise InvalidAdaptorError(
                    f"{name} is refused: it has compressed records, which torch.save never writes"
                )
            if _is_pickle_of_torch(member) and member.file_size > _MOST_TEXT_BYTES:
                raise InvalidAdaptorError(f"{name} is refused: its pickle has {member.file_size:,} bytes")
            copy.writestr(member.filename, _read_member(archive, member))
    clean.seek(0)
    try:
        return torch.load(clean, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile pickle makes torch raise nearly anything
        raise InvalidAdaptorError(
            f"{name} is refused: it is no plain dictionary of tensors, and a pickle could run code: {_said(error)}"
        ) from error


def _check_plain(name: str, loaded: Any) -> None:
    import torch

    if not isinstance(loaded, dict) or not loaded or not all(isinstance(key, str) for key in loaded):
        raise InvalidAdaptorError(f"{name} holds no dictionary of tensors by name")
    for key, value in loaded.items():
        plain = isinstance(value, torch.Tensor) and value.layout is torch.strided and value.device.type == "cpu"
        if not plain or value.is_quantized or value.is_nested or value.dtype not in _dtypes():
            what = f"{value.dtype} on {value.device}" if isinstance(value, torch.Tensor) else type(value).__name__
            raise InvalidAdaptorError(f"{name}: {key[:100]!r} is no tensor of weights: {what}")
    # A tensor whose strides are 0 says to be larger than its file: no value is looked at before this.
    size = sum(value.numel() * value.element_size() for value in loaded.values())
    if size > _MOST_BYTES:
        raise InvalidAdaptorError(f"{name}: its tensors say to hold {size:,} bytes, more than {_MOST_BYTES:,}")


def _dtypes() -> set[Any]:
    import torch

    return {torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32}
