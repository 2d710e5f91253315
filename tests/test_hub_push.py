"""A push is one commit of what was checked, or an error that says why nothing was published."""

import json
import logging
import shutil
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from fair_adaptors import load_fair_adaptor
from fair_adaptors.adaptor.bases import STABLE_DIFFUSION_1_5
from fair_adaptors.adaptor.record import (
    CARD_FILE,
    CONFIG_FILE,
    EVAL_RESULTS_FILE,
    RESULTS_FILE,
    TOKENS_FILE,
    WEIGHTS_FILE,
)
from fair_adaptors.errors import HubError, InvalidAdaptorError, UnknownAdaptorError, WrongBaseError
from fair_adaptors.hub import client, publish, pull, push
from fair_adaptors.hub.publish import files_to_publish
from fair_adaptors.report.card import card_of
from tests.hub.connection import Answer, Hub
from tests.hub.fixtures import ADAPTOR, ANN, BOB, NOWHERE, retitle
from tests.tiny import image, tiny_pipeline, write_tiny_adaptor


def rename_base(folder: Path, base: str) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(config | {"base_model": base}))


def test_the_same_again_is_no_commit(hub: Hub) -> None:
    first = push(ADAPTOR, "ann/same", tag="v1", token=ANN, endpoint=hub.url)
    hub.log.clear()
    again = push(ADAPTOR, "ann/same", tag="v1", token=ANN, endpoint=hub.url)
    assert first.changed and not again.changed and again.commit == first.commit
    assert not {"commit", "batch", "put", "tag"} & set(hub.requests("ann/same"))


def test_a_push_leaves_what_is_no_adaptors_and_takes_away_what_was(hub: Hub, sandbox_copy: Path) -> None:
    push(sandbox_copy, "ann/other", token=ANN, endpoint=hub.url)
    hub.repositories["ann/other"].commit("main", "by hand", files={"LICENSE": b"mine", "code.py": b"evil"})
    shutil.rmtree(sandbox_copy / "images")
    (sandbox_copy / "checkpoints").mkdir()
    (sandbox_copy / "checkpoints" / "state.pt").write_bytes(b"large")
    push(sandbox_copy, "ann/other", token=ANN, endpoint=hub.url)
    published = {".gitattributes", "LICENSE", "code.py", CARD_FILE, CONFIG_FILE, RESULTS_FILE, WEIGHTS_FILE}
    assert set(hub.repositories["ann/other"].files("main")) == published


def test_weights_that_the_record_does_not_name_are_not_published(sandbox_copy: Path) -> None:
    """Soft tokens that an earlier training left are loaded by nobody; a file for other programs is its own."""
    for name in (TOKENS_FILE, "x_kohya.safetensors"):
        shutil.copyfile(sandbox_copy / WEIGHTS_FILE, sandbox_copy / name)
    files = files_to_publish(sandbox_copy, "ann/x")
    assert TOKENS_FILE not in files and {WEIGHTS_FILE, "x_kohya.safetensors"} <= files.keys()


def test_a_benchmark_gets_the_figures_in_the_hubs_own_format(hub: Hub, sandbox_copy: Path) -> None:
    push(sandbox_copy, "ann/measured", benchmark="org/fair", token=ANN, endpoint=hub.url)
    repository = hub.repositories["ann/measured"]
    text = repository.read(repository.files("main")[EVAL_RESULTS_FILE]).decode()
    entries = parse_eval_result_entries(yaml.safe_load(text))
    card = {row.metric_name: row.metric_value for row in ModelCard(card_of(sandbox_copy)).data.eval_results}
    found = {one.task_id: one.value for one in entries}
    assert found == {name.replace(" ", "-"): value for name, value in card.items()}
    assert {one.dataset_id for one in entries} == {"org/fair"} and {"gender-bias", "tone-shift"} <= found.keys()
    assert all("floor 0." in one.notes and "; 16 prompts of sandbox-test, " in one.notes for one in entries)
    push(sandbox_copy, "ann/measured", token=ANN, endpoint=hub.url)
    assert EVAL_RESULTS_FILE not in repository.files("main")


def test_a_benchmark_needs_results_and_a_name(sandbox_copy: Path) -> None:
    with pytest.raises(UnknownAdaptorError, match="write it as ORG/NAME"):
        push(sandbox_copy, "ann/x", benchmark="fair", token=ANN, endpoint=NOWHERE)
    (sandbox_copy / RESULTS_FILE).unlink()
    with pytest.raises(InvalidAdaptorError, match="Evaluate it first"):
        push(sandbox_copy, "ann/x", benchmark="org/fair", token=ANN, endpoint=NOWHERE)


def test_what_the_hub_has_is_not_sent_again(hub: Hub, sandbox_copy: Path) -> None:
    def refuse(repo_id: str) -> None:
        raise Answer(403, {"error": "not now"})

    with pytest.MonkeyPatch.context() as patch, pytest.raises(HubError, match="not now"):
        patch.setattr(hub, "before_commit", refuse)
        push(sandbox_copy, "ann/resumed", token=ANN, endpoint=hub.url)
    assert hub.requests("ann/resumed").count("put") == 2
    assert push(sandbox_copy, "ann/resumed", token=ANN, endpoint=hub.url).changed
    assert hub.requests("ann/resumed").count("put") == 2


def test_of_two_pushers_at_once_one_wins_and_the_other_learns_of_it(hub: Hub, tmp_path: Path) -> None:
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


def test_a_branch_and_a_tag(hub: Hub, sandbox_copy: Path) -> None:
    main = push(sandbox_copy, "ann/refs", tag="v1", token=ANN, endpoint=hub.url)
    trial = push(retitle(sandbox_copy, "trial"), "ann/refs", revision="trial", token=ANN, endpoint=hub.url)
    repository = hub.repositories["ann/refs"]
    assert repository.refs("heads") == {"main": main.commit, "trial": trial.commit}
    with pytest.raises(HubError, match="'v1' is already at commit .*Nothing was pushed"):
        push(sandbox_copy, "ann/refs", tag="v1", token=ANN, endpoint=hub.url)
    assert repository.commit_of("main") == main.commit


def test_a_tag_that_somebody_else_puts_meanwhile_is_named_and_our_own_is_no_fault(
    hub: Hub, sandbox_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = push(sandbox_copy, "ann/tagged", tag="v1", token=ANN, endpoint=hub.url)
    look = publish._commit_of_tag

    def push_before_anybody_had_the_tag() -> None:
        looks = iter([None])
        monkeypatch.setattr(publish, "_commit_of_tag", lambda *asked: next(looks, look(*asked)))
        push(sandbox_copy, "ann/tagged", tag="v1", token=ANN, endpoint=hub.url)

    push_before_anybody_had_the_tag()
    retitle(sandbox_copy, "later")
    with pytest.raises(HubError, match=f"somebody else put the tag 'v1' at {first.commit[:12]}"):
        push_before_anybody_had_the_tag()
    assert hub.repositories["ann/tagged"].refs("tags") == {"v1": first.commit}


@pytest.mark.parametrize("name", ["", "noowner", "a/b/c", "../x", "org/..", "org/x y", "org/x--y", "org/x.git", "ö/x"])
def test_a_name_that_no_hub_allows_is_refused_before_anybody_is_asked(name: str) -> None:
    with pytest.raises(UnknownAdaptorError):
        push(ADAPTOR, name, token=ANN, endpoint=NOWHERE)


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "a..b", "0" * 40, "x\n"])
def test_a_tag_or_branch_that_git_would_misread_is_refused(name: str) -> None:
    for settings in ({"tag": name}, {"revision": name}):
        with pytest.raises(HubError, match="cannot be the name"):
            push(ADAPTOR, "ann/x", token=ANN, endpoint=NOWHERE, **settings)


def test_a_folder_that_could_not_be_loaded_is_not_pushed(sandbox_copy: Path) -> None:
    with (sandbox_copy / WEIGHTS_FILE).open("ab") as file:
        file.write(b"x")
    with pytest.raises(InvalidAdaptorError, match="sha256 differs"):
        push(sandbox_copy, "ann/x", token=ANN, endpoint=NOWHERE)


def test_an_adaptor_is_loaded_into_its_base_before_it_is_pushed_if_that_is_here(hub: Hub, tmp_path: Path) -> None:
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


def test_results_of_other_weights_are_not_pushed(sandbox_copy: Path) -> None:
    other = ADAPTOR.with_name("sandbox-gender-tone")
    shutil.copyfile(other / RESULTS_FILE, sandbox_copy / RESULTS_FILE)
    with pytest.raises(InvalidAdaptorError, match="belongs to other weights than those of 'sandbox-gender'"):
        push(sandbox_copy, "ann/x", token=ANN, endpoint=NOWHERE)


def test_more_than_anybody_would_fetch_is_not_pushed(adaptor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fair_adaptors.hub.publish.MOST_BYTES", 1_000)
    with pytest.raises(InvalidAdaptorError, match="is not loaded"):
        push(adaptor, "ann/x", token=ANN, endpoint=NOWHERE)


@pytest.mark.parametrize("name", [CARD_FILE, RESULTS_FILE, "x_kohya.safetensors"])
def test_a_companion_that_nobody_could_read_is_not_pushed(sandbox_copy: Path, name: str) -> None:
    (sandbox_copy / name).write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(InvalidAdaptorError, match=f"{name} cannot be read"):
        push(sandbox_copy, "ann/x", token=ANN, endpoint=NOWHERE)


def test_an_adaptor_of_a_published_base_goes_up_with_a_file_for_other_programs(hub: Hub, tmp_path: Path) -> None:
    pipe = tiny_pipeline()
    rename_base(write_tiny_adaptor(tmp_path / "tiny", pipe), STABLE_DIFFUSION_1_5)
    push(tmp_path / "tiny", "ann/comfy", token=ANN, endpoint=hub.url)
    folder = pull("ann/comfy", out=tmp_path / "out", endpoint=hub.url)
    assert "name ends in `_kohya.safetensors`" in (folder / CARD_FILE).read_text()

    with load_fair_adaptor(pipe, folder):
        expected = image(pipe)
    assert not torch.allclose(image(pipe), expected, atol=1e-2)
    pipe.load_lora_weights(folder, weight_name="tiny-1_kohya.safetensors")
    assert torch.allclose(image(pipe), expected, atol=1e-4)
    assert not push(tmp_path / "tiny", "ann/comfy", token=ANN, endpoint=hub.url).changed


def test_without_a_card_one_is_made_and_the_folder_is_left_alone(hub: Hub, sandbox_copy: Path) -> None:
    (sandbox_copy / CARD_FILE).unlink()
    push(sandbox_copy, "ann/plain", token=ANN, endpoint=hub.url)
    assert not (sandbox_copy / CARD_FILE).exists()
    info = hub.repositories["ann/plain"].info("main")
    assert info["cardData"]["base_model"] == "sandbox" and "base_model:adapter:sandbox" in info["tags"]
    made = card_of(sandbox_copy, repo_id="ann/plain")
    assert pull("ann/plain", endpoint=hub.url).joinpath(CARD_FILE).read_text() == made and "ann/plain" in made
    assert not push(sandbox_copy, "ann/plain", token=ANN, endpoint=hub.url).changed


def test_a_card_that_the_hub_refuses_is_an_error_with_its_reason(hub: Hub, sandbox_copy: Path) -> None:
    (sandbox_copy / CARD_FILE).write_text("---\nbase_model: [unclosed\n---\n")
    with pytest.raises(HubError, match="Invalid metadata in README.md"):
        push(sandbox_copy, "ann/badcard", token=ANN, endpoint=hub.url)


def test_private_is_private_and_never_by_mistake_public(hub: Hub, tmp_path: Path) -> None:
    push(ADAPTOR, "ann/secret", private=True, token=ANN, endpoint=hub.url)
    assert hub.repositories["ann/secret"].private
    for token in (False, BOB):
        with pytest.raises(UnknownAdaptorError, match="none of that name, or it is private"):
            pull("ann/secret", cache_dir=tmp_path, token=token, endpoint=hub.url)
    assert pull("ann/secret", cache_dir=tmp_path, token=ANN, endpoint=hub.url).is_dir()
    push(ADAPTOR, "ann/open", token=ANN, endpoint=hub.url)
    with pytest.raises(HubError, match="public already"):
        push(ADAPTOR, "ann/open", private=True, token=ANN, endpoint=hub.url)


def test_who_may_not_push_is_told_why_and_the_token_is_shown_nowhere(
    hub: Hub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
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


def test_a_server_without_xet_storage_says_what_to_set(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    with pytest.raises(HubError, match="has no Xet storage; set HF_HUB_DISABLE_XET=1"):
        push(ADAPTOR, "ann/xet", token=ANN, endpoint=hub.url)


@pytest.mark.parametrize(("fault", "pauses"), [("503", [1, 2, 4]), ("429", [3, 3, 4])])
def test_a_server_that_is_not_well_is_asked_again_later_and_later(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, fault: str, pauses: list[float]
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=time.monotonic, sleep=waited.append))
    push(ADAPTOR, f"ann/later{fault}", token=ANN, endpoint=hub.url)
    hub.faults.add(f"ann/later{fault}", "refs", fault, times=3)
    push(ADAPTOR, f"ann/later{fault}", token=ANN, endpoint=hub.url, tag="v1")
    assert waited == pauses and "v1" in hub.repositories[f"ann/later{fault}"].refs("tags")
