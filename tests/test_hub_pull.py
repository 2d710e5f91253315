"""A pull is the very files of one commit, from the Hub or the cache, or an error that says what to do."""

import shutil
import time
from pathlib import Path

import pytest

from fair_adaptors import load_fair_adaptor
from fair_adaptors.adaptor import registry
from fair_adaptors.adaptor.record import CARD_FILE, CONFIG_FILE, RESULTS_FILE, WEIGHTS_FILE
from fair_adaptors.adaptor.registry import AdaptorInfo, find
from fair_adaptors.errors import ConfigError, HubError, HubUnreachableError, InvalidAdaptorError, UnknownAdaptorError
from fair_adaptors.hub import pull, push, search
from fair_adaptors.hub.download import download
from fair_adaptors.hub.resolve import resolve
from fair_adaptors.sandbox.pipeline import load_sandbox_pipeline
from tests.hub.connection import Hub
from tests.hub.fixtures import ADAPTOR, ANN, BOB, NOWHERE, contents, retitle
from tests.hub.repos import Blob, pointer
from tests.tiny import tiny_pipeline

BODIES = {"get", "head", "large"}
"""Requests for a file."""
SIZE = (ADAPTOR / WEIGHTS_FILE).stat().st_size


@pytest.mark.parametrize("name", ["../x", "a b", "x" * 5000, "/etc", "a\0b", "x..y"])
def test_a_revision_that_git_allows_nowhere_is_refused(name: str) -> None:
    with pytest.raises(UnknownAdaptorError, match="can have this name"):
        pull("ann/x", revision=name, endpoint=NOWHERE)


def test_gated_says_where_to_ask(hub: Hub, tmp_path: Path) -> None:
    push(ADAPTOR, "ann/gated", token=ANN, endpoint=hub.url)
    hub.repositories["ann/gated"].gated = True
    for token, have in ((False, "log in"), (BOB, "give another token")):
        with pytest.raises(HubError, match=f"it is gated. Ask for access on its page at {hub.url}, then {have}"):
            pull("ann/gated", cache_dir=tmp_path, token=token, endpoint=hub.url)
    hub.admitted.add("bob")
    assert pull("ann/gated", cache_dir=tmp_path, token=BOB, endpoint=hub.url).is_dir()


def test_a_revision_or_repository_that_is_not_there(hub: Hub, tmp_path: Path) -> None:
    push(ADAPTOR, "ann/there", token=ANN, endpoint=hub.url)
    with pytest.raises(UnknownAdaptorError, match="'ann/there' at revision 'v9': there is no such revision"):
        pull("ann/there", revision="v9", cache_dir=tmp_path, endpoint=hub.url)
    with pytest.raises(UnknownAdaptorError, match="none of that name"):
        pull("ann/nowhere", cache_dir=tmp_path, endpoint=hub.url)
    assert not list(tmp_path.rglob("blobs"))


def test_offline_a_cache_with_only_a_part_is_said_to_be_so(hub: Hub, tmp_path: Path) -> None:
    push(ADAPTOR, "ann/part", token=ANN, endpoint=hub.url)
    (pull("ann/part", cache_dir=tmp_path, endpoint=hub.url) / CONFIG_FILE).unlink()
    with pytest.raises(InvalidAdaptorError, match="only a part of it is in the cache"):
        download("ann/part", cache_dir=tmp_path, local_files_only=True)


def test_a_cache_that_cannot_keep_a_branch_s_commit_serves_all_the_same(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    push(ADAPTOR, "ann/kept", token=ANN, endpoint=hub.url)
    folder = pull("ann/kept", cache_dir=tmp_path, endpoint=hub.url)
    shutil.rmtree(folder.parents[1] / "refs")
    (folder.parents[1] / "refs").touch()
    assert pull("ann/kept", cache_dir=tmp_path, endpoint=hub.url) == folder
    assert "main cannot be kept in the cache" in caplog.text


def test_the_cache_serves_when_the_hub_does_not_and_says_so(
    hub: Hub, sandbox_copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fair_adaptors.hub.client.PATIENCE", 1.5)
    old = push(sandbox_copy, "ann/cached", token=ANN, endpoint=hub.url).commit
    folder = resolve("ann/cached", cache_dir=tmp_path, endpoint=hub.url)
    assert resolve("ann/cached", cache_dir=tmp_path, endpoint=NOWHERE) == folder
    assert f"Using the copy in the cache, of commit {old[:12]}" in caplog.text
    assert resolve("ann/cached", cache_dir=tmp_path, local_files_only=True) == folder
    hub.log.clear()
    assert resolve("ann/cached", revision=old, cache_dir=tmp_path, endpoint=hub.url) == folder and not hub.log
    with pytest.raises(HubUnreachableError, match="did not answer as it should"):
        resolve("ann/cached", revision="v2", cache_dir=tmp_path, endpoint=NOWHERE)
    new = push(retitle(sandbox_copy, "new"), "ann/cached", token=ANN, endpoint=hub.url).commit
    assert resolve("ann/cached", cache_dir=tmp_path, endpoint=hub.url).name == new


def test_a_file_that_rotted_in_the_cache_is_refused_and_a_pull_mends_it(hub: Hub, tmp_path: Path) -> None:
    push(ADAPTOR, "ann/rotten", token=ANN, endpoint=hub.url)
    folder = pull("ann/rotten", cache_dir=tmp_path, endpoint=hub.url)
    blob = (folder / WEIGHTS_FILE).resolve()
    data = blob.read_bytes()
    blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(InvalidAdaptorError, match="sha256 differs"):
        load_fair_adaptor(tiny_pipeline(), folder)
    for _ in range(2):
        assert contents(pull("ann/rotten", cache_dir=tmp_path, endpoint=hub.url)) == contents(ADAPTOR)
        (folder / CARD_FILE).resolve().write_text("other words")


def test_only_an_adaptors_files_are_fetched_and_only_if_they_are_small_enough(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(ADAPTOR, "ann/stuffed", token=ANN, endpoint=hub.url)
    foreign = {"model.py": b"evil", "weights.bin": b"pickle", "images/x.svg": b"<svg/>", "images/a/b.png": b"deep"}
    hub.repositories["ann/stuffed"].commit("main", "stuff", files=foreign)
    folder = pull("ann/stuffed", cache_dir=tmp_path / "a", endpoint=hub.url)
    assert contents(folder) == contents(ADAPTOR)
    needed = {WEIGHTS_FILE, CONFIG_FILE}
    assert set(contents(download("ann/stuffed", cache_dir=tmp_path / "b", endpoint=hub.url))) == needed
    monkeypatch.setattr("fair_adaptors.hub.download.MOST_BYTES", 1_000)
    hub.log.clear()
    with pytest.raises(InvalidAdaptorError, match="Nothing was downloaded"):
        pull("ann/stuffed", cache_dir=tmp_path / "c", endpoint=hub.url)
    assert not BODIES & set(hub.requests("ann/stuffed"))


def test_what_tells_of_an_adaptor_comes_without_its_weights(
    hub: Hub, sandbox_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = push(sandbox_copy, "ann/told", token=ANN, endpoint=hub.url).commit
    loaded = resolve("ann/told", cache_dir=tmp_path, endpoint=hub.url)
    push(retitle(sandbox_copy, "new"), "ann/told", token=ANN, endpoint=hub.url)
    folder = resolve("ann/told", cache_dir=tmp_path, endpoint=hub.url, wanted="description")
    assert (
        set(contents(folder)) == {CARD_FILE, CONFIG_FILE, RESULTS_FILE}
        and "new" in (folder / RESULTS_FILE).read_text()
    )
    whole_now = resolve("ann/told", revision=folder.name, cache_dir=tmp_path, endpoint=hub.url)
    assert whole_now == folder and (folder / WEIGHTS_FILE).is_file()
    # What can be loaded offline is still there.
    assert resolve("ann/told", cache_dir=tmp_path, local_files_only=True) == loaded and loaded.name == whole
    load_fair_adaptor(load_sandbox_pipeline(), "ann/told", cache_dir=tmp_path, local_files_only=True).unload()
    hub.repositories["ann/told"].commit("main", "long", files={CARD_FILE: b"x" * 13_000_000})
    hub.log.clear()
    with pytest.raises(InvalidAdaptorError, match="Nothing was downloaded"):
        resolve("ann/told", cache_dir=tmp_path, endpoint=hub.url, wanted="description")
    assert not BODIES & set(hub.requests("ann/told"))


def test_a_name_of_the_table_is_only_what_the_table_says(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever gets hold of a published repository cannot put other weights under a known name."""
    commit = push(ADAPTOR, "org/pinned", token=ANN, endpoint=hub.url).commit
    for sha256, refused in ((find("sandbox-gender").sha256, False), ("0" * 64, True)):
        row = AdaptorInfo("fair", "", ("gender",), "sandbox", "published", (), "org/pinned", commit, sha256)
        monkeypatch.setattr(registry, "_BY_NAME", {"fair": row})
        for get in (resolve, pull):
            if refused:
                with pytest.raises(InvalidAdaptorError, match="is not the adaptor 'fair' that this package knows"):
                    get("fair", cache_dir=tmp_path, endpoint=hub.url)
                assert get("fair", revision=commit, cache_dir=tmp_path, endpoint=hub.url).name == commit, "asked for"
            else:
                assert get("fair", cache_dir=tmp_path, endpoint=hub.url).name == commit


def test_a_repository_of_something_else_is_no_adaptor(hub: Hub, tmp_path: Path) -> None:
    push(ADAPTOR, "ann/lora", token=ANN, endpoint=hub.url)
    hub.repositories["ann/lora"].commit("main", "another kind", files={}, deleted=(CONFIG_FILE,))
    with pytest.raises(InvalidAdaptorError, match="'ann/lora' has no fair_adaptor.json"):
        pull("ann/lora", cache_dir=tmp_path, endpoint=hub.url)


def test_a_folder_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work").touch()
    with pytest.raises(ConfigError, match="exists already"):
        pull("ann/any", out=tmp_path / "mine", endpoint=NOWHERE)
    assert contents(pull("sandbox-gender", out=tmp_path / "copy")) == contents(ADAPTOR)


def test_search_finds_by_base_attribute_and_owner_across_pages(hub: Hub, tmp_path: Path) -> None:
    tone = ADAPTOR.with_name("sandbox-gender-tone")
    hub.tokens["hf_carolsecret"] = "carol"
    push(tone, "carol/tone", token="hf_carolsecret", endpoint=hub.url)
    push(ADAPTOR, "carol/private", private=True, token="hf_carolsecret", endpoint=hub.url)
    for i in range(5):
        push(ADAPTOR, f"carol/a{i}", token="hf_carolsecret", endpoint=hub.url)
    hub.repositories["carol/a0"].commit("main", "broken", files={CONFIG_FILE: b"{}"})
    long = (ADAPTOR / CONFIG_FILE).read_bytes() + b" " * 4_000_000
    hub.repositories["carol/a1"].commit("main", "long", files={CONFIG_FILE: long})

    def found(**settings: str) -> set[str]:
        rows = search(cache_dir=tmp_path, endpoint=hub.url, token=False, namespace="carol", **settings)
        return {row.repo_id for row in rows}

    assert found() == {"carol/tone", *(f"carol/a{i}" for i in range(2, 5))}
    assert all(path.stat().st_size < 4_000_000 for path in tmp_path.rglob("blobs/*"))
    assert found(attribute="tone") == {"carol/tone"} == found(attribute="tone", base="sandbox")
    assert found(base="other") == set()
    assert len(search(limit=3, namespace="ann", cache_dir=tmp_path, endpoint=hub.url)) <= 3


def test_a_mirror_that_tells_only_the_names_of_the_files_is_read_as_carefully(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Blob, "sibling", lambda self: {"rfilename": self.path})
    push(ADAPTOR, "ann/names", token=ANN, endpoint=hub.url)
    folder = pull("ann/names", cache_dir=tmp_path, endpoint=hub.url)
    assert contents(folder) == contents(ADAPTOR)
    (folder / WEIGHTS_FILE).resolve().write_bytes(bytes(SIZE))
    assert contents(pull("ann/names", cache_dir=tmp_path, endpoint=hub.url)) == contents(ADAPTOR)
    hub.repositories["ann/names"].commit("main", "huge", files={WEIGHTS_FILE: pointer("a" * 64, 50_000_000_000)})
    hub.log.clear()
    with pytest.raises(InvalidAdaptorError, match="50,00.* bytes; an adaptor has at most .*Nothing was downloaded"):
        pull("ann/names", cache_dir=tmp_path, endpoint=hub.url)
    assert not {"get", "large", "tree"} & set(hub.requests("ann/names"))


def refused(hub: Hub, repo_id: str, cache: Path, message: str) -> None:
    """Nothing brings it here, and no byte of a file is asked for."""
    hub.log.clear()
    for get in (pull, resolve, download):
        with pytest.raises(InvalidAdaptorError, match=message):
            get(repo_id, cache_dir=cache, endpoint=hub.url)  # type: ignore[operator]
    assert not BODIES & set(hub.requests(repo_id)) and not list(cache.rglob("blobs"))


def test_a_repository_of_50_gigabytes_is_refused_before_a_byte_of_them(hub: Hub, tmp_path: Path) -> None:
    push(ADAPTOR, "ann/huge", token=ANN, endpoint=hub.url)
    hub.repositories["ann/huge"].commit("main", "huge", files={WEIGHTS_FILE: pointer("a" * 64, 50_000_000_000)})
    refused(hub, "ann/huge", tmp_path, "50,00.* bytes; an adaptor has at most .*Nothing was downloaded")


def test_a_repository_of_too_many_pictures_is_refused_before_a_byte_of_them(hub: Hub, tmp_path: Path) -> None:
    push(ADAPTOR, "ann/album", token=ANN, endpoint=hub.url)
    pictures = {f"images/{i}.png": pointer(f"{i:064x}", 9) for i in range(250)}
    hub.repositories["ann/album"].commit("main", "album", files=pictures)
    hub.log.clear()
    with pytest.raises(InvalidAdaptorError, match="255 files of .*Nothing was downloaded"):
        pull("ann/album", cache_dir=tmp_path, endpoint=hub.url)
    assert not BODIES & set(hub.requests("ann/album"))


@pytest.mark.parametrize("lie", ["the pointer", "the answer"])
def test_of_a_file_no_byte_is_kept_beyond_its_size(hub: Hub, tmp_path: Path, lie: str) -> None:
    repo_id = f"ann/lie-{lie.split()[1]}"
    push(ADAPTOR, repo_id, token=ANN, endpoint=hub.url)
    repository = hub.repositories[repo_id]
    if lie == "the pointer":
        sha256 = str(repository.files("main")[WEIGHTS_FILE].sha256)
        repository.commit("main", "small", files={WEIGHTS_FILE: pointer(sha256, SIZE // 2)})
    else:
        hub.faults.add(repo_id, "large", "endless")
    hub.log.clear()
    with pytest.raises(HubError, match="sends more than the .* bytes of its size"):
        download(repo_id, cache_dir=tmp_path, endpoint=hub.url)
    assert not list(tmp_path.rglob("*.incomplete")) and not list(tmp_path.rglob(WEIGHTS_FILE))
    if lie == "the answer":
        end = time.monotonic() + 10
        while "gave up" not in hub.requests(repo_id):  # the server learns of it a little later
            assert time.monotonic() < end
            time.sleep(0.01)


def test_a_cache_that_cannot_be_written_is_named(hub: Hub, tmp_path: Path) -> None:
    push(ADAPTOR, "ann/nocache", token=ANN, endpoint=hub.url)
    (tmp_path / "file").touch()
    with pytest.raises(HubError, match="/file/.* cannot be written: .*HF_HOME or cache_dir"):
        pull("ann/nocache", cache_dir=tmp_path / "file", endpoint=hub.url)


@pytest.mark.parametrize("name", ["./adaptor", "adaptor", "./adaptor/README.md"])
def test_what_is_on_this_machine_need_not_be_pulled(
    sandbox_copy: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(sandbox_copy.parent)
    with pytest.raises(UnknownAdaptorError, match="is a folder on this machine: give it to load_fair_adaptor"):
        pull(name, endpoint=NOWHERE)


def test_what_is_on_this_machine_has_no_revisions(sandbox_copy: Path) -> None:
    for get, name in ((pull, "sandbox-gender"), (resolve, "sandbox-gender"), (resolve, str(sandbox_copy))):
        with pytest.raises(UnknownAdaptorError, match="has no revisions; leave out 'v1'"):
            get(name, revision="v1")  # type: ignore[operator]
