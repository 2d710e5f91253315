import pytest
import torch
import torch.nn.functional as F
from fair_adaptors.training.engine.losses import (
    PreservationScale,
    alignment_loss,
    face_loss,
    keeps_original_face,
    must_change,
    preservation_loss,
    preservation_weights,
    scale_gradient,
)
from fair_adaptors.training.engine.targets import Targets


def targets(labels: list[int], keep: list[bool]) -> Targets:
    return Targets(torch.tensor(labels), torch.ones(len(labels)), torch.tensor(keep))


def flat(images: torch.Tensor) -> torch.Tensor:
    return F.normalize(images.flatten(1), dim=1)


def test_alignment_is_zero_at_the_target_and_for_targets_not_kept() -> None:
    logits = {"a": torch.tensor([[50.0, -50.0], [50.0, -50.0]])}
    assert torch.equal(alignment_loss(logits, {"a": targets([0, 1], [True, False])}), torch.zeros(2))


def test_alignment_pulls_towards_the_target() -> None:
    logits = torch.zeros(1, 3, requires_grad=True)
    alignment_loss({"a": logits}, {"a": targets([2], [True])}).sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 2] < 0 < logits.grad[0, 0]


def test_attributes_add_up() -> None:
    logits = {"a": torch.randn(4, 2), "b": torch.randn(4, 3)}
    both = {"a": targets([0, 1, 0, 1], [True] * 4), "b": targets([0, 1, 2, 0], [True] * 4)}
    parts = [alignment_loss({name: logits[name]}, {name: both[name]}) for name in both]
    assert torch.allclose(alignment_loss(logits, both), parts[0] + parts[1])


@pytest.mark.parametrize(
    ("unassigned", "changing"),
    [
        (False, [False, True, False, False]),
        (True, [False, True, True, True]),
        (torch.tensor([True, True, True, False]), [False, True, True, False]),
    ],
)
def test_an_image_changes_where_a_kept_target_is_another_class(
    unassigned: torch.Tensor | bool, changing: list[bool]
) -> None:
    """The last two have no target that is kept, one of them another class."""
    found = must_change(
        {"a": targets([0, 1, 1, 0], [True, True, False, False])}, {"a": torch.zeros(4).long()}, unassigned=unassigned
    )
    assert found["a"].tolist() == changing


def test_an_original_that_shows_nobody_is_of_no_class_so_every_target_is_a_change() -> None:
    faceless = torch.tensor([True, False, True, False])
    aims = {"a": targets([0, 0, 0, 1], [True, True, False, True])}
    found = must_change(aims, {"a": torch.zeros(4).long()}, faceless=faceless)
    assert found["a"].tolist() == [True, False, False, True]


def test_preservation_has_three_regimes() -> None:
    changing = {"gender": torch.tensor([False, True, False, True]), "race": torch.tensor([False, False, True, True])}
    scales = {"gender": PreservationScale(0.2, 0.2), "race": PreservationScale(0.6, 0.3)}
    weight, inside = preservation_weights(changing, scales, weight=8.0)
    assert torch.allclose(weight, torch.tensor([8.0, 1.6, 4.8, 1.6]))
    assert torch.allclose(inside, torch.tensor([1.0, 0.2, 0.3, 0.2]))


def test_preservation_is_zero_for_the_original_image() -> None:
    images = torch.rand(3, 3, 8, 8)
    loss = preservation_loss(
        images, {"flat": flat(images)}, {"flat": flat}, weights=torch.ones(3), face_scale=torch.ones(3)
    )
    assert loss.abs().max() < 1e-6


def test_only_the_gradient_is_scaled_and_only_in_the_face() -> None:
    images, originals = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1

    def run(face_scale: float, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        x = images.clone().requires_grad_(True)
        loss = preservation_loss(
            x,
            {"flat": flat(originals)},
            {"flat": flat},
            weights=torch.ones(1),
            face_scale=torch.tensor([face_scale]),
            face_mask=mask,
        )
        return loss.detach(), torch.autograd.grad(loss.sum(), x)[0]

    whole, gradient = run(1.0, None)
    scaled_loss, scaled = run(0.3, mask)
    assert torch.equal(whole, scaled_loss)
    assert torch.allclose(scaled[..., :4], 0.3 * gradient[..., :4])
    assert torch.allclose(scaled[..., 4:], gradient[..., 4:])


def test_scale_gradient_leaves_values_alone() -> None:
    x = torch.randn(5, requires_grad=True)
    y = scale_gradient(x, 0.25)
    assert torch.equal(x, y)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.full((5,), 0.25))


def unit(count: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(count, 16, generator=torch.Generator().manual_seed(seed)), dim=1)


def mask(*values: bool) -> torch.Tensor:
    return torch.tensor(values)


def test_a_face_costs_nothing_at_its_goal_and_is_pulled_towards_it() -> None:
    original, bank, keep, all_of_them = unit(4, 0), unit(4, 1), mask(True, False, True, False), mask(*[True] * 4)
    goals = torch.where(keep[:, None], original, bank)
    at_the_goal = face_loss(goals, original, bank, keep_original=keep, takes_part=all_of_them)
    assert at_the_goal.abs().max() < 1e-6
    features = unit(4, 2).requires_grad_()
    loss = face_loss(features, original, bank, keep_original=keep, takes_part=all_of_them)
    assert torch.allclose(loss, 1 - F.cosine_similarity(features, goals))
    step = features - 0.1 * torch.autograd.grad(loss.sum(), features)[0]
    nearer = face_loss(F.normalize(step, dim=1), original, bank, keep_original=keep, takes_part=all_of_them)
    assert (nearer < loss).all()


def test_goals_of_faces_are_constants() -> None:
    features, original, bank = (unit(2, seed).requires_grad_() for seed in range(3))
    face_loss(features, original, bank, keep_original=mask(True, False), takes_part=mask(True, True)).sum().backward()
    assert features.grad is not None and original.grad is None and bank.grad is None


def test_an_image_without_a_face_has_no_face_loss_and_no_gradient_whatever_its_features() -> None:
    features, original, bank = unit(3, 0), unit(3, 1), unit(3, 2)
    features[1], original[1], bank[1] = torch.nan, torch.inf, torch.nan
    features.requires_grad_()
    loss = face_loss(
        features, original, bank, keep_original=mask(True, True, False), takes_part=mask(True, False, True)
    )
    assert loss[1] == 0 and (loss[[0, 2]] > 0).all()
    gradient = torch.autograd.grad(loss.sum(), features)[0]
    assert torch.equal(gradient[1], torch.zeros(16)) and gradient[[0, 2]].abs().sum(1).min() > 0


def test_the_order_of_faces_does_not_matter() -> None:
    features, original, bank = unit(6, 0), unit(6, 1), unit(6, 2)
    keep, there, order = mask(*[True, False] * 3), mask(True, True, False, True, False, True), torch.randperm(6)
    loss = face_loss(features, original, bank, keep_original=keep, takes_part=there)
    other = face_loss(
        features[order], original[order], bank[order], keep_original=keep[order], takes_part=there[order]
    )
    assert torch.equal(loss[order], other)


def test_a_face_is_kept_where_every_class_stays_and_is_sure() -> None:
    """The images: all stays · target not kept · gender changes · race unsure · the original has no face."""
    wanted = {
        "gender": targets([0, 0, 1, 0, 0], [True, False, True, True, True]),
        "race": targets([1, 1, 1, 1, 1], [True] * 5),
    }
    original = {
        "gender": torch.tensor([[0.95, 0.05]] * 5),
        "race": torch.tensor([[0.1, 0.9, 0.0]] * 3 + [[0.3, 0.7, 0.0], [0.1, 0.9, 0.0]]),
    }
    found = mask(True, True, True, True, False)
    assert keeps_original_face(wanted, original, found, confidence=0.8).tolist() == [True, False, False, False, False]
    assert keeps_original_face(wanted, original, found, confidence=0.7).tolist() == [True, False, False, True, False]
    assert not keeps_original_face(wanted, original, found, confidence=0.96).any()
