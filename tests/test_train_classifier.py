"""Classifiers are trained on pictures whose truth is known: how right they are, for whom, and how they say so."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fair_adaptors.training.classifier import data as classifier_data
from fair_adaptors.training.classifier.card import calibration_error
from fair_adaptors.training.classifier.data import Labelled, find_source
from fair_adaptors.training.classifier.model import load_trainee
from fair_adaptors.training.classifier.train import ClassifierConfig, balanced_loss, fit_temperature, train_classifier
from PIL import Image
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessorPil

from fair_adaptors.errors import TrainingError
from fair_adaptors.sandbox import world
from fair_adaptors.sandbox.prompts import GENDERS, TONES
from fair_adaptors.sandbox.renderer import render
from fair_adaptors.vision.catalog import load_classifier
from fair_adaptors.vision.mobilenet import mobilenet_v3_large
from tests.commands import Command

# The datasets library does not close a folder's metadata.csv.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.usefixtures("datasets_cache"),
]

COUNT = 500


def people(count: int, seed: int) -> world.People:
    generator = torch.Generator().manual_seed(seed)
    return world.sample_people(*world.random_occupations(count, generator=generator), generator=generator)


@pytest.fixture(scope="module")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder as users have them: pictures, and what they show in metadata.csv."""
    folder = tmp_path_factory.mktemp("portraits")
    drawn = people(COUNT, seed=0)
    pixels = (render(drawn) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    rows = ["file_name,gender,tone"]
    for index, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / f"{index}.png")
        rows.append(f"{index}.png,{GENDERS[drawn.gender[index]]},{TONES[drawn.tone[index]]}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ResNet with random weights, in the layout of the Hub's checkpoints."""
    folder = tmp_path_factory.mktemp("resnet")
    torch.manual_seed(0)
    sizes = {"embedding_size": 16, "hidden_sizes": [16, 32, 48], "depths": [1, 1, 1], "layer_type": "basic"}
    ResNetForImageClassification(ResNetConfig(**sizes, num_labels=3)).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def wanted(portraits: Path, model: Path | str, attributes: tuple[str, ...], **settings: Any) -> ClassifierConfig:
    options = {"steps": 80, "batch_size": 32, "learning_rate": 1e-2} | settings
    return ClassifierConfig(str(portraits), attributes, str(model), **options)


@pytest.fixture(scope="module")
def trained(portraits: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "portraits-gender-tone"
    losses: list[float] = []
    train_classifier(
        wanted(portraits, model, ("gender", "tone"), margin=1.0),
        out,
        on_step=lambda step, total, loss: losses.append(loss),
    )
    assert len(losses) == 80 and losses[-1] < losses[0] / 2
    return out


def test_it_tells_gender_and_tone_of_people_it_has_never_seen(trained: Path) -> None:
    classifier = load_classifier(f"transformers:{trained}")
    assert classifier.classes == {"gender": ("female", "male"), "tone": tuple(sorted(TONES))}
    assert classifier.margin == 1.0
    strangers = people(300, seed=1)
    with torch.no_grad():
        said = {name: logits.argmax(1) for name, logits in classifier.logits(render(strangers)).items()}
    assert (said["gender"] == strangers.gender).float().mean() > 0.85
    names = [classifier.classes["tone"][index] for index in said["tone"]]
    assert sum(name == TONES[tone] for name, tone in zip(names, strangers.tone, strict=True)) > 0.85 * 300


def test_the_numbers_are_those_of_what_was_saved(trained: Path, portraits: Path) -> None:
    """Temperatures are in the weights: the saved classifier itself has the accuracy and calibration of its card."""
    results = json.loads((trained / "results.json").read_text())
    classifier = load_classifier(f"transformers:{trained}")
    held_out = list(Labelled(find_source(str(portraits)), ("gender", "tone")).held_out())
    assert len(held_out) == COUNT / 5
    half = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(0))[len(held_out) // 2 :]
    pixels = torch.stack([pixels_of(held_out[index][0]) for index in half])
    with torch.no_grad():
        logits = classifier.logits(pixels)
    for name, row in results["attributes"].items():
        truth = torch.tensor([held_out[index][1][name] for index in half])
        right = (logits[name].argmax(1) == truth).float().mean()
        assert row["accuracy"]["value"] == pytest.approx(float(right)) and row["accuracy"]["images"] == len(half)
        after = row["calibration_error"]["after"]
        assert calibration_error(logits[name].softmax(1), truth) == pytest.approx(after, abs=1e-3)
        by_class = [rate for rate in row["by_class"].values() if rate]
        assert sum(rate["value"] * rate["images"] for rate in by_class) == pytest.approx(float(right) * len(half))
    assert sum(group["images"] for group in results["groups"]) == len(half)


def pixels_of(picture: Image.Image) -> torch.Tensor:
    flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return flat.reshape(picture.height, picture.width, 3).permute(2, 0, 1).float() / 255


def test_the_card_says_how_right_it_is_for_whom_and_from_what(trained: Path, portraits: Path) -> None:
    card = (trained / "README.md").read_text(encoding="utf-8")
    results = json.loads((trained / "results.json").read_text())
    rate = results["attributes"]["gender"]["accuracy"]
    assert f"| gender | {rate['value']:.1%} ({rate['low']:.1%}–{rate['high']:.1%}) |" in card
    for words in ("| gender: female |", "| tone: dark |", "| female × pale |", "Licence: ", "temperature", "Wilson"):
        assert words in card, words
    assert str(portraits.parent) not in card + json.dumps(results)  # where a folder lies is nobody's business


def test_a_mobilenet_is_trained_too_and_starts_from_a_state_dict(portraits: Path, tmp_path: Path) -> None:
    torch.save(mobilenet_v3_large(1000).state_dict(), tmp_path / "imagenet.pth")
    started = f"mobilenet:{tmp_path / 'imagenet.pth'}"
    trainee = load_trainee(started, {"gender": GENDERS})
    given = torch.load(tmp_path / "imagenet.pth", weights_only=True)
    found = trainee.network.state_dict()
    changed = {name for name in given if not torch.equal(found[name], given[name])}
    assert changed == {"classifier.3.weight", "classifier.3.bias"}
    settings = {"steps": 1, "batch_size": 2, "limit": 20, "margin": 0.25}
    results = train_classifier(wanted(portraits, started, ("gender",), **settings), tmp_path / "out")
    assert results["training"]["model"] == "mobilenet:imagenet.pth"
    classifier = load_classifier(f"mobilenet:{tmp_path / 'out'}")
    assert classifier.classes == {"gender": GENDERS} and classifier.margin == 0.25
    assert load_classifier(f"mobilenet:margin=0:{tmp_path / 'out'}").margin == 0
    assert "--classifier mobilenet:FOLDER" in (tmp_path / "out" / "README.md").read_text()


def test_epochs_differ_in_order_and_the_held_out_are_never_trained_on(portraits: Path) -> None:
    data = Labelled(find_source(str(portraits)), ("gender",))
    orders = [[picture.tobytes() for picture, _ in data.train(epoch)] for epoch in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1] and set(orders[0]) == set(orders[1])
    assert not set(orders[0]) & {picture.tobytes() for picture, _ in data.held_out()}


def test_a_rare_class_weighs_as_much_as_a_common_one() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(100, 2, generator=generator)
    labels = (torch.arange(100) >= 90).long()
    each = F.cross_entropy(logits, labels, reduction="none")
    expected = (each[:90].mean() + each[90:].mean()) / 2
    found = balanced_loss({"gender": logits}, {"gender": labels}, {"gender": torch.zeros(2)})
    assert torch.allclose(found, expected)


def test_the_temperature_of_overconfident_logits_is_found_and_calibrates_them() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(20_000, 4, generator=generator)
    labels = torch.multinomial(true.softmax(1), 1, generator=generator)[:, 0]
    found = fit_temperature(3 * true, labels)
    assert found == pytest.approx(3, rel=0.05)
    assert calibration_error((3 * true).softmax(1), labels) > 0.1
    assert calibration_error((3 * true / found).softmax(1), labels) < 0.015


def test_a_few_images_without_a_mistake_do_not_make_it_infinitely_sure() -> None:
    assert 0.2 < fit_temperature(torch.eye(2).repeat(20, 1), torch.tensor([0, 1]).repeat(20)) < 1


def test_the_calibration_error_is_the_gap_of_confidence_and_accuracy() -> None:
    sure = torch.tensor([[0.9, 0.1]] * 10)
    assert calibration_error(sure, torch.tensor([0] * 9 + [1])) == pytest.approx(0, abs=1e-6)
    assert calibration_error(sure, torch.tensor([0] * 5 + [1] * 5)) == pytest.approx(0.4)
    both = torch.cat([sure, torch.tensor([[0.4, 0.6]] * 10)])  # too sure in one bin, not sure enough in another
    assert calibration_error(both, torch.tensor([0] * 5 + [1] * 15)) == pytest.approx((0.4 + 0.4) / 2)


def test_a_model_whose_logits_are_not_of_one_layer_cannot_be_calibrated(model: Path) -> None:
    trainee = load_trainee(str(model), {"gender": GENDERS})
    trainee.network.eval()
    bent = type(trainee)(
        trainee.network, trainee.classes, trainee.prepare, lambda pixels: trainee.logits(pixels).tanh(), trainee.save
    )
    with pytest.raises(TrainingError, match="not those of one linear layer"):
        bent.divide({"gender": 0.1}, trainee.prepare(torch.rand(2, 3, 32, 32)))


def test_a_dry_run_says_repository_revision_and_licence_and_fetches_nothing(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(classifier_data, "load_dataset", lambda *args, **settings: pytest.fail("fetched"))
    out = ["--out", str(tmp_path / "out"), "--dry-run"]
    status, said, _ = command("train-classifier", "--dataset", "fairface", "--attributes", "gender,race", *out)
    assert status == 0
    for words in ("HuggingFaceM4/FairFace", "54d573cdb8b5", "CC BY 4.0", "0.56 GB", "nothing is downl", "3 epochs"):
        assert words in said, words
    assert not (tmp_path / "out").exists()


def labelled(folder: Path, labels: list[str]) -> Path:
    """A folder of a picture for each label of gender."""
    folder.mkdir(parents=True)
    for index in range(len(labels)):
        Image.new("RGB", (20, 24)).save(folder / f"{index}.png")
    rows = [f"{index}.png,{label}" for index, label in enumerate(labels)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,gender", *rows]) + "\n")
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "celba", "--attributes", "gender"], "Did you mean 'celeba'"),
        (["--dataset", "./nowhere", "--attributes", "gender"], "no such folder"),
        (["--dataset", "celeba", "--attributes", "race"], "has no labels of 'race'"),
        (["--dataset", "celeba", "--attributes", "gender"], "flwrlabs/celeba cannot be read"),  # offline
        (["--dataset", "PORTRAITS", "--attributes", "gendr"], "no column 'gendr'. Did you mean 'gender'? Columns:"),
        (["--dataset", "PORTRAITS", "--attributes", "gender,gender"], "each once"),
        (["--dataset", "PORTRAITS", "--attributes", ""], "names what to tell apart"),
        (["--dataset", "PORTRAITS", "--attributes", "gender", "--model", "./nothing"], "cannot be loaded"),
        (["--dataset", "PORTRAITS", "--attributes", "gender", "--model", "mobilenet:x.pt"], "no file or folder x.pt"),
        (["--dataset", "PORTRAITS", "--attributes", "gender", "--lr", "0"], "learning rate is 0"),
        (["--dataset", "PORTRAITS", "--attributes", "gender", "--batch-size", "1"], "--batch-size is 1"),
        (["--dataset", "PORTRAITS", "--attributes", "gender", "--limit", "3"], "--limit is 3"),
        (["--dataset", "PORTRAITS", "--attributes", "gender", "--out", "PORTRAITS"], "exists already"),
        (["--dataset", "EMPTY", "--attributes", "gender"], "doesn't contain any data files"),
        (["--dataset", "WRONG", "--attributes", "gender"], "gender is 'femal', which is not a label of it. Did you"),
        (["--dataset", "BROKEN", "--attributes", "gender"], "cannot be read: cannot identify image file"),
        (["--dataset", "MEN", "--attributes", "gender"], "has no picture to train on whose gender is female"),
        # Before the model is looked at, so that nothing was trained in vain.
        (
            ["--dataset", "FEW", "--attributes", "gender", "--model", "./nothing"],
            "holds out 2 images; at least 20 are needed: 100 pictures in all",
        ),
        (["--dataset", "PORTRAITS", "--attributes", "gender", "--margin", "5"], "must be a number from -0.5 to 3"),
    ],
)
def test_wrong_input_is_one_line_that_says_what_to_do(
    command: Command, arguments: list[str], message: str, portraits: Path, model: Path, tmp_path: Path
) -> None:
    folders = {"PORTRAITS": portraits, "EMPTY": tmp_path / "empty"}
    folders["EMPTY"].mkdir()
    for name, last in (("WRONG", "femal"), ("FEW", "male")):
        folders[name] = labelled(tmp_path / name, ["male", "female"] * 2 + ["female", last])
    for name, labels in (("MEN", ["male"]), ("BROKEN", ["male", "female"])):
        folders[name] = tmp_path / name
        for part, count in (("train", 2), ("test", 20)) if name in arguments else ():
            labelled(folders[name] / part, (labels * count)[:count])
    for file in folders["BROKEN"].rglob("*.png"):
        file.write_bytes(b"no picture")
    filled = [str(folders.get(word, word)) for word in arguments]
    for option, value in (("--out", tmp_path / "out"), ("--model", model), ("--steps", 2)):
        filled += [] if option in filled else [option, str(value)]
    status, _, error = command("train-classifier", *filled)
    said = error.strip().splitlines()
    assert status == 1 and message in said[-1] and said[-1].startswith("fair-adaptors: "), said
    assert not (tmp_path / "out").exists()


def test_the_command_trains_and_says_how_to_use_the_result(
    command: Command, portraits: Path, model: Path, tmp_path: Path
) -> None:
    arguments = ["--dataset", str(portraits), "--attributes", "tone", "--model", str(model), "--epochs", "1"]
    status, said, _ = command("train-classifier", *arguments, "--lr", "0.01", "--out", str(tmp_path / "tone"))
    assert status == 0 and "tone: " in said and "% right (" in said
    assert f"--classifier transformers:{tmp_path / 'tone'}" in said
    card = (tmp_path / "tone" / "README.md").read_text()
    assert "| tone | right |" in card and f"{-(-COUNT * 4 // 5 // 64)} steps of 64 images" in card


def test_without_the_extra_the_command_names_it(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in ("classifier.train", "classifier.data"):
        monkeypatch.delitem(sys.modules, f"fair_adaptors.training.{module}")
    monkeypatch.setitem(sys.modules, "datasets", None)
    words = ["--dataset", "celeba", "--attributes", "gender", "--out", str(tmp_path / "out")]
    status, _, error = command("train-classifier", *words)
    assert status == 1 and "[classifier]" in error
