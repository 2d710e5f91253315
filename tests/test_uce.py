"""Unified concept editing: the closed form, what it changes, and how its strengths are found."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.uce import debias, uce
from fair_adaptors.errors import ConfigError
from fair_adaptors.evaluation.variants import original
from fair_adaptors.sandbox.pipeline import load_sandbox_pipeline
from fair_adaptors.sandbox.prompts import GENDERS, TEMPLATE, TONES
from fair_adaptors.steering.edit import closed_form, edited, gram
from tests.portraits import GENDER, MOSTLY_MEN, NURSE, SEEDS, TONE, edit_of, images_of, made_with, share_of_women
from tests.tiny import same, state


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load_sandbox_pipeline()


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
    before = state(pipe)
    with edited(pipe, edit_of(0)):
        assert same(before, state(pipe))


def test_an_edit_changes_the_keys_and_values_of_cross_attention_alone(pipe: Any) -> None:
    before = state(pipe)
    with edited(pipe, edit_of(0.5)):
        after = state(pipe)
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
    before, seen = state(pipe), []
    shares = iter([[0.1, 0.9], [0.3, 0.7], [0.5, 0.5]])

    def measure(model: Any, labels: Sequence[str]) -> Mapping[str, list[list[float]]]:
        seen.append(same(before, state(model)))
        return {"gender": [next(shares), [0.5, 0.5]], "tone": [TONE.target] * 2}

    edit = debias(pipe, MOSTLY_MEN, [TONE, GENDER], preserved=["person"], measure=measure, step=0.5)
    assert np.allclose(edit.strengths, [[0, 0, 0, 0, 0.3, -0.3], [0] * 6])
    assert edit.words == (*TONES, *GENDERS) and edit.preserved == ("person",)
    assert seen == [True, False, False] and same(before, state(pipe))


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

    before = state(pipe)
    for labels in ([], ["cook", "cook"]):
        with pytest.raises(ConfigError, match="each once"):
            debias_with(labels, {})
    with pytest.raises(ConfigError, match="nothing for \\['gender'\\]"):
        debias_with(["cook"], {"tone": [[1, 0, 0, 0]]})
    with pytest.raises(ConfigError, match="must be \\(1, 2\\)"):
        debias_with(["cook"], {"gender": [0.5, 0.5]})
    assert same(before, state(pipe))
