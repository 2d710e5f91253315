"""Where files go: the cache's folder, and writing aside, so that what has a new name is complete or absent."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import ConfigError

CACHE = "FAIR_ADAPTORS_CACHE"
"""Environment variable: the folder of this package's cache, in place of ``~/.cache/fair-adaptors``."""
FILE_ENDINGS = frozenset(
    (
        ".bin .ckpt .csv .gguf .gif .gz .htm .html .jpeg .jpg .json .jsonl .md .npz .onnx .pdf .pickle .pkl .png .pt"
        " .pth .safetensors .svg .tar .txt .webp .yaml .yml .zip"
    ).split()
)
"""What only files end in: whoever asks for a folder of such a name expects something else."""
_PLACE = re.compile(r"[^:+,=@]*[/\\~][^:+,=@]*")
"""A path, with or without words around it that colons, commas and the like set apart."""


def cache_folder() -> Path:
    """Return the folder for what this package fetches from elsewhere than the Hub, and makes of it."""
    named = os.environ.get(CACHE) or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "fair-adaptors")
    return Path(named).expanduser()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a place to write a file to, which takes the place of ``path`` when the block ends well."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    yield aside
    os.replace(aside, path)


@contextmanager
def written_aside(out: Path) -> Iterator[Path]:
    """Give a path to write a file or folder to, and move it to ``out`` when the block ends well.

    Raises:
        ConfigError: ``out`` exists and is not an empty folder, which is never overwritten; or it cannot be written.
    """
    refuse_existing(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = tempfile.TemporaryDirectory(dir=out.parent, prefix=".writing-")
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}; name another place") from error
    with beside as folder:
        aside = Path(folder) / out.name
        yield aside
        refuse_existing(out)
        if out.is_dir():
            out.rmdir()
        os.replace(aside, out)


def check_writable(folder: Path) -> None:
    """Make sure that a folder can be made and written into, before the work whose results go there. None is made yet.

    Raises:
        ConfigError: it cannot, or it has the name of a file.
    """
    if folder.is_file() or (folder.suffix.lower() in FILE_ENDINGS and not folder.is_dir()):
        is_one = "is" if folder.is_file() else "looks like"
        raise ConfigError(f"`out` must be the name of a folder, but {folder} {is_one} a file")
    try:
        there = next(one for one in (folder, *folder.parents) if one.exists())
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise ConfigError(f"nothing can be written to {folder} ({error.strerror}); name another `out`") from error


def public_name(text: str) -> str:
    """Return what others may read of a place: of a file or folder of this machine its name, as nobody else finds it.

    Words may stand around it, as in ``mobilenet:FOLDER+clip:ORG/NAME``.
    """
    return _PLACE.sub(lambda found: _name_of(found[0]), text)


def without_places(value: Any) -> Any:
    """Return what JSON may hold with every text in it as ``public_name`` has it."""
    if isinstance(value, dict):
        return {key: without_places(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(without_places, value))
    return public_name(value) if isinstance(value, str) else value


def _name_of(place: str) -> str:
    if place.startswith("//"):  # an address on the web, without what stands before its colon
        return place
    path = Path(place).expanduser()
    return Path(os.path.abspath(path)).name if path.is_absolute() or place[0] in ".~" or path.exists() else place


def check_writable_file(out: Path, *endings: str) -> None:
    """Make sure that a file can be written, before the work whose result it is, and that it is called what it is.

    Raises:
        ConfigError: it cannot, it ends in none of ``endings``, or it is a folder.
    """
    if out.suffix.lower() not in endings:
        known = " or ".join(endings).replace(" or ", ", ", len(endings) - 2)
        raise ConfigError(f"`out` must end in {known} (got {out})")
    if out.is_dir():
        raise ConfigError(f"`out` must be the name of a file, but {out} is a folder")
    check_writable(out.parent)


def refuse_existing(out: Path) -> None:
    """Refuse a path that holds something already.

    Raises:
        ConfigError: it does.
    """
    if not out.name:
        raise ConfigError(f"{str(out)!r} is not the name of a file or folder")
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise ConfigError(f"{out} exists already and will not be overwritten; choose another name or delete it first")
