"""Methods of others: each does to the sandbox what its paper says, and leaves the pipeline as it was."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.utils import logging

from benchmarks.uce import uce
from fair_adaptors.errors import ConfigError, FairAdaptorError
from fair_adaptors.evaluation.baselines import attribute_injection, ethical_intervention
from fair_adaptors.evaluation.semantic_guidance import semantic_guidance
from fair_adaptors.evaluation.variants import Variant, distinct, original
from fair_adaptors.sandbox.pipeline import load_sandbox_pipeline
from fair_adaptors.sandbox.prompts import AGES, GENDERS, TONES
from fair_adaptors.steering.draw import Attribute, draw_class
from tests.imports import HEAVY, loaded_by
from tests.portraits import GENDER, NURSE, SEEDS, TONE, WOMEN, edit_of, images_of, made_with, share_of_women
from tests.tiny import same, state

MEN = Attribute("gender", GENDERS, (0.0, 1.0))
OLD = Attribute("age", AGES, (0.0, 1.0))
VARIANTS = [
    ethical_intervention([GENDER]),
    attribute_injection([GENDER, TONE]),
    uce(edit_of(0.5)),
    semantic_guidance([GENDER]),
]


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load_sandbox_pipeline()


def test_importing_the_baselines_loads_no_framework(tmp_path: Path) -> None:
    assert not loaded_by("import fair_adaptors.evaluation.baselines", tmp_path) & set(HEAVY)


@pytest.mark.parametrize(
    ("classes", "target"),
    [(("female",), (1,)), (("female", " "), (0.5, 0.5)), (GENDERS, (1,)), (GENDERS, (0.5, 0.6)), (GENDERS, (2, -1))],
)
def test_an_attribute_has_words_and_a_distribution_over_them(
    classes: tuple[str, ...], target: tuple[float, ...]
) -> None:
    with pytest.raises(ConfigError, match="gender"):
        Attribute("gender", classes, target)


def test_attributes_are_named_once() -> None:
    for make in (ethical_intervention, attribute_injection, semantic_guidance):
        for attributes in ([], [GENDER, WOMEN]):
            with pytest.raises(ConfigError, match="at least one, and each once"):
                make(attributes)


def test_classes_follow_the_target_and_attributes_do_not_follow_each_other() -> None:
    drawn = np.zeros((2, 4))
    for seed in range(8000):
        drawn[draw_class(GENDER, seed), draw_class(TONE, seed)] += 1 / 8000
    assert np.allclose(drawn, np.outer(GENDER.target, TONE.target), atol=0.02)


def test_a_class_is_a_function_of_the_seed_on_every_machine() -> None:
    assert [draw_class(GENDER, seed) for seed in range(12)] == [0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 0, 0]
    assert {draw_class(WOMEN, seed) for seed in range(200)} == {0}
    assert {draw_class(MEN, seed) for seed in range(200)} == {1}


@pytest.mark.parametrize(
    ("names", "label", "ending"),
    [
        (("gender",), "hospital nurse", " if all individuals can be a hospital nurse irrespective of their gender"),
        (("race",), "actor", " if all individuals can be an actor irrespective of their skin color"),
        (("tone", "age"), "cook", " if all individuals can be a cook irrespective of their skin color and age"),
        (("gender",), NURSE, " if all individuals can be shown irrespective of their gender"),
        (("gender",), "", " if all individuals can be shown irrespective of their gender"),
    ],
)
def test_an_intervention_is_a_sentence_after_the_prompt(names: tuple[str, ...], label: str, ending: str) -> None:
    variant = ethical_intervention([Attribute(name, ("a", "b"), (0.5, 0.5)) for name in names])
    assert variant.prompts(NURSE + ".", label if label != NURSE else NURSE + ".", SEEDS) == [NURSE + ending] * 4


@pytest.mark.parametrize(
    ("prompt", "label", "expected"),
    [
        (NURSE, "hospital nurse", "A photo of the face of an old female hospital nurse, a person"),
        ("An actor on stage", "actor", "An old female actor on stage"),
        ("Three cooks and a Cook", "cook", "Three cooks and an old female Cook"),
        ("cook", "cook", "an old female person, cook"),
        ("A guardian angel", "guard", "an old female person, A guardian angel"),
        ("A painting", "", "an old female person, A painting"),
    ],
)
def test_words_stand_before_the_label_in_the_order_of_speech(prompt: str, label: str, expected: str) -> None:
    assert attribute_injection([WOMEN, OLD]).prompts(prompt, label, [7]) == [expected]


def test_an_article_agrees_with_the_word_that_follows() -> None:
    prompts = attribute_injection([WOMEN]).prompts("The face of an airport cook", "airport cook", [7])
    assert prompts == ["The face of a female airport cook"]


def test_each_image_has_words_of_its_own_and_they_are_those_of_its_seed() -> None:
    variant = attribute_injection([GENDER, TONE])
    many = variant.prompts(NURSE, "hospital nurse", range(100))
    assert len(set(many)) == 8
    assert many[40:42] == variant.prompts(NURSE, "hospital nurse", [40, 41])
    assert many[40] == NURSE.replace(
        "hospital", f"{TONES[draw_class(TONE, 40)]} {GENDERS[draw_class(GENDER, 40)]} hospital"
    )


def test_what_changes_the_images_changes_the_identity() -> None:
    variants = [
        *VARIANTS,
        ethical_intervention([TONE]),
        attribute_injection([GENDER]),
        attribute_injection([WOMEN]),
        uce(edit_of(0.4)),
        semantic_guidance([WOMEN]),
        semantic_guidance([GENDER], scale=3),
        semantic_guidance([GENDER], warmup=0),
    ]
    assert len({variant.identity for variant in variants}) == len(variants)
    assert [variant.name for variant in distinct(VARIANTS)][1:] == [variant.name for variant in VARIANTS]
    assert attribute_injection([GENDER]).identity == attribute_injection([GENDER]).identity


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_the_pipeline_is_the_same_bit_for_bit_afterwards(pipe: Any, variant: Variant) -> None:
    before, said, scheduler = state(pipe), logging.get_verbosity(), pipe.scheduler
    with variant.applied(pipe) as model:
        images_of(model, [NURSE], [0])
    assert same(before, state(pipe)) and pipe.scheduler is scheduler
    with pytest.raises(KeyError), variant.applied(pipe):
        raise KeyError
    assert same(before, state(pipe)) and logging.get_verbosity() == said


def test_injecting_women_alone_draws_women(pipe: Any) -> None:
    assert share_of_women(made_with(pipe, original())) <= 0.5
    assert share_of_women(made_with(pipe, attribute_injection([WOMEN]))) >= 0.9


def test_guidance_of_strength_zero_is_the_plain_pipeline_in_the_same_order(pipe: Any) -> None:
    assert len({draw_class(GENDER, seed) for seed in SEEDS}) == 2
    plain = made_with(pipe, original())
    assert torch.allclose(made_with(pipe, semantic_guidance([GENDER], scale=0)), plain, atol=1e-4)


def test_guidance_moves_images_to_the_drawn_class(pipe: Any) -> None:
    plain = made_with(pipe, original())
    women = made_with(pipe, semantic_guidance([WOMEN], warmup=0))
    assert share_of_women(women) >= share_of_women(plain) + 0.4
    men = made_with(pipe, semantic_guidance([MEN], warmup=0))
    assert share_of_women(men) <= share_of_women(plain) and not torch.allclose(men, plain, atol=0.05)


def test_an_image_is_guided_by_its_own_seed_in_any_company(pipe: Any) -> None:
    with semantic_guidance([GENDER, TONE]).applied(pipe) as model:
        together = images_of(model, [NURSE] * 4, SEEDS)
        alone = images_of(model, [NURSE], [2])
    assert torch.allclose(together[2], alone[0], atol=1e-4)


def test_guidance_says_what_is_wrong(pipe: Any) -> None:
    with pytest.raises(ConfigError, match="threshold is 1"):
        semantic_guidance([GENDER], threshold=1)
    with semantic_guidance([GENDER]).applied(pipe) as model:
        one = [torch.Generator()]
        with pytest.raises(ConfigError, match="as many generators"):
            model([NURSE] * 2, generator=one, num_inference_steps=2, guidance_scale=2)
        with pytest.raises(ConfigError, match="guidance scale over 1"):
            model([NURSE], generator=one, num_inference_steps=2, guidance_scale=1)


@pytest.mark.parametrize("variant", VARIANTS[2:], ids=lambda variant: variant.name)
def test_another_kind_of_pipeline_is_refused(variant: Variant) -> None:
    class Larger:
        unet = text_encoder = text_encoder_2 = object()

    says = "Stable Diffusion 1 and 2, not .*Larger|Larger is not of a known family"
    with pytest.raises(FairAdaptorError, match=says), variant.applied(Larger()):
        pass
