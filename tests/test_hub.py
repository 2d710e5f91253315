"""What is pushed is what is pulled: by our server, by one that others wrote, and into the pipeline."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fair_adaptors.adaptor.folder import read_adaptor
from fair_adaptors.adaptor.record import WEIGHTS_FILE
from fair_adaptors.hub import pull, push
from tests.commands import Command
from tests.hub.connection import Hub
from tests.hub.fixtures import ADAPTOR, ANN, NOWHERE, contents, retitle

DRAW = """
import sys, hashlib, torch
from fair_adaptors import load_fair_adaptor
from fair_adaptors.sandbox.pipeline import load_sandbox_pipeline
pipe = load_sandbox_pipeline()
for name in sys.argv[1:]:
    with load_fair_adaptor(pipe, name):
        noise = torch.Generator().manual_seed(0)
        image = pipe("a nurse", num_inference_steps=3, generator=noise, output_type="np").images
    print(hashlib.sha256(image.tobytes()).hexdigest())
"""
QUICK = ("iterations=1", "num_steps=2", "gradient_steps=1", "trackers=")


def drawn(*names: str, home: Path, endpoint: str) -> tuple[list[str], str]:
    """Draw with each adaptor in a fresh process, and return the images' hashes and what was said beside."""
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "OMP_NUM_THREADS": "1"}
    started = [sys.executable, "-c", DRAW, *names]
    ran = subprocess.run(started, env={**os.environ, **settings}, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split(), ran.stderr


@pytest.mark.slow
def test_a_pushed_adaptor_is_pulled_as_it_was_by_both_servers(hub: Hub, mirror: str, tmp_path: Path) -> None:
    result = push(ADAPTOR, "org/round", tag="v1", token=ANN, endpoint=hub.url)
    assert result.changed and result.url == f"{hub.url}/org/round"
    for name, endpoint in (("own", hub.url), ("olah", mirror)):
        for revision in (None, "v1", result.commit):
            cache, out = tmp_path / name / str(revision), tmp_path / name / f"out-{revision}"
            assert pull("org/round", out=out, revision=revision, cache_dir=cache, endpoint=endpoint) == out
            assert contents(out) == contents(ADAPTOR)


@pytest.mark.slow
def test_what_is_trained_is_pushed_pulled_and_draws_the_same_image(
    hub: Hub, mirror: str, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The push at the end fails at first, with a token that is none: the adaptor stays, and is pushed as was said."""
    folder, settings = tmp_path / "trained", [word for text in QUICK for word in ("--set", text)]
    train = ("train", "sandbox-gender", "--no-numbers", "--out", str(folder), *settings, "--push-to", "org/trained")
    monkeypatch.setenv("HF_TOKEN", "hf_wrongsecret")
    status, printed, error = command(*train)
    assert status == 1 and f"safe in {folder}; publish it with: fair-adaptors push {folder} org/trained" in error
    read_adaptor(folder)
    assert "org/trained" not in hub.repositories and "secret" not in printed + error
    monkeypatch.setenv("HF_TOKEN", ANN)
    again = shlex.split(error.strip().rpartition("publish it with: ")[2])
    assert command(*again[1:])[0] == 0
    status, printed, _ = command(*train, "--resume")
    assert status == 0 and 'load_fair_adaptor(pipe, "org/trained", revision=' in printed
    home = tmp_path / "home"
    (from_hub, from_folder, plain), _ = drawn("org/trained", str(folder), "sandbox-gender", home=home, endpoint=mirror)
    assert from_hub == from_folder != plain
    from_cache, said = drawn("org/trained", home=home, endpoint=NOWHERE)
    assert from_cache == [from_hub] and "Using the copy in the cache" in said
    assert pull("org/trained", out=tmp_path / "out", cache_dir=tmp_path / "cache", endpoint=mirror).is_dir()
    assert (tmp_path / "out" / WEIGHTS_FILE).read_bytes() == (folder / WEIGHTS_FILE).read_bytes()
    for place in (tmp_path, hub.root):
        for path in place.rglob("*"):
            assert not path.is_file() or b"secret" not in path.read_bytes(), path


def test_git_itself_finds_the_repositories_whole(hub: Hub, sandbox_copy: Path) -> None:
    for title in "ab":
        push(retitle(sandbox_copy, title), "ann/whole", token=ANN, endpoint=hub.url)
    repository = hub.repositories["ann/whole"]
    repository.git("fsck", "--strict", "--full")
    assert len(repository.history()) == 3
