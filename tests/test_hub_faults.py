"""Whatever goes wrong on the way ends well or with an error of ours, and the cache holds only what was published."""

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import pytest

from fair_adaptors.adaptor.folder import read_adaptor
from fair_adaptors.adaptor.record import CONFIG_FILE, WEIGHTS_FILE
from fair_adaptors.errors import FairAdaptorError, UnknownAdaptorError
from fair_adaptors.hub import pull, push
from fair_adaptors.hub.download import download
from tests.hub.connection import Hub
from tests.hub.faults import Kind
from tests.hub.fixtures import ADAPTOR, ANN

FOREVER = 1_000


@dataclass(frozen=True)
class Case:
    """One fault: the ``times`` first requests of a name go wrong."""

    action: str
    request: str
    kind: Kind
    times: int

    def __str__(self) -> str:
        return f"{self.action}-{self.request}-{self.kind}-{'always' if self.times == FOREVER else self.times}"

    @property
    def repo_id(self) -> str:
        return "ann/" + str(self).replace(" ", "-")

    @property
    def passes(self) -> bool:
        """Of an upload that somebody else says has arrived, nobody learns before the commit is refused."""
        return self.times == 1 and (self.request, self.kind) != ("put", "garbage")


ONCE: dict[tuple[str, str], tuple[Kind, ...]] = {
    ("pull", "info"): ("503", "429", "hang", "drop", "truncated", "garbage"),
    ("pull", "head"): ("500", "drop", "garbage"),
    ("pull", "get"): ("cut", "wrong bytes", "truncated", "garbage"),
    ("pull", "large"): ("502", "429", "hang", "drop", "cut", "stall", "wrong bytes", "truncated", "garbage"),
    ("push", "info"): ("502", "hang"),
    ("push", "create"): ("drop", "lost"),
    ("push", "refs"): ("garbage",),
    ("push", "yaml"): ("429",),
    ("push", "preupload"): ("502", "hang"),
    ("push", "batch"): ("drop",),
    ("push", "put"): ("502", "lost", "garbage", "hang"),
    ("push", "commit"): ("502", "429", "lost", "hang"),
    ("push", "tag"): ("garbage", "lost"),
}
ALWAYS: dict[tuple[str, str], tuple[Kind, ...]] = {
    ("pull", "info"): ("503",),
    ("pull", "large"): ("cut", "500", "wrong bytes"),
    ("push", "info"): ("drop",),
    ("push", "put"): ("500",),
    ("push", "commit"): ("hang",),
}
CASES = [
    Case(*request, kind, times)
    for times, table in ((1, ONCE), (FOREVER, ALWAYS))
    for request, kinds in table.items()
    for kind in kinds
]


@dataclass
class Outcome:
    """How it ended, and what is in the cache or on the Hub."""

    error: Exception | None
    folder: Path | None
    cache: Path


@pytest.fixture(scope="module")
def outcomes(hub: Hub, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """Runs all cases side by side, because they spend their time waiting.

    They end before the first test: between two tests pytest sets up its filters of warnings anew, for all threads, and
    for a moment a library's warning would be an error.
    """
    small = Path(shutil.copytree(ADAPTOR, tmp_path_factory.mktemp("small") / "adaptor"))
    shutil.rmtree(small / "images")
    caches = tmp_path_factory.mktemp("caches")

    def run(case: Case) -> Outcome:
        repo_id, cache, folder, error = case.repo_id, caches / str(case), None, None
        if case.action == "pull":
            push(small, repo_id, token=ANN, endpoint=hub.url)
        hub.faults.add(None if case.request == "yaml" else repo_id, case.request, case.kind, times=case.times)
        try:
            if case.action == "pull":
                folder = pull(repo_id, cache_dir=cache, endpoint=hub.url)
            else:
                push(small, repo_id, token=ANN, endpoint=hub.url, tag="v1")
        except Exception as raised:
            error = raised
        return Outcome(error, folder, cache)

    with ThreadPoolExecutor(24) as pool:
        found = {case: pool.submit(run, case) for case in CASES}
        wait(found.values(), timeout=300)
        yield found
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_fault_passes_or_is_a_clear_error(case: Case, hub: Hub, outcomes: dict[Case, Future[Outcome]]) -> None:
    outcome = outcomes[case].result(0)
    repo_id = case.repo_id
    if case.passes:
        assert outcome.error is None
    else:
        assert isinstance(outcome.error, FairAdaptorError) and repo_id in str(outcome.error)
        assert "\n" not in str(outcome.error) and len(str(outcome.error)) < 500
    repository = hub.repositories.get(repo_id)
    published = repository.files("main") if repository else {}
    if case.action == "push":
        assert len(repository.history() if repository else [""]) == (2 if case.passes else 1)
        assert (CONFIG_FILE in published) == case.passes
    blobs = [path for path in outcome.cache.rglob("blobs/*") if path.suffix != ".incomplete"]
    known = {blob.sha256 or blob.oid: repository.read(blob) for blob in published.values()} if repository else {}
    assert all(path.read_bytes() == known[path.name] for path in blobs)
    if outcome.folder:
        read_adaptor(outcome.folder)
        assert {path.name for path in outcome.folder.iterdir()} == set(published) - {".gitattributes"}
    elif case.action == "pull":
        with pytest.raises(UnknownAdaptorError, match="not in the cache"):
            download(case.repo_id, cache_dir=outcome.cache, local_files_only=True)
        hub.faults.clear(case.repo_id)
        read_adaptor(pull(case.repo_id, cache_dir=outcome.cache, endpoint=hub.url))


def test_a_pull_that_is_killed_leaves_nothing_that_is_used(hub: Hub, tmp_path: Path) -> None:
    push(ADAPTOR, "ann/killed", token=ANN, endpoint=hub.url)
    hub.faults.add("ann/killed", "large", "stall")
    command = f"from fair_adaptors.hub import pull; pull('ann/killed', cache_dir={str(tmp_path)!r})"
    settings = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    with subprocess.Popen([sys.executable, "-c", command], env={**os.environ, **settings}) as process:
        while "large" not in hub.requests("ann/killed"):
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    with pytest.raises(UnknownAdaptorError, match="not in the cache"):
        download("ann/killed", cache_dir=tmp_path, local_files_only=True)
    folder = pull("ann/killed", cache_dir=tmp_path, endpoint=hub.url)
    assert (folder / WEIGHTS_FILE).read_bytes() == (ADAPTOR / WEIGHTS_FILE).read_bytes()
