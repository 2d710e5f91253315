"""Which prompts are left alone by what steers images, and whom a prompt names."""

import json
from pathlib import Path
from typing import Any

import pytest

from fair_adaptors.errors import ConfigError
from fair_adaptors.prompts.sets import list_prompt_sets, load_prompts
from fair_adaptors.steering.gate import Gate

NAMES = ("gender", "race", "age")
OPEN = ("occupations-train", "occupations-validation", "occupations-test", "sports", "descriptors", "styles")
ORDINARY = [name for name in list_prompt_sets() if name.startswith(OPEN) and "named" not in name] + ["sandbox-train"]


@pytest.fixture(scope="module")
def gate() -> Gate:
    return Gate()


@pytest.mark.parametrize("name", ORDINARY)
def test_every_occupation_is_a_person_and_none_names_a_gender_or_race(gate: Gate, name: str) -> None:
    looks = {prompt: gate.look(prompt, ("gender", "race")) for prompt in load_prompts(name).prompts}
    assert [prompt for prompt, look in looks.items() if look.person is None or look.reasons] == []


def test_the_words_come_before_the_whole_occupation_and_not_into_it(gate: Gate) -> None:
    found = load_prompts("occupations-test")
    texts = [person.text for prompt in found.prompts if (person := gate.person(prompt))]
    assert texts == list(found.labels)
    alone = gate.person("In Paris, and nurse")
    assert alone and alone.text == "nurse"


@pytest.mark.parametrize("name", [one for one in list_prompt_sets() if "named" in one or "explicit" in one])
def test_what_a_prompt_names_is_left_alone(gate: Gate, name: str) -> None:
    found = load_prompts(name)
    missed = [
        prompt
        for prompt, named in zip(found.prompts, found.expected, strict=True)
        if not named.keys() <= gate.look(prompt, tuple(named)).reasons.keys()
    ]
    assert len(missed) <= len(found.prompts) // 400, missed


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("a female senator", {"gender"}),
        ("my grandfather", {"gender", "age"}),
        ("a businesswoman at her desk", {"gender"}),
        ("a senator in his office", {"gender"}),
        ("a man's face, a person", {"gender"}),
        ("a pregnant teacher", {"gender"}),
        ("a young Black nurse", {"age", "race"}),
        ("an engineer who is black", {"race"}),
        ("a 45-year-old engineer", {"age"}),
        ("an engineer aged 50", {"age"}),
        ("a Nigerian engineer", {"race"}),
        ("eine Ärztin im Krankenhaus", {"gender"}),
        ("ein Foto von einem jungen Lehrer", {"age"}),
        ("une infirmière à l'hôpital", {"gender"}),
        ("un portrait d'un vieux médecin", {"age"}),
        ("una doctora en el hospital", {"gender"}),
        ("una foto de un médico chino", {"race"}),
        ("a black and white photo of a geologist", set()),
        ("a chef in a white coat", set()),
        ("an old house with a nurse in front", set()),
        ("a kind nurse", set()),
        ("a nurse helping patients", set()),
        ("ein Foto eines Arztes", set()),
        ("une photo d'un médecin", set()),
        ("una foto de un médico", set()),
        ("un boulanger devant son four", set()),
        ("un joven ingeniero", {"age"}),
        ("un pianiste noir", {"race"}),
        ("a dog walker with a French bulldog", set()),
        ("a French bulldog breeder", {"race"}),
        ("a Chinese food vendor", {"race"}),
        ("an 8-year-old in a dinosaur costume", {"age"}),
        ("a Black 20-year-old at a bus stop", {"age", "race"}),
        ("a person who is mayor of a town", set()),
        ("a nurse who is Blanche's friend", set()),
        ("portrait, chef, 8k", set()),
        ("un chef mexicano", {"race"}),
        ("a twenty-year-old, oil on canvas", {"age"}),
        ("pescador filipino remendando redes", {"race"}),
        ("una foto en blanco y negro de un pescador", set()),
    ],
)
def test_a_word_counts_where_it_is_said_of_the_person(gate: Gate, prompt: str, named: set[str]) -> None:
    look = gate.look(prompt, NAMES)
    assert look.person is not None and look.reasons.keys() == named


@pytest.mark.parametrize(
    "prompt",
    [
        "a house by the lake",
        "a flower in the water",
        "a tiger in the jungle",
        "a coffee maker on a counter",
        "a wooden dresser",
        "an aircraft carrier at sea",
        "a doctor's office",
        "a guard dog in the snow",
        "a 20-year-old pickup in the yard",
        "the 8-year-old's bedroom",
        "Barack Obama as a 20-year-old",
        "my cat, a 12-year-old with a grey muzzle",
        "Tina Turner, portrait, stage",
        "Jack Bauer, portrait, cinematic",
        "eine Gruppe Taucher",
        "a cat wearing a chef hat",
        "a German shepherd dog",
        "a photo of Barack Obama",
        "President Lincoln giving a speech",
        "a group of doctors",
        "three nurses in a hospital",
        "a happy family",
        "a portrait of the popes of the 15th century",
        "a portrait of a 15th century merchant",
        "a soldier in 1812",
        "a founding father of the United States",
        "soldiers of the Wehrmacht",
        "drei Schüler vor der Schule",
        "a board of directors",
        "Herr Schmidt im Büro",
        "a pilot light in a gas stove",
        "",
    ],
)
def test_no_person_several_a_known_one_or_other_times_are_left_alone_and_it_is_said_why(
    gate: Gate, prompt: str
) -> None:
    reasons = gate.look(prompt, NAMES).reasons
    assert reasons.keys() == set(NAMES) and all(reasons.values())


def test_history_can_be_steered_and_prompts_be_exempt() -> None:
    assert not Gate(history=True).look("a soldier in 1812", NAMES).reasons
    exempt = Gate(exempt=("*Senator*", "a chef"))
    assert "'*Senator*'" in exempt.look("Portrait of a senator", ("gender",)).reasons["gender"]
    assert exempt.look("A chef", NAMES).reasons and not exempt.look("a chef at work", NAMES).reasons


def test_a_lexicon_can_be_added_to_and_words_be_taken_out(tmp_path: Path) -> None:
    more: dict[str, Any] = {
        "people": {"en": ["wugmonger", "-chef"], "it": ["infermiere"]},
        "function": {"it": ["un una di il la"]},
        "attributes": {"gender": {"people": {"it": ["infermiera"]}}, "hair": {"anywhere": {"en": ["blond"]}}},
    }
    (tmp_path / "mine.json").write_text(json.dumps(more))
    for gate in (Gate(lexicon=more), Gate(lexicon=tmp_path / "mine.json")):
        assert gate.person("a wugmonger at work") and not gate.person("a chef at work")
        assert not gate.look("una foto di un infermiere", NAMES).reasons
        assert gate.look("una foto di una infermiera", NAMES).reasons.keys() == {"gender"}
        assert gate.look("a blond nurse", ("hair",)).reasons.keys() == {"hair"}
    for wrong in (
        {"poeple": {}},
        {"people": ["nurse"]},
        {"people": {"en": "nurse"}},
        ["nurse"],
        tmp_path / "none.json",
    ):
        with pytest.raises(ConfigError, match="lexicon"):
            Gate(lexicon=wrong)  # type: ignore[arg-type]
