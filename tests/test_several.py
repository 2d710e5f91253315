"""People whom a prompt names side by side: who is told apart, and that each has a class of their own."""

from itertools import product

import pytest
import torch

from fair_adaptors import load_fair_adaptor
from fair_adaptors.steering.calls import Call
from fair_adaptors.steering.gate import Gate
from fair_adaptors.steering.words import read_words
from tests.tiny import tiny_pipeline

GATE = Gate()


@pytest.mark.parametrize(
    ("prompt", "people"),
    [
        ("a nurse and a doctor", ["nurse", "doctor"]),
        ("A chef, a young waiter, and another guest at a table", ["chef", "young waiter", "guest"]),
        ("a teacher, a student and a parent in a hall", ["teacher", "student", "parent"]),
        ("a boss & the employee talk", ["boss", "employee"]),
        ("a barber with a customer", ["barber"]),
        ("a photo of the face of a nurse, a person", ["nurse"]),
        ("a pilot, a hero with a dream", ["pilot"]),
        ("a chef and a guard dog", ["chef"]),
        ("a nurse and a doctor's office", ["nurse"]),
        ("a nurse and a photo of a doctor", ["nurse"]),
        ("a farmer with a baby goat", ["farmer"]),
        ("a professor with a student loan", ["professor"]),
        ("a clown and a guest smiling at each other", ["clown", "guest"]),
        ("a teacher and a child", ["teacher"]),
        ("a child and a toy soldier", ["child"]),
        ("a janitor and a vacuum cleaner", ["janitor"]),
        ("a nurse and an AI-generated doctor", ["nurse"]),
        ("a nurse and a self-employed painter", ["nurse", "self-employed painter"]),
        ("a gamer and a controller, smiling", ["gamer"]),
        ("Alex, an artist and an activist", ["artist"]),
        ("Maria is a teacher and an activist", ["teacher"]),
        ("a mix of a pirate and an astronaut", ["pirate"]),
        ("headshot of an entrepreneur and an investor", ["entrepreneur"]),
        ("my neighbour, a teacher and a poet", ["neighbour"]),
        ("a boxer and the boxer in the mirror", ["boxer"]),
        ("a nurse and a doctor named Maria", ["nurse"]),
        (" and ".join(["a nurse"] * 20), ["nurse"] * 8),
        ("a lawyer by an impressionist painter", ["lawyer"]),
        ("a doctor a nurse", ["doctor"]),
        ("ein Arzt und ein Patient", ["Arzt"]),
        ("two nurses and a doctor", []),
    ],
)
def test_people_who_are_named_one_after_the_other_are_found(prompt: str, people: list[str]) -> None:
    assert [one.text for one in GATE.people(prompt)] == people


def test_what_is_no_person_beside_another_can_be_added_to_and_taken_out() -> None:
    mine = Gate(lexicon={"figures": {"en": ["tap", "-toy"]}})
    assert [one.text for one in mine.people("a nurse and a tap dancer")] == ["nurse"]
    assert [one.text for one in GATE.people("a nurse and a tap dancer")] == ["nurse", "tap dancer"]
    assert [one.text for one in mine.people("a child and a toy soldier")] == ["child", "toy soldier"]


def test_each_of_several_people_has_a_class_of_their_own() -> None:
    small, prompt, seeds = tiny_pipeline(), "a nurse and a Black doctor", range(40)
    with load_fair_adaptor(small, "words:gender") as handle, load_fair_adaptor(small, "words:race=0,0,0,1") as race:
        line = handle.explain(prompt)
        assert "each person in each image" in line and "'a female nurse and a male Black doctor'" in line
        noises = [torch.Generator().manual_seed(seed) for seed in seeds]
        images = small([prompt] * 40, generator=noises, num_inference_steps=2, output_type="pt").images
        pairs = [(one["gender"], one["gender of person 2"]) for one in handle.classes]
        assert set(race.classes[0]) == {"race"}, "the doctor's is said"
    assert {pairs.count(pair) > 3 for pair in product(("female", "male"), repeat=2)} == {True}
    first, second = pairs[3]
    wording = f"an Asian {first} nurse and a {second} Black doctor"
    noise = torch.Generator().manual_seed(3)
    (plain,) = small(wording, generator=noise, num_inference_steps=2, output_type="pt").images
    assert torch.allclose(plain, images[3], atol=1e-4)


def test_a_further_prompt_gets_words_for_several_people_if_it_names_the_same() -> None:
    words = read_words("words:gender")
    drawn = {"gender": "female", "gender of person 2": "male"}
    others = ["an Asian nurse and a doctor", "a doctor and a nurse", "a nurse and a female doctor", "light", "a nurse"]
    prompts = ("a nurse and a doctor",) * 5
    call = Call(None, {"prompt": list(prompts), "prompt_2": others}, prompts, (0,) * 5)
    words.rewrite(call, [drawn] * 4 + [{"gender": "male"}], GATE, 1.0)
    assert call.arguments["prompt"][0] == "a female nurse and a male doctor"
    assert call.arguments["prompt_2"] == ["a female Asian nurse and a male doctor", *others[1:4], "a male nurse"]
