"""What comes when is a function of the seed and the position."""

import dataclasses
from collections import Counter

from fair_adaptors.training.engine.batches import batch_at

from tests.tiny_training import CONFIG

SETS = {"train": ("a", "b", "c"), "other": ("x", "y")}


def test_every_prompt_comes_once_in_an_epoch_and_epochs_differ() -> None:
    config = dataclasses.replace(CONFIG, seed=3)
    prompts = [batch_at(config, SETS, iteration, 0).prompt for iteration in range(30)]
    epochs = [tuple(prompts[i : i + 3]) for i in range(0, 30, 3)]
    assert all(set(epoch) == {"a", "b", "c"} for epoch in epochs) and len(set(epochs)) > 1


def test_sets_are_mixed_by_their_shares() -> None:
    config = dataclasses.replace(CONFIG, prompt_sets=(("train", 1.0), ("other", 3.0)))
    seen = Counter(batch_at(config, SETS, iteration, 0).prompt for iteration in range(1200))
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
        kinds = {(batch.seeds, batch.num_steps) for batch in batches if batch.prompt == prompt}
        assert len(kinds) == 2


def test_steps_are_drawn_from_their_range() -> None:
    config = dataclasses.replace(CONFIG, num_steps=19, max_steps=23)
    seen = Counter(batch_at(config, SETS, iteration, 0).num_steps for iteration in range(500))
    assert set(seen) == {19, 20, 21, 22, 23} and min(seen.values()) > 60


def test_the_first_iterations_can_do_without_guidance() -> None:
    config = dataclasses.replace(CONFIG, unguided=2)
    assert [batch_at(config, SETS, iteration, 0).guidance_scale for iteration in range(3)] == [1.0, 1.0, 2.0]
