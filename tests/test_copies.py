"""A copy of weights that have an adaptor is known to have it: none is added twice, and none is forgotten."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fair_adaptors import load_fair_adaptor
from fair_adaptors.convert import export
from fair_adaptors.errors import FairAdaptorError
from tests.tiny import FAMILIES, animated, latents, same, state, tiny_pipeline, write_tiny_adaptor


def saved(pipe: Any, folder: Path) -> Any:
    pipe.save_pretrained(folder)
    return type(pipe).from_pretrained(folder)


def copied(pipe: Any, folder: Path) -> Any:
    return copy.deepcopy(pipe)


@pytest.mark.parametrize("way", [saved, copied])
@pytest.mark.parametrize("inject", [False, True])
@pytest.mark.parametrize("parts", [("text_encoder",), ("unet",)])
def test_a_copy_with_the_adaptor_in_its_weights_does_not_take_it_again(
    tmp_path: Path, pipe: Any, way: Any, inject: bool, parts: tuple[str, ...]
) -> None:
    adaptor = write_tiny_adaptor(tmp_path / "adaptor", pipe, parts=parts)
    handle = load_fair_adaptor(pipe, adaptor)
    other = way(pipe, tmp_path / "copy")
    before = state(other)
    assert same(before, state(pipe))
    handle.unload()
    with pytest.raises(FairAdaptorError, match="for good: it was fused, or the pipeline was copied or saved"):
        load_fair_adaptor(other, adaptor, inject=inject)
    assert same(state(other), before)
    second = load_fair_adaptor(other, write_tiny_adaptor(tmp_path / "other", pipe, seed=2))
    with pytest.raises(FairAdaptorError, match="for good"):
        load_fair_adaptor(other, adaptor)
    second.unload()
    assert same(state(other), before)


@pytest.mark.parametrize("way", [saved, copied])
@pytest.mark.parametrize("now", ["disabled", "unloaded", "injected"])
def test_a_copy_without_it_in_its_weights_takes_it(
    tmp_path: Path, pipe: Any, adaptor: Path, way: Any, now: str
) -> None:
    before = state(pipe)
    handle = load_fair_adaptor(pipe, adaptor, inject=now == "injected")
    with load_fair_adaptor(tiny_pipeline(), adaptor) as fresh:
        expected = fresh.weight
    if now != "injected":
        handle.disable() if now == "disabled" else handle.unload()
    other = way(pipe, tmp_path / "copy")
    assert same(state(other), before)
    again = load_fair_adaptor(other, adaptor)
    assert not same(state(other), before) and again.weight == expected
    again.unload()
    assert same(state(other), before)


def test_unloaded_a_model_says_nothing_of_it(tmp_path: Path, pipe: Any, adaptor: Path) -> None:
    pipe.save_pretrained(tmp_path / "before")
    with load_fair_adaptor(pipe, adaptor):
        pipe.save_pretrained(tmp_path / "loaded")
    pipe.save_pretrained(tmp_path / "after")
    for part in ("text_encoder", "unet"):
        before, loaded, after = (
            json.loads((tmp_path / name / part / "config.json").read_text()) for name in ("before", "loaded", "after")
        )
        assert before == after and loaded.keys() - before.keys() == {"_fair_adaptors"}


def test_a_merged_pipeline_does_not_take_it_again(tmp_path: Path, pipe: Any, adaptor: Path) -> None:
    export(adaptor, tmp_path / "merged", format="merged", pipe=pipe)
    with pytest.raises(FairAdaptorError, match="for good"):
        load_fair_adaptor(type(pipe).from_pretrained(tmp_path / "merged"), adaptor)


@pytest.mark.parametrize("inject", [False, True])
@pytest.mark.parametrize("first", ["loaded", "unloaded", "fused"])
def test_a_copy_that_does_not_say_it_is_known_by_its_weights(
    tmp_path: Path, pipe: Any, adaptor: Path, inject: bool, first: str
) -> None:
    """AnimateDiff makes its U-Net of another one, and leaves out what its configuration says."""
    handle = load_fair_adaptor(pipe, adaptor, weight=0.5)
    other = animated(pipe)
    if first != "loaded":
        handle.unload() if first == "unloaded" else handle.fuse()
    other.text_encoder = tiny_pipeline().text_encoder
    before = state(other)
    with pytest.raises(FairAdaptorError, match="for good"):
        load_fair_adaptor(other, adaptor, inject=inject)
    assert same(state(other), before)
    with load_fair_adaptor(other, write_tiny_adaptor(tmp_path / "other", pipe, seed=2)):
        with pytest.raises(FairAdaptorError, match="for good"):
            load_fair_adaptor(other, adaptor, inject=inject)
    with load_fair_adaptor(animated(tiny_pipeline()), adaptor, inject=inject):
        pass


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("inject", [False, True])
@pytest.mark.parametrize("first", ["fuse", "load"])
def test_fused_projections_have_it_and_lose_it(tmp_path: Path, family: str, inject: bool, first: str) -> None:
    pipe = FAMILIES[family]()
    folder, plain, before = write_tiny_adaptor(tmp_path, pipe), latents(pipe), state(pipe)
    with load_fair_adaptor(pipe, folder):
        expected = latents(pipe)
    if first == "fuse":
        pipe.fuse_qkv_projections(vae=False)
    handle = load_fair_adaptor(pipe, folder, inject=inject)
    if first == "load":
        pipe.fuse_qkv_projections(vae=False)
        if inject:
            with pytest.raises(FairAdaptorError, match="Load it again with `inject=True`"):
                latents(pipe)
            load_fair_adaptor(pipe, folder, inject=True)
    for strength, picture in ((1.0, expected), (0.0, plain), (1.0, expected)):
        handle.set_weight(strength)
        assert torch.allclose(latents(pipe), picture, atol=1e-4)
    pipe.unfuse_qkv_projections()
    assert torch.allclose(latents(pipe), expected, atol=1e-4)
    pipe.fuse_qkv_projections(vae=False)
    handle.unload()
    assert torch.allclose(latents(pipe), plain, atol=1e-4)
    pipe.unfuse_qkv_projections()
    assert torch.equal(latents(pipe), plain)
    assert same({key: value for key, value in state(pipe).items() if key in before}, before)


def test_what_something_else_changed_after_the_fusion_is_not_hidden(pipe: Any, adaptor: Path) -> None:
    pipe.fuse_qkv_projections(vae=False)
    attention = pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn1
    attention.to_q.weight.data += 1
    before = state(pipe)
    with pytest.raises(FairAdaptorError, match="changed weights after fuse_qkv_projections"):
        load_fair_adaptor(pipe, adaptor)
    assert same(state(pipe), before)
    pipe.unfuse_qkv_projections()
    load_fair_adaptor(pipe, adaptor).unload()
    assert same(state(pipe), before)


def test_an_interruption_leaves_fused_projections_as_they_were(
    pipe: Any, adaptor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fair_adaptors.adaptor.fused import FusedProjection

    pipe.fuse_qkv_projections(vae=False)
    before, renew, calls = state(pipe), FusedProjection.renew, iter(range(2))

    def interrupted(projection: FusedProjection) -> None:
        renew(projection)
        if next(calls, None) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(FusedProjection, "renew", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_fair_adaptor(pipe, adaptor)
    assert same(state(pipe), before)
