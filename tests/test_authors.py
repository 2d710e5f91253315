"""The parts of the authors' data.zip by name: classifiers, prompts, faces and their recogniser, in their layout."""

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from fair_adaptors.training.config import Attribute
from fair_adaptors.training.faces.authors import load_bank
from fair_adaptors.training.recipes import get_recipe
from fair_adaptors.training.setup import load_setup

from fair_adaptors.adaptor.archives import DATA
from fair_adaptors.errors import ArchiveError, ConfigError
from fair_adaptors.evaluation.run import look_at
from fair_adaptors.evaluation.spec import Instruments
from fair_adaptors.files import CACHE
from fair_adaptors.hub.archive import fetch_archive
from fair_adaptors.prompts.authors import AUTHORS_PROMPTS
from fair_adaptors.prompts.sets import load_prompts
from fair_adaptors.vision import authors, mobilenet_classifier
from fair_adaptors.vision.authors import AUTHORS_CLASSIFIERS, classifiers_for_tests
from fair_adaptors.vision.catalog import load_classifier
from fair_adaptors.vision.checked import checked
from fair_adaptors.vision.crops import crop_faces
from fair_adaptors.vision.face_encoders import load_face_encoder
from fair_adaptors.vision.mobilenet import mobilenet_v3_large
from fair_adaptors.vision.types import FaceDetector, Faces
from tests import authors_data as theirs
from tests.checkpoints import as_bytes
from tests.vision_models import pictures
from tests.yunet import known_yunet

COLUMNS = {
    "gender": {"gender": 40},  # number 20 of forty pairs
    "gender-race": {"gender": 0, "race": 2},
    "gender-race-age": {"gender": 0, "race": 2, "age": 6},
    "test-gender": {"gender": 0},
    "test-race": {"race": 0},
    "test-age": {"age": 0},
}
CLASSES = {"gender": ("female", "male"), "race": ("WMELH", "Black", "Indian", "Asian"), "age": ("young", "old")}


@pytest.mark.parametrize("name", AUTHORS_CLASSIFIERS)
def test_a_classifier_is_the_authors_file_with_its_columns_in_their_order(authors_data: Path, name: str) -> None:
    classifier = load_classifier(f"authors:{name}")
    network = mobilenet_v3_large(theirs.CLASSIFIERS[name][1]).eval()
    network.load_state_dict(theirs.classifier_state(name))
    images = pictures(2, side=224)
    with torch.no_grad():
        raw, found = network(images * 2 - 1), classifier.logits(images)
    assert classifier.name == f"authors:{name}"
    assert classifier.classes == {each: CLASSES[each] for each in COLUMNS[name]} == AUTHORS_CLASSIFIERS[name].classes
    for each, start in COLUMNS[name].items():
        expected = raw[:, start : start + len(CLASSES[each])].softmax(1)
        assert torch.allclose(found[each].softmax(1), expected, atol=1e-5)


@pytest.mark.parametrize("name", AUTHORS_CLASSIFIERS)
def test_a_classifier_sees_faces_cut_out_as_the_authors_did_in_training_and_evaluation(
    authors_data: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1.5 times as wide as their boxes, whatever is usual for others; a row of its own may say otherwise."""
    images, boxes = pictures(2, side=64), torch.tensor([[24.0, 24, 40, 44], [20, 25, 40, 40]])
    found = Faces(boxes, torch.zeros(2, 5, 2), torch.ones(2), torch.ones(2).bool())
    monkeypatch.setattr(mobilenet_classifier, "MARGIN", 0.0)
    for margin in (0.5, 0.2):
        if margin != 0.5:
            row = dataclasses.replace(AUTHORS_CLASSIFIERS[name], margin=margin)
            monkeypatch.setattr(authors, "AUTHORS_CLASSIFIERS", {name: row})
        classifier = load_classifier(f"authors:{name}")
        expected = classifier.logits(crop_faces(images, boxes, margin=margin))
        instruments = Instruments((classifier,), faces=FaceDetector("stub", "1", lambda images: found))
        measured = look_at(images, "a nurse", "", instruments).probabilities[classifier.name]
        trained = checked(classifier)(images, boxes)
        for attribute, logits in expected.items():
            assert torch.equal(trained[attribute], logits)
            assert torch.equal(torch.from_numpy(measured[attribute]), logits.softmax(1))


def test_those_for_tests_are_joined_and_are_not_those_that_were_trained_against(authors_data: Path) -> None:
    joined = load_classifier(classifiers_for_tests(["gender", "race", "age"]))
    assert joined.classes == CLASSES and joined.name == "authors:test-gender+authors:test-race+authors:test-age"
    trained = {load_classifier(f"authors:{name}").identity for name in ("gender", "gender-race", "gender-race-age")}
    assert len(trained) == 3 and not trained & set(joined.identity.split("+"))


def test_prompts_are_the_authors_lists(authors_data: Path) -> None:
    train, validation, test = (load_prompts(f"authors:occupations{end}") for end in ("", "-validation", "-test"))
    assert train.labels == ("nurse", "guard", "baker") and train.name == "authors:occupations"
    assert train.prompts[1] == "A photo of the face of a guard, a person" and validation.labels == ("dancer",)
    assert test.prompts == tuple(theirs.OCCUPATIONS["test_prompts"]) and test.labels == ("senator", "butcher")
    files = {"styles": "occupation_w_style_and_context", "descriptors": "personal_descriptor", "sports": "sports"}
    for name, file in files.items():
        for end, key in (("", "train_prompts"), ("-validation", "val_prompts"), ("-test", "test_prompts")):
            found = load_prompts(f"authors:{name}{end}")
            assert found.prompts == found.labels == (f"{file} {key}",) and "2311.07604" in found.source
    assert load_prompts("authors:laion-test").prompts == ("a bartender at a bar",)
    assert len(AUTHORS_PROMPTS) == 13


def test_the_face_recogniser_computes_what_opensphere_computes(authors_data: Path) -> None:
    encoder = load_face_encoder("authors:opensphere")
    faces = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    state = theirs.recogniser_state()
    wanted = theirs.recognised(state, faces * 2 - 1) + theirs.recognised(state, faces.flip(-1) * 2 - 1)
    leaf = faces.clone().requires_grad_()
    found = encoder.encode(leaf)
    assert torch.allclose(found, F.normalize(wanted, dim=1), atol=1e-4)
    (slope,) = torch.autograd.grad(found[:, 0].sum(), leaf)
    assert (slope.flatten(1).abs().sum(1) > 0).all()


def attributes(*names: str) -> list[Attribute]:
    return [Attribute(name, CLASSES[name], (1 / len(CLASSES[name]),) * len(CLASSES[name])) for name in names]


def test_their_faces_are_a_bank_for_their_recogniser_alone(authors_data: Path) -> None:
    encoder = load_face_encoder("authors:opensphere")
    bank = load_bank("authors:fairface", encoder, attributes("gender", "race", "age"))  # it knows no age
    features, genders, _, races, _ = theirs.bank_of("fairface")
    assert torch.allclose(bank.features.float(), F.normalize(features, dim=1), atol=1e-3)
    assert torch.equal(bank.labels["gender"].long(), genders) and torch.equal(bank.labels["race"].long(), races)
    assert bank.classes == {name: CLASSES[name] for name in ("gender", "race")} and "FairFace" in bank.source
    assert load_bank("authors:celeba", encoder, attributes("gender")).classes == {"gender": CLASSES["gender"]}
    other = load_face_encoder("authors:opensphere").__class__("auraface", "1", encoder.encode)
    with pytest.raises(ConfigError, match="mean nothing to auraface. Set face_encoder=authors:opensphere"):
        load_bank("authors:fairface", other, attributes("gender"))


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (lambda: load_classifier("authors:gender-rase"), "no classifier 'gender-rase'. Did you mean 'gender-race'"),
        (lambda: load_prompts("authors:ocupations"), "no prompt set 'ocupations'. Did you mean 'occupations'"),
        (lambda: load_face_encoder("authors:sphere"), "no face encoder 'sphere'. Did you mean 'opensphere'"),
        (lambda: load_bank("authors:face", load_face_encoder("authors:opensphere"), []), "no face bank 'face'"),
    ],
)
def test_a_wrong_name_says_which_there_are(authors_data: Path, load: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load()  # type: ignore[operator]


def test_without_the_archive_it_is_said_where_to_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    with pytest.raises(ArchiveError, match=DATA.file_id):
        load_classifier("authors:gender-race")
    assert not list(tmp_path.rglob("*.pt"))


OCCUPATION = "data/1-prompts/occupation.json"


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ({"data/1-prompts/else.json": b""}, ArchiveError, "no 1-prompts/occupation.json below its top folder"),
        ({OCCUPATION: b"[1]"}, ConfigError, "not a JSON object"),
        ({OCCUPATION: b"{}"}, ConfigError, "no list 'occupations_train_set'"),
        ({OCCUPATION: b'{"occupations_train_set": [3]}'}, ConfigError, "item 1: the prompt must be text, got int"),
    ],
)
def test_an_archive_of_another_layout_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: dict[str, bytes], error: type[Exception], message: str
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    fetch_archive(DATA, source=theirs.zipped(tmp_path / "other.zip", content), progress=False)
    with pytest.raises(error, match=message):
        load_prompts("authors:occupations")


def test_a_part_is_unpacked_once_and_whole(authors_data: Path) -> None:
    load_prompts("authors:sports")
    (part,) = authors_data.rglob("sports.json")
    before = part.stat().st_mtime_ns
    load_prompts("authors:sports-test")
    assert part.stat().st_mtime_ns == before and not list(authors_data.rglob(".sports*"))


def test_another_network_in_the_recognisers_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    state = theirs.recogniser_state()
    del state["module.layer1.1.conv1.weight"]
    content = {OCCUPATION: b"", theirs.RECOGNISER: as_bytes(state)}
    fetch_archive(DATA, source=theirs.zipped(tmp_path / "other.zip", content), progress=False)
    with pytest.raises(ConfigError, match="an IResNet with opensphere's names: 'layer1.1.conv1.weight' do not fit"):
        load_face_encoder("authors:opensphere")


def test_a_run_as_the_papers_loads_the_authors_parts(authors_data: Path, base: str, tmp_path: Path) -> None:
    (tmp_path / "yunet.onnx").write_bytes(known_yunet(everywhere=True))
    small = {"dtype": "float32", "encoders": "", "faces": f"yunet:{tmp_path / 'yunet.onnx'}"}
    config = dataclasses.replace(get_recipe("gender-race", {"paper": "true"} | small), base=base)
    setup = load_setup(config)
    assert setup.prompts == {"authors:occupations": load_prompts("authors:occupations").prompts}
    assert setup.validation_prompts == load_prompts("authors:occupations-validation").prompts
    assert setup.face_bank is not None and setup.face_encoder is not None
    assert not any("trained against" in line for line in setup.warnings)
    assert setup.trained_against == load_classifier("authors:gender-race").identity
    with torch.no_grad():
        found = setup.classifier(pictures(2, side=64))
    assert {name: tuple(row.shape) for name, row in found.items()} == {"gender": (2, 2), "race": (2, 4)}
