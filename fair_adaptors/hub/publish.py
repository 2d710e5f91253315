"""Publish adaptors on the Hub."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fair_adaptors.adaptor.folder import read_adaptor
from fair_adaptors.adaptor.record import CARD_FILE, CONFIG_FILE, EVAL_RESULTS_FILE, RESULTS_FILE, read_record
from fair_adaptors.adaptor.results_file import read_results
from fair_adaptors.convert.exporting import kohya_file
from fair_adaptors.errors import HubError, InvalidAdaptorError, UnknownAdaptorError
from fair_adaptors.report.card import card_of, is_for_others
from fair_adaptors.report.eval_results import eval_results

from .client import ask, check_repo_id, connect, look_up
from .errors import status_of
from .files import MOST_BYTES, has_bytes_of, is_part
from .load_check import load_on_trial

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoSibling

_T = TypeVar("_T")
_REF = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)


@dataclass(frozen=True)
class PushResult:
    """What a push did.

    Attributes:
        commit: the commit that has the adaptor.
        changed: whether this push made that commit. False if the repository had the same files already.
        files: the adaptor's files on the Hub.
        tried_on: the base into which the adaptor was loaded as a check. None if its base is not on this machine.
    """

    repo_id: str
    url: str
    commit: str
    changed: bool
    files: tuple[str, ...]
    tag: str | None = None
    tried_on: str | None = None


def push(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    tag: str | None = None,
    benchmark: str | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
) -> PushResult:
    """Publish an adaptor folder as one commit of a Hub repository. The repository is created if it does not exist.

    The files are checked first, and the adaptor is loaded into its base if that is on this machine. If there is no
    card yet, one is written, and so is a kohya file for ComfyUI and A1111. The commit replaces an earlier adaptor in
    the repository and leaves other files as they are. It is refused if somebody else pushes in the meantime. Pushing
    the same files again changes nothing.

    Args:
        folder: the adaptor's folder.
        repo_id: the repository, as ``ORG/NAME``.
        private: make a new repository private. A repository that is public already is refused.
        revision: the branch to push to, created if it does not exist. ``main`` by default.
        tag: a name for the commit, such as ``v1``.
        benchmark: a benchmark data set on the Hub that should list the results; see ``eval_results``.
        token: as for ``huggingface_hub.HfApi``. It is neither printed nor stored.
        endpoint: another server than huggingface.co.

    Raises:
        InvalidAdaptorError: the folder holds no adaptor that can be loaded, or the results of another one.
        WrongBaseError: the adaptor does not fit the base that it names.
        HubError: no access, no answer, somebody else was first, or the tag is taken.
    """
    check_repo_id(repo_id)
    for option, name in (("revision", revision), ("tag", tag)):
        if name is not None and (not _REF.fullmatch(name) or ".." in name or re.fullmatch("[0-9a-f]{40}", name)):
            kind = "tag" if option == "tag" else "branch"
            raise HubError(f"{option} {name!r} cannot be the name of a {kind}; use letters, digits and '.-_/'")
    files = files_to_publish(Path(folder), repo_id, benchmark)
    tried_on = load_on_trial(Path(folder))
    target = _Target(connect(endpoint, token), repo_id, revision or "main")
    try:  # a repository that was renamed is found by its old name, and must not be made a second time under it
        look_up(target.api, repo_id, what=target.what)
    except UnknownAdaptorError:
        target.ask(lambda api: api.create_repo(repo_id, private=private, exist_ok=True))
    if private and not look_up(target.api, repo_id, what=target.what).private:
        raise HubError(
            f"{target.what}: the repository is public already. Make it private on its page, or push without `private`"
        )
    if revision is not None:
        target.ask(lambda api: api.create_branch(repo_id, branch=revision, exist_ok=True))
    head, remote = target.state()
    same = _is_same(files, remote)
    taken = _commit_of_tag(target, tag) if tag else None
    if taken and not (same and taken == head):
        raise HubError(
            f"{target.what}: the tag {tag!r} is already at commit {taken[:12]}; choose another. Nothing was pushed"
        )
    commit = head if same else _commit(target, files, remote, parent=head)
    if tag and not taken:
        target.ask(lambda api: _tag(target, tag, commit))
    url = f"{target.api.endpoint}/{repo_id}"
    return PushResult(repo_id, url, commit, not same, tuple(sorted(files)), tag, tried_on)


def check(folder: str | Path, repo_id: str, *, benchmark: str | None = None) -> tuple[dict[str, int], str | None]:
    """Check a folder as ``push`` does, and ask nobody.

    Returns:
        The files that would be published, with their bytes; and the base into which the adaptor was loaded, None if
        its base is not on this machine.

    Raises:
        InvalidAdaptorError, WrongBaseError: as ``push``.
        HubError: ``repo_id`` cannot be the name of a repository.
    """
    check_repo_id(repo_id)
    files = files_to_publish(Path(folder), repo_id, benchmark)
    sizes = {name: len(file) if isinstance(file, bytes) else file.stat().st_size for name, file in files.items()}
    return sizes, load_on_trial(Path(folder))


@dataclass(frozen=True)
class _Target:
    """A branch of a repository."""

    api: "HfApi"
    repo_id: str
    branch: str

    @property
    def what(self) -> str:
        return f"push to {self.repo_id!r}"

    def ask(self, call: Callable[["HfApi"], _T]) -> _T:
        return ask(self.api, self.what, lambda: call(self.api))

    def state(self) -> "tuple[str, dict[str, RepoSibling]]":
        """Return the commit that the branch is at, and the adaptor's files in it."""
        info = look_up(self.api, self.repo_id, self.branch, what=self.what)
        return str(info.sha), {file.rfilename: file for file in info.siblings or () if is_part(file.rfilename)}


def _is_same(files: dict[str, Path | bytes], remote: dict[str, "RepoSibling"]) -> bool:
    """Tell whether a commit has the very files that are to be published."""
    return files.keys() == remote.keys() and all(has_bytes_of(files[name], remote[name]) for name in files)


def _commit(target: _Target, files: dict[str, Path | bytes], remote: dict[str, "RepoSibling"], *, parent: str) -> str:
    """Make the one commit on top of the head that was seen; large files that the Hub has already are not sent."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    def attempt(api: "HfApi") -> str | None:
        adds = [CommitOperationAdd(name, file) for name, file in sorted(files.items())]
        deletes = [CommitOperationDelete(name) for name in sorted(remote.keys() - files.keys())]
        try:
            return api.create_commit(
                target.repo_id,
                [*adds, *deletes],
                commit_message="Publish adaptor",
                revision=target.branch,
                parent_commit=parent,
            ).oid
        except Exception as error:
            if status_of(error) == 412:
                return None
            raise

    commit = target.ask(attempt)
    if commit is None:  # somebody was first: we ourselves, if the answer to an earlier attempt was lost
        commit, remote = target.state()
        if not _is_same(files, remote):
            raise HubError(
                f"{target.what}: somebody else pushed to {target.branch!r} meanwhile (commit {commit[:12]})."
                " Nothing of yours was published; look at what is there, then push again"
            )
    return commit


def _commit_of_tag(target: _Target, tag: str) -> str | None:
    refs = target.ask(lambda api: api.list_repo_refs(target.repo_id))
    return next((str(ref.target_commit) for ref in refs.tags if ref.name == tag), None)


def _tag(target: _Target, tag: str, commit: str) -> None:
    try:
        target.api.create_tag(target.repo_id, tag=tag, revision=commit)
    except Exception as error:
        if status_of(error) != 409:
            raise
        where = _commit_of_tag(target, tag)  # ours, if the answer to an earlier attempt was lost
        if where != commit:
            raise HubError(
                f"the adaptor is at {target.repo_id}, commit {commit[:12]}, but somebody else put the tag {tag!r} at"
                f" {str(where)[:12]}; choose another and push again"
            ) from error


def files_to_publish(folder: Path, repo_id: str, benchmark: str | None = None) -> dict[str, Path | bytes]:
    """Return the files to publish of a folder, which is checked first, by path.

    The card and kohya's file are made if there are none, and the results for a benchmark if one is named. Adaptors
    with soft tokens and those of an embedded base have no file of kohya's: no other program could use it.
    """
    if not folder.is_dir():
        what = "is a file; give the folder that it is in" if folder.is_file() else "is not there"
        raise InvalidAdaptorError(f"{str(folder)!r} {what}; `fair-adaptors train` and `convert` make such folders")
    found = read_adaptor(folder)
    record = found.record
    paths = [path for path in (*folder.iterdir(), *(folder / "images").glob("*")) if path.is_file()]
    files: dict[str, Path | bytes] = {path.relative_to(folder).as_posix(): path for path in paths}
    files = {
        name: path for name, path in files.items() if is_part(name) and (name in record.files or not _is_weight(name))
    }
    for name, path in files.items():
        _check_readable(name, Path(str(path)))
    if record.public() != record:  # an earlier version wrote where its base lay
        files[CONFIG_FILE] = record.public().text().encode()
    if is_for_others(record) and not any(name.endswith("_kohya.safetensors") for name in files):
        name, data = kohya_file(found)
        files[name] = data
    size = sum(len(file) if isinstance(file, bytes) else file.stat().st_size for file in files.values())
    if size > MOST_BYTES:
        raise InvalidAdaptorError(f"{folder} has {size / 1e9:.1f} GB; more than {MOST_BYTES / 1e9:g} GB is not loaded")
    if benchmark is not None:
        files[EVAL_RESULTS_FILE] = _for_benchmark(folder, benchmark)
    if CARD_FILE not in files:
        files[CARD_FILE] = card_of(folder, repo_id=repo_id).encode()
    return files


def _for_benchmark(folder: Path, benchmark: str) -> bytes:
    check_repo_id(benchmark)
    results = read_results(folder)
    if results is None:
        raise InvalidAdaptorError(f"{folder} has no {RESULTS_FILE} for the benchmark {benchmark!r}. Evaluate it first")
    return eval_results(read_record(folder), results, benchmark).encode()


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
        raise InvalidAdaptorError(f"{path} cannot be read: {error}. Write it again, or delete it") from error


def _is_weight(name: str) -> bool:
    return name.endswith(".safetensors") and not name.endswith("_kohya.safetensors")
