"""A new attribute is one row of the table: classifiers, CLIP, recipes, conversion and prompts then know it."""

from pathlib import Path

import pytest
from fair_adaptors.training.setup import known_attributes

from fair_adaptors import attributes
from fair_adaptors.attributes import PersonAttribute, PersonClass
from fair_adaptors.convert.importing import parse_attributes
from fair_adaptors.errors import ConfigError
from fair_adaptors.evaluation import baselines
from fair_adaptors.prompts import sets
from fair_adaptors.steering.draw import Attribute
from fair_adaptors.steering.lexicon import usual_lexicon
from fair_adaptors.vision.catalog import load_classifier
from fair_adaptors.vision.heads import class_of, read_labels
from tests.vision_models import small_clip

GLASSES = PersonAttribute(
    "eyewear",
    (
        PersonClass("with", ("glasses", "sunglasses"), ("someone in glasses",), ("bespectacled",), ("{} in glasses",)),
        PersonClass("without", ("no glasses",), ("a person without glasses",), (), ("{} without glasses",)),
    ),
    factors=(0.3, 0.7),
    place=0,
    called="glasses",
)


def test_it_is_known_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="not the classes of"):
        read_labels("theirs", ["sunglasses", "no glasses"])
    monkeypatch.setattr(attributes, "ATTRIBUTES", (*attributes.ATTRIBUTES, GLASSES))
    assert read_labels("theirs", ["no glasses", "sunglasses", "glasses"])["eyewear"].columns == ((1, 2), (0,))
    assert class_of("eyewear", "No_Glasses") == "without"
    assert load_classifier(f"clip:{small_clip(tmp_path / 'clip')}").classes["eyewear"] == ("with", "without")
    recipe = known_attributes("someone/model")["eyewear"]
    assert (recipe.classes, recipe.factor1, recipe.factor2) == (("with", "without"), 0.3, 0.7)
    assert list(parse_attributes(["eyewear=0.25,0.75"], "mine", "sd15")["eyewear"].classes) == ["with", "without"]
    asked = Attribute("eyewear", ("with", "without"), (0.5, 0.5))
    assert "irrespective of their glasses" in baselines.ethical_intervention([asked]).summary
    assert baselines._spoken("eyewear", asked.classes, asked.target)[0] == ("bespectacled", "without")
    monkeypatch.setattr(sets, "_known_sets", sets._known_sets.__wrapped__)
    assert "senator in glasses" in sets.load_prompts("explicit").labels


def test_the_words_by_which_a_prompt_names_it_are_known_of_every_attribute() -> None:
    """Without them a prompt that says it would be steered all the same."""
    assert usual_lexicon().anywhere.keys() == {one.name for one in attributes.ATTRIBUTES}


def test_an_attribute_without_labels_or_words_is_no_candidate_for_either() -> None:
    assert "tone" not in attributes.labels() and "tone" not in attributes.clip_words()
    assert attributes.labels().keys() == attributes.clip_words().keys() == {"gender", "race", "age"}
