"""What a training would fetch: the files that diffusers and transformers take, with commit, size and licence."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from fair_adaptors.training.downloads import downloads, main_file, model_files, pipeline_files
from fair_adaptors.training.preflight import check
from fair_adaptors.training.recipes import get_recipe
from fair_adaptors.training.setup import _load_pipeline

from fair_adaptors.cli.common import load_base
from fair_adaptors.errors import ConfigError
from fair_adaptors.files import CACHE
from tests.hub.fixtures import contents, publish
from tests.hub.server import Hub
from tests.tiny import FAMILIES, tiny_pipeline


def test_for_a_plan_the_authors_archive_is_named_and_not_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    for settings, named in (
        ({"paper": "true"}, "classifier, judge, prompt_sets, validation_set, face_encoder, face_bank"),
        ({"prompts": "authors:occupations,authors:sports:3"}, "prompt_sets"),
    ):
        config = get_recipe("gender-race", settings)
        check(config)
        (found,) = (one for one in downloads(config) if one.repo_id == "data.zip")
        assert str(found).startswith(f"{named}: data.zip of the paper's authors, from https://drive.google.com/")
    assert config.prompt_sets == (("authors:occupations", 1.0), ("authors:sports", 3.0))
    assert not any(tmp_path.iterdir())
    for wrong in ("prompts=authors:job", "classifier=authors:hair", "face_encoder=authors:x", "face_bank=authors:x"):
        with pytest.raises(ConfigError, match="the authors have no|mean nothing"):
            check(get_recipe("gender-race", dict([wrong.split("=")])))


def with_extras(files: dict[str, bytes], family: str) -> dict[str, bytes]:
    """What repositories of Stable Diffusion have beside the pipeline."""
    unet, vae = "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"
    extra = {f"{unet}.fp16.safetensors": 700, f"{unet}.bin": 800, f"{unet}.non_ema.safetensors": 900}
    extra |= {"text_encoder/model.onnx": 300, "text_encoder/flax_model.msgpack": 400, "unet/model.onnx_data": 500}
    extra |= {"text_encoder/openvino_model.bin": 600, "text_encoder/openvino_model.xml": 10, "unet/model.onnx": 20}
    extra |= {"v1-5-pruned.safetensors": 5000, "v1-5-pruned.ckpt": 6000, "README.md": 30, "images/grid.png": 40}
    if family == "SDXL":
        extra |= {"vae_1_0/diffusion_pytorch_model.safetensors": 2000, "vae_1_0/config.json": 50}
        extra |= {"vae_decoder/model.onnx": 2100, "sd_xl_base_1.0.safetensors": 7000, "vae_decoder/config.json": 60}
    if family == "SD 2.x":  # in no other format than torch's, and one component in both
        names = {"/model.safetensors": "/pytorch_model.bin", "_model.safetensors": "_model.bin"}
        for safe, pickled in names.items():
            files = {name.replace(safe, pickled): data for name, data in files.items()}
        extra |= {f"{vae}.safetensors": 1000}
    return files | {name: b"0" * size for name, size in extra.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_downloads_are_what_diffusers_fetches(family: str, online_hub: Hub, tmp_path: Path) -> None:
    """Without the safety checker, which training does not load."""
    FAMILIES[family]().save_pretrained(tmp_path / "pipe")
    files = with_extras(contents(tmp_path / "pipe"), family)
    if family != "SDXL":
        checker = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
        files["model_index.json"] = json.dumps(json.loads(files["model_index.json"]) | checker).encode()
        files |= {"safety_checker/model.safetensors": b"0" * 9000, "safety_checker/config.json": b"0" * 70}
    name = f"org/{family.replace(' ', '-')}"
    publish(online_hub, name, files)
    fetched = contents(Path(DiffusionPipeline.download(name, cache_dir=tmp_path / "cache", safety_checker=None)))
    index = main_file("pipeline", name)
    assert set(pipeline_files(list(files), index)) == set(fetched)
    assert ("vae_1_0/diffusion_pytorch_model.safetensors" in fetched) == (family == "SDXL"), "diffusers takes it, too"
    config = dataclasses.replace(get_recipe("gender"), base=name, encoders=(), classifier="a:b", judge="a:b")
    found = downloads(config)[0]
    assert found.megabytes == pytest.approx(sum(map(len, fetched.values())) / 1e6)


def test_a_base_is_loaded_at_the_commit_that_is_named(online_hub: Hub, tmp_path: Path) -> None:
    files = {}
    for seed in (0, 1):
        tiny_pipeline(seed=seed).save_pretrained(tmp_path / str(seed))
        files[seed] = contents(tmp_path / str(seed))
    first = publish(online_hub, "org/versions", files[0])
    online_hub.repositories["org/versions"].commit("main", "another", files=files[1], parent=first)
    config = dataclasses.replace(get_recipe("gender"), dtype="float32", encoders=(), classifier="a:b", judge="a:b")
    for base, seed in ((f"org/versions@{first}", 0), ("org/versions", 1)):
        config = dataclasses.replace(config, base=base)
        wanted = tiny_pipeline(seed=seed).unet.conv_in.weight
        for pipe in (_load_pipeline(config, "cpu"), load_base(base)):  # to train, and to evaluate
            assert torch.equal(pipe.unet.conv_in.weight, wanted)
        assert (downloads(config)[0].commit == first) == (seed == 0)


def test_of_a_model_one_format_is_fetched() -> None:
    config = ["config.json", "vocab.json", "merges.txt"]
    both = ["model.safetensors", "pytorch_model.bin", "model.fp16.safetensors", "open_clip_model.safetensors"]
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    others = ["README.md", "tf_model.h5", "onnx/model.onnx", "onnx/config.json"]
    assert set(model_files([*config, *both, *others])) == {*config, "model.safetensors"}
    assert set(model_files([*config, *shards, "pytorch_model.bin", *others])) == {*config, *shards}
    assert set(model_files([*config, "pytorch_model.bin", *others])) == {*config, "pytorch_model.bin"}


def test_downloads_are_named_with_commit_size_and_licence(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "pipe"
    FAMILIES["SD 1.x"]().save_pretrained(folder)
    files = contents(folder)
    weights = sum(len(data) for data in files.values())
    half = {"unet/diffusion_pytorch_model.fp16.safetensors": b"0" * 999_999}
    extra = half | {"README.md": b"---\nlicense: openrail++\n---\n"}
    commit = publish(hub, "org/base", files | extra)
    config = dataclasses.replace(
        get_recipe("gender"), base="org/base", classifier="a:b", judge="a:b", encoders=("clip:org/none",)
    )
    found, absent, auraface = downloads(config, endpoint=hub.url)  # the face detector comes with the package
    assert auraface.what == "face_encoder" and auraface.megabytes > 200
    assert (found.what, found.repo_id, found.commit, found.licence) == ("base", "org/base", commit, "openrail++")
    assert found.megabytes == pytest.approx(weights / 1e6, rel=0.01)
    assert absent.what == "encoders" and "none of that name" in absent.problem
