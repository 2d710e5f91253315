"""What comes when is a function of the seed and the position."""

import dataclasses
from collections import Counter

import pytest
from fair_adaptors.training.engine.batches import batch_at

from tests.tiny_training import CONFIG

SETS = {"train": ("a", "b", "c"), "other": ("x", "y")}


def test_every_prompt_comes_once_in_an_epoch_and_epochs_differ() -> None:
    config = dataclasses.replace(CONFIG, seed=3)
    prompts = [batch_at(config, SETS, iteration, 0).prompts[0] for iteration in range(30)]
    epochs = [tuple(prompts[i : i + 3]) for i in range(0, 30, 3)]
    assert all(set(epoch) == {"a", "b", "c"} for epoch in epochs) and len(set(epochs)) > 1


def test_sets_are_mixed_by_their_shares() -> None:
    config = dataclasses.replace(CONFIG, prompt_sets=(("train", 1.0), ("other", 3.0)))
    seen = Counter(batch_at(config, SETS, iteration, 0).prompts[0] for iteration in range(1200))
    assert 0.22 < (seen["a"] + seen["b"] + seen["c"]) / 1200 < 0.28
    assert set(seen) == {"a", "b", "c", "x", "y"}


def test_a_batch_does_not_depend_on_others_and_no_noise_comes_twice() -> None:
    config = dataclasses.replace(CONFIG, prompts_per_step=2)
    batches = [batch_at(config, SETS, iteration, number) for iteration in range(5) for number in range(2)]
    assert batch_at(config, SETS, 3, 1) == batches[7]
    assert len({seed for batch in batches for seed in batch.seeds}) == 10 * config.images_per_prompt


def test_with_a_pool_the_noises_of_a_prompt_come_again() -> None:
    config = dataclasses.replace(CONFIG, originals_pool=2, max_steps=9)
    batches = [batch_at(config, SETS, iteration, 0) for iteration in range(30)]
    for prompt in "abc":
        kinds = {(batch.seeds, batch.num_steps) for batch in batches if batch.prompts[0] == prompt}
        assert len(kinds) == 2


@pytest.mark.parametrize("pool", [0, 2])
def test_prompts_that_name_a_class_share_a_batch(pool: int) -> None:
    sets = {"train": ("a", "b", "c"), "named": tuple("pqrstu")}
    config = dataclasses.replace(
        CONFIG, prompt_sets=(("train", 1.0), ("named", 1.0)), named_images=2, originals_pool=pool
    )
    batches = [batch_at(config, sets, iteration, 0, named=set("pqrstu")) for iteration in range(60)]
    assert {len(batch.prompts) for batch in batches} == {len(batch.seeds) for batch in batches} == {8}
    alone = [batch for batch in batches if set(batch.prompts) & set("abc")]
    assert all(len(set(batch.prompts)) == 1 for batch in alone) and 25 <= len(alone) <= 35
    shared = [batch for batch in batches if batch not in alone]
    assert all(
        Counter(batch.prompts) == dict.fromkeys(batch.prompts, 2) and len(set(batch.prompts)) == 4 for batch in shared
    )
    assert all(list(batch.prompts) == sorted(batch.prompts, key=batch.prompts.index) for batch in shared)
    seen = Counter(prompt for batch in shared for prompt in batch.prompts)
    assert set(seen) == set("pqrstu") and max(seen.values()) - min(seen.values()) < 20
    noises = {(p, s) for batch in shared for p, s in zip(batch.prompts, batch.seeds, strict=True)}
    assert len(noises) == (6 * pool * 8 if pool else 8 * len(shared)) and all(
        len(set(batch.seeds)) == 8 for batch in shared
    )


def test_steps_are_drawn_from_their_range() -> None:
    config = dataclasses.replace(CONFIG, num_steps=19, max_steps=23)
    seen = Counter(batch_at(config, SETS, iteration, 0).num_steps for iteration in range(500))
    assert set(seen) == {19, 20, 21, 22, 23} and min(seen.values()) > 60


def test_the_first_iterations_can_do_without_guidance() -> None:
    config = dataclasses.replace(CONFIG, unguided=2)
    assert [batch_at(config, SETS, iteration, 0).guidance_scale for iteration in range(3)] == [0.0, 0.0, 2.0]
