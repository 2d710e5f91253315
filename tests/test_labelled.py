"""Pictures with labels, from a folder or streamed from the Hub: what they become, and which are held out."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from fair_adaptors.training.classifier import data as classifier_data
from fair_adaptors.training.classifier.data import KNOWN, Labelled, find_source
from fair_adaptors.training.classifier.train import ClassifierConfig, _training_batches, plan, train_classifier
from PIL import Image

from fair_adaptors.errors import ConfigError

pytestmark = pytest.mark.usefixtures("datasets_cache")


def hub_like(folder: Path, columns: dict[str, list], features: datasets.Features, held_out: str) -> Path:
    """Parquet files in splits, as repositories of the Hub have them."""
    folder.mkdir()
    rows = datasets.Dataset.from_dict(columns, features=features)
    for split in ("train", held_out):
        rows.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def pictures(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (20, 24), (10 * index, 50, 90)) for index in range(count)]


def as_the_hub(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[tuple]:
    """Let a folder stand for every repository of the Hub; returns what is asked for."""
    asked: list[tuple] = []

    def load(place: str, config: str | None, *, revision: str | None, streaming: bool) -> Any:
        asked.append((place, config, revision, streaming))
        return datasets.load_dataset(str(folder), streaming=streaming)

    monkeypatch.setattr(classifier_data, "load_dataset", load)
    return asked


def test_fairface_is_streamed_and_its_labels_become_the_papers_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    races = ["East Asian", "Indian", "Black", "White", "Middle Eastern", "Latino_Hispanic", "Southeast Asian"]
    ages = ["0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70"]
    columns = {
        "image": pictures(9), "age": list(range(9)), "gender": [0, 1] * 4 + [0], "race": [*range(7), 0, 1],
        "service_test": [True] * 9,
    }  # fmt: skip
    features = datasets.Features(
        image=datasets.Image(), age=datasets.ClassLabel(names=ages), race=datasets.ClassLabel(names=races),
        gender=datasets.ClassLabel(names=["Male", "Female"]), service_test=datasets.Value("bool"),
    )  # fmt: skip
    asked = as_the_hub(monkeypatch, hub_like(tmp_path / "hub", columns, features, "validation"))
    data = Labelled(KNOWN["fairface"], ("gender", "race", "age"))
    assert asked == [("HuggingFaceM4/FairFace", "0.25", "54d573cdb8b5af490ba8da9da2799628f6e5c496", True)]
    assert data.classes["race"] == ("WMELH", "Black", "Indian", "Asian")
    found = {picture.getpixel((0, 0))[0] // 10: labels for picture, labels in data.train(0)}  # type: ignore[index]
    assert [found[index]["gender"] for index in range(4)] == [1, 0, 1, 0]
    assert [found[index]["race"] for index in range(7)] == [3, 2, 1, 0, 0, 0, 3]
    assert [found[index]["age"] for index in range(9)] == [0] * 5 + [1] * 4


def test_celebas_columns_are_gender_and_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"image": pictures(4), "Male": [True, True, False, False], "Young": [True, False, True, False]}
    features = datasets.Features(image=datasets.Image(), Male=datasets.Value("bool"), Young=datasets.Value("bool"))
    asked = as_the_hub(monkeypatch, hub_like(tmp_path / "hub", columns, features, "test"))
    data = Labelled(KNOWN["celeba"], ("gender", "age"), limit=4)
    assert asked[0][0] == "flwrlabs/celeba" and asked[0][3]
    found = {picture.getpixel((0, 0))[0] // 10: labels for picture, labels in data.held_out()}  # type: ignore[index]
    assert [found[index] for index in range(4)] == [
        {"gender": 1, "age": 0}, {"gender": 1, "age": 1}, {"gender": 0, "age": 0}, {"gender": 0, "age": 1},
    ]  # fmt: skip
    assert data.num_train == 4


def test_of_any_repository_the_commit_is_pinned_if_the_hub_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ClassifierConfig("somebody/faces", ("gender",), "somebody/model")
    assert "revision: main, whatever it is now" in "\n".join(plan(config))  # the tests are offline
    info = SimpleNamespace(sha="c0ffee", card_data=SimpleNamespace(license="cc0-1.0"))
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda self, repo, repo_type: info)
    said = plan(config)
    assert said[0].startswith("data: somebody/faces on the Hub, streamed")
    assert said[1:3] == ["  revision: c0ffee", "  licence: cc0-1.0"] and "c0ffee; licence: cc0-1.0" in said[3]
    pinned = dataclasses.replace(config, model="somebody/model@123")
    assert plan(pinned)[3].startswith("model: somebody/model on the Hub, revision 123;")


def test_a_stream_of_unknown_length_needs_steps_and_known_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {"image": pictures(4), "gender": ["male", "female"] * 2, "hair": ["dark", "fair"] * 2}
    text = datasets.Value("string")
    features = datasets.Features(image=datasets.Image(), gender=text, hair=text)
    as_the_hub(monkeypatch, hub_like(tmp_path / "hub", columns, features, "valid"))
    config = ClassifierConfig("somebody/faces", ("gender",), "./nothing")
    with pytest.raises(ConfigError, match="give `steps`"):
        train_classifier(config, tmp_path / "out")
    with pytest.raises(ConfigError, match="holds out 4 images; at least 20 are needed$"):
        train_classifier(dataclasses.replace(config, steps=1), tmp_path / "out")
    with pytest.raises(ConfigError, match="is streamed and does not list the classes of 'hair' beforehand"):
        Labelled(find_source("somebody/faces"), ("hair",))


@pytest.mark.parametrize(
    ("streamed", "said"),
    [(True, "has the splits train; it needs train and one of"), (False, "too few images to hold some out: 1")],
)
def test_a_data_set_of_which_nothing_can_be_held_out_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streamed: bool, said: str
) -> None:
    monkeypatch.setattr(classifier_data, "load_dataset", lambda *place, **settings: {"train": [1]})
    with pytest.raises(ConfigError, match=said):
        Labelled(find_source("somebody/faces" if streamed else str(tmp_path)), ("gender",))


def test_batches_of_single_images_alone_are_nothing_to_train_on() -> None:
    """A batch norm knows nothing of one image; without an end to it the training would wait for ever."""
    data: Any = SimpleNamespace(train=lambda epoch: iter([None]))
    with pytest.raises(ConfigError, match="somebody/faces has too few images to train on"):
        next(_training_batches(None, data, ClassifierConfig("somebody/faces", ("gender",), "./nothing")))  # type: ignore[arg-type]
