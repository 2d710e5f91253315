"""Which files of an adaptor go to the Hub and come from it, and whether they are the same there."""

import hashlib
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fair_adaptors.adaptor.folder import read_adaptor
from fair_adaptors.adaptor.record import CARD_FILE, CONFIG_FILE, RESULTS_FILE, TOKENS_FILE, WEIGHTS_FILE
from fair_adaptors.adaptor.results_file import read_results
from fair_adaptors.errors import InvalidAdaptorError
from fair_adaptors.report.card import card_of

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling


MOST_BYTES = 2_000_000_000
"""An adaptor that claims to be larger is neither sent nor fetched."""

Wanted = Literal["needed", "description", "everything"]
"""Of an adaptor: what loading it needs, what tells of it without weights, or both and pictures and other formats."""

_EXTRA = re.compile(r"images/\w[\w.-]{0,99}\.(png|jpg|jpeg|webp)|\w[\w.-]{0,99}_kohya\.safetensors", re.ASCII)


def is_part(path: str, wanted: Wanted = "everything") -> bool:
    """Tell whether a file of a repository is part of an adaptor; only such files are sent and fetched."""
    if wanted == "everything" and _EXTRA.fullmatch(path):
        return True
    weights, words = (WEIGHTS_FILE, TOKENS_FILE), (CARD_FILE, RESULTS_FILE)
    left_out = {"needed": words, "description": weights, "everything": ()}[wanted]
    return path in (CONFIG_FILE, *weights, *words) and path not in left_out


def has_bytes_of(file: Path | bytes, remote: "RepoSibling") -> bool:
    """Tell whether a file has the bytes that a commit names by hash: git's own, or a large file's sha256."""
    size = len(file) if isinstance(file, bytes) else file.stat().st_size
    if size != remote.size:
        return False
    digest = hashlib.sha256() if remote.lfs is not None else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with io.BytesIO(file) if isinstance(file, bytes) else file.open("rb") as opened:
        while chunk := opened.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == (remote.lfs.sha256 if remote.lfs is not None else remote.blob_id)


def files_to_publish(folder: Path, repo_id: str) -> dict[str, Path | bytes]:
    """Return the files to publish of a folder, which is checked first, by path; the card is made if there is none."""
    if not folder.is_dir():
        what = "is a file; give the folder that it is in" if folder.is_file() else "is not there"
        raise InvalidAdaptorError(f"{str(folder)!r} {what}; `fair-adaptors train` and `convert` make such folders")
    config = read_adaptor(folder).config
    paths = [path for path in (*folder.iterdir(), *(folder / "images").glob("*")) if path.is_file()]
    files: dict[str, Path | bytes] = {path.relative_to(folder).as_posix(): path for path in paths}
    files = {
        name: path
        for name, path in files.items()
        if is_part(name) and (name in config["files"] or not _is_weight(name))
    }
    for name, path in files.items():
        _check_readable(name, Path(str(path)))
    size = sum(path.stat().st_size for path in files.values() if isinstance(path, Path))
    if size > MOST_BYTES:
        raise InvalidAdaptorError(f"{folder} has {size / 1e9:.1f} GB; more than {MOST_BYTES / 1e9:g} GB is not loaded")
    if CARD_FILE not in files:
        files[CARD_FILE] = card_of(folder, repo_id=repo_id).encode()
    return files


def _check_readable(name: str, path: Path) -> None:
    """Refuse a companion of the weights that nobody could read."""
    from safetensors import SafetensorError, safe_open

    try:
        if name == RESULTS_FILE:
            read_results(path.parent)
        elif name == CARD_FILE:
            path.read_text(encoding="utf-8")
        elif name.endswith(".safetensors"):
            with safe_open(path, "pt"):
                pass
    except (ValueError, SafetensorError) as error:
        raise InvalidAdaptorError(f"{path} cannot be read: {error}. Write it again, or take it away") from error


def _is_weight(name: str) -> bool:
    return name.endswith(".safetensors") and not name.endswith("_kohya.safetensors")
