import itertools
from typing import Literal

import numpy as np
import pytest
import torch
from fair_adaptors.training.engine.targets import assign_targets, drawn_shares, original_targets, two_class_shares
from scipy.stats import binom


def by_brute_force(probs: np.ndarray, target: list[float]) -> np.ndarray:
    """q [N, K] by all draws (weighted) and all permutations."""
    count, classes = probs.shape
    corners = np.eye(classes)
    q = np.zeros_like(probs)
    for draw in itertools.product(range(classes), repeat=count):
        orders = list(itertools.permutations(draw))
        costs = [np.linalg.norm(probs - corners[list(order)], axis=1).sum() for order in orders]
        q[np.arange(count), orders[int(np.argmin(costs))]] += np.prod([target[k] for k in draw])
    return q


@pytest.mark.parametrize("share", [0.5, 0.25, 0.9])
def test_two_classes_have_a_closed_form_at_any_share(share: float) -> None:
    p = torch.rand(5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = by_brute_force(torch.stack([1 - p, p], 1).numpy(), [1 - share, share])
    assert np.allclose(two_class_shares(p, share).numpy(), expected, atol=1e-12)


def test_draws_come_to_what_brute_force_says() -> None:
    probs = torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).softmax(1)
    target = [0.2, 0.3, 0.5]
    q = drawn_shares({"a": probs}, {"a": target}, num_draws=4_000)["a"]
    assert np.allclose(q.numpy(), by_brute_force(probs.numpy(), target), atol=0.03)


def test_draws_agree_with_the_closed_form() -> None:
    p = torch.rand(24, generator=torch.Generator().manual_seed(3))
    probs = {"a": torch.stack([1 - p, p], 1)}
    q = drawn_shares(probs, {"a": [0.75, 0.25]}, num_draws=4_000)["a"]
    assert torch.allclose(q, two_class_shares(p, 0.25), atol=0.04)


def test_24_balanced_images_keep_20_targets() -> None:
    p = torch.rand(24)
    targets = assign_targets({"gender": torch.stack([1 - p, p], 1)}, {"gender": [0.5, 0.5]})["gender"]
    assert targets.keep.sum() == 20
    assert (targets.labels == 1).sum() == 12
    assert targets.labels[p.argmax()] == 1 and targets.labels[p.argmin()] == 0


def test_a_two_class_target_of_one_class_moves_all_images() -> None:
    p = torch.rand(8)
    targets = assign_targets({"a": torch.stack([1 - p, p], 1)}, {"a": [0.0, 1.0]})["a"]
    assert targets.labels.eq(1).all() and targets.keep.all()


def test_the_order_of_the_images_does_not_matter() -> None:
    probs = torch.rand(12, 4).softmax(1)
    order = torch.randperm(12)
    one = assign_targets({"a": probs}, {"a": [0.25] * 4}, num_draws=2_000)["a"]
    other = assign_targets({"a": probs[order]}, {"a": [0.25] * 4}, num_draws=2_000)["a"]
    sure = one.confidence[order] > 0.6
    assert torch.equal(one.labels[order][sure], other.labels[sure])


def test_joint_targets_follow_each_attributes_share() -> None:
    generator = torch.Generator().manual_seed(4)
    probs = {
        "gender": torch.rand(32, 2, generator=generator).softmax(1),
        "tone": torch.rand(32, 4, generator=generator).softmax(1),
    }
    q = drawn_shares(probs, {"gender": [0.5, 0.5], "tone": [0.1, 0.2, 0.3, 0.4]}, num_draws=1_000, generator=generator)
    assert torch.allclose(q["gender"].mean(0), torch.tensor([0.5, 0.5]).double(), atol=0.02)
    assert torch.allclose(q["tone"].mean(0), torch.tensor([0.1, 0.2, 0.3, 0.4]).double(), atol=0.02)


def test_a_single_image_is_not_drawn_for() -> None:
    """Its q is the target, whatever it shows: with one draw it would be a whole class."""
    targets = assign_targets({"a": torch.tensor([[0.9, 0.1, 0.0]])}, {"a": [0.2, 0.3, 0.5]}, num_draws=1)["a"]
    assert (targets.labels.item(), targets.confidence.item(), targets.keep.item()) == (2, 0.5, False)


def test_a_fair_and_certain_batch_stays_as_it_is() -> None:
    labels = torch.arange(24) % 2
    probs = torch.nn.functional.one_hot(labels, 2).float()
    targets = assign_targets({"a": probs}, {"a": [0.5, 0.5]})["a"]
    assert torch.equal(targets.labels[targets.keep], labels[targets.keep])


def test_the_same_generator_gives_the_same_targets() -> None:
    probs = {"a": torch.rand(16, 3).softmax(1)}
    runs = [
        assign_targets(probs, {"a": [1 / 3] * 3}, generator=torch.Generator().manual_seed(7))["a"] for _ in range(2)
    ]
    assert torch.equal(runs[0].confidence, runs[1].confidence)


@pytest.mark.parametrize("target", [[0.5, 0.6], [-0.5, 1.5], [1 / 3] * 3])
def test_a_target_that_is_no_distribution_is_refused(target: list[float]) -> None:
    with pytest.raises(ValueError):
        assign_targets({"a": torch.rand(4, 2).softmax(1)}, {"a": target})


def test_the_closed_form_is_a_binomial_tail() -> None:
    q = two_class_shares(torch.linspace(0, 1, 10), 0.3)[:, 1]
    assert np.allclose(q, 1 - binom.cdf(10 - np.arange(10) - 1, 10, 0.3))


def random_pairs(count: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities of images and of their originals; some of these are sure."""
    generator = torch.Generator().manual_seed(seed)
    probs, original = torch.randn(2, count, classes, generator=generator, dtype=torch.float64)
    return probs.softmax(1), (3 * original).softmax(1)


def test_by_image_an_image_is_held_to_the_class_of_its_original_where_that_is_sure() -> None:
    original = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.25, 0.75]])
    found = original_targets(torch.rand(4, 2), original, by="image", threshold=0.8)
    assert found.labels.tolist() == [0, 1, 0, 1] and found.keep.tolist() == [True, True, False, False]
    assert torch.equal(found.confidence, original.amax(1))


@pytest.mark.parametrize(("count", "classes"), [(1, 2), (5, 2), (6, 3), (6, 4)])
def test_by_prompt_the_originals_classes_are_given_to_whom_they_are_nearest(count: int, classes: int) -> None:
    """Of all permutations one of least distance; and within a class the surest original goes to the nearest image."""
    for seed in range(5):
        probs, original = random_pairs(count, classes, seed)
        found = original_targets(probs, original, by="prompt", threshold=0.8)
        wanted, sure = original.argmax(1), original.amax(1)
        assert torch.equal(found.labels.sort().values, wanted.sort().values)
        distance = (probs[:, None] - torch.eye(classes)).norm(dim=2)
        costs = [distance[range(count), wanted[list(p)]].sum() for p in itertools.permutations(range(count))]
        assert distance[range(count), found.labels].sum() == pytest.approx(min(costs).item())
        for k in range(classes):
            mine = found.labels == k
            nearest_first = found.confidence[mine][distance[mine, k].argsort()]
            assert torch.equal(nearest_first, sure[wanted == k].sort(descending=True).values)
        assert torch.equal(found.keep, found.confidence >= 0.8)


@pytest.mark.parametrize("by", ["image", "prompt"])
def test_the_order_of_images_with_their_originals_does_not_matter(by: Literal["image", "prompt"]) -> None:
    probs, original = random_pairs(24, 4, 0)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    one = original_targets(probs, original, by=by, threshold=0.8)
    other = original_targets(probs[order], original[order], by=by, threshold=0.8)
    assert 0 < one.keep.sum() < 24
    for part in ("labels", "confidence", "keep"):
        assert torch.equal(getattr(one, part)[order], getattr(other, part))


def test_by_prompt_images_may_change_places_and_by_image_not() -> None:
    original = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).double()
    swapped = original.flip(0)
    assert original_targets(swapped, original, by="prompt", threshold=0.8).labels.tolist() == [1, 0]
    assert original_targets(swapped, original, by="image", threshold=0.8).labels.tolist() == [0, 1]


def test_with_the_default_draws_the_targets_of_a_joint_batch_hardly_depend_on_them() -> None:
    """With 100 draws up to five of 32 images had another target than with many."""
    generator = torch.Generator().manual_seed(0)
    even = {"gender": [0.5] * 2, "race": [0.25] * 4}
    probs = {name: torch.rand(32, len(k), generator=generator).mul(4).softmax(1) for name, k in even.items()}
    wanted = drawn_shares(probs, even, num_draws=8_000, generator=generator)
    errors = []
    for seed in range(2):
        found = assign_targets(probs, even, generator=torch.Generator().manual_seed(seed))
        errors += [(found[name].confidence - wanted[name].max(1)[0]).square().mean().sqrt().item() for name in even]
    assert max(errors) < 0.02, "√(¼ / 1000) is 0.016"
