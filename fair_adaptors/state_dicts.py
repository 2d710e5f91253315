"""Weights from other people, read without running anything: safetensors, files of torch.save, and zips of them.

Sizes are looked at before memory is taken, and nothing is unpacked to disk. A pickle is read by
``torch.load(weights_only=True)`` alone.
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

from fair_adaptors.adaptor.record import CONFIG_FILE, is_text, some
from fair_adaptors.errors import InvalidAdaptorError

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


def read_state_dicts(source: Path, folder: str | None = None) -> tuple[list[StateDict], list[str]]:
    """Read the files of weights of a source: one file, a folder, or a zip.

    Args:
        folder: take only what lies in this folder of it, whatever lies around that.

    Returns:
        The files, and the names of those left out because their exponential moving average (``_EMA``) is there too.

    Raises:
        InvalidAdaptorError: not there, too large, damaged, or anything but plain tensors.
    """
    files = _files_of(source)
    if folder is not None:
        files = _inside(files, PurePosixPath(folder), source)
    paths = {name: PurePosixPath(name) for name in files}
    # Names with a dot in front are those of the Finder's notes.
    names = [name for name, path in paths.items() if path.suffix.lower() in _SUFFIXES and path.name[0] != "."]
    if not names:
        raise InvalidAdaptorError(f"{source} has no file of weights: none ends with {', '.join(_SUFFIXES)}")
    if odd := [name for name in names if not is_text(name)]:
        raise InvalidAdaptorError(f"{source} has a file whose name cannot be shown: {some(odd)}. Rename it")
    averages = {name: str(path.with_name(path.stem + _AVERAGED + path.suffix)) for name, path in paths.items()}
    left_out = [name for name in names if averages[name] in names]
    found, size = [], 0
    for name in names:
        if name not in left_out:
            data = files[name]()
            file = StateDict(name, hashlib.sha256(data).hexdigest(), *_parse(name, data, files))
            size += _size_of(file.tensors)
            if size > _MOST_BYTES:
                raise InvalidAdaptorError(f"{source} holds {size:,} bytes of weights, more than {_MOST_BYTES:,}")
            found.append(file)
    return found, left_out


def _files_of(source: Path) -> _Files:
    """Return the files of a source by name; each is read when it is called."""
    if source.is_dir():
        if (source / CONFIG_FILE).is_file():
            raise InvalidAdaptorError(f"{source} is already an adaptor of this package: use load_fair_adaptor")
        paths = list(islice(source.rglob("*"), _MOST_FILES + 1))
        if len(paths) > _MOST_FILES:
            raise InvalidAdaptorError(f"{source} has more than {_MOST_FILES:,} files; give the checkpoint's folder")
        paths = sorted(path for path in paths if path.is_file())
        return {path.relative_to(source).as_posix(): partial(_read_file, path) for path in paths}
    if not source.is_file():
        raise InvalidAdaptorError(f"there is no file or folder {source}")
    data = _read_file(source)
    archive = _open_zip(data, str(source)) if _is_zip(data) else None
    if archive and not any(map(_is_pickle_of_torch, archive.infolist())):
        return {member.filename: partial(_read_member, archive, member) for member in archive.infolist()}
    config = source.with_name(PEFT_CONFIG)
    return {source.name: lambda: data} | ({config.name: partial(_read_file, config)} if config.is_file() else {})


def _inside(files: _Files, folder: PurePosixPath, source: Path) -> _Files:
    folders = {str(parent) for name in files if (parent := PurePosixPath(name).parent).parts[:1] != ("__MACOSX",)}
    wanted = [name for name in sorted(folders) if PurePosixPath(name).parts[-len(folder.parts) :] == folder.parts]
    if len(wanted) != 1:
        raise InvalidAdaptorError(
            f"{source} should have one folder {folder}, and has {len(wanted)}. Its folders: {some(folders)}"
        )
    return {name: read for name, read in files.items() if str(PurePosixPath(name).parent) == wanted[0]}


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


def _is_zip(data: bytes) -> bool:
    return data[:2] == b"PK" and data[8:9] != b"{"  # or it is the length of a safetensors header


def _open_zip(data: bytes, name: str) -> zipfile.ZipFile:
    """Open a zip whose members may all be read: plain names, and no more bytes than allowed."""
    bounded = _Bounded(data)
    try:
        archive = zipfile.ZipFile(bounded)
    except Exception as error:  # a damaged zip makes zipfile raise nearly anything
        raise InvalidAdaptorError(f"{name} is a damaged zip: {_said(error)}. Download or copy it again") from error
    bounded.most = None
    members = archive.infolist()
    size = sum(member.file_size for member in members)
    problem = next((problem for member in members if (problem := problem_of(member))), None)
    if len(members) > _MOST_FILES:
        problem = f"it has {len(members):,} members, more than {_MOST_FILES:,}"
    elif len({member.filename for member in members}) < len(members):
        problem = "two of its members have one name"
    elif size > _MOST_BYTES:
        problem = f"unpacked it would have {size:,} bytes, more than {_MOST_BYTES:,}"
    if problem:
        raise InvalidAdaptorError(f"{name} is refused: {problem}. Nothing was unpacked")
    return archive


def problem_of(member: zipfile.ZipInfo) -> str | None:
    """Say why a member of a zip may not be read: a name that leads elsewhere, a link, a size nobody can know."""
    name, path = member.filename, PurePosixPath(member.filename)
    if not is_text(name) or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        return f"the member {name[:100]!r} has a name that leads elsewhere"
    if stat.S_ISLNK(member.external_attr >> 16):
        return f"the member {name!r} is a link"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others inflate without a bound
        return f"the member {name!r} is compressed by a method that is not read"
    if _is_pickle_of_torch(member) and member.file_size > _MOST_TEXT_BYTES:
        return f"its pickle has {member.file_size:,} bytes"
    return None


def _is_pickle_of_torch(member: zipfile.ZipInfo) -> bool:
    return PurePosixPath(member.filename).name == "data.pkl"


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    try:
        with archive.open(member) as file:
            return file.read(member.file_size)  # not read(): that inflates whatever is there, before it looks
    except Exception as error:  # damage makes zipfile and its decompressor raise nearly anything
        raise InvalidAdaptorError(
            f"the member {member.filename!r} is damaged: {_said(error)}. Download or copy the zip again"
        ) from error


def _parse(name: str, data: bytes, files: _Files) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    settings: dict[str, Any] = {}
    if _is_zip(data):
        loaded = _load_torch(name, data)
    else:
        loaded, metadata = _load_safetensors(name, data)
        if DIFFUSERS_METADATA in metadata:
            settings = _json(metadata[DIFFUSERS_METADATA], f"{name}: {DIFFUSERS_METADATA}")
    beside = str(PurePosixPath(name).with_name(PEFT_CONFIG))
    if PurePosixPath(name).stem == "adapter_model" and beside in files:
        settings = _json(files[beside](), beside)
    return _plain(name, loaded), settings


def _json(text: str | bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text) if len(text) < _MOST_TEXT_BYTES else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidAdaptorError(f"{where} is not a JSON object, or too long")
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
    """Read a file of torch.save from a copy of its archive: torch's own reader of zips may see others in it."""
    import torch

    archive, clean = _open_zip(data, name), io.BytesIO()
    with zipfile.ZipFile(clean, "w") as copy:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:  # or a small file would unpack into any number of bytes
                raise InvalidAdaptorError(f"{name} is refused: it has compressed records; torch.save writes none")
            copy.writestr(member.filename, _read_member(archive, member))
    clean.seek(0)
    try:
        return torch.load(clean, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile pickle makes torch raise nearly anything
        raise InvalidAdaptorError(
            f"{name} is refused: it is not a plain dictionary of tensors, and a pickle could run code: {_said(error)}"
        ) from error


def _plain(name: str, loaded: Any) -> "dict[str, Tensor]":
    import torch

    dtypes = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32)
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(key, str) for key in loaded):
        raise InvalidAdaptorError(f"{name} holds no dictionary of tensors by name")
    for key, value in loaded.items():
        if not isinstance(value, torch.Tensor):
            raise InvalidAdaptorError(f"{name}: {key[:100]!r} is not a tensor of weights: {type(value).__name__}")
        strided = value.layout is torch.strided and not value.is_nested
        if not strided or value.device.type != "cpu" or value.dtype not in dtypes:
            what = f"{value.dtype} on {value.device}, {value.layout}"
            raise InvalidAdaptorError(f"{name}: {key[:100]!r} is not a tensor of weights: {what}")
    return {key: value.detach() for key, value in loaded.items()}


def _size_of(tensors: "dict[str, Tensor]") -> int:
    """Return the bytes in memory, or as many as the tensors say to hold: with strides of 0 that is far more."""
    storages = [tensor.untyped_storage() for tensor in tensors.values()]
    said = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    return max(said, sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values()))


def _said(error: Exception) -> str:
    """Return what an error says, so that it can be printed: it may quote the file."""
    text = " ".join(str(error).split())
    return "".join(letter for letter in text if letter.isprintable())[:200]
