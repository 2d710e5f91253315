import dataclasses

import pytest

from fair_adaptors.errors import ConfigError
from fair_adaptors.prompts.sets import FOLDER, list_prompt_sets, load_prompts
from fair_adaptors.sandbox.prompts import OCCUPATIONS, occupations, prompts

COUNTS = {
    "occupations-train": 476,
    "occupations-validation": 10,
    "occupations-test": 50,
    "untemplated": 6,
    "explicit": 100,
    "sports": 30,
    "descriptors": 40,
    "styles": 24,
    "occupations-named-gender": 952,
    "occupations-named-race": 1904,
    "occupations-named-age": 952,
    "sandbox-train": 56,
    "sandbox-validation": 8,
    "sandbox-test": 16,
    "sandbox-bare": 56,
    "sandbox-aged": 112,
    "sandbox-explicit": 96,
    "sandbox-explicit-validation": 48,
    "sandbox-named-gender": 112,
    "sandbox-named": 336,
}
EXPLICIT = {
    "explicit",
    "sandbox-explicit",
    "sandbox-explicit-validation",
    "sandbox-named-gender",
    "sandbox-named",
    "occupations-named-gender",
    "occupations-named-race",
    "occupations-named-age",
}
CLASSES = {
    "gender": {"female", "male"},
    "race": {"WMELH", "Black", "Indian", "Asian"},
    "age": {"young", "old"},
    "tone": {"pale", "tan", "brown", "dark"},
}
WORDS = {"woman": "female", "man": "male", "White": "WMELH"}
"""Words that name a class whose name is another."""


def as_lower_case(name: str) -> set[str]:
    return {label.lower() for label in load_prompts(name).labels}


def test_the_sets_are_described_with_their_number_of_prompts() -> None:
    described = list_prompt_sets()
    assert {name: int(text.split()[0]) for name, text in described.items()} == COUNTS
    assert all("\n" not in text and text.endswith(".") for text in described.values())


def test_every_list_of_the_package_belongs_to_a_set() -> None:
    assert {path.stem for path in FOLDER.iterdir()} < set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_a_set_has_distinct_prompts_that_contain_their_labels_and_tells_its_source(name: str) -> None:
    found = load_prompts(name)
    assert found.name == name
    assert len(found.prompts) == len(found.labels) == COUNTS[name]
    for texts in (found.prompts, found.labels):
        assert len({text.lower() for text in texts}) == COUNTS[name]
    for text in (*found.prompts, *found.labels, found.source):
        assert text and text == text.strip() and text.isprintable() and not set("{}") & set(text)
    assert all(label in prompt for prompt, label in zip(found.prompts, found.labels, strict=True))


def test_the_sources_say_whose_the_lists_are() -> None:
    for name in ("occupations-validation", "occupations-test", "untemplated"):
        assert load_prompts(name).source == "Shen et al., ICLR 2024 (arXiv 2311.07604)"
    for name in ("sports", "descriptors", "styles"):
        assert load_prompts(name).source == "written for fair-adaptors; the authors' own list is in their data.zip"
    assert "ISCO-08" in load_prompts("occupations-train").source


def test_training_occupations_are_in_no_other_split() -> None:
    held_out = as_lower_case("occupations-validation") | as_lower_case("occupations-test")
    assert len(held_out) == 60
    assert not as_lower_case("occupations-train") & held_out


def test_occupations_stand_in_the_template_of_the_paper() -> None:
    assert load_prompts("occupations-test").prompts[0] == "A photo of the face of a senator, a person"
    assert load_prompts("occupations-validation").prompts[3] == "A photo of the face of a fine artist, a person"
    for name in ("occupations-train", "sports", "explicit"):
        found = load_prompts(name)
        assert list(found.prompts) == [f"A photo of the face of a {label}, a person" for label in found.labels]


def test_prompts_in_free_wording_mark_the_person() -> None:
    found = load_prompts("untemplated")
    assert found.prompts[2] == "bartender at willard intercontinental makes mint julep"
    assert found.labels[2] == "bartender"


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_sandbox_has_its_own_splits(split: str) -> None:
    found = load_prompts(f"sandbox-{split}")
    assert (found.prompts, found.labels) == (prompts(split), occupations(split))  # type: ignore[arg-type]


def occupation_in(label: str) -> str:
    """The occupation that a label of an explicit set ends with."""
    known = (*load_prompts("occupations-test").labels, *load_prompts("occupations-train").labels, *OCCUPATIONS)
    return max((occupation for occupation in known if label.endswith(f" {occupation}")), key=len)


@pytest.mark.parametrize("name", sorted(EXPLICIT))
def test_the_first_word_of_an_explicit_label_names_the_expected_class(name: str) -> None:
    found = load_prompts(name)
    for label, expected in zip(found.labels, found.expected, strict=True):
        word = label.split()[0]
        assert list(expected.values()) == [WORDS.get(word, word)]


@pytest.mark.parametrize(
    ("name", "occupations", "attributes"),
    [
        ("explicit", 10, ("gender", "race", "age")),
        ("sandbox-explicit", 16, ("gender", "tone")),
        ("sandbox-explicit-validation", 8, ("gender", "tone")),
        ("sandbox-named-gender", 56, ("gender",)),
        ("sandbox-named", 56, ("gender", "tone")),
        ("occupations-named-gender", 476, ("gender",)),
        ("occupations-named-race", 476, ("race",)),
        ("occupations-named-age", 476, ("age",)),
    ],
)
def test_every_occupation_is_asked_for_in_every_class(
    name: str, occupations: int, attributes: tuple[str, ...]
) -> None:
    found = load_prompts(name)
    asked: dict[str, set[tuple[str, str]]] = {}
    for label, expected in zip(found.labels, found.expected, strict=True):
        asked.setdefault(occupation_in(label), set()).update(expected.items())
    every = {(attribute, named) for attribute in attributes for named in CLASSES[attribute]}
    assert len(asked) == occupations
    assert all(classes == every for classes in asked.values())


def test_only_explicit_sets_expect_something() -> None:
    assert {name for name in COUNTS if load_prompts(name).expected} == EXPLICIT


def test_no_prompt_of_a_class_to_be_obeyed_is_trained_on() -> None:
    trained = {occupation_in(label) for label in load_prompts("sandbox-named").labels}
    for name, split in (("sandbox-explicit", "test"), ("sandbox-explicit-validation", "validation")):
        asked = {occupation_in(label) for label in load_prompts(name).labels}
        assert asked == set(occupations(split)) and not asked & trained  # type: ignore[arg-type]


def test_styles_show_occupations_that_are_held_out() -> None:
    assert as_lower_case("styles") <= as_lower_case("occupations-test")


def test_a_set_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_prompts("sports").name = "x"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["occupation-test", "sport", "", "prompts.csv", "nowhere/sports"])
def test_an_unknown_set_is_an_error_that_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match="Sets: occupations-train, .*sandbox-named; or give a file"):
        load_prompts(name)


def test_a_misspelt_set_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'descriptors'"):
        load_prompts("descriptor")


# Files.
