import torch
import torch.nn.functional as F
from fair_adaptors.training.losses import (
    PreservationScale,
    alignment_loss,
    must_change,
    preservation_loss,
    preservation_weights,
    scale_gradient,
)
from fair_adaptors.training.targets import Targets


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


def test_an_image_changes_where_a_kept_target_is_another_class() -> None:
    changing = must_change({"a": targets([0, 1, 1], [True, True, False])}, {"a": torch.tensor([0, 0, 0])})
    assert changing["a"].tolist() == [False, True, False]


def test_preservation_has_three_regimes() -> None:
    changing = {"gender": torch.tensor([False, True, False, True]), "race": torch.tensor([False, False, True, True])}
    scales = {"gender": PreservationScale(0.2, 0.2), "race": PreservationScale(0.6, 0.3)}
    weight, inside = preservation_weights(changing, scales, weight=8.0)
    assert torch.allclose(weight, torch.tensor([8.0, 1.6, 4.8, 1.6]))
    assert torch.allclose(inside, torch.tensor([1.0, 0.2, 0.3, 0.2]))


def test_preservation_is_zero_for_the_original_image() -> None:
    images = torch.rand(3, 3, 8, 8)
    loss = preservation_loss(images, images, {"flat": flat}, weights=torch.ones(3), face_scale=torch.ones(3))
    assert loss.abs().max() < 1e-6


def test_only_the_gradient_is_scaled_and_only_in_the_face() -> None:
    images, originals = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1

    def run(face_scale: float, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        x = images.clone().requires_grad_(True)
        loss = preservation_loss(
            x, originals, {"flat": flat}, weights=torch.ones(1), face_scale=torch.tensor([face_scale]), face_mask=mask
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
