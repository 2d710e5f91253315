"""Families of a flow, of the real classes: adaptors load, unload, and their pictures are measured."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file
from torch import Tensor

from fair_adaptors import evaluate, load_fair_adaptor
from fair_adaptors.adaptor.architecture import kind_of, load_architecture
from fair_adaptors.adaptor.bases import defaults_of
from fair_adaptors.adaptor.folder import read_adaptor, write_adaptor
from fair_adaptors.adaptor.modules import all_modules, shape_signature
from fair_adaptors.adaptor.record import WEIGHTS_FILE
from fair_adaptors.app.session import Session
from fair_adaptors.errors import ConfigError, WrongBaseError
from fair_adaptors.families.table import FAMILIES, family_named, family_of
from fair_adaptors.pipelines import class_in_file, half_precision
from tests.tiny import AIM, set_config, tiny_pipeline, write_tiny_adaptor
from tests.tiny_flow import FLOW_FAMILIES, draw, size, stems, tiny_flux, tiny_klein, tiny_sd3


@pytest.fixture(params=FLOW_FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pipe(name: str) -> Any:
    return FLOW_FAMILIES[name]()


@pytest.fixture
def adaptor(tmp_path: Path, name: str, pipe: Any) -> Path:
    return write_tiny_adaptor(tmp_path / "adaptor", pipe, parts=tuple(family_named(name).parts))


def weights(pipe: Any) -> dict[str, Tensor]:
    return {name: module.weight.detach().clone() for name, module in all_modules(pipe).items()}


def changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    return {name for name, weight in after.items() if not torch.equal(weight, before[name])}


def test_it_is_told_from_the_others_by_its_classes(tmp_path: Path, name: str, pipe: Any) -> None:
    assert family_of(pipe).name == name
    pipe.save_pretrained(tmp_path)
    assert load_architecture(str(tmp_path)).family.name == name and half_precision(str(tmp_path)) == "bfloat16"
    again = DiffusionPipeline.from_pretrained(tmp_path)
    assert family_of(again).name == name and all_modules(again).keys() == all_modules(pipe).keys()
    if len(family_named(name).parts) > 1:  # a pipeline that only encodes prompts
        pipe.transformer = None
        assert family_of(pipe).name == name


def test_every_layer_of_the_file_changes_and_all_are_put_back(name: str, pipe: Any, adaptor: Path) -> None:
    before, tensors, plain = weights(pipe), read_adaptor(adaptor).tensors, draw(pipe)
    layers = [key for part in family_named(name).parts.values() for key in part.target_modules if "." not in key]
    assert all(any(f".{layer}" in stem for stem in stems(tensors)) for layer in layers)
    handle = load_fair_adaptor(pipe, adaptor)
    assert changed(before, weights(pipe)) == stems(tensors)
    ours = draw(pipe)
    assert (ours - plain).norm() > 1e-3 * plain.norm()
    handle.set_weight(0.5)
    for stem in stems(tensors):
        change = 0.5 * tensors[f"{stem}.lora_B.weight"] @ tensors[f"{stem}.lora_A.weight"]
        assert torch.allclose(all_modules(pipe)[stem].weight, before[stem] + change, atol=1e-6), stem
    handle.unload()
    assert not changed(before, weights(pipe)) and torch.equal(draw(pipe), plain)
    with load_fair_adaptor(pipe, adaptor, inject=True) as injected:
        assert injected.injected and not changed(before, weights(pipe))
        assert (draw(pipe) - ours).abs().max() < 1e-4
    assert torch.equal(draw(pipe), plain)
    pipe.load_lora_weights(adaptor, weight_name=WEIGHTS_FILE)
    assert (draw(pipe) - ours).abs().max() < 1e-4


def test_two_adaptors_add_up_and_each_goes_alone(tmp_path: Path, name: str, pipe: Any, adaptor: Path) -> None:
    other = write_tiny_adaptor(tmp_path / "other", pipe, parts=tuple(family_named(name).parts), seed=2)
    before = weights(pipe)
    first, second = load_fair_adaptor(pipe, adaptor), load_fair_adaptor(pipe, other)
    both = weights(pipe)
    first.unload()
    with_second = weights(pipe)
    second.unload()
    assert not changed(before, weights(pipe))
    with load_fair_adaptor(pipe, adaptor):
        for stem, weight in weights(pipe).items():
            assert torch.allclose(
                both[stem] - before[stem], (weight - before[stem]) + with_second[stem] - before[stem], atol=1e-6
            )


def test_an_adaptor_of_another_family_or_one_layer_too_many_is_refused(
    tmp_path: Path, name: str, pipe: Any, adaptor: Path
) -> None:
    before = weights(pipe)
    other = FLOW_FAMILIES[next(one for one in FLOW_FAMILIES if one != name)]()
    for wrong in (other, tiny_pipeline()):
        with pytest.raises(
            WrongBaseError, match=rf"{family_of(wrong).title}, and the adaptor is for {family_named(name).title}"
        ):
            load_fair_adaptor(wrong, adaptor)
    set_config(adaptor, family="flux-9")
    with pytest.raises(WrongBaseError, match="'flux-9', which this version does not know"):
        load_fair_adaptor(pipe, adaptor)
    tensors = read_adaptor(adaptor).tensors
    more = {f"transformer.blocks.9.to_q.{role}.weight": torch.ones(2, 2) for role in ("lora_A", "lora_B")}
    settings: Any = {"name": "more", "base_model": "tiny", "attributes": AIM, "rank": 2, "training": {}}
    with pytest.raises(WrongBaseError, match=r"no module transformer\.blocks\.9\.to_q"):
        load_fair_adaptor(pipe, write_adaptor(tmp_path / "more", tensors | more, pipe=pipe, **settings))
    assert not changed(before, weights(pipe))


def test_one_file_with_a_network_is_no_base(tmp_path: Path) -> None:
    save_file({"model.diffusion_model.double_blocks.0.img_attn.qkv.weight": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ConfigError, match="newer family than Stable Diffusion XL"):
        class_in_file(str(tmp_path / "a.safetensors"))


def test_a_folder_or_pipeline_of_no_family_is_told_what_is_known(tmp_path: Path) -> None:
    pipe = tiny_sd3()
    pipe.save_pretrained(tmp_path)
    file = tmp_path / "transformer" / "config.json"
    file.write_text(file.read_text().replace("SD3Transformer2DModel", "ChromaTransformer2DModel"))
    with pytest.raises(ConfigError, match="its transformer is a ChromaTransformer2DModel"):
        load_architecture(str(tmp_path))
    pipe.transformer = tiny_pipeline().unet
    with pytest.raises(WrongBaseError) as told:
        family_of(pipe)
    assert all(family.title in str(told.value) for family in FAMILIES)


def at_its_size(pipe: Any) -> Any:
    """A pipeline whose own size, which drawing leaves to it, is a tiny one, as its class's may be 1024 pixels."""
    kind = type(pipe)

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        return kind.__call__(self, *arguments, **{**size(self), "max_sequence_length": 16} | named)

    pipe.__class__ = type(kind.__name__, (kind,), {"__call__": call})
    return pipe


def test_it_is_measured_and_shown_with_nothing_said_of_how_it_is_drawn(name: str, pipe: Any, adaptor: Path) -> None:
    few = {"flux": lambda: tiny_flux(guidance=False), "flux2": lambda: tiny_klein(distilled=True)}
    small = at_its_size(few[name]() if name in few else pipe)
    if name == "flux":  # the adaptor is for dev, and schnell lacks a layer that it does not change
        assert not any("guidance_embedder" in key for key in all_modules(small))
    before = weights(small)
    usual = {
        "sd3": (28, 7.0),
        "flux": (4, 0.0),
        "flux2": (4, 1.0),
        "z-image": (50, 5.0),
        "qwen-image": (50, 4.0),
        "sana": (20, 4.5),
    }[name]
    found = evaluate(
        small, adaptor, prompts=["a nurse"], images_per_prompt=2, classifiers="sandbox:evaluation", faces="whole",
        num_steps=None if usual[0] < 10 else 2,
    )  # fmt: skip
    settings = found.results.settings
    assert (settings.num_steps, settings.guidance_scale) == (4 if usual[0] < 10 else 2, usual[1])
    assert [one.name for one in found.results.variants] == ["original", "tiny-1"]
    session = Session(small, base="folder", adaptors=[str(adaptor)])
    assert (session._usual.num_steps, session._usual.guidance_scale) == usual
    session._usual = dataclasses.replace(session._usual, num_steps=2)
    shown = session.compare(session.read("a nurse", [str(adaptor)], strength=1, images=1, seed=0))
    pictures = [side.pictures[0] for side in (shown.before, shown.after)]
    assert pictures[0].size == (size(small)["width"],) * 2 and pictures[0].tobytes() != pictures[1].tobytes()
    assert not changed(before, weights(small))


@pytest.mark.parametrize(
    ("make", "usual"),
    [(tiny_sd3, (28, 7.0)), (tiny_flux, (28, 3.5)), (tiny_klein, (50, 4.0)), (tiny_pipeline, (30, 7.5))],
)
def test_usual_settings_are_those_of_the_base_where_it_is_known_else_of_its_family(make: Any, usual: Any) -> None:
    pipe = make()
    found = [defaults_of("a/folder", pipe)]
    pipe.register_to_config(_name_or_path="Tongyi-MAI/Z-Image-Turbo")
    found += [defaults_of("a/folder", pipe), defaults_of("black-forest-labs/FLUX.1-schnell@main", pipe)]
    assert [(one.num_steps, one.guidance_scale) for one in found] == [usual, (8, 0.0), (4, 0.0)]


def test_the_published_bases_have_the_sizes_that_they_are_known_by() -> None:
    """In 10⁹ parameters, as their makers say: built on no memory from the table's configurations."""
    said = {"sd35-medium": 2.24, "sd35-large": 8.06, "flux-schnell": 11.9, "klein-4b": 3.9, "z-image-turbo": 6.2}
    read_by = {"sd3": 4.76, "flux": 4.76, "flux2": 4.02, "z-image": 4.02, "qwen-image": 8.29, "sana": 2.61}
    for base, told in (said | {"qwen-image": 20.4, "sana": 1.60}).items():
        built = load_architecture(base)
        (reader,) = built.readers.values()  # T5-XXL, Qwen3-4B or Qwen2.5-VL-7B
        counts = [sum(value.numel() for value in model.parameters()) for model in (built.pipe.transformer, reader)]
        assert (
            counts == pytest.approx([told * 1e9, read_by[built.family.name] * 1e9], rel=0.01)
            and built.autoencoder is not None
        )
        alike = {"klein-4b": "klein-base-4b", "z-image-turbo": "z-image"}  # of the same shapes
        assert kind_of(shape_signature(built.pipe)) == alike.get(base, base)
