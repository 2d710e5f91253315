"""One line loads, strengths add up, and unloading is exact."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline
from safetensors.torch import load_file

from fair_adaptors import load_fair_adaptor
from fair_adaptors.adaptor import patches
from fair_adaptors.adaptor.record import WEIGHTS_FILE
from fair_adaptors.errors import FairAdaptorError
from tests.tiny import image, same, state, tiny_pipeline, write_tensors, write_tiny_adaptor


def test_loading_changes_the_image_and_unloading_restores_every_bit(pipe: Any, adaptor: Path) -> None:
    before, picture = state(pipe), image(pipe)
    handle = load_fair_adaptor(pipe, adaptor)
    assert not torch.equal(image(pipe), picture)
    handle.unload()
    assert same(state(pipe), before) and torch.equal(image(pipe), picture)
    handle.unload()


def test_as_a_context_manager_it_unloads_even_after_an_error(pipe: Any, adaptor: Path) -> None:
    before = state(pipe)
    with pytest.raises(RuntimeError), load_fair_adaptor(pipe, adaptor):
        raise RuntimeError
    assert same(state(pipe), before)


def test_disabled_is_the_original_and_enabled_the_adaptor_bit_for_bit(pipe: Any, adaptor: Path) -> None:
    before = state(pipe)
    handle = load_fair_adaptor(pipe, adaptor)
    loaded = state(pipe)
    for _ in range(3):
        handle.disable()
        assert same(state(pipe), before)
        handle.enable()
        assert same(state(pipe), loaded)


def test_loading_twice_is_not_twice_the_effect(pipe: Any, adaptor: Path) -> None:
    load_fair_adaptor(pipe, adaptor)
    once = state(pipe)
    load_fair_adaptor(pipe, adaptor)
    assert same(state(pipe), once)


def test_the_weight_scales_the_change(pipe: Any, adaptor: Path) -> None:
    before = state(pipe)
    handle = load_fair_adaptor(pipe, adaptor, weight=0)
    assert same(state(pipe), before)
    handle.set_weight(1)
    whole = state(pipe)
    handle.set_weight(0.5)
    half = state(pipe)
    for key in before:
        assert torch.allclose(half[key] - before[key], 0.5 * (whole[key] - before[key]), atol=1e-6)


def test_the_weight_of_a_disabled_adaptor_is_kept_for_later(pipe: Any, adaptor: Path) -> None:
    handle = load_fair_adaptor(pipe, adaptor)
    handle.set_weight(0.5)
    half = state(pipe)
    handle.disable()
    handle.set_weight(0.5)
    assert not same(state(pipe), half)
    handle.enable()
    assert same(state(pipe), half) and handle.weight == 0.5


def test_several_adaptors_add_up_in_any_order_and_leave_in_any_order(pipe: Any, adaptor: Path, other: Path) -> None:
    before = state(pipe)
    one, two = load_fair_adaptor(pipe, adaptor, weight=0.7), load_fair_adaptor(pipe, other, weight=0.4)
    both = state(pipe)
    one.unload()
    only_two = state(pipe)
    two.unload()
    assert same(state(pipe), before)
    two, one = load_fair_adaptor(pipe, other, weight=0.4), load_fair_adaptor(pipe, adaptor, weight=0.7)
    assert same(state(pipe), both)
    one.unload()
    assert same(state(pipe), only_two)


@pytest.mark.parametrize("parts", [("text_encoder",), ("unet",)])
def test_an_adaptor_of_one_part_leaves_the_other_alone(pipe: Any, tmp_path: Path, parts: tuple[str, ...]) -> None:
    before = state(pipe)
    load_fair_adaptor(pipe, write_tiny_adaptor(tmp_path / "part", pipe, parts=parts))
    changed = {key.split(".")[0] for key, value in state(pipe).items() if not torch.equal(value, before[key])}
    assert changed == set(parts)


def test_casting_after_loading_then_unloading_is_casting_alone(pipe: Any, adaptor: Path) -> None:
    handle = load_fair_adaptor(pipe, adaptor)
    pipe.to(dtype=torch.bfloat16)
    handle.unload()
    expected = tiny_pipeline()
    expected.to(dtype=torch.bfloat16)
    assert same(state(pipe), state(expected))


def test_loading_into_a_cast_pipeline_keeps_its_dtype(pipe: Any, adaptor: Path) -> None:
    pipe.to(dtype=torch.bfloat16)
    before = state(pipe)
    handle = load_fair_adaptor(pipe, adaptor)
    assert {tensor.dtype for tensor in state(pipe).values() if tensor.is_floating_point()} == {torch.bfloat16}
    assert not same(state(pipe), before)
    handle.unload()
    assert same(state(pipe), before)


@pytest.mark.parametrize("kind", [StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline])
def test_pipelines_that_share_the_modules_share_the_adaptor(pipe: Any, adaptor: Path, kind: type) -> None:
    before = state(pipe)
    sibling = kind(**pipe.components, requires_safety_checker=False)
    handle = load_fair_adaptor(sibling, adaptor)
    assert not same(state(pipe), before)
    load_fair_adaptor(pipe, adaptor)
    handle.unload()
    assert same(state(pipe), before)


def test_fused_it_stays_and_says_so(pipe: Any, adaptor: Path) -> None:
    handle = load_fair_adaptor(pipe, adaptor)
    loaded = state(pipe)
    handle.fuse()
    for change in (handle.unload, handle.disable, handle.enable, handle.fuse, lambda: handle.set_weight(0.5)):
        with pytest.raises(FairAdaptorError, match="fused"):
            change()
    with pytest.raises(FairAdaptorError, match="fused"):
        load_fair_adaptor(pipe, adaptor)
    assert same(state(pipe), loaded)


def test_fused_in_a_block_it_outlives_the_block(pipe: Any, adaptor: Path) -> None:
    with load_fair_adaptor(pipe, adaptor) as handle:
        loaded = state(pipe)
        handle.fuse()
    assert same(state(pipe), loaded)


def test_fusing_one_adaptor_leaves_the_other_undoable(pipe: Any, adaptor: Path, other: Path) -> None:
    one = load_fair_adaptor(pipe, adaptor)
    only_one = state(pipe)
    two = load_fair_adaptor(pipe, other)
    both = state(pipe)
    one.fuse()
    two.set_weight(1)
    for key, value in state(pipe).items():
        assert torch.allclose(value, both[key], atol=1e-6)
    two.unload()
    assert same(state(pipe), only_one)
    two = load_fair_adaptor(pipe, other)
    two.unload()
    assert same(state(pipe), only_one)


def test_a_disabled_adaptor_cannot_be_fused(pipe: Any, adaptor: Path) -> None:
    handle = load_fair_adaptor(pipe, adaptor)
    handle.disable()
    with pytest.raises(FairAdaptorError, match="enable it"):
        handle.fuse()


def test_an_adaptor_loaded_again_has_one_handle(pipe: Any, adaptor: Path) -> None:
    handle = load_fair_adaptor(pipe, adaptor)
    handle.disable()
    assert load_fair_adaptor(pipe, adaptor, weight=0.5) is handle
    assert handle.enabled and handle.weight == 0.5


def test_two_pipelines_that_share_nothing_have_a_handle_each(pipe: Any, adaptor: Path) -> None:
    other = tiny_pipeline(seed=3)
    before, others = state(pipe), state(other)
    first, second = load_fair_adaptor(pipe, adaptor), load_fair_adaptor(other, adaptor)
    first.unload()
    assert same(state(pipe), before) and second.enabled and not same(state(other), others)
    second.unload()
    assert same(state(other), others)


def test_an_adaptor_whose_handle_was_dropped_can_be_taken_out_by_loading_it_again(pipe: Any, adaptor: Path) -> None:
    before = state(pipe)
    load_fair_adaptor(pipe, adaptor)
    load_fair_adaptor(pipe, adaptor).unload()
    assert same(state(pipe), before)


def test_unloaded_it_can_be_loaded_again(pipe: Any, adaptor: Path) -> None:
    handle = load_fair_adaptor(pipe, adaptor)
    loaded = state(pipe)
    handle.unload()
    with pytest.raises(FairAdaptorError, match="unloaded; load it again"):
        handle.enable()
    again = load_fair_adaptor(pipe, adaptor)
    assert again.enabled and same(state(pipe), loaded)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fused", [False, True])
def test_an_interruption_midway_leaves_every_bit(
    pipe: Any, adaptor: Path, other: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, fused: bool
) -> None:
    original = state(pipe.to(dtype=dtype))
    first = load_fair_adaptor(pipe, other)
    if fused:
        first.fuse()
    before, calls = state(pipe), iter(range(8))

    def interrupted(module: Any, summands: Any) -> bool:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return True

    monkeypatch.setattr(patches, "_stays_finite", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_fair_adaptor(pipe, adaptor)
    assert same(state(pipe), before)
    monkeypatch.undo()
    load_fair_adaptor(pipe, adaptor).unload()
    assert same(state(pipe), before)
    if not fused:
        first.unload()
        assert same(state(pipe), original)


def test_a_strength_that_is_too_much_for_the_last_module_leaves_the_one_before(pipe: Any, adaptor: Path) -> None:
    tensors = load_file(adaptor / WEIGHTS_FILE)
    last = {key: torch.full_like(tensors[key], 3e18) for key in sorted(tensors)[-2:]}
    write_tensors(adaptor, tensors | last)
    handle = load_fair_adaptor(pipe, adaptor)
    before = state(pipe)
    with pytest.raises(FairAdaptorError, match="infinite: load it with a lower `weight`"):
        handle.set_weight(99)
    assert same(state(pipe), before) and handle.enabled and handle.weight == 1


@pytest.mark.parametrize("unloaded", [False, True])
def test_a_pipeline_with_an_adaptor_is_freed(adaptor: Path, unloaded: bool) -> None:
    """If nobody holds the handle, or if what it held is unloaded."""
    pipe = tiny_pipeline()
    gone = weakref.ref(next(m for m in pipe.unet.modules() if type(m).__name__ == "Attention").to_q)
    handle = load_fair_adaptor(pipe, adaptor)
    if unloaded:
        handle.unload()
    else:
        del handle
    del pipe
    gc.collect()
    assert gone() is None


def test_two_threads_that_load_and_unload_leave_the_base_as_it_was(pipe: Any, adaptor: Path, other: Path) -> None:
    from threading import Barrier, Thread

    before = state(pipe)
    for _ in range(4):
        together = Barrier(2)
        handles: list[Any] = []

        def work(folder: Path, together: Barrier = together, handles: list[Any] = handles) -> None:
            together.wait()
            handles.append(load_fair_adaptor(pipe, folder))

        threads = [Thread(target=work, args=(folder,)) for folder in (adaptor, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for handle in handles:
            handle.unload()
        assert len(handles) == 2 and same(state(pipe), before)
