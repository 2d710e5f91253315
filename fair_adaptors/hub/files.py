"""Which files of an adaptor go to the Hub and come from it, and whether they are the same there."""

import hashlib
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fair_adaptors.adaptor.record import (
    CARD_FILE,
    CONFIG_FILE,
    DIRECTIONS_FILE,
    EVAL_RESULTS_FILE,
    RESULTS_FILE,
    TOKENS_FILE,
    WEIGHTS_FILE,
)

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling


MOST_BYTES = 2_000_000_000
"""An adaptor that claims to be larger is neither sent nor fetched."""

Wanted = Literal["needed", "description", "everything"]
"""Of an adaptor: what loading it needs, what tells of it without weights, or both and pictures and other formats."""

_EXTRA = re.compile(r"images/\w[\w.-]{0,99}\.(png|jpg|jpeg|webp)|\w[\w.-]{0,99}_kohya\.safetensors", re.ASCII)


def is_part(path: str, wanted: Wanted = "everything") -> bool:
    """Tell whether a file of a repository is part of an adaptor; only such files are sent and fetched."""
    if wanted == "everything" and (_EXTRA.fullmatch(path) or path == EVAL_RESULTS_FILE):
        return True
    weights, words = (WEIGHTS_FILE, TOKENS_FILE, DIRECTIONS_FILE), (CARD_FILE, RESULTS_FILE)
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
