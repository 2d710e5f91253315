"""A name, a folder or a Hub repository becomes a local folder, or an error that says what to do."""

from pathlib import Path

import pytest

from fair_adaptors.adaptor import registry
from fair_adaptors.adaptor.record import CONFIG_FILE, WEIGHTS_FILE
from fair_adaptors.adaptor.registry import AdaptorInfo
from fair_adaptors.errors import InvalidAdaptorError, NotPublishedError, UnknownAdaptorError
from fair_adaptors.hub.resolve import resolve

COMMIT = "0" * 40


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def folder_at(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / CONFIG_FILE).write_text("{}")
    return path


def cached(cache: Path, repo_id: str, *, commit: str = COMMIT) -> Path:
    """Lay a repository's snapshot out as the Hub's cache does."""
    repo = cache / ("models--" + repo_id.replace("/", "--"))
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    return folder_at(repo / "snapshots" / commit)


def test_a_folder_is_itself_as_text_or_path(elsewhere: Path) -> None:
    folder = folder_at(elsewhere / "runs" / "mine")
    assert resolve(folder) == folder
    assert resolve("runs/mine").resolve() == folder
    assert resolve("./runs/mine").resolve() == folder


def test_a_tilde_is_the_home_folder(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(elsewhere))
    folder = folder_at(elsewhere / "mine")
    assert resolve("~/mine") == folder


def test_an_adaptor_folder_goes_before_a_registry_name(elsewhere: Path) -> None:
    folder = folder_at(elsewhere / "sd21-gender-race")
    assert resolve("sd21-gender-race").resolve() == folder


def test_another_folder_does_not_hide_a_registry_name(elsewhere: Path) -> None:
    (elsewhere / "sd21-gender-race").mkdir()
    with pytest.raises(NotPublishedError):
        resolve("sd21-gender-race")


def test_a_file_is_no_folder(elsewhere: Path) -> None:
    folder_at(elsewhere / "mine")
    (elsewhere / "mine" / WEIGHTS_FILE).touch()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        with pytest.raises(UnknownAdaptorError, match="is a file; give the folder"):
            resolve(elsewhere / "mine" / name)


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "a/b/c", Path("nowhere"), Path("owner/name")])
def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub(name: str | Path) -> None:
    with pytest.raises(UnknownAdaptorError, match="there is no folder"):
        resolve(name)


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_not_the_current_folder(name: str) -> None:
    with pytest.raises(UnknownAdaptorError, match="empty"):
        resolve(name)


def test_what_is_not_published_names_its_base_and_what_to_do() -> None:
    with pytest.raises(NotPublishedError, match=r"stable-diffusion-2-1.*give load_fair_adaptor the folder"):
        resolve("sd21-gender-race")


def test_a_repository_is_read_from_the_cache(elsewhere: Path) -> None:
    snapshot = cached(elsewhere / "cache", "owner/fair")
    assert resolve("owner/fair", cache_dir=elsewhere / "cache", local_files_only=True) == snapshot


def test_a_published_name_is_its_repository_at_the_pinned_commit(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = AdaptorInfo("fair", "", (), "base", "published", repo_id="owner/fair", revision="1" * 40)
    monkeypatch.setattr(registry, "ADAPTORS", (info,))
    monkeypatch.setattr(registry, "_BY_NAME", {"fair": info})
    cached(elsewhere / "cache", "owner/fair")
    pinned = folder_at(elsewhere / "cache" / "models--owner--fair" / "snapshots" / ("1" * 40))
    assert resolve("fair", cache_dir=elsewhere / "cache", local_files_only=True) == pinned


def test_a_repository_that_cannot_be_had_is_named_with_its_revision(elsewhere: Path) -> None:
    with pytest.raises(UnknownAdaptorError, match=r"'nobody/nothing' at revision 'v9'.*not in the cache"):
        resolve("nobody/nothing", revision="v9", cache_dir=elsewhere / "cache")


def test_a_name_that_the_hub_does_not_allow_is_refused(elsewhere: Path) -> None:
    with pytest.raises(UnknownAdaptorError, match="alphanumeric"):
        resolve("nobody/no thing", cache_dir=elsewhere / "cache")


def test_a_repository_of_another_kind_is_no_adaptor(elsewhere: Path) -> None:
    (cached(elsewhere / "cache", "owner/lora") / CONFIG_FILE).unlink()
    with pytest.raises(InvalidAdaptorError, match="'owner/lora' has no fair_adaptor.json"):
        resolve("owner/lora", cache_dir=elsewhere / "cache", local_files_only=True)
