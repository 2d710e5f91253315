"""What is pushed is what is pulled: by our server, by one that others wrote, and into the pipeline."""

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fair_adaptors import hub_cache, load_fair_adaptor, registry
from fair_adaptors.card import card_of
from fair_adaptors.cli_hub import push_trained
from fair_adaptors.errors import (
    HubError,
    HubUnreachableError,
    InvalidAdaptorError,
    UnknownAdaptorError,
    WrongBaseError,
)
from fair_adaptors.formats import CARD_FILE, CONFIG_FILE, RESULTS_FILE, WEIGHTS_FILE
from fair_adaptors.hub import pull, push
from fair_adaptors.hub_cache import download
from fair_adaptors.hub_search import search
from fair_adaptors.registry import AdaptorInfo, find
from fair_adaptors.sandbox.pipeline import load_sandbox_pipeline
from fair_adaptors.weights import resolve
from tests.hub.connection import Answer, Hub
from tests.hub.fixtures import ADAPTOR, ANN, BOB, adaptor, hub, mirror, online  # noqa: F401
from tests.tiny import tiny_pipeline, write_tiny_adaptor

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub, to httpx

NOWHERE = "http://127.0.0.1:9"  # nobody listens
DRAW = """
import sys, hashlib, torch
from fair_adaptors import load_fair_adaptor
from fair_adaptors.sandbox.pipeline import load_sandbox_pipeline
pipe = load_sandbox_pipeline()
load_fair_adaptor(pipe, sys.argv[1])
image = pipe("a nurse", num_inference_steps=3, generator=torch.Generator().manual_seed(0), output_type="np").images
print(hashlib.sha256(image.tobytes()).hexdigest())
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def retitle(folder: Path, title: str) -> Path:
    (folder / RESULTS_FILE).write_text(json.dumps({"title": title}))
    return folder


def rename_base(folder: Path, base: str) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(config | {"base_model": base}))


def drawn(name: str, home: Path, endpoint: str) -> str:
    """Draw in a fresh process, and tell the image's hash."""
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", DRAW, name]
    ran = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()[-1]


def test_a_pushed_adaptor_is_pulled_as_it_was_by_both_servers(hub: Hub, mirror: str, tmp_path: Path) -> None:  # noqa: F811
    result = push(ADAPTOR, "org/round", tag="v1", token=ANN, endpoint=hub.url)
    assert result.changed and result.url == f"{hub.url}/org/round"
    for name, endpoint in (("own", hub.url), ("olah", mirror)):
        for revision in (None, "v1", result.commit):
            cache, out = tmp_path / name / str(revision), tmp_path / name / f"out-{revision}"
            assert pull("org/round", out=out, revision=revision, cache_dir=cache, endpoint=endpoint) == out
            assert contents(out) == contents(ADAPTOR)


def test_the_image_is_the_same_from_the_folder_and_from_the_mirror(hub: Hub, mirror: str, tmp_path: Path) -> None:  # noqa: F811
    push(ADAPTOR, "org/image", token=ANN, endpoint=hub.url)
    with ThreadPoolExecutor(2) as pool:
        from_hub = pool.submit(drawn, "org/image", tmp_path, mirror)
        from_folder = pool.submit(drawn, str(ADAPTOR), tmp_path, NOWHERE)
    assert from_hub.result() == from_folder.result()
    assert drawn("org/image", tmp_path, NOWHERE) == from_hub.result()  # from the cache, with nobody there


def test_git_itself_finds_the_repositories_whole(hub: Hub, adaptor: Path) -> None:  # noqa: F811
    for title in "ab":
        push(retitle(adaptor, title), "ann/whole", token=ANN, endpoint=hub.url)
    repository = hub.repositories["ann/whole"]
    repository.git("fsck", "--strict", "--full")
    assert len(repository.history()) == 3


def test_the_same_again_is_no_commit(hub: Hub) -> None:  # noqa: F811
    first = push(ADAPTOR, "ann/same", tag="v1", token=ANN, endpoint=hub.url)
    hub.log.clear()
    again = push(ADAPTOR, "ann/same", tag="v1", token=ANN, endpoint=hub.url)
    assert first.changed and not again.changed and again.commit == first.commit
    assert not {"commit", "batch", "put", "tag"} & set(hub.requests("ann/same"))


def test_a_push_leaves_what_is_no_adaptors_and_takes_away_what_was(hub: Hub, adaptor: Path) -> None:  # noqa: F811
    push(adaptor, "ann/other", token=ANN, endpoint=hub.url)
    hub.repositories["ann/other"].commit("main", "by hand", files={"LICENSE": b"mine", "code.py": b"evil"})
    shutil.rmtree(adaptor / "images")
    (adaptor / "checkpoints").mkdir()
    (adaptor / "checkpoints" / "state.pt").write_bytes(b"large")
    push(adaptor, "ann/other", token=ANN, endpoint=hub.url)
    published = {".gitattributes", "LICENSE", "code.py", CARD_FILE, CONFIG_FILE, RESULTS_FILE, WEIGHTS_FILE}
    assert set(hub.repositories["ann/other"].files("main")) == published


def test_what_the_hub_has_is_not_sent_again(hub: Hub, adaptor: Path) -> None:  # noqa: F811
    def refuse(repo_id: str) -> None:
        raise Answer(403, {"error": "not now"})

    with pytest.MonkeyPatch.context() as patch, pytest.raises(HubError, match="not now"):
        patch.setattr(hub, "before_commit", refuse)
        push(adaptor, "ann/resumed", token=ANN, endpoint=hub.url)
    assert hub.requests("ann/resumed").count("put") == 2
    assert push(adaptor, "ann/resumed", token=ANN, endpoint=hub.url).changed
    assert hub.requests("ann/resumed").count("put") == 2


def test_of_two_pushers_at_once_one_wins_and_the_other_learns_of_it(hub: Hub, tmp_path: Path) -> None:  # noqa: F811
    folders = [retitle(Path(shutil.copytree(ADAPTOR, tmp_path / who)), who) for who in ("ann", "bob")]
    push(ADAPTOR, "org/race", token=ANN, endpoint=hub.url)
    both = threading.Barrier(2, timeout=30)

    def attempt(folder: Path, token: str) -> Exception | None:
        try:
            push(folder, "org/race", token=token, endpoint=hub.url)
        except Exception as error:
            return error
        return None

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(hub, "before_commit", lambda repo_id: both.wait())
        errors = list(pool.map(attempt, folders, (ANN, BOB)))
    winner = errors.index(None)
    loser = errors[1 - winner]
    assert isinstance(loser, HubError) and "somebody else pushed to 'main' meanwhile" in str(loser)
    repository = hub.repositories["org/race"]
    files = repository.files("main")
    assert len(repository.history()) == 3
    assert repository.read(files[RESULTS_FILE]) == (folders[winner] / RESULTS_FILE).read_bytes()


def test_a_branch_and_a_tag(hub: Hub, adaptor: Path) -> None:  # noqa: F811
    main = push(adaptor, "ann/refs", tag="v1", token=ANN, endpoint=hub.url)
    trial = push(retitle(adaptor, "trial"), "ann/refs", revision="trial", token=ANN, endpoint=hub.url)
    repository = hub.repositories["ann/refs"]
    assert repository.refs("heads") == {"main": main.commit, "trial": trial.commit}
    with pytest.raises(HubError, match="'v1' is already at commit .*Nothing was pushed"):
        push(adaptor, "ann/refs", tag="v1", token=ANN, endpoint=hub.url)
    assert repository.commit_of("main") == main.commit


@pytest.mark.parametrize(
    "name", ["", "noowner", "a/b/c", "../up", "org/..", "org/x y", "org/x--y", "org/x.git", "ö/x"]
)
def test_a_name_that_no_hub_allows_is_refused_before_anybody_is_asked(name: str) -> None:
    with pytest.raises(UnknownAdaptorError):
        push(ADAPTOR, name, token=ANN, endpoint=NOWHERE)


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "a..b", "0" * 40, "x\n"])
def test_a_tag_or_branch_that_git_would_misread_is_refused(name: str) -> None:
    for settings in ({"tag": name}, {"revision": name}):
        with pytest.raises(HubError, match="cannot be the name"):
            push(ADAPTOR, "ann/x", token=ANN, endpoint=NOWHERE, **settings)


def test_a_folder_that_could_not_be_loaded_is_not_pushed(adaptor: Path) -> None:  # noqa: F811
    with (adaptor / WEIGHTS_FILE).open("ab") as file:
        file.write(b"x")
    with pytest.raises(InvalidAdaptorError, match="sha256 differs"):
        push(adaptor, "ann/x", token=ANN, endpoint=NOWHERE)


def test_an_adaptor_is_loaded_into_its_base_before_it_is_pushed_if_that_is_here(hub: Hub, tmp_path: Path) -> None:  # noqa: F811
    from huggingface_hub import constants

    assert push(ADAPTOR, "ann/tried", token=ANN, endpoint=hub.url).tried_on == "sandbox"
    pipe = tiny_pipeline()
    folder = write_tiny_adaptor(tmp_path / "tiny", pipe)
    assert push(folder, "ann/untried", token=ANN, endpoint=hub.url).tried_on is None
    repository = Path(constants.HF_HUB_CACHE) / "models--ann--base"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("1" * 40)
    pipe.save_pretrained(repository / "snapshots" / ("1" * 40))
    for base in (str(repository / "snapshots" / ("1" * 40)), "ann/base"):
        rename_base(folder, base)
        assert push(folder, "ann/untried", token=ANN, endpoint=hub.url).tried_on == base
    rename_base(folder, "sandbox")
    hub.log.clear()
    with pytest.raises(WrongBaseError, match="made for sandbox"):
        push(folder, "ann/untried", token=ANN, endpoint=hub.url)
    assert not hub.log


def test_results_of_other_weights_are_not_pushed(adaptor: Path) -> None:  # noqa: F811
    other = ADAPTOR.with_name("sandbox-gender-tone")
    shutil.copyfile(other / RESULTS_FILE, adaptor / RESULTS_FILE)
    with pytest.raises(InvalidAdaptorError, match="of other weights than those of 'sandbox-gender'"):
        push(adaptor, "ann/x", token=ANN, endpoint=NOWHERE)


@pytest.mark.parametrize("name", [CARD_FILE, RESULTS_FILE, "x_kohya.safetensors"])
def test_a_companion_that_nobody_could_read_is_not_pushed(adaptor: Path, name: str) -> None:  # noqa: F811
    (adaptor / name).write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(InvalidAdaptorError, match=f"{name} cannot be read"):
        push(adaptor, "ann/x", token=ANN, endpoint=NOWHERE)


@pytest.mark.parametrize("name", ["../x", "a b", "x" * 5000, "/etc", "a\0b", "x..y"])
def test_a_revision_that_git_allows_nowhere_is_refused(name: str) -> None:
    with pytest.raises(UnknownAdaptorError, match="can have this name"):
        pull("ann/x", revision=name, endpoint=NOWHERE)


def test_without_a_card_one_is_made_and_the_folder_is_left_alone(hub: Hub, adaptor: Path) -> None:  # noqa: F811
    (adaptor / CARD_FILE).unlink()
    push(adaptor, "ann/plain", token=ANN, endpoint=hub.url)
    assert not (adaptor / CARD_FILE).exists()
    info = hub.repositories["ann/plain"].info("main")
    assert info["cardData"]["base_model"] == "sandbox" and "base_model:adapter:sandbox" in info["tags"]
    made = card_of(adaptor, repo_id="ann/plain")
    assert pull("ann/plain", endpoint=hub.url).joinpath(CARD_FILE).read_text() == made and "ann/plain" in made
    assert not push(adaptor, "ann/plain", token=ANN, endpoint=hub.url).changed


def test_a_card_that_the_hub_refuses_is_an_error_with_its_reason(hub: Hub, adaptor: Path) -> None:  # noqa: F811
    (adaptor / CARD_FILE).write_text("---\nbase_model: [unclosed\n---\n")
    with pytest.raises(HubError, match="Invalid metadata in README.md"):
        push(adaptor, "ann/badcard", token=ANN, endpoint=hub.url)


def test_private_is_private_and_never_by_mistake_public(hub: Hub, tmp_path: Path) -> None:  # noqa: F811
    push(ADAPTOR, "ann/secret", private=True, token=ANN, endpoint=hub.url)
    assert hub.repositories["ann/secret"].private
    for token in (False, BOB):
        with pytest.raises(UnknownAdaptorError, match="none of that name, or it is private"):
            pull("ann/secret", cache_dir=tmp_path, token=token, endpoint=hub.url)
    assert pull("ann/secret", cache_dir=tmp_path, token=ANN, endpoint=hub.url).is_dir()
    push(ADAPTOR, "ann/open", token=ANN, endpoint=hub.url)
    with pytest.raises(HubError, match="public already"):
        push(ADAPTOR, "ann/open", private=True, token=ANN, endpoint=hub.url)


def test_gated_says_where_to_ask(hub: Hub, tmp_path: Path) -> None:  # noqa: F811
    push(ADAPTOR, "ann/gated", token=ANN, endpoint=hub.url)
    hub.repositories["ann/gated"].gated = True
    for token, have in ((False, "log in"), (BOB, "give another token")):
        with pytest.raises(HubError, match=f"it is gated. Ask for access on its page at {hub.url}, then {have}"):
            pull("ann/gated", cache_dir=tmp_path, token=token, endpoint=hub.url)
    hub.admitted.add("bob")
    assert pull("ann/gated", cache_dir=tmp_path, token=BOB, endpoint=hub.url).is_dir()


def test_who_may_not_push_is_told_why_and_the_token_is_shown_nowhere(
    hub: Hub,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def repeat(repo_id: str) -> None:
        raise Answer(403, {"error": f"the token {ANN} may not commit"})

    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(hub, "before_commit", repeat)
    shown = ""
    for token, repo_id, says in (
        ("hf_nobodyssecret", "ann/new", "does not accept the token"),
        (BOB, "ann/new", "may not do this"),
        (False, "ann/new", "does not accept the token|may not do this"),
        (ANN, "ann/new", "the token <token> may not commit"),
    ):
        with pytest.raises(HubError, match=says) as raised:
            push(ADAPTOR, repo_id, token=token, endpoint=hub.url)
        shown += str(raised.value) + "".join(traceback.format_exception(raised.value))
    shown += caplog.text
    assert not any(token in shown for token in (ANN, BOB, "hf_nobodyssecret"))


def test_a_server_without_xet_storage_says_what_to_set(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    with pytest.raises(HubError, match="has no Xet storage; set HF_HUB_DISABLE_XET=1"):
        push(ADAPTOR, "ann/xet", token=ANN, endpoint=hub.url)


def test_a_revision_or_repository_that_is_not_there(hub: Hub, tmp_path: Path) -> None:  # noqa: F811
    push(ADAPTOR, "ann/there", token=ANN, endpoint=hub.url)
    with pytest.raises(UnknownAdaptorError, match="'ann/there' at revision 'v9': there is no such revision"):
        pull("ann/there", revision="v9", cache_dir=tmp_path, endpoint=hub.url)
    with pytest.raises(UnknownAdaptorError, match="none of that name"):
        pull("ann/nowhere", cache_dir=tmp_path, endpoint=hub.url)
    assert not list(tmp_path.rglob("blobs"))


def test_the_cache_serves_when_the_hub_does_not_and_says_so(
    hub: Hub,  # noqa: F811
    adaptor: Path,  # noqa: F811
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fair_adaptors.hub_requests.PATIENCE", 1.5)
    old = push(adaptor, "ann/cached", token=ANN, endpoint=hub.url).commit
    folder = resolve("ann/cached", cache_dir=tmp_path, endpoint=hub.url)
    assert resolve("ann/cached", cache_dir=tmp_path, endpoint=NOWHERE) == folder
    assert f"Using the copy in the cache, of commit {old[:12]}" in caplog.text
    assert resolve("ann/cached", cache_dir=tmp_path, local_files_only=True) == folder
    hub.log.clear()
    assert resolve("ann/cached", revision=old, cache_dir=tmp_path, endpoint=hub.url) == folder and not hub.log
    with pytest.raises(HubUnreachableError, match="did not answer as it should"):
        resolve("ann/cached", revision="v2", cache_dir=tmp_path, endpoint=NOWHERE)
    new = push(retitle(adaptor, "new"), "ann/cached", token=ANN, endpoint=hub.url).commit
    assert resolve("ann/cached", cache_dir=tmp_path, endpoint=hub.url).name == new


def test_a_file_that_rotted_in_the_cache_is_refused_and_a_pull_mends_it(hub: Hub, tmp_path: Path) -> None:  # noqa: F811
    push(ADAPTOR, "ann/rotten", token=ANN, endpoint=hub.url)
    folder = pull("ann/rotten", cache_dir=tmp_path, endpoint=hub.url)
    blob = (folder / WEIGHTS_FILE).resolve()
    data = blob.read_bytes()
    blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(InvalidAdaptorError, match="sha256 differs"):
        load_fair_adaptor(tiny_pipeline(), folder)
    assert (pull("ann/rotten", cache_dir=tmp_path, endpoint=hub.url) / WEIGHTS_FILE).read_bytes() == data


def test_only_an_adaptors_files_are_fetched_and_only_if_they_are_small_enough(
    hub: Hub,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    push(ADAPTOR, "ann/stuffed", token=ANN, endpoint=hub.url)
    foreign = {"model.py": b"evil", "weights.bin": b"pickle", "images/x.svg": b"<svg/>", "images/a/b.png": b"deep"}
    hub.repositories["ann/stuffed"].commit("main", "stuff", files=foreign)
    folder = pull("ann/stuffed", cache_dir=tmp_path / "a", endpoint=hub.url)
    assert contents(folder) == contents(ADAPTOR)
    needed = {WEIGHTS_FILE, CONFIG_FILE}
    assert set(contents(download("ann/stuffed", cache_dir=tmp_path / "b", endpoint=hub.url))) == needed
    monkeypatch.setattr(hub_cache, "MOST_BYTES", 1_000)
    hub.log.clear()
    with pytest.raises(InvalidAdaptorError, match="Nothing was downloaded"):
        pull("ann/stuffed", cache_dir=tmp_path / "c", endpoint=hub.url)
    assert not {"get", "head", "large"} & set(hub.requests("ann/stuffed"))


def test_what_tells_of_an_adaptor_comes_without_its_weights(
    hub: Hub,  # noqa: F811
    adaptor: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = push(adaptor, "ann/told", token=ANN, endpoint=hub.url).commit
    loaded = resolve("ann/told", cache_dir=tmp_path, endpoint=hub.url)
    push(retitle(adaptor, "new"), "ann/told", token=ANN, endpoint=hub.url)
    folder = resolve("ann/told", cache_dir=tmp_path, endpoint=hub.url, wanted="description")
    assert (
        set(contents(folder)) == {CARD_FILE, CONFIG_FILE, RESULTS_FILE}
        and "new" in (folder / RESULTS_FILE).read_text()
    )
    # What can be loaded offline is still there.
    assert resolve("ann/told", cache_dir=tmp_path, local_files_only=True) == loaded and loaded.name == whole
    load_fair_adaptor(load_sandbox_pipeline(), "ann/told", cache_dir=tmp_path, local_files_only=True).unload()
    hub.repositories["ann/told"].commit("main", "long", files={CARD_FILE: b"x" * 13_000_000})
    hub.log.clear()
    with pytest.raises(InvalidAdaptorError, match="Nothing was downloaded"):
        resolve("ann/told", cache_dir=tmp_path, endpoint=hub.url, wanted="description")
    assert not {"get", "head", "large"} & set(hub.requests("ann/told"))


def test_a_name_of_the_table_is_only_what_the_table_says(
    hub: Hub,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
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
            else:
                assert get("fair", cache_dir=tmp_path, endpoint=hub.url).name == commit


def test_a_repository_of_something_else_is_no_adaptor(hub: Hub, tmp_path: Path) -> None:  # noqa: F811
    push(ADAPTOR, "ann/lora", token=ANN, endpoint=hub.url)
    hub.repositories["ann/lora"].commit("main", "another kind", files={}, deleted=(CONFIG_FILE,))
    with pytest.raises(InvalidAdaptorError, match="'ann/lora' has no fair_adaptor.json"):
        pull("ann/lora", cache_dir=tmp_path, endpoint=hub.url)


def test_a_folder_that_is_there_is_not_overwritten(hub: Hub, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work").touch()
    with pytest.raises(HubError, match="is there already"):
        pull("ann/any", out=tmp_path / "mine", endpoint=hub.url)
    assert contents(pull("sandbox-gender", out=tmp_path / "copy")) == contents(ADAPTOR)


def test_search_finds_by_base_attribute_and_owner_across_pages(hub: Hub, tmp_path: Path) -> None:  # noqa: F811
    tone = ADAPTOR.with_name("sandbox-gender-tone")
    hub.tokens["hf_carolsecret"] = "carol"
    push(tone, "carol/tone", token="hf_carolsecret", endpoint=hub.url)
    push(ADAPTOR, "carol/private", private=True, token="hf_carolsecret", endpoint=hub.url)
    for i in range(7):
        push(ADAPTOR, f"carol/a{i}", token="hf_carolsecret", endpoint=hub.url)
    hub.repositories["carol/a0"].commit("main", "broken", files={CONFIG_FILE: b"{}"})

    def found(**settings: str) -> set[str]:
        rows = search(cache_dir=tmp_path, endpoint=hub.url, token=False, namespace="carol", **settings)
        return {row.repo_id for row in rows}

    assert found() == {"carol/tone", *(f"carol/a{i}" for i in range(1, 7))}
    assert found(attribute="tone") == {"carol/tone"} == found(attribute="tone", base="sandbox")
    assert found(base="other") == set()
    assert len(search(limit=3, namespace="ann", cache_dir=tmp_path, endpoint=hub.url)) <= 3


def test_the_command_line(
    hub: Hub,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from fair_adaptors.cli import main

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["fair-adaptors", *arguments])
        try:
            main()
        except SystemExit as end:
            if end.code:
                return f"{end.code} {capsys.readouterr().err}"
        return capsys.readouterr().out

    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("HF_TOKEN", ANN)
    monkeypatch.setenv("COLUMNS", "160")
    out = tmp_path / "out"
    assert "5 files pushed" in (first := run("push", str(ADAPTOR), "ann/cli", "--tag", "v1"))
    assert "Checked before: its files; loaded into sandbox." in first
    told = run("info", "ann/cli", "--revision", "v1")
    assert "female 50%" in told and "Perceived attributes are not identity" in told and "models--ann--cli" in told
    assert 'load_fair_adaptor(pipe, "ann/cli", revision="v1")' in first
    assert "Nothing to push" in run("push", str(ADAPTOR), "ann/cli")
    assert run("pull", "ann/cli", "--revision", "v1", "--out", str(out)) == f"{out}\n"
    assert contents(out) == contents(ADAPTOR)
    assert "ann/cli" in run("search", "--attribute", "gender", "--namespace", "ann")
    assert run("search", "--base", "none such") == "No adaptor was found.\n"
    assert run("pull", "ann/cli", "--out", str(out)).startswith("1 fair-adaptors: ")
    assert "there is no folder" in run("push", str(tmp_path / "no"), "ann/cli")
    assert "write it as ORG/NAME" in run("push", str(ADAPTOR), "cli")
    assert "Did you mean 'sandbox-gender'" in run("pull", "sandbox-gendr")
    trained = tmp_path / "trained"
    quick = [
        word for text in ("iterations=1", "num_steps=2", "gradient_steps=1", "trackers=") for word in ("--set", text)
    ]
    said = run("train", "sandbox-gender", "--out", str(trained), *quick, "--push-to", "ann/trained")
    assert 'load_fair_adaptor(pipe, "ann/trained", revision=' in said
    assert run("pull", "ann/trained", "--out", str(tmp_path / "back")) == f"{tmp_path / 'back'}\n"
    assert (tmp_path / "back" / WEIGHTS_FILE).read_bytes() == (trained / WEIGHTS_FILE).read_bytes()
    assert "write it as ORG/NAME" in run("train", "sandbox-gender", "--push-to", "trained")
    monkeypatch.setenv("HF_TOKEN", "hf_wrongsecret")
    with pytest.raises(HubError, match=f"safe in {trained}; publish it with: fair-adaptors push"):
        push_trained(trained, "ann/trained")
    refused = run("push", str(ADAPTOR), "ann/cli")
    assert refused.startswith("1 fair-adaptors: push to 'ann/cli'") and "secret" not in refused
