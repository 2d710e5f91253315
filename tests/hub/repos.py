"""Git repositories laid out as a Hub's: large files as LFS pointers, their bytes under ``.git/lfs/objects``."""

import hashlib
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d+)\n")
_ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.png filter=lfs diff=lfs merge=lfs -text\n"
_ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}


class StaleParentError(Exception):
    """The branch is not at the parent that a commit names."""


@dataclass(frozen=True)
class Blob:
    """A file of a commit. Of a large file, size and sha256 are those of its bytes, not of its pointer."""

    path: str
    oid: str
    size: int
    sha256: str | None
    pointer_size: int

    def sibling(self) -> dict[str, Any]:
        """Return what a Hub tells of the file in its answer about the repository."""
        lfs = {"lfs": {"sha256": self.sha256, "size": self.size, "pointerSize": self.pointer_size}}
        return {"rfilename": self.path, "blobId": self.oid, "size": self.size, **(lfs if self.sha256 else {})}


@dataclass
class Repository:
    """One model repository, public unless told otherwise."""

    path: Path
    repo_id: str
    private: bool = False
    gated: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def create(cls, root: Path, repo_id: str, *, private: bool = False) -> "Repository":
        """Make the repository with the commit that a Hub's begins with."""
        path = root / "models" / repo_id
        path.mkdir(parents=True)
        repository = cls(path, repo_id, private)
        repository.git("init", "--quiet", "--initial-branch=main")
        repository.commit("main", "initial commit", files={".gitattributes": _ATTRIBUTES})
        return repository

    def git(self, *arguments: str, content: bytes | None = None) -> bytes:
        """Run git here and return what it prints."""
        ran = subprocess.run(
            ["git", *arguments], cwd=self.path, input=content, capture_output=True, env=_ENVIRONMENT, check=False
        )
        if ran.returncode:
            raise LookupError(ran.stderr.decode(errors="replace").strip())
        return ran.stdout

    def commit_of(self, revision: str) -> str | None:
        """Return the commit of a branch, tag or commit; None if there is none."""
        try:
            return (
                self.git("rev-parse", "--verify", "--quiet", "--end-of-options", revision + "^{commit}")
                .decode()
                .strip()
            )
        except LookupError:
            return None

    def history(self, revision: str = "main") -> list[str]:
        """Return the commits of a branch, latest first."""
        return self.git("rev-list", revision).decode().split()

    def files(self, commit: str) -> dict[str, Blob]:
        """Return all files of a commit by path."""
        return {blob.path: blob for blob in self._files(commit)}

    def _files(self, commit: str) -> Iterator[Blob]:
        for row in self.git("ls-tree", "-r", "-l", "-z", commit).split(b"\0")[:-1]:
            meta, path = row.split(b"\t", 1)
            _, _, oid, size = meta.split()
            pointer = _POINTER.fullmatch(self.blob(oid.decode())) if int(size) < 200 else None
            real = int(pointer[2]) if pointer else int(size)
            sha256 = pointer[1].decode() if pointer else None
            yield Blob(path.decode(), oid.decode(), real, sha256, int(size))

    def blob(self, oid: str) -> bytes:
        """Return the bytes that git has."""
        return self.git("cat-file", "blob", oid)

    def read(self, blob: Blob) -> bytes:
        """Return the bytes of a file, of a large one those behind its pointer."""
        return self.large(blob.sha256).read_bytes() if blob.sha256 else self.blob(blob.oid)

    def large(self, sha256: str) -> Path:
        """Return where the bytes of a large file are."""
        return self.path / ".git" / "lfs" / "objects" / sha256[:2] / sha256[2:4] / sha256

    def store(self, sha256: str, data: bytes) -> None:
        """Keep the bytes of a large file."""
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError("these bytes have another sha256")
        path = self.large(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(f".{threading.get_ident()}")
        aside.write_bytes(data)
        aside.replace(path)

    def commit(
        self,
        branch: str,
        message: str,
        *,
        files: dict[str, bytes],
        deleted: tuple[str, ...] = (),
        parent: str | None = None,
    ) -> str:
        """Add one commit to a branch, if it is still at the parent; all of it or nothing.

        Raises:
            StaleParentError: it is not.
        """
        with self.lock:
            head = self.commit_of(f"refs/heads/{branch}")
            if parent is not None and parent != head:
                raise StaleParentError(f"{branch} is at {head}")
            text = message.encode()
            stream = [f"commit refs/heads/{branch}\n".encode()]
            stream.append(b"committer hub <hub@localhost> 1700000000 +0000\ndata %d\n%s\n" % (len(text), text))
            stream += [f"from {head}\n".encode()] if head else []
            stream += [f'D "{path}"\n'.encode() for path in deleted]
            for path, data in files.items():
                stream.append(f'M 100644 inline "{path}"\ndata {len(data)}\n'.encode() + data + b"\n")
            self.git("fast-import", "--quiet", content=b"".join(stream))
            commit = self.commit_of(f"refs/heads/{branch}")
            assert commit is not None
            return commit

    def refs(self, kind: str) -> dict[str, str]:
        """Return branches (``heads``) or ``tags`` with their commits."""
        lines = self.git("for-each-ref", "--format=%(refname) %(objectname)", f"refs/{kind}").decode().splitlines()
        return {name.removeprefix(f"refs/{kind}/"): commit for name, commit in map(str.split, lines)}

    def info(self, commit: str, *, blobs: bool = False) -> dict[str, Any]:
        """Return what a Hub tells of a model at a commit, with the tags that it makes of the card.

        Args:
            blobs: also the sizes and hashes of its files.
        """
        files = self.files(commit)
        card = front_matter(self.read(files["README.md"]).decode()) if "README.md" in files else {}
        base, relation = card.get("base_model"), card.get("base_model_relation", "adapter")
        tags = [*card.get("tags", []), *[card[key] for key in ("library_name", "pipeline_tag") if key in card]]
        tags += [f"base_model:{base}", f"base_model:{relation}:{base}"] if base else []
        return {
            "_id": self.repo_id,
            "id": self.repo_id,
            "modelId": self.repo_id,
            "author": self.repo_id.split("/")[0],
            "sha": commit,
            "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "private": self.private,
            "gated": "manual" if self.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": tags,
            "cardData": card,
            "siblings": [blob.sibling() if blobs else {"rfilename": path} for path, blob in files.items()],
        }


def pointer(sha256: str, size: int) -> bytes:
    """Return what git keeps of a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def front_matter(text: str) -> dict[str, Any]:
    """Return the metadata of a card.

    Raises:
        ValueError: it is not YAML, or no mapping.
    """
    found = re.match(r"---\r?\n(.*?)\r?\n---(\r?\n|$)", text, re.DOTALL)
    try:
        data = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError as error:
        raise ValueError(f"bad YAML: {error}") from error
    if not isinstance(data, dict):
        raise ValueError("the metadata is not a mapping")
    return data
