"""A third family of pipelines is one description and one denoiser: everything else takes it as it is."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, PixArtTransformer2DModel
from fair_adaptors.training.engine import denoisers, lora
from fair_adaptors.training.engine.gradients import accumulate_gradients, step_weights
from fair_adaptors.training.engine.sampling import decode, encode_prompts, initial_noise, sample
from torch import Tensor
from transformers import T5Config, T5EncoderModel

from fair_adaptors import load_fair_adaptor
from fair_adaptors.adaptor.folder import read_adaptor
from fair_adaptors.adaptor.modules import shape_signature
from fair_adaptors.convert import convert, export
from fair_adaptors.errors import ConfigError, WrongBaseError
from fair_adaptors.families import table
from fair_adaptors.families.family import Family, Part
from tests.tiny import tiny_pipeline, write_tiny_adaptor

TOY = Family(
    "toy",
    "Toy",
    {
        "text_encoder": Part("transformers:T5EncoderModel", ("q", "k", "v", "o"), ("lora_te3_",)),
        "transformer": Part(
            "diffusers:PixArtTransformer2DModel", ("to_q", "to_k", "to_v", "to_out.0"), ("lora_dit_",)
        ),
    },
    network="transformer",
    text_encoders=("text_encoder",),
    pipelines=("ToyPipeline",),
    soft_tokens=False,
)
PARTS = tuple(TOY.parts)


class ToyPipeline(SimpleNamespace):
    """A transformer in place of a U-Net, and a T5 in place of CLIP."""

    @property
    def components(self) -> dict[str, Any]:
        return vars(self)


@dataclass(frozen=True)
class ToyDenoiser:
    pipe: Any

    @property
    def model(self) -> Any:
        return self.pipe.transformer

    def encode(self, prompt: str | None) -> tuple[Tensor, ...]:
        ids = torch.tensor([[ord(letter) % 32 for letter in (prompt or "").ljust(12)[:12]]])
        return (self.pipe.text_encoder(ids).last_hidden_state,)

    def predict(self, scaled_input: Tensor, timestep: Tensor, conditions: tuple[Tensor, ...]) -> Tensor:
        (embeds,) = conditions
        times = timestep.expand(len(scaled_input))
        sizes = {"resolution": None, "aspect_ratio": None}
        return self.model(scaled_input, embeds, times, sizes, return_dict=False)[0]

    def decode(self, latents: Tensor) -> Tensor:
        return self.pipe.vae.decode(latents, return_dict=False)[0] / 2 + 0.5

    def condition_shapes(self, length: int) -> tuple[tuple[int, ...], ...]:
        return ((length, 16),)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> ToyPipeline:
    monkeypatch.setattr(table, "FAMILIES", (*table.FAMILIES, TOY))
    monkeypatch.setitem(denoisers.DENOISERS, "toy", ToyDenoiser)
    torch.manual_seed(0)
    first = tiny_pipeline()
    made = ToyPipeline(
        text_encoder=T5EncoderModel(
            T5Config(vocab_size=32, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_heads=4)
        ).eval(),
        transformer=PixArtTransformer2DModel(
            num_attention_heads=2, attention_head_dim=4, in_channels=4, out_channels=4, num_layers=1,
            cross_attention_dim=8, caption_channels=16, sample_size=8, patch_size=2, use_additional_conditions=False,
        ).eval(),
        vae=first.vae,
        scheduler=DPMSolverMultistepScheduler(),
        config={},
    )  # fmt: skip
    for part in PARTS:  # frozen models take other kernels than those that gradients are asked of
        made.components[part].requires_grad_(False)
    return made


def latents(pipe: Any) -> Tensor:
    conditions = encode_prompts(pipe, ["a nurse"], guidance_scale=2.0)
    return sample(pipe, conditions, initial_noise(pipe, [0, 1]), num_steps=2, guidance_scale=2.0).latents


def test_an_adaptor_of_it_is_written_read_loaded_and_unloaded(tmp_path: Path, pipe: ToyPipeline) -> None:
    assert list(shape_signature(pipe)) == list(PARTS)
    before = latents(pipe)
    files = read_adaptor(write_tiny_adaptor(tmp_path, pipe, parts=PARTS))
    assert files.record.trained_parts == tuple(PARTS)
    assert "text_encoder.encoder.block.0.layer.0.SelfAttention.q.lora_A.weight" in files.tensors
    handle = load_fair_adaptor(pipe, tmp_path)
    assert (latents(pipe) - before).norm() > 0.01 * before.norm()
    handle.unload()
    assert torch.equal(latents(pipe), before)
    with pytest.raises(WrongBaseError, match="another model"):
        load_fair_adaptor(tiny_pipeline(), tmp_path)


@pytest.mark.parametrize("format", ["kohya", "peft"])
def test_it_goes_to_other_formats_and_back(tmp_path: Path, pipe: ToyPipeline, format: str) -> None:
    for part in PARTS:
        pipe.components[part].save_pretrained(tmp_path / "base" / part)
    adaptor = write_tiny_adaptor(tmp_path / "adaptor", pipe, parts=PARTS)
    folder = export(adaptor, tmp_path / format, format=format)
    back = read_adaptor(convert(folder, tmp_path / "back", base=str(tmp_path / "base"), attributes=["gender"]))
    first = read_adaptor(adaptor)
    assert first.tensors.keys() == back.tensors.keys()
    assert all(torch.equal(tensor, back.tensors[key]) for key, tensor in first.tensors.items())
    assert first.record.base_signature == back.record.base_signature


def test_training_reaches_every_part_of_it(pipe: ToyPipeline) -> None:
    parameters = lora.attach(pipe, PARTS, rank=2)
    for name, parameter in parameters.items():
        if ".lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    conditions = encode_prompts(pipe, ["a nurse"], guidance_scale=2.0)
    run = sample(pipe, conditions, initial_noise(pipe, [0, 1]), num_steps=2, guidance_scale=2.0)
    assert decode(pipe, run.latents).shape == (2, 3, 16, 16) and isinstance(pipe.vae, AutoencoderKL)
    weights = step_weights(pipe.scheduler, 2)
    accumulate_gradients(pipe, run, torch.ones_like(run.latents), ["a nurse"], guidance_scale=2.0, weights=weights)
    assert all(p.grad is not None and p.grad.norm() > 0 for p in parameters.values())
    with lora.switched_off(pipe):
        off = latents(pipe)
    lora.detach(pipe, PARTS)
    assert torch.equal(latents(pipe), off)


def test_soft_tokens_and_parts_that_it_lacks_are_refused(pipe: ToyPipeline) -> None:
    with pytest.raises(ConfigError, match="no unet"):
        lora.attach(pipe, ("unet",))
    with pytest.raises(ConfigError, match="soft tokens"):
        lora.attach(pipe, ("tokens",))


def test_without_its_row_it_is_refused(pipe: ToyPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "FAMILIES", table.FAMILIES[:-1])
    with pytest.raises(WrongBaseError, match="ToyPipeline is of no known family"):
        table.family_of(pipe)
    with pytest.raises(ConfigError, match="ToyPipeline cannot be trained"):
        denoisers.denoiser_for(pipe)


def test_parts_of_the_same_names_but_another_network_are_another_family(pipe: ToyPipeline) -> None:
    assert table.find_family(pipe) is TOY
    pipe.transformer = tiny_pipeline().unet
    assert table.find_family(pipe) is None


def test_a_network_of_a_class_made_from_the_published_one_is_of_its_family() -> None:
    pipe = tiny_pipeline()
    pipe.unet.__class__ = type("Patched", (type(pipe.unet),), {})
    assert table.family_of(pipe).name == "sd"
