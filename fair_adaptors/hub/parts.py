"""The parts of the authors' data.zip: which there are, and each as a file of its own, unpacked once into the cache."""

import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TypeVar

from fair_adaptors.adaptor.archives import DATA
from fair_adaptors.errors import ArchiveError, ConfigError, did_you_mean
from fair_adaptors.files import replacing

from .archive import archive_path, fetch_archive

KIND = "authors"
"""What a word begins with that names such a part, as in ``authors:gender-race``."""


@dataclass(frozen=True)
class Part:
    """A file of the archive.

    Attributes:
        member: its path there, below the top folder ``data/``.
        what: what it is, a few words.
    """

    member: str
    what: str


_T = TypeVar("_T", bound=Part)


def find_part(table: Mapping[str, _T], name: str, *, of: str) -> _T:
    """Return a row of a table of parts by its name.

    Args:
        of: what the table has, for the message, such as ``classifier``.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in table:
        raise ConfigError(
            f"the authors have no {of} {name!r}.{did_you_mean(name, table)} Known: "
            + ", ".join(f"{KIND}:{known}" for known in table)
        )
    return table[name]


def is_here() -> bool:
    """Tell whether the archive is in the cache, so that a part of it costs no download."""
    return archive_path(DATA).is_file()


def unpacked(part: Part) -> Path:
    """Return a part as a file in the cache. The archive is fetched if it is not there yet.

    Raises:
        ArchiveError: the archive cannot be had, or has no such member.
    """
    place = archive_path(DATA)
    archive = _whole(place, place.stat().st_mtime_ns if place.is_file() else 0)
    with zipfile.ZipFile(archive) as opened:
        member = _member(opened, part.member)
        path = archive.with_name(f"{DATA.name}-parts") / f"{member.CRC:08x}" / PurePosixPath(part.member).name
        if not path.is_file():  # a name that it only gets when it is whole
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as aside, opened.open(member) as packed, aside.open("wb") as file:
                shutil.copyfileobj(packed, file)
    return path


@lru_cache(maxsize=1)
def _whole(place: Path, changed: int) -> Path:
    """Return the archive, whose bytes are compared with its sha256 once, until it changes: they are many."""
    return fetch_archive(DATA)


def _member(archive: zipfile.ZipFile, wanted: str) -> zipfile.ZipInfo:
    """Return the member of a path below the top folder, whatever that is called."""
    found = [one for one in archive.infolist() if one.filename.partition("/")[2] == wanted]
    if len(found) != 1:
        raise ArchiveError(
            f"{archive.filename} has no {wanted} below its top folder, as the authors' {DATA.name} has."
            f" Fetch it again at {DATA.page}, and give it: fair-adaptors pull {DATA.name} --from FILE"
        )
    return found[0]
