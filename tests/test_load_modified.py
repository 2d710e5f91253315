"""An adaptor is compared with the modules that it changes, and what something else changed is not overwritten."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fair_adaptors import WrongBaseError, load_fair_adaptor
from fair_adaptors.adaptor.modules import all_modules
from fair_adaptors.adaptor.record import WEIGHTS_FILE
from fair_adaptors.errors import FairAdaptorError
from tests.tiny import FAMILIES, same, state, tiny_pipeline, write_tiny_adaptor


@pytest.mark.parametrize(("missing", "kept"), [("unet", "text_encoder"), ("text_encoder", "unet")])
@pytest.mark.parametrize("family", ["SD 1.x", "SDXL"])
def test_a_part_that_the_adaptor_does_not_change_may_be_missing(
    tmp_path: Path, family: str, missing: str, kept: str
) -> None:
    pipe = FAMILIES[family]()
    folder = write_tiny_adaptor(tmp_path / "kept", pipe, parts=(kept,))
    of_both = write_tiny_adaptor(tmp_path / "both", pipe)
    components = {name: part for name, part in pipe.components.items() if name != missing}
    half = type(pipe)(**components, **{missing: None})
    before = {name: module.weight.detach().clone() for name, module in all_modules(half).items()}
    handle = load_fair_adaptor(half, folder)
    assert any(not torch.equal(module.weight, before[name]) for name, module in all_modules(half).items())
    handle.unload()
    with pytest.raises(WrongBaseError, match=f"changes the {missing}, which this pipeline does not have"):
        load_fair_adaptor(half, of_both)
    assert all(torch.equal(module.weight, before[name]) for name, module in all_modules(half).items())


def test_an_adaptor_of_the_text_encoder_that_two_families_share_is_refused_by_the_other(tmp_path: Path) -> None:
    """Stable Diffusion XL's first text encoder has the shapes of Stable Diffusion 1.5's."""
    folder = write_tiny_adaptor(tmp_path, tiny_pipeline(), parts=("text_encoder",))
    with pytest.raises(WrongBaseError, match="it is Stable Diffusion XL, and the adaptor is for Stable Diffusion 1"):
        load_fair_adaptor(FAMILIES["SDXL"](), folder)


@pytest.mark.parametrize(
    "parts",
    [
        {"transformer": None, "text_encoder": None, "text_encoder_2": None},  # FLUX
        {"transformer": None, "text_encoder": None, "text_encoder_2": None, "text_encoder_3": None},  # SD3
        {"unet": None, "text_encoder": None},  # neither part is there
    ],
)
def test_pipelines_of_other_families_are_told_which_ones_are_known(adaptor: Path, parts: dict[str, Any]) -> None:
    with pytest.raises(WrongBaseError, match=r"Stable Diffusion 1\.x or 2\.x \(text_encoder, unet\); .* XL \("):
        load_fair_adaptor(SimpleNamespace(**parts), adaptor)


def test_a_compiled_model_takes_an_adaptor(pipe: Any, adaptor: Path) -> None:
    """Wrapping renames the modules; nothing is compiled before the first call."""
    load_fair_adaptor(pipe, adaptor)
    expected = state(pipe)
    other = tiny_pipeline()
    unet, other.unet = other.unet, torch.compile(other.unet, backend="eager")
    load_fair_adaptor(other, adaptor)
    assert all(torch.equal(value, expected["unet." + key]) for key, value in unet.state_dict().items())


@pytest.mark.parametrize("cast", [False, True])
def test_one_value_that_something_else_changed_is_not_overwritten(pipe: Any, adaptor: Path, cast: bool) -> None:
    handle = load_fair_adaptor(pipe, adaptor)
    if cast:
        pipe.to(dtype=torch.bfloat16)
    weight = next(m for m in pipe.unet.modules() if type(m).__name__ == "Attention").to_q.weight.data
    ours = weight.clone()
    weight[-1, -1] += 1
    changed = state(pipe)
    for change in (handle.unload, handle.disable, handle.enable, lambda: load_fair_adaptor(pipe, adaptor, weight=0.5)):
        with pytest.raises(FairAdaptorError, match="changed by something else"):
            change()
    assert same(state(pipe), changed) and handle.enabled and handle.weight == 1
    weight.copy_(ours)
    handle.unload()
    assert same(state(pipe), state(tiny_pipeline().to(dtype=weight.dtype)))


def test_what_something_else_changed_since_is_not_overwritten(pipe: Any, adaptor: Path, other: Path) -> None:
    """diffusers' fuse_lora changes the same weights: taken out in another order, the base would be lost."""
    before = state(pipe)
    handle = load_fair_adaptor(pipe, adaptor)
    pipe.load_lora_weights(other, weight_name=WEIGHTS_FILE)
    pipe.fuse_lora()
    with pytest.raises(FairAdaptorError, match="changed by something else"):
        handle.unload()
    pipe.unfuse_lora()
    pipe.unload_lora_weights()
    handle.unload()
    after = state(pipe)
    assert all(torch.allclose(after[key], before[key], atol=1e-6) for key in before)  # diffusers' own drift
