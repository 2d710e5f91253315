"""Classifiers to train against and to evaluate with: the authors' layouts, several made one, gradients to images."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fair_adaptors.errors import ConfigError
from fair_adaptors.evaluation.run import look_at
from fair_adaptors.evaluation.spec import Instruments
from fair_adaptors.vision.catalog import Word, load_classifier, load_encoder, parse
from fair_adaptors.vision.crops import crop_faces
from fair_adaptors.vision.joint import join, shared_classifier
from fair_adaptors.vision.mobilenet import mobilenet_v3_large
from fair_adaptors.vision.mobilenet_classifier import save_mobilenet
from fair_adaptors.vision.seeing import see
from fair_adaptors.vision.types import Classifier, FaceDetector, Faces
from tests.vision_models import AGES, RACES, authors_file, pictures, state_dict, vit

FAMILIES = {"race": ("WMELH", "Black", "Indian", "Asian"), "gender": ("female", "male"), "age": ("young", "old")}


def raw_logits(outputs: int, images: Tensor) -> Tensor:
    """The network on images in [-1, 1], as the published code calls it."""
    network = mobilenet_v3_large(outputs).eval()
    network.load_state_dict(state_dict(outputs))
    with torch.no_grad():
        return network(images * 2 - 1)


@pytest.mark.parametrize(
    ("outputs", "asked", "columns"),
    [
        (80, "", {"gender": 40}),
        (8, "", {"gender": 0, "race": 2, "age": 6}),
        (6, "", {"gender": 0, "race": 2}),
        (6, "race:", {"race": 2}),
        (4, "", {"race": 0}),
        (2, "gender:", {"gender": 0}),
        (2, "age:", {"age": 0}),
    ],
)
def test_the_authors_files_are_read_by_their_number_of_outputs(
    tmp_path: Path, outputs: int, asked: str, columns: dict[str, int]
) -> None:
    classifier = load_classifier(f"mobilenet:{asked}{authors_file(tmp_path, outputs)}")
    images = pictures(2, side=224)
    raw = raw_logits(outputs, images)
    with torch.no_grad():
        found = classifier.logits(images)
    assert classifier.classes == {name: FAMILIES[name] for name in columns}
    for name, start in columns.items():
        expected = raw[:, start : start + len(FAMILIES[name])].softmax(1)
        assert torch.allclose(found[name].softmax(1), expected, atol=1e-5)


def test_celebas_gender_is_the_twentieth_of_forty_pairs(tmp_path: Path) -> None:
    images = pictures(2, side=224)
    pairs = raw_logits(80, images).reshape(-1, 40, 2)
    classifier = load_classifier(f"mobilenet:{authors_file(tmp_path, 80)}")
    with torch.no_grad():
        assert torch.allclose(classifier.logits(images)["gender"].softmax(1), pairs[:, 20].softmax(1), atol=1e-5)


def test_safetensors_and_half_precision_say_the_same_and_other_sizes_are_resized(tmp_path: Path) -> None:
    save_file({name: value.half() for name, value in state_dict(4).items()}, tmp_path / "race.safetensors")
    half = load_classifier(f"mobilenet:{tmp_path / 'race.safetensors'}")
    folder = load_classifier(f"mobilenet:{tmp_path}")
    images = pictures(2, side=100)
    with torch.no_grad():
        found = half.logits(images)["race"].softmax(1)
        grown = nn.functional.interpolate(images, (224, 224), mode="bilinear")
        assert torch.equal(folder.logits(images)["race"].softmax(1), found)
        assert torch.allclose(found, half.logits(grown)["race"].softmax(1), atol=1e-5)
    assert half.identity == folder.identity


def test_a_folder_of_ours_says_its_own_classes(tmp_path: Path) -> None:
    classes = {"hair": ("dark", "fair", "grey"), "gender": ("female", "male")}
    torch.manual_seed(0)
    save_mobilenet(tmp_path / "mine", mobilenet_v3_large(5), classes)
    assert load_classifier(f"mobilenet:{tmp_path / 'mine'}").classes == classes
    assert load_classifier(f"mobilenet:gender:{tmp_path / 'mine'}").classes == {"gender": ("female", "male")}
    config = tmp_path / "mine" / "config.json"
    config.write_text(json.dumps({"classes": {"hair": ["dark", "fair"]}}))
    with pytest.raises(ConfigError, match="other classes than the 5 outputs"):
        load_classifier(f"mobilenet:{tmp_path / 'mine'}")
    config.write_text(json.dumps({"classes": classes, "face_margin": "wide"}))
    with pytest.raises(ConfigError, match="the margin of .*mine is 'wide'"):
        load_classifier(f"mobilenet:{tmp_path / 'mine'}")
    config.write_text("[]")
    with pytest.raises(ConfigError, match="does not say the classes"):
        load_classifier(f"mobilenet:{tmp_path / 'mine'}")


class Evil:
    """What a hostile pickle does when it is loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_a_hostile_pickle_is_not_run(tmp_path: Path) -> None:
    torch.save({"classifier.3.weight": Evil(tmp_path / "owned")}, tmp_path / "evil.pt")
    with pytest.raises(ConfigError, match="refused"):
        load_classifier(f"mobilenet:{tmp_path / 'evil.pt'}")
    assert not (tmp_path / "owned").exists()


def test_files_that_do_not_fit_are_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    file = authors_file(tmp_path, 2)

    def said(spec: str) -> str:
        with pytest.raises(ConfigError) as caught:
            load_classifier(spec)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert f"write mobilenet:gender:{file} or mobilenet:age:{file}" in said(f"mobilenet:{file}")
    assert "says nothing about race" in said(f"mobilenet:race:{authors_file(tmp_path, 80)}")
    assert "no file or folder" in said(f"mobilenet:{tmp_path / 'nothing.pt'}")
    assert "several files of weights" in said(f"mobilenet:{tmp_path}")
    assert "only files of 80, 8, 6, 4, 2 outputs are known" in said(f"mobilenet:{authors_file(tmp_path, 5)}")
    whole = state_dict(4)
    for name, tensors, word in (
        ("less", {key: value for key, value in whole.items() if key != "features.4.block.2.fc1.bias"}, "it lacks"),
        ("more", {**whole, "head.weight": torch.zeros(2)}, "it has 'head.weight' too"),
        ("other", {**whole, "features.0.0.weight": torch.zeros(16, 1, 3, 3)}, "other shapes"),
    ):
        save_file(tensors, tmp_path / f"{name}.safetensors")
        assert word in said(f"mobilenet:{tmp_path / f'{name}.safetensors'}")


def test_labels_that_name_their_attribute_make_several_heads(tmp_path: Path) -> None:
    labels = ["gender: female", "gender: male", "tone: pale", "tone: tan", "tone: dark"]
    classifier = load_classifier(f"transformers:{vit(tmp_path, labels)}")
    assert classifier.classes == {"gender": ("female", "male"), "tone": ("pale", "tan", "dark")}
    with torch.no_grad():
        found = classifier.logits(pictures(3))
    assert {name: tuple(value.shape) for name, value in found.items()} == {"gender": (3, 2), "tone": (3, 3)}
    for value in found.values():
        assert torch.allclose(value.exp().sum(1), torch.ones(3), atol=1e-5)  # each head is a distribution of its own


def test_gender_of_one_model_and_race_of_another_are_one_classifier(tmp_path: Path) -> None:
    gender, race = vit(tmp_path / "a+b", ["Female", "Male"]), vit(tmp_path / "race", RACES)
    parts = [load_classifier(f"transformers:{one}") for one in (gender, race)]
    classifier = load_classifier(f"transformers:{gender}+transformers:{race}")
    assert classifier.name == "transformers:a+b+transformers:race"
    assert classifier.classes == {"gender": FAMILIES["gender"], "race": FAMILIES["race"]}
    images = pictures(2)
    with torch.no_grad():
        found = classifier.logits(images)
        for part in parts:
            for name, logits in part.logits(images).items():
                assert torch.equal(found[name], logits)
    assert join(parts).identity == classifier.identity != join(parts[::-1]).identity


def test_of_what_several_know_the_mean_probability_counts_and_none_may_come_twice(clip: Path, tmp_path: Path) -> None:
    ages = f"transformers:{vit(tmp_path / 'age', AGES)}"
    both = f"{ages}+clip:{clip}"
    classifier, *parts = (load_classifier(one) for one in (both, ages, f"clip:{clip}"))
    assert set(classifier.classes) == {"age", "gender", "race"}
    images = pictures(2)
    boxes = torch.tensor([[8.0, 8, 40, 40]] * 2)
    with torch.no_grad():
        for see_them in (lambda one: one.logits(images), lambda one: see(one, images, boxes)):
            mean = sum(see_them(one)["age"].softmax(1) for one in parts) / 2
            assert torch.allclose(see_them(classifier)["age"].softmax(1), mean, atol=1e-6)
    with pytest.raises(ConfigError, match="age is given twice"):
        load_classifier(f"{both}+{ages}")


def test_who_names_the_classes_otherwise_than_the_first_is_not_asked() -> None:
    def one(name: str, classes: tuple[str, ...]) -> Classifier:
        rows = torch.arange(float(len(classes))).repeat(2, 1)
        return Classifier(name, name, {"age": classes}, lambda _: {"age": rows})

    first, other = one("first", ("young", "old")), one("other", ("child", "young", "old"))
    assert torch.equal(join([first, other]).logits(pictures(2))["age"], first.logits(pictures(2))["age"])


def test_gradients_of_every_attribute_reach_every_image(clip: Path, tmp_path: Path) -> None:
    spec = f"transformers:{vit(tmp_path / 'age', AGES)}+mobilenet:{authors_file(tmp_path, 4)}+clip:{clip}"
    for one in (*spec.split("+"), spec):
        classifier = load_classifier(one)
        for name, classes in classifier.classes.items():
            images = pictures(2, side=64).requires_grad_()
            logits = classifier.logits(images)[name]
            assert logits.shape == (2, len(classes))
            (slope,) = torch.autograd.grad(logits.softmax(1)[:, 0].sum(), images)
            assert torch.isfinite(slope).all() and (slope.flatten(1).abs().sum(1) > 0).all(), (one, name)


def known(name: str, identity: str) -> Classifier:
    return Classifier(name, identity, {name: ("a", "b")}, lambda images: {name: images[:, :2, 0, 0]})


def test_evaluating_with_what_was_trained_against_warns_also_of_a_part() -> None:
    gender, race, other = known("gender", "1"), known("race", "2"), known("age", "3")
    trained = join([gender, race]).identity
    for classifier in (gender, race, join([other, race])):
        warning = shared_classifier(trained, classifier)
        assert warning is not None and classifier.name in warning and "\n" not in warning
    assert shared_classifier(trained, other) is None
    assert shared_classifier(gender.identity, join([race, other])) is None


def test_each_classifier_sees_faces_with_the_margin_it_was_made_for_alone_and_as_a_part() -> None:
    images, boxes = pictures(2, side=64).requires_grad_(), torch.tensor([[24.0, 24, 40, 44], [20, 25, 40, 40]])
    gender, race, age = (
        known("gender", "1"),
        replace(known("race", "2"), margin=0.0),
        replace(known("age", "3"), margin=1.0),
    )
    together = see(join([join([gender, race]), age]), images, boxes)
    assert together.keys() == {"gender", "race", "age"}
    for one, margin in ((gender, 0.5), (race, 0.0), (age, 1.0)):
        expected = one.logits(crop_faces(images, boxes, margin=margin))[one.name]
        assert torch.equal(see(one, images, boxes)[one.name], expected) and torch.equal(together[one.name], expected)
        assert torch.equal(see(one, images, None)[one.name], one.logits(images)[one.name])
    assert torch.autograd.grad(together["age"].sum(), images)[0].any()


def test_an_evaluation_cuts_faces_out_as_wide_as_its_classifier_wants_and_begins_anew_with_another_margin() -> None:
    images, boxes = pictures(2, side=64), torch.tensor([[24.0, 24, 40, 44], [20, 25, 40, 40]])
    found = Faces(boxes, torch.zeros(2, 5, 2), torch.ones(2), torch.ones(2).bool())
    identities = set()
    for margin in (0.5, 0.1):
        one = replace(known("gender", "1"), margin=margin)
        instruments = Instruments((one,), faces=FaceDetector("stub", "1", lambda images: found))
        seen = look_at(images, "a nurse", "", instruments).probabilities["gender"]["gender"]
        logits = one.logits(crop_faces(images, boxes, margin=margin))["gender"]
        assert torch.equal(torch.from_numpy(seen), logits.softmax(1))
        identities |= {
            instruments.identity,
            Instruments((join([one, known("age", "2")]),), faces=instruments.faces).identity,
        }
    assert len(identities) == 4


def test_a_word_says_the_margin_before_its_source() -> None:
    one = load_classifier("sandbox:margin=0.2:training")
    assert one.margin == 0.2 and load_classifier("sandbox:training").margin == 0.5
    assert one.identity == load_classifier("sandbox:training").identity, "or nobody were warned of measuring with it"
    assert parse("clip:margin=-.1:ORG/NAME@main") == Word(
        "clip:margin=-.1:ORG/NAME@main", "clip", "ORG/NAME@main", -0.1
    )
    for number in ("wide", "nan", "4"):
        with pytest.raises(ConfigError, match=f"is '{number}'; it must be a number from -0.5 to 3"):
            load_classifier(f"sandbox:margin={number}:training")
    with pytest.raises(ConfigError, match="an encoder sees whole images"):
        load_encoder("sandbox:margin=0.2:training")


def test_the_sandboxs_two_classifiers_are_not_one() -> None:
    training, evaluation = load_classifier("sandbox:training"), load_classifier("sandbox:evaluation")
    assert shared_classifier(training.identity, evaluation) is None
    assert shared_classifier(training.identity, training) is not None
