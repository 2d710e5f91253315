"""Methods of others: each does to the sandbox what its paper says, and leaves the pipeline as it was."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.utils import logging
from torch import Tensor

from benchmarks.uce import ConceptEdit, closed_form, debias, edited, gram, uce
from fair_adaptors.errors import ConfigError
from fair_adaptors.evaluation.baselines import attribute_injection, ethical_intervention
from fair_adaptors.evaluation.drawn_classes import Attribute, draw_class
from fair_adaptors.evaluation.semantic_guidance import semantic_guidance
from fair_adaptors.evaluation.variants import Variant, distinct, original
from fair_adaptors.sandbox.classifiers import load_classifier
from fair_adaptors.sandbox.pipeline import GUIDANCE, load_sandbox_pipeline
from fair_adaptors.sandbox.prompts import AGES, GENDERS, TEMPLATE, TONES
from tests.imports import HEAVY, loaded_by

GENDER = Attribute("gender", GENDERS, (0.5, 0.5))
WOMEN = Attribute("gender", GENDERS, (1.0, 0.0))
MEN = Attribute("gender", GENDERS, (0.0, 1.0))
TONE = Attribute("tone", TONES, (0.4, 0.3, 0.2, 0.1))
OLD = Attribute("age", AGES, (0.0, 1.0))
MOSTLY_MEN = ("farm guard", "museum guard")
NURSE = "A photo of the face of a hospital nurse, a person"
SEEDS = range(4)


def edit_of(strength: float) -> ConceptEdit:
    return ConceptEdit(MOSTLY_MEN, GENDERS, ((strength, -strength),) * 2, ("person", "hospital nurse"))


VARIANTS = [
    ethical_intervention([GENDER]),
    attribute_injection([GENDER, TONE]),
    uce(edit_of(0.5)),
    semantic_guidance([GENDER]),
]


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load_sandbox_pipeline()


def images_of(model: Any, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
    images = model(
        list(prompts),
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        num_inference_steps=4,
        guidance_scale=GUIDANCE,
        output_type="pt",
    ).images
    assert images.shape == (len(prompts), 3, 64, 64) and 0 <= images.min() and images.max() <= 1
    return images


def made_with(pipe: Any, variant: Variant) -> Tensor:
    """Images of both occupations, one per seed each, [8, 3, 64, 64]."""
    prompts = [text for label in MOSTLY_MEN for text in variant.prompts(TEMPLATE.format(label), label, SEEDS)]
    with variant.applied(pipe) as model:
        return images_of(model, prompts, [*SEEDS] * 2)


def share_of_women(images: Tensor) -> float:
    return (load_classifier("evaluation")(images)["gender"].argmax(1) == 0).float().mean().item()


def state_of(pipe: Any) -> dict[str, Tensor]:
    parts = {"unet": pipe.unet, "text_encoder": pipe.text_encoder, "vae": pipe.vae}
    return {f"{part}.{key}": value.clone() for part, m in parts.items() for key, value in m.state_dict().items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


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
    before, said, scheduler = state_of(pipe), logging.get_verbosity(), pipe.scheduler
    with variant.applied(pipe) as model:
        images_of(model, [NURSE], [0])
    assert same(before, state_of(pipe)) and pipe.scheduler is scheduler
    with pytest.raises(KeyError), variant.applied(pipe):
        raise KeyError
    assert same(before, state_of(pipe)) and logging.get_verbosity() == said


def test_injecting_women_alone_draws_women(pipe: Any) -> None:
    assert share_of_women(made_with(pipe, original())) <= 0.5
    assert share_of_women(made_with(pipe, attribute_injection([WOMEN]))) >= 0.9


def test_the_closed_form_is_the_least_squares_solution() -> None:
    draw = torch.Generator().manual_seed(0)
    weight, concepts, targets, kept = (
        torch.randn(shape, generator=draw, dtype=torch.float64) for shape in ((5, 8), (6, 8), (6, 5), (7, 8))
    )
    ridge = 0.3
    inputs = torch.cat([concepts, kept, ridge**0.5 * torch.eye(8)])
    outputs = torch.cat([targets, kept @ weight.T, ridge**0.5 * weight.T])
    expected = torch.linalg.lstsq(inputs, outputs).solution.T
    assert torch.allclose(closed_form(weight, concepts, targets, gram(concepts, kept, ridge=ridge)), expected)


def test_where_there_is_room_edits_are_met_and_preserved_concepts_do_not_move() -> None:
    draw = torch.Generator().manual_seed(0)
    weight, concepts, targets, kept = (
        torch.randn(shape, generator=draw, dtype=torch.float64) for shape in ((5, 64), (6, 64), (6, 5), (7, 64))
    )
    new = closed_form(weight, concepts, targets, gram(concepts, kept, ridge=1e-6))
    assert torch.allclose(concepts @ new.T, targets, atol=1e-5)
    assert torch.allclose(kept @ new.T, kept @ weight.T, atol=1e-5)
    assert (new - weight).norm() > 0.1


def test_an_edit_of_strength_zero_changes_nothing(pipe: Any) -> None:
    before = state_of(pipe)
    with edited(pipe, edit_of(0)):
        assert same(before, state_of(pipe))


def test_an_edit_changes_the_keys_and_values_of_cross_attention_alone(pipe: Any) -> None:
    before = state_of(pipe)
    with edited(pipe, edit_of(0.5)):
        after = state_of(pipe)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {key for key in before if key.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))} != set()


def test_an_edit_moves_its_concepts_and_hardly_the_preserved(pipe: Any) -> None:
    before = made_with(pipe, original())
    assert share_of_women(made_with(pipe, uce(edit_of(0.8)))) >= share_of_women(before) + 0.4
    nurses = images_of(pipe, [NURSE] * 4, SEEDS)
    with edited(pipe, edit_of(0.8)):
        moved = (images_of(pipe, [NURSE] * 4, SEEDS) - nurses).abs().mean()
    assert moved < 0.5 * (made_with(pipe, uce(edit_of(0.8))) - before).abs().mean()


def test_what_is_as_it_should_be_is_not_edited(pipe: Any) -> None:
    rounds = []

    def measure(model: Any, labels: Sequence[str]) -> Mapping[str, list[list[float]]]:
        rounds.append(labels)
        return {"gender": [[0.5, 0.5], [0.52, 0.48]]}

    edit = debias(pipe, MOSTLY_MEN, [GENDER], preserved=[], measure=measure)
    assert edit.strengths == ((0, 0), (0, 0)) and rounds == [MOSTLY_MEN]


def test_strengths_move_against_the_difference_until_it_is_small(pipe: Any) -> None:
    before, seen = state_of(pipe), []
    shares = iter([[0.1, 0.9], [0.3, 0.7], [0.5, 0.5]])

    def measure(model: Any, labels: Sequence[str]) -> Mapping[str, list[list[float]]]:
        seen.append(same(before, state_of(model)))
        return {"gender": [next(shares), [0.5, 0.5]], "tone": [TONE.target] * 2}

    edit = debias(pipe, MOSTLY_MEN, [TONE, GENDER], preserved=["person"], measure=measure, step=0.5)
    assert np.allclose(edit.strengths, [[0, 0, 0, 0, 0.3, -0.3], [0] * 6])
    assert edit.words == (*TONES, *GENDERS) and edit.preserved == ("person",)
    assert seen == [True, False, False] and same(before, state_of(pipe))


def test_debiasing_shifts_what_it_measures_towards_the_target(pipe: Any) -> None:
    shares = []

    def measure(model: Any, labels: Sequence[str]) -> Mapping[str, list[list[float]]]:
        images = images_of(model, [TEMPLATE.format(label) for label in labels for _ in SEEDS], [*SEEDS] * len(labels))
        shares.append([share_of_women(chunk) for chunk in images.split(len(SEEDS))])
        return {"gender": [[share, 1 - share] for share in shares[-1]]}

    debias(pipe, MOSTLY_MEN, [GENDER], preserved=["person"], measure=measure, step=0.5, tolerance=0.2, rounds=4)
    gap = np.abs(np.array(shares) - 0.5).mean(1)
    assert gap[-1] <= gap[0] - 0.2


def test_debiasing_says_what_is_wrong(pipe: Any) -> None:
    def debias_with(labels: Sequence[str], shares: Mapping[str, Any]) -> None:
        debias(pipe, labels, [GENDER], preserved=[], measure=lambda model, labels: shares)

    before = state_of(pipe)
    for labels in ([], ["cook", "cook"]):
        with pytest.raises(ConfigError, match="each once"):
            debias_with(labels, {})
    with pytest.raises(ConfigError, match="nothing for \\['gender'\\]"):
        debias_with(["cook"], {"tone": [[1, 0, 0, 0]]})
    with pytest.raises(ConfigError, match="must be \\(1, 2\\)"):
        debias_with(["cook"], {"gender": [0.5, 0.5]})
    assert same(before, state_of(pipe))


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

    with pytest.raises(ConfigError, match="Stable Diffusion 1 and 2, not .*Larger"), variant.applied(Larger()):
        pass
