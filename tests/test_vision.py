"""Published kinds of vision models as instruments: small ones of the real classes, saved in the real layout."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fair_adaptors.training.recipes import get_recipe
from fair_adaptors.training.setup import load_setup
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPModel, ViTForImageClassification

from fair_adaptors.errors import ConfigError, MissingExtraError
from fair_adaptors.evaluation.run import check_targets, evaluate
from fair_adaptors.evaluation.spec import Instruments, Target
from fair_adaptors.prompts.sets import PromptSet
from fair_adaptors.report.page import write_report
from fair_adaptors.vision import clip as clip_module
from fair_adaptors.vision.catalog import load_classifier, load_encoder
from fair_adaptors.vision.checked import checked
from fair_adaptors.vision.pretrained import loaded
from fair_adaptors.vision.types import Classifier
from tests.evaluated import small
from tests.tiny import tiny_pipeline
from tests.vision_models import AGES, RACES, pictures, small_dino, vit


def test_clip_features_are_those_of_its_own_preprocessing(clip: Path) -> None:
    encoder = load_encoder(f"clip:{clip}")
    images = pictures(3)
    files = [Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()) for image in images]
    pixels = CLIPImageProcessorPil.from_pretrained(clip)(files, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = CLIPModel.from_pretrained(clip).get_image_features(pixel_values=pixels).pooler_output
        found = encoder.encode(images)
    assert torch.allclose(found, expected / expected.norm(dim=1, keepdim=True), atol=1e-4)
    assert encoder.encode_text is not None
    assert torch.allclose(encoder.encode_text(["a nurse", "a guard"]).norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("load", [load_classifier, partial(load_encoder, whole=True)])
def test_a_training_keeps_of_clip_what_images_need_and_knows_it_by_all(
    clip: Path, load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[CLIPModel] = []
    known_by = clip_module.identity

    def identity(model: CLIPModel, *words: str) -> str:
        assert model.text_model is not None
        models.append(model)
        return known_by(model, *words)

    monkeypatch.setattr(clip_module, "identity", identity)
    load(f"clip:{clip}")
    (model,) = models
    assert {name.partition(".")[0] for name, _ in model.named_parameters()} == {
        "logit_scale", "vision_model", "visual_projection"
    }  # fmt: skip


def test_images_of_another_size_are_resized_whole_with_gradients(clip: Path) -> None:
    images = pictures(2, side=64).requires_grad_()
    load_encoder(f"clip:{clip}").encode(images).sum().backward()
    assert images.grad is not None and images.grad[:, :, :4, :4].abs().sum() > 0


def test_dino_features_have_length_one(tmp_path: Path) -> None:
    found = load_encoder(f"dinov2:{small_dino(tmp_path)}").encode(pictures(3))
    assert found.shape == (3, 16) and torch.allclose(found.norm(dim=1), torch.ones(3))


def test_labels_of_one_class_add_up(tmp_path: Path) -> None:
    races = load_classifier(f"transformers:{vit(tmp_path / 'race', RACES)}")
    assert races.classes == {"race": ("WMELH", "Black", "Indian", "Asian")}
    images = pictures(4)
    pixels = (images - 0.5) / 0.5
    with torch.no_grad():
        logits = ViTForImageClassification.from_pretrained(tmp_path / "race")(pixel_values=pixels).logits
        found = races.logits(images)["race"].softmax(1)
    parts = logits.softmax(1)
    expected = torch.stack([parts[:, [0, 2, 6]].sum(1), parts[:, 1], parts[:, 5], parts[:, [3, 4]].sum(1)], 1)
    assert torch.allclose(found, expected, atol=1e-5)
    ages = load_classifier(f"transformers:{vit(tmp_path / 'age', AGES)}")
    assert ages.classes == {"age": ("young", "old")}


def test_labels_that_are_no_attribute_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="predicts cat, dog, which are not the classes of gender, race, age"):
        load_classifier(f"transformers:{vit(tmp_path, ['cat', 'dog'])}")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_encoder(f"clip:{tmp_path / 'nothing'}")


def test_any_pipeline_is_evaluated_with_two_unlike_classifiers(clip: Path, tmp_path: Path) -> None:
    """The one knows gender, race and age, the other gender only: what both know is compared."""
    both = (
        load_classifier(f"clip:{clip}"),
        load_classifier(f"transformers:{vit(tmp_path / 'vit', ['Female', 'Male'])}"),
    )
    instruments = Instruments(both, (load_encoder(f"clip:{clip}"),))
    targets = Target(("gender",), (0.5, 0.5)), Target(("race",), (0.25,) * 4)
    wanted = small(PromptSet("mine", ("a nurse", "a guard"), ("nurse", "guard"), "here"), num_steps=2)
    wanted = type(wanted)(**{**vars(wanted), "targets": targets})
    variant = evaluate(tiny_pipeline(), wanted, [], instruments, tmp_path / "out").original
    assert [set(variant.bias[one.name]) for one in both] == [{"gender", "race", "age"}, {"gender"}]
    assert [row.target for row in variant.agreement] == ["gender"]
    assert -1 <= variant.text_alignment[f"clip:{clip.name}"].value <= 1
    with contextlib.suppress(MissingExtraError):
        page = write_report(tmp_path / "out", command="…").read_text(encoding="utf-8")
        assert "fit to prompt" in page
    with pytest.raises(ConfigError, match="no classifier knows race"):
        check_targets(wanted, Instruments(both[1:]))


def test_a_training_checks_the_first_batch_of_a_classifier() -> None:
    """Images that are not finite tell nothing of the classifier, and one of a batch that is not is left out later."""
    sound, nan = torch.full((2, 3, 4, 4), 0.5), torch.tensor([torch.nan, 1.0])
    broken = sound * torch.nan
    sees = Classifier("eye", "eye", {"light": ("no", "yes")}, lambda images: {"light": images.mean((2, 3))[:, :2]})
    checked(sees)(broken)
    checked(sees)(sound * nan[:, None, None, None])
    checked(replace(sees, logits=lambda images: {"light": sees.logits(images)["light"] * nan[:, None]}))(sound)
    for logits, said in (
        (lambda images: {"light": images.mean((2, 3))}, r"the classifier eye .* light \(2, 3\)"),
        (
            lambda images: {"light": images.mean((2, 3))[:, :2] * torch.nan},
            "NaN or infinite logits of light for 2 of 2",
        ),
    ):
        with pytest.raises(ConfigError, match=said):
            checked(replace(sees, logits=logits))(sound)
    batches = iter([sound, broken])
    later = checked(replace(sees, logits=lambda images: {"light": next(batches).mean((2, 3))[:, :2]}))
    later(sound)
    assert later(sound)["light"].isnan().all()


FIVE = Classifier(
    "five", "five", {"gender": ("female", "male")}, lambda images: {"gender": torch.zeros(len(images), 5)}
)


def test_what_a_training_loads_is_checked() -> None:
    mine = dict.fromkeys(("classifier", "judge"), "tests.test_vision:FIVE")
    setup = load_setup(get_recipe("sandbox-gender", mine))
    for see in (setup.classifier, setup.validation_classifier):
        with pytest.raises(ConfigError, match=r"five was shown 3 images and returned gender \(3, 5\)"):
            see(torch.rand(3, 3, 8, 8))


def test_a_library_that_fails_without_a_word_is_told_by_the_kind_of_its_error() -> None:
    class Silent:
        @staticmethod
        def from_pretrained(*place: object, **settings: object) -> None:
            raise OSError

    with pytest.raises(ConfigError, match="a/b cannot be loaded: OSError"):
        loaded(Silent, "a/b")
