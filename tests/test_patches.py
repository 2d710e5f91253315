"""Changes of weights add up, leave without a trace, and keep no memory that nobody needs."""

import gc
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from fair_adaptors.adaptor import patches
from fair_adaptors.adaptor.patches import Change, WeightPatches
from fair_adaptors.errors import FairAdaptorError

SHAPE = (41, 37)  # of no other tensor


def change(module: nn.Linear, name: str, seed: int) -> Change:
    generator = torch.Generator().manual_seed(seed)
    down, up = (
        torch.randn(2, module.in_features, generator=generator),
        torch.randn(module.out_features, 2, generator=generator),
    )
    model = nn.Sequential(module)
    model.config = SimpleNamespace()
    return Change(name, name, [(module, down, up)], models=(model,))


@pytest.fixture
def module() -> nn.Linear:
    return nn.Linear(*reversed(SHAPE), bias=False)


@pytest.fixture
def one(module: nn.Linear) -> Change:
    return change(module, "one", 1)


@pytest.fixture
def two(module: nn.Linear) -> Change:
    return change(module, "two", 2)


def copies() -> int:
    """Count the tensors of the module's shape that were made since ``gc.freeze``: all that is kept of it."""
    gc.collect()
    return sum(type(thing) is Tensor and thing.shape == SHAPE for thing in gc.get_objects())


def test_the_original_is_kept_while_it_is_needed(module: nn.Linear, one: Change, two: Change) -> None:
    table = WeightPatches()
    gc.freeze()
    try:
        table.set(one, 1.0)
        table.set(two, 0.5)
        assert copies() == 1
        table.set(two, 0)
        table.set(one, 0)
        assert copies() == 0
        table.set(one, 1.0)
        table.fuse(one)
        assert copies() == 0
    finally:
        gc.unfreeze()


def offload(module: nn.Module) -> None:
    from diffusers.hooks import apply_group_offloading

    apply_group_offloading(module, torch.device("cpu"), torch.device("cpu"), "leaf_level")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("prepare", "replaced"), [(lambda model: None, True), (nn.Module.share_memory, False), (offload, False)]
)
def test_the_original_is_not_copied_unless_others_know_its_place(
    module: nn.Linear, one: Change, prepare: Callable[[nn.Module], object], replaced: bool, dtype: torch.dtype
) -> None:
    """Others are processes that share the memory, and group offloading, which may come back to it."""
    prepare(one.models[0].to(dtype))
    place, before, table = module.weight.data, module.weight.detach().clone(), WeightPatches()
    for strength in (1.0, 0.5):
        table.set(one, strength)
        assert torch.equal(place, before) == replaced and torch.equal(place, module.weight) != replaced
    table.set(one, 0)
    assert torch.equal(place, before) and module.weight.data_ptr() == place.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_fused_under_others_is_not_rounded(
    module: nn.Linear, one: Change, two: Change, dtype: torch.dtype
) -> None:
    module.to(dtype)
    table = WeightPatches()
    table.set(one, 0.7)
    table.set(two, 0.3)
    both = module.weight.detach().clone()
    table.fuse(one)
    table.set(two, 0.3)
    if dtype == torch.float32:
        assert torch.allclose(module.weight, both, atol=1e-6)
    else:  # but for a tie here and there
        assert (module.weight != both).float().mean() < 0.01


def test_what_is_fused_is_known_to_be_after_others_came_and_went(module: nn.Linear, one: Change, two: Change) -> None:
    table = WeightPatches()
    table.set(one, 1.0)
    table.fuse(one)
    module.weight.data += 1  # nothing is in force, so that whoever wants may change it
    for strength in (0.5, 0.7, 0):
        table.set(two, strength)
        assert table.is_permanent(one) and not table.is_permanent(two)


@pytest.mark.parametrize("beside", [False, True])
def test_fusing_at_strength_0_makes_nothing_permanent(
    module: nn.Linear, one: Change, two: Change, beside: bool
) -> None:
    before, table = module.weight.detach().clone(), WeightPatches()
    if beside:
        table.set(two, 1.0)
    table.set(one, 0)
    table.fuse(one)
    table.set(two, 0)
    assert torch.equal(module.weight, before) and not table.is_permanent(one)


def test_a_weight_that_nobody_else_touched_is_not_computed_anew_to_see_that(
    module: nn.Linear, one: Change, two: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = WeightPatches()
    table.set(one, 1.0)
    table.set(two, 1.0)
    table.fuse(one)
    monkeypatch.delattr(patches, "_total")
    for strength in (0.5, 0.7, 0):
        table.set(two, strength)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("start", range(4))
@pytest.mark.parametrize("side", [3, 4])
def test_a_weight_may_lie_anywhere_in_memory(dtype: torch.dtype, start: int, side: int) -> None:
    """As the tensors of a mapped file do; and one whose bytes are not a multiple of eight."""
    module = nn.Linear(side, side, bias=False)
    module.weight.data = torch.randn(20).to(dtype)[start : start + side * side].view(side, side)
    before, table, some = module.weight.detach().clone(), WeightPatches(), change(module, "some", 1)
    table.set(some, 1.0)
    ours = module.weight.detach().clone()
    module.weight.data[2, 2] *= 1.02
    with pytest.raises(FairAdaptorError, match="changed by something else"):
        table.set(some, 0)
    module.weight.data.copy_(ours)
    table.set(some, 0)
    assert torch.equal(module.weight, before)


def test_a_weight_in_another_memory_format_is_changed_alike() -> None:
    plain, other = nn.Conv2d(8, 16, 3), nn.Conv2d(8, 16, 3)
    other.load_state_dict(plain.state_dict())
    other.to(memory_format=torch.channels_last)
    factors, before = (torch.randn(2, 8, 3, 3), torch.randn(16, 2, 1, 1)), plain.weight.detach().clone()
    changes, table = [Change("some", "some", [(module, *factors)]) for module in (plain, other)], WeightPatches()
    for strength in (1.0, 0.0):
        for each in changes:
            table.set(each, strength)
        assert torch.allclose(plain.weight, other.weight, atol=1e-5)
        assert torch.equal(other.weight, before) == (strength == 0)
