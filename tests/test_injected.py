"""Injected beside the weights an adaptor does what it does in them: the same pictures, and an exact unload."""

import copy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fair_adaptors import load_fair_adaptor
from fair_adaptors.adaptor.modules import all_modules
from fair_adaptors.adaptor.record import WEIGHTS_FILE
from fair_adaptors.errors import FairAdaptorError
from tests.tiny import FAMILIES, latents, same, state, tiny_pipeline, write_tensors, write_tiny_adaptor
from tests.unwritable import WAYS, to_disk


def in_place(folder: Path, pipe: Any = None, weight: float = 1.0) -> Tensor:
    """What a pipeline draws with an adaptor in its weights."""
    pipe = pipe or tiny_pipeline()
    with load_fair_adaptor(pipe, folder, weight=weight):
        return latents(pipe)


def close(one: Tensor, other: Tensor, tolerance: float = 1e-5) -> bool:
    return bool((one - other).norm() < tolerance * other.norm())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_pictures_are_those_of_in_place_at_every_strength(tmp_path: Path, family: str) -> None:
    pipe = FAMILIES[family]()
    folder, before, plain = write_tiny_adaptor(tmp_path, pipe), state(pipe), latents(pipe)
    tensors = load_file(folder / WEIGHTS_FILE)
    convolution = {"lora_A": torch.randn(2, 4, 3, 3) / 9, "lora_B": torch.randn(32, 2, 1, 1) / 9}
    write_tensors(folder, tensors | {f"unet.conv_in.{role}.weight": factor for role, factor in convolution.items()})
    expected = {weight: in_place(folder, pipe, weight) for weight in (1.0, 0.5, -1.0)}
    modules = [module for model in (pipe.text_encoder, pipe.unet) for module in model.modules()]
    hooks = [list(module._forward_hooks) for module in modules]
    handle = load_fair_adaptor(pipe, folder, inject=True)
    for weight, picture in expected.items():
        handle.set_weight(weight)
        assert close(latents(pipe), picture) and not close(plain, picture, 1e-2)
    handle.disable()
    assert torch.equal(latents(pipe), plain)
    handle.enable()
    assert close(latents(pipe), expected[-1.0]) and same(state(pipe), before)
    handle.unload()
    assert torch.equal(latents(pipe), plain) and [list(module._forward_hooks) for module in modules] == hooks


def test_half_precision_has_the_adaptor_in_its_dtype(pipe: Any, adaptor: Path) -> None:
    expected = in_place(adaptor, pipe)
    handle = load_fair_adaptor(pipe, adaptor, inject=True)
    assert close(latents(pipe.to(dtype=torch.bfloat16)).float(), expected, 0.1)
    assert close(latents(pipe.to(dtype=torch.float32)), expected, 0.1) and handle.enabled


def of_the_same_weights(pipe: Any) -> Any:
    """A pipeline of plain layers that return what those of another one do, biases aside, told by what they return."""
    twin, found = tiny_pipeline(), all_modules(pipe)
    with torch.no_grad():
        for name, layer in all_modules(twin).items():
            if isinstance(layer, nn.Linear):
                given = torch.cat([torch.zeros(1, layer.in_features), torch.eye(layer.in_features)])
                returned = found[name](given)
                layer.weight.copy_((returned[1:] - returned[0]).T)
    for name, module in pipe.unet.named_modules():  # 8-bit casting rounds biases, convolutions and embeddings too
        if getattr(getattr(module, "bias", None), "dtype", None) == torch.float8_e4m3fn:
            twin.unet.get_submodule(name).to(torch.float8_e4m3fn).to(torch.float32)
    return twin


@pytest.mark.parametrize("way", [way for way, (_, _, library) in WAYS.items() if find_spec(library)])
def test_weights_that_cannot_be_written_take_it_beside_them(pipe: Any, adaptor: Path, way: str) -> None:
    change, tolerance, _ = WAYS[way]
    change(pipe)
    twin = of_the_same_weights(pipe)
    plain, expected = latents(pipe), in_place(adaptor, twin)
    handle = load_fair_adaptor(pipe, adaptor)
    assert close(latents(pipe) - plain, expected - latents(twin), 10 * tolerance)
    with pytest.raises(FairAdaptorError, match=r"cannot be fused: the model is .* before you quantise"):
        handle.fuse()
    handle.unload()
    assert torch.equal(latents(pipe), plain)


@pytest.mark.parametrize("kind", ["leaf_level", "block_level"])
def test_weights_on_disk_take_it_beside_them(pipe: Any, adaptor: Path, tmp_path: Path, kind: str) -> None:
    expected, plain = in_place(adaptor, pipe), latents(pipe)
    to_disk(pipe, tmp_path, kind)
    handle = load_fair_adaptor(pipe, adaptor)
    assert close(latents(pipe), expected)
    handle.unload()
    assert torch.equal(latents(pipe), plain)


@pytest.mark.parametrize("way", ["8-bit casting", "sequential offload", "disk"])
def test_in_weights_that_cannot_be_written_any_more_it_stays_and_says_what_to_do(
    pipe: Any, adaptor: Path, tmp_path: Path, way: str
) -> None:
    handle = load_fair_adaptor(pipe, adaptor)
    to_disk(pipe, tmp_path) if way == "disk" else WAYS[way][0](pipe)
    picture = latents(pipe)
    for change in (handle.unload, lambda: handle.set_weight(0.5), lambda: load_fair_adaptor(pipe, adaptor)):
        with pytest.raises(FairAdaptorError, match=r"the model is .*Unload adaptors before .*`inject=True`"):
            change()
    assert handle.enabled and torch.equal(latents(pipe), picture)


def test_loras_of_diffusers_come_are_fused_and_go_beside_it(pipe: Any, adaptor: Path, other: Path) -> None:
    plain, alone = latents(pipe), in_place(adaptor, pipe)
    with load_fair_adaptor(pipe, adaptor), load_fair_adaptor(pipe, other):
        both = latents(pipe)
    handle = load_fair_adaptor(pipe, adaptor, inject=True)
    pipe.load_lora_weights(other, weight_name=WEIGHTS_FILE, adapter_name="other")
    assert close(latents(pipe), both)
    pipe.fuse_lora()
    assert close(latents(pipe), both)
    pipe.unfuse_lora()
    pipe.set_adapters(["other"], [0.0])
    assert close(latents(pipe), alone)
    pipe.unload_lora_weights()
    assert close(latents(pipe), alone)
    handle.unload()
    assert close(latents(pipe), plain)  # diffusers' own drift
    pipe.load_lora_weights(other, weight_name=WEIGHTS_FILE)
    only_other = latents(pipe)
    with load_fair_adaptor(pipe, adaptor, inject=True):
        assert close(latents(pipe), both)
    assert torch.equal(latents(pipe), only_other)


def test_injected_ones_and_those_in_the_weights_add_up(pipe: Any, adaptor: Path, other: Path) -> None:
    before, plain = state(pipe), latents(pipe)
    with load_fair_adaptor(pipe, adaptor), load_fair_adaptor(pipe, other, weight=0.5):
        both = latents(pipe)
    one, two = load_fair_adaptor(pipe, adaptor, inject=True), load_fair_adaptor(pipe, other, weight=0.5)
    assert close(latents(pipe), both)
    one.unload()
    assert close(latents(pipe), in_place(other, weight=0.5))
    two.unload()
    assert same(state(pipe), before) and torch.equal(latents(pipe), plain)


def test_loaded_again_it_is_moved_out_of_the_weights_and_not_doubled(pipe: Any, adaptor: Path) -> None:
    before = state(pipe)
    handle = load_fair_adaptor(pipe, adaptor)
    expected = latents(pipe)
    assert load_fair_adaptor(pipe, adaptor, inject=True) is handle
    assert same(state(pipe), before) and close(latents(pipe), expected)
    assert load_fair_adaptor(pipe, adaptor, weight=0.5) is handle and same(state(pipe), before)
    assert close(latents(pipe), in_place(adaptor, weight=0.5))


def test_fused_it_is_in_the_weights(pipe: Any, adaptor: Path) -> None:
    load_fair_adaptor(pipe, adaptor, weight=0.5)
    expected = state(pipe)
    pipe = tiny_pipeline()
    handle = load_fair_adaptor(pipe, adaptor, weight=0.5, inject=True)
    handle.fuse()
    assert same(state(pipe), expected) and close(latents(pipe), in_place(adaptor, weight=0.5))
    with pytest.raises(FairAdaptorError, match="fused"):
        load_fair_adaptor(pipe, adaptor, inject=True)


def test_a_copy_of_the_pipeline_has_it_once(pipe: Any, adaptor: Path) -> None:
    plain = latents(pipe)
    handle = load_fair_adaptor(pipe, adaptor, inject=True)
    other, expected = copy.deepcopy(pipe), latents(pipe)
    handle.unload()
    assert torch.equal(latents(pipe), plain) and torch.equal(latents(other), expected)
    again = load_fair_adaptor(other, adaptor, inject=True)
    assert torch.equal(latents(other), expected)
    again.unload()
    assert torch.equal(latents(other), plain)


def test_what_was_compiled_before_has_it_and_loses_it(pipe: Any, adaptor: Path) -> None:
    model = nn.Sequential(*(block.attn1 for block in pipe.unet.mid_block.attentions[0].transformer_blocks))
    compiled, given = torch.compile(model, backend="eager"), torch.randn(1, 4, 64)
    with torch.no_grad():
        plain = compiled(given)
        with load_fair_adaptor(pipe, adaptor):
            expected = model(given)
        handle = load_fair_adaptor(pipe, adaptor, inject=True)
        assert close(compiled(given), expected) and not close(plain, expected, 1e-2)
        handle.set_weight(0)
        assert close(compiled(given), plain)
        handle.set_weight(1)
        handle.unload()
        assert close(compiled(given), plain)


@pytest.mark.parametrize(
    ("settings", "said"), [({"padding_mode": "circular"}, "padded by circular"), ({"groups": 2}, "in 2 groups")]
)
def test_what_cannot_stand_beside_a_layer_is_refused(pipe: Any, adaptor: Path, settings: Any, said: str) -> None:
    pipe.unet.conv_in = nn.Conv2d(4, 32, 3, padding=1, **settings)
    tensors, plain = load_file(adaptor / WEIGHTS_FILE), latents(pipe)
    factors = {"lora_A": torch.randn(2, *pipe.unet.conv_in.weight.shape[1:]), "lora_B": torch.randn(32, 2, 1, 1)}
    more = {f"unet.conv_in.{role}.weight": factor for role, factor in factors.items()}
    large = {key: torch.full_like(value, 1e19) for key, value in tensors.items()}
    for content, message in ((tensors | more, said), (large, "would not return finite values")):
        write_tensors(adaptor, content)
        with pytest.raises(FairAdaptorError, match=f"cannot be injected: .* {message}.*Nothing was changed"):
            load_fair_adaptor(pipe, adaptor, inject=True)
    assert torch.equal(latents(pipe), plain)
