"""A bank of real faces finds the nearest one of the class that is wanted, and is of the encoder that made it."""

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fair_adaptors.training.engine.targets import Targets
from fair_adaptors.training.faces import bank as bank_module
from fair_adaptors.training.faces.bank import FaceBank, load_face_bank, save_face_bank
from PIL import Image
from safetensors.torch import save_file

from fair_adaptors.errors import ConfigError
from fair_adaptors.sandbox import world
from fair_adaptors.sandbox.prompts import GENDERS
from fair_adaptors.sandbox.renderer import render
from fair_adaptors.vision.faces import whole_image
from fair_adaptors.vision.types import FaceDetector, Faces
from tests.commands import Command
from tests.face_networks import ENCODER, WIDTH, encode

CLASSES = {"gender": ("female", "male"), "race": ("WMELH", "Black", "Indian", "Asian")}
TOOLS = ["--encoder", "tests.face_networks:ENCODER", "--faces", "my_faces:faces"]

# The datasets library does not close a folder's metadata.csv.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


def brightly(images: torch.Tensor) -> Faces:
    """Finds a face in what is not black."""
    faces = whole_image().find(images)
    return replace(faces, found=images.mean((1, 2, 3)) > 0)


@pytest.fixture(autouse=True)
def mine(datasets_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instruments that users bring along."""
    tools = SimpleNamespace(faces=FaceDetector("brightly", "1", brightly))
    monkeypatch.setitem(sys.modules, "my_faces", tools)


def bank_of(count: int, seed: int = 0, width: int = WIDTH) -> FaceBank:
    generator = torch.Generator().manual_seed(seed)
    features = F.normalize(torch.randn(count, width, generator=generator), dim=1)
    labels = {
        name: torch.randint(0, len(each), (count,), generator=generator, dtype=torch.uint8)
        for name, each in CLASSES.items()
    }
    return FaceBank(features, labels, CLASSES, ENCODER.identity, "here", "CC0")


def targets(labels: Mapping[str, torch.Tensor], keep: Mapping[str, torch.Tensor]) -> dict[str, Targets]:
    return {name: Targets(each, torch.ones(len(each)), keep[name]) for name, each in labels.items()}


def queries(count: int, width: int = WIDTH) -> tuple[torch.Tensor, dict[str, Targets]]:
    labels = {name: torch.randint(0, len(each), (count,)) for name, each in CLASSES.items()}
    keep = {name: torch.rand(count) < 0.6 for name in CLASSES}
    return F.normalize(torch.randn(count, width), dim=1), targets(labels, keep)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_the_nearest_face_of_the_wanted_class_is_found(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank_module, "_BLOCK", block)
    bank, (features, wanted) = bank_of(300), queries(20)
    found = bank.nearest(features, wanted)
    for index, feature in enumerate(features):
        rows = torch.ones(300, dtype=torch.bool)
        for name, target in wanted.items():
            if target.keep[index]:
                rows &= bank.labels[name] == target.labels[index]
        allowed = bank.features[rows]
        assert torch.allclose(found[index], allowed[(allowed @ feature).argmax()], atol=1e-6)


def test_an_attribute_that_the_bank_does_not_know_may_be_any() -> None:
    bank, (features, wanted) = bank_of(50), queries(5)
    hats = Targets(torch.zeros(5, dtype=torch.long), torch.ones(5), torch.ones(5, dtype=torch.bool))
    assert torch.equal(bank.nearest(features, wanted), bank.nearest(features, {**wanted, "hat": hats}))


def test_gradients_end_at_the_bank() -> None:
    features, wanted = queries(3)
    assert not bank_of(40).nearest(features.requires_grad_(), wanted).requires_grad


def test_a_hundred_thousand_faces_take_little_time_and_memory() -> None:
    count, width = 100_000, 512
    features = torch.empty(count, width, dtype=torch.float16)
    for block in features.split(5_000):
        block.copy_(F.normalize(torch.randn(len(block), width), dim=1))
    bank = replace(bank_of(count, width=1), features=features)
    asked, wanted = queries(24, width)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    found = bank.nearest(asked, wanted)
    assert time.process_time() - start < 3  # .3 s on one core
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 80_000  # in kB; the bank has 102 MB
    assert found.shape == (24, width) and (found * asked).sum(1).min() > 0.1


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    for dtype in (torch.float16, torch.float32):
        bank = replace(bank_of(100), features=bank_of(100).features.to(dtype))
        save_face_bank(bank, tmp_path / "bank.safetensors")
        again = load_face_bank(tmp_path / "bank.safetensors", encoder=ENCODER)
        assert torch.equal(again.features, bank.features) and again.features.dtype == dtype
        assert all(torch.equal(again.labels[name], bank.labels[name]) for name in CLASSES)
        assert (again.classes, again.source, again.licence) == (CLASSES, "here", "CC0")


def test_a_bank_of_another_encoder_is_refused(tmp_path: Path) -> None:
    save_face_bank(bank_of(10), tmp_path / "bank.safetensors")
    with pytest.raises(ConfigError, match="was made by another encoder than other"):
        load_face_bank(tmp_path / "bank.safetensors", encoder=replace(ENCODER, name="other", identity="other"))


Change = Callable[[dict[str, torch.Tensor], dict[str, str]], Any]
DAMAGE: dict[str, tuple[Change, str]] = {
    "length": (lambda t, m: t.update(features=2 * t["features"]), "its features have not unit length"),
    "nan": (lambda t, m: t["features"][3].fill_(torch.nan), "its features have not unit length"),
    "shape": (lambda t, m: t.update(features=t["features"].flatten()), r"its features are torch.float32 \[\d+\]"),
    "kind": (lambda t, m: t.update(features=t["features"].double()), r"its features are torch.float64"),
    "empty": (lambda t, m: t.update(features=t["features"][:0]), r"its features are torch.float32 \[0, 48\]"),
    "short": (
        lambda t, m: t.update({"labels.race": t["labels.race"][1:]}),
        r"its labels of race are torch.uint8 \[9\]",
    ),
    "class": (lambda t, m: t["labels.gender"].fill_(2), "a face is of class 2 of gender, which has 2"),
    "labels": (lambda t, m: t.pop("labels.gender"), "labels.gender"),
    "no bank": (lambda t, m: m.pop("format"), "is not a face bank; make it again"),
    "licence": (lambda t, m: m.pop("licence"), "'licence'"),
    "json": (lambda t, m: m.update(classes="{"), "is damaged"),
    "list": (lambda t, m: m.update(classes="[1]"), "is damaged"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_bank_is_refused(kind: str, tmp_path: Path) -> None:
    change, message = DAMAGE[kind]
    bank = bank_of(10)
    tensors = {"features": bank.features} | {f"labels.{name}": each for name, each in bank.labels.items()}
    metadata = {"format": bank_module.FORMAT, "encoder": bank.encoder, "source": "", "licence": ""}
    metadata["classes"] = json.dumps(CLASSES)
    change(tensors, metadata)
    save_file(tensors, tmp_path / "bank.safetensors", metadata)
    with pytest.raises(ConfigError, match=message):
        load_face_bank(tmp_path / "bank.safetensors", encoder=ENCODER)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bank.safetensors").write_bytes(b"no bank at all")
    with pytest.raises(ConfigError, match="is damaged"):
        load_face_bank(tmp_path / "bank.safetensors", encoder=ENCODER)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_face_bank(tmp_path / "nowhere", encoder=ENCODER)


def test_a_bank_must_have_the_classes_that_a_recipe_asks_for() -> None:
    bank_of(300).check(CLASSES)
    bank_of(300).check({"race": CLASSES["race"]})
    with pytest.raises(ConfigError, match=r"knows gender \(female, male\); race .* wants gender \(male, female\)"):
        bank_of(300).check({"gender": ("male", "female")})
    alone = replace(bank_of(20), labels={name: torch.zeros(20, dtype=torch.uint8) for name in CLASSES})
    assert alone.counts() == {("female", "WMELH"): 20}
    with pytest.raises(ConfigError, match="has no face of female Black; make a larger one"):
        alone.check(CLASSES)
    with pytest.raises(ConfigError, match="has no face of a class that an image must change to"):
        yes = torch.ones(1, dtype=torch.bool)
        alone.nearest(torch.ones(1, WIDTH), targets({"gender": torch.tensor([1])}, {"gender": yes}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Portraits of two sizes with their labels; every fifth picture is black."""
    place = tmp_path_factory.mktemp("people")
    generator = torch.Generator().manual_seed(0)
    people = world.sample_people(*world.random_occupations(60, generator=generator), generator=generator)
    pixels = (render(people) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    rows = ["file_name,gender"]
    for index, picture in enumerate(pixels):
        shown = Image.fromarray(np.zeros_like(picture) if index % 5 == 0 else picture)
        shown = shown.resize((80, 80)) if index % 2 else shown
        shown.save(place / f"{index}.png")
        rows.append(f"{index}.png,{GENDERS[people.gender[index]]}")
    (place / "metadata.csv").write_text("\n".join(rows) + "\n")
    return place


def test_a_bank_is_made_of_the_pictures_with_a_face(command: Command, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "bank.safetensors"
    words = ["face-bank", "--dataset", str(folder), "--attributes", "gender", "--out", str(out), *TOOLS]
    status, said, _ = command(*words)
    assert status == 0
    bank = load_face_bank(out, encoder=ENCODER)
    assert bank.classes == {"gender": ("female", "male")} and bank.source == folder.name
    assert f"{len(bank.features)} faces in {out}" in said and "licence: as the folder's owner says" in said
    rows = dict(line.split(",") for line in (folder / "metadata.csv").read_text().splitlines()[1:])
    people: dict[int, torch.Tensor] = {}
    for name in rows:
        picture = torch.from_numpy(np.array(Image.open(folder / name).convert("RGB"))).permute(2, 0, 1)[None] / 255
        if picture.sum():
            people[int(name.split(".")[0])] = encode(F.interpolate(picture, (112, 112), mode="bilinear"))
    assert 20 < len(bank.features) < len(people) < 60  # a part of a folder is held out
    wanted = torch.tensor([("female", "male").index(rows[f"{index}.png"]) for index in people])
    nearest = (bank.features.float() @ torch.cat(list(people.values())).T).max(1)
    assert nearest.values.min() > 0.999
    assert torch.equal(wanted[nearest.indices], bank.labels["gender"].long())
    status, _, error = command(*words)
    assert status == 1 and "exists; choose another --out" in error


def test_pictures_without_faces_make_no_bank(command: Command, folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    blind = FaceDetector(
        "blind", "1", lambda images: replace(whole_image().find(images), found=images[:, 0, 0, 0] > 9)
    )
    monkeypatch.setattr(sys.modules["my_faces"], "faces", blind)
    words = [
        "face-bank",
        "--dataset",
        str(folder),
        "--attributes",
        "gender",
        "--out",
        str(tmp_path / "bank.safetensors"),
    ]
    status, _, error = command(*words, *TOOLS, "--limit", "8")
    assert status == 1 and "none of the 8 pictures can be used: no face in 8" in error


def test_it_is_said_how_many_pictures_are_left_out_and_why(command: Command, tmp_path: Path, monkeypatch: Any) -> None:
    """Grey pictures: the darkest have no face, the next a small one, the next one that the detector is unsure of."""

    def by_grey(images: torch.Tensor) -> Faces:
        grey, faces = images[:, 0, 0, 0] * 255, whole_image().find(images)
        boxes = torch.where((grey.round() == 20)[:, None], faces.boxes * 0.39, faces.boxes)
        return replace(faces, found=grey > 15, boxes=boxes, scores=torch.where(grey.round() == 30, 0.69, 0.71))

    monkeypatch.setattr(sys.modules["my_faces"], "faces", FaceDetector("by grey", "1", by_grey))
    for part, greys in (("train", [10, 10, 10, 20, 20, 30, 40, 50, 60, 70]), ("test", [40])):
        (tmp_path / "greys" / part).mkdir(parents=True)
        rows = ["file_name,gender"]
        for index, grey in enumerate(greys):
            Image.new("RGB", (100, 100), (grey,) * 3).save(tmp_path / "greys" / part / f"{index}.png")
            rows.append(f"{index}.png,{GENDERS[index % 2]}")
        (tmp_path / "greys" / part / "metadata.csv").write_text("\n".join(rows) + "\n")
    words = ["face-bank", "--dataset", str(tmp_path / "greys"), "--attributes", "gender"]
    status, said, _ = command(*words, "--out", str(tmp_path / "bank.safetensors"), *TOOLS)
    assert status == 0
    assert [line for line in said.splitlines() if line.startswith("left out")] == [
        "left out with no face: 3",
        "left out with a face smaller than 40 pixels: 2",
        "left out with a face that is not clear: 1",
    ]
    bank = load_face_bank(tmp_path / "bank.safetensors", encoder=ENCODER)
    assert len(bank.features) == 4 and sum(bank.counts().values()) == 4
