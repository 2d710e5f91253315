"""What is named wrongly is refused at once: in the dry run, and in training before anything large is loaded."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fair_adaptors.training import plan as plan_module
from fair_adaptors.training import setup as setting_module
from fair_adaptors.training.faces.bank import FaceBank, save_face_bank
from fair_adaptors.training.preflight import check
from fair_adaptors.training.recipes import get_recipe

from fair_adaptors.errors import ConfigError
from tests.commands import Command
from tests.hub.fixtures import contents, publish
from tests.hub.repos import Repository
from tests.hub.server import Hub
from tests.tiny import FAMILIES
from tests.vision_models import authors_file

WRONG = [
    ("gender", "faces=yunit", "no face detector 'yunit'. Did you mean 'yunet'"),
    ("gender", "faces=yunet:nothing.onnx", "nothing.onnx cannot be read .* `yunet` alone is the one that comes"),
    ("gender", "faces=retina:net", "no module 'retina' on PYTHONPATH. Known: yunet:PATH"),
    ("gender", "face_bank=nothing.safetensors", "nothing.safetensors cannot be read: No such file"),
    ("gender", "face_bank=damaged.safetensors", "damaged.safetensors is damaged: .* make it again"),
    ("gender-race", "face_bank=gender.safetensors", r"the face bank knows gender .* the recipe wants race"),
    ("gender", "face_encoder=arcface", "no face encoder 'arcface'.* Known: auraface, sface"),
    ("gender", "face_encoder=onnx:nothing.onnx", "there is no file nothing.onnx"),
    ("gender", "classifier=clpi:openai/clip", "Did you mean 'clip'\\? Known: clip:SOURCE"),
    ("gender", "classifier=celeba", "classifier is 'celeba': .* Known: clip:SOURCE, transformers:SOURCE"),
    ("gender", "classifier=clip:./nothing", "classifier is clip:./nothing: nothing is not a folder of a model"),
    ("gender", "gradient_decoder=./nothing", "gradient_decoder is ./nothing: nothing is not a folder of a model"),
    ("gender", "gradient_decoder=taesd", "there is no such folder, and a Hub id is written ORG/NAME"),
    ("gender", "classifier=mobilenet:nothing.pth", "nothing.pth"),
    ("gender", "classifier=onnx:gender=female/male:nothing.onnx", "nothing.onnx cannot be read"),
    ("gender", "encoders=onnx:mean=0:std=1:nothing.onnx", "nothing.onnx cannot be read"),
    ("gender-race", "classifier=mobilenet:gender:two.pth", "knows of race the classes none; .* joined by \\+"),
    ("gender-race", "classifier=sandbox:training", "knows of race the classes none"),
    ("gender", "judge=transformers:fairface", "there is no such folder, and a Hub id is written ORG/NAME"),
    ("gender", "encoders=clip:laion/x,dino:facebook/dinov2-base", "Did you mean 'dinov2'"),
    ("gender", "validation_set=ocupations-test", "validation_set: .*Did you mean 'occupations-test'"),
    ("gender", "base=sd15", "write its Hub id, stable-diffusion-v1-5/stable-diffusion-v1-5"),
    ("gender", "base=./nothing", "that is not the folder of a pipeline, which has a model_index.json"),
    ("gender", "base=damaged.safetensors", "damaged.safetensors cannot be loaded as a whole model"),
    ("gender", "base=two.pth", "two.pth must be a .safetensors file: other formats can run code"),
    ("gender", "base=gender.safetensors", "one file, which has weights and no configurations: give base_config too"),
    ("gender", "base_config=./empty", "base_config is for a base that is one file; stable-diffusion-v1-5"),
    ("gender", "base=./empty", "empty is not a folder of a known pipeline: transformer/config.json is not"),
    ("gender", "parts=text_encoder_2", "parts has text_encoder_2, and the base has none"),
    ("sdxl-gender-race", "parts=tokens", "XL takes no soft tokens: .*parts=text_encoder,text_encoder_2"),
    ("flux-gender-race", "parts=text_encoder_2", "parts has text_encoder_2, and the base has none"),
    ("klein-gender-race", "parts=tokens", "FLUX.2 takes no soft tokens: .*parts=transformer"),
    ("sandbox-gender", "parts=text_encoder_2", "the base has none: take it out"),
]


@pytest.fixture
def nothing_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of files to name, and neither memory to plan nor models to load."""

    def large(*arguments: object, **settings: object) -> Any:
        raise AssertionError("something large was loaded")

    for name in ("load_classifier", "load_encoder", "_load_pipeline"):
        monkeypatch.setattr(setting_module, name, large)
    for name in ("memory", "downloads"):
        monkeypatch.setattr(plan_module, name, large)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged.safetensors").write_bytes(b"0" * 100)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/model_index.json").write_text("{}")
    authors_file(tmp_path, 2).rename(tmp_path / "two.pth")
    features = F.normalize(torch.randn(4, 8), dim=1)
    labels = {"gender": torch.tensor([0, 1, 0, 1], dtype=torch.uint8)}
    bank = FaceBank(features, labels, {"gender": ("female", "male")}, "whoever", "here", "none")
    save_face_bank(bank, tmp_path / "gender.safetensors")


@pytest.mark.parametrize(("recipe", "wrong", "message"), WRONG, ids=[wrong for _, wrong, _ in WRONG])
def test_a_wrong_name_is_refused_by_the_dry_run_and_before_anything_large_is_loaded(
    recipe: str, wrong: str, message: str, nothing_large: None, command: Command, tmp_path: Path
) -> None:
    for options in (["--dry-run"], ["--out", str(tmp_path / "run")]):
        status, said, error = command("train", recipe, "--set", wrong, *options)
        assert (status, said) == (1, ""), "no plan as if all were fine"
        assert re.search(message, error)
    assert not (tmp_path / "run").exists()


def test_what_is_right_passes_though_its_weights_are_elsewhere(nothing_large: None) -> None:
    right = {
        "face_bank": "gender.safetensors",
        "classifier": "mobilenet:gender:two.pth+transformers:who/knows",
        "judge": "tests.face_networks:ENCODER",
        "faces": "insightface",
    }
    check(get_recipe("gender", right))
    check(get_recipe("gender", {"faces": "whole", "base": "who/knows", "parts": "text_encoder_2"}))


def test_a_wrong_name_does_not_give_up_an_earlier_run(nothing_large: None, command: Command) -> None:
    checkpoint = Path("run/checkpoints/step_00000001.safetensors")
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"hours of work")
    assert command("train", "gender", "--overwrite", "--out", "run", "--set", "faces=yunit")[0] == 1
    assert checkpoint.is_file()


def test_the_hub_is_asked_what_it_has(online_hub: Hub, tmp_path: Path) -> None:
    FAMILIES["SDXL"]().save_pretrained(tmp_path / "pipe")
    files = contents(tmp_path / "pipe")
    commit = publish(online_hub, "org/xl", files)
    Repository.create(online_hub.root, "org/empty")
    online_hub.repositories["org/empty"] = Repository(online_hub.root / "models/org/empty", "org/empty")

    def wanted(**settings: str) -> None:
        config = get_recipe(
            "gender", {"classifier": "clip:org/xl", "judge": "clip:org/xl", "encoders": "", **settings}
        )
        check(config)

    with pytest.raises(ConfigError, match="base: org/none: .* has none of that name"):
        wanted(base="org/none")
    with pytest.raises(ConfigError, match="base: org/empty: the file is not there"):
        wanted(base="org/empty")
    with pytest.raises(ConfigError, match="base: org/xl: there is no such revision"):
        wanted(base="org/xl@0123abc")
    with pytest.raises(ConfigError, match="parts has tokens"):
        wanted(base=f"org/xl@{commit}", parts="tokens")
    with pytest.raises(ConfigError, match="classifier: org/xl: the file is not there"):
        wanted(base="org/xl")
