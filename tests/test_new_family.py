"""A third family of pipelines is one description and one denoiser: everything else takes it as it is."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, PixArtTransformer2DModel
from fair_adaptors.training import setup
from fair_adaptors.training.engine import denoisers, lora
from fair_adaptors.training.engine.families.denoiser import Usual
from fair_adaptors.training.engine.gradients import accumulate_gradients, step_weights
from fair_adaptors.training.engine.sampling import decode, encode_prompts, initial_noise, sample
from fair_adaptors.training.engine.schedule import scheduler_for
from fair_adaptors.training.memory import memory, skeleton, trained_values
from fair_adaptors.training.preflight import check
from fair_adaptors.training.recipes import get_recipe
from fair_adaptors.training.run.validation import draw
from torch import Tensor
from transformers import T5Config, T5EncoderModel

from fair_adaptors import load_fair_adaptor
from fair_adaptors.adaptor.folder import read_adaptor
from fair_adaptors.adaptor.modules import shape_signature
from fair_adaptors.convert import convert, export
from fair_adaptors.errors import ConfigError, WrongBaseError
from fair_adaptors.families import table
from fair_adaptors.families.family import Family, Part
from fair_adaptors.families.sd import CLIP_LAYERS
from fair_adaptors.report.card import card_of
from tests.tiny import tiny_pipeline, write_tiny_adaptor, write_tiny_tokens
from tests.tiny_training import CONFIG

TOY = Family(
    "toy",
    "Toy",
    {
        "text_encoder_3": Part("transformers:T5EncoderModel", ("q", "k", "v", "o"), ("lora_te3_",)),
        "text_encoder_4": Part("transformers:CLIPTextModel", CLIP_LAYERS, ("lora_te4_",), "text_model.encoder."),
        "transformer": Part(
            "diffusers:PixArtTransformer2DModel", ("to_q", "to_k", "to_v", "to_out.0"), ("lora_dit_",)
        ),
    },
    network="transformer",
    text_encoders=("text_encoder_3", "text_encoder_4"),
    pipelines=("ToyPipeline",),
    token_encoder="text_encoder_4",
    autoencoder=("decoder", "diffusers:AutoencoderKL"),
    wide_autoencoder=True,
)
PARTS = tuple(TOY.parts)
WHOLE = {"judge": "sandbox:evaluation", "encoders": "sandbox:portraits", "faces": "whole", "face_weight": "0"}
SMALL = {"classifier": "sandbox:training", **WHOLE}


class ToyPipeline(SimpleNamespace):
    """A transformer in place of a U-Net, a T5 beside CLIP, and parts that have other names than Stable Diffusion's."""

    __hash__ = object.__hash__

    @property
    def components(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "encode_prompt"}

    def maybe_convert_prompt(self, prompt: str, tokenizer: Any) -> str:
        return prompt

    def encode_prompt(
        self,
        prompt: str,
        device: Any = None,
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool = False,
        prompt_embeds: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        ids = self.tokenizer(prompt, padding="max_length", truncation=True, return_tensors="pt").input_ids
        encoders = (self.text_encoder_3, self.text_encoder_4)
        found = torch.cat([encoder(ids).last_hidden_state for encoder in encoders], 1)
        return found if prompt_embeds is None else prompt_embeds, None


class ToyDenoiser(Usual):
    @property
    def autoencoder(self) -> Any:
        return self.pipe.decoder

    def encode(self, prompt: str | None) -> tuple[Tensor, ...]:
        return (self.pipe.encode_prompt(prompt or "")[0],)

    def predict(
        self, scaled_input: Tensor, timestep: Tensor, conditions: tuple[Tensor, ...], guidance_scale: float
    ) -> Tensor:
        (embeds,) = conditions
        times = timestep.expand(len(scaled_input))
        sizes = {"resolution": None, "aspect_ratio": None}
        return self.model(scaled_input, embeds, times, sizes, return_dict=False)[0]

    def decode(self, latents: Tensor) -> Tensor:
        return self.pipe.decoder.decode(latents.to(self.pipe.decoder.dtype), return_dict=False)[0] / 2 + 0.5

    def condition_shapes(self, length: int) -> tuple[tuple[int, ...], ...]:
        return ((2 * length, 16),)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> ToyPipeline:
    monkeypatch.setattr(table, "FAMILIES", (*table.FAMILIES, TOY))
    monkeypatch.setitem(denoisers.DENOISERS, "toy", ToyDenoiser)
    torch.manual_seed(0)
    first = tiny_pipeline(width=16)
    made = ToyPipeline(
        tokenizer=first.tokenizer,
        text_encoder_4=first.text_encoder,
        text_encoder_3=T5EncoderModel(
            T5Config(vocab_size=64, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_heads=4)
        ).eval(),
        transformer=PixArtTransformer2DModel(
            num_attention_heads=2, attention_head_dim=4, in_channels=4, out_channels=4, num_layers=1,
            cross_attention_dim=8, caption_channels=16, sample_size=8, patch_size=2, use_additional_conditions=False,
        ).eval(),
        decoder=first.vae,
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
    assert "text_encoder_3.encoder.block.0.layer.0.SelfAttention.q.lora_A.weight" in files.tensors
    handle = load_fair_adaptor(pipe, tmp_path)
    assert (latents(pipe) - before).norm() > 0.01 * before.norm()
    handle.unload()
    assert torch.equal(latents(pipe), before)
    with pytest.raises(WrongBaseError, match="another model"):
        load_fair_adaptor(tiny_pipeline(), tmp_path)


def saved(pipe: ToyPipeline, folder: Path) -> str:
    for part in (*PARTS, "decoder"):
        pipe.components[part].save_pretrained(folder / part)
    (folder / "model_index.json").write_text(json.dumps(dict.fromkeys(pipe.components, ["toy", "Toy"])))
    return str(folder)


@pytest.mark.parametrize("format", ["kohya", "peft"])
def test_it_goes_to_other_formats_and_back(tmp_path: Path, pipe: ToyPipeline, format: str) -> None:
    saved(pipe, tmp_path / "base")
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
    assert decode(pipe, run.latents).shape == (2, 3, 16, 16) and isinstance(pipe.decoder, AutoencoderKL)
    weights = step_weights(scheduler_for(pipe, 2))
    accumulate_gradients(pipe, run, torch.ones_like(run.latents), ["a nurse"], guidance_scale=2.0, weights=weights)
    assert all(p.grad is not None and p.grad.norm() > 0 for p in parameters.values())
    with lora.switched_off(pipe):
        off = latents(pipe)
    lora.detach(pipe, PARTS)
    assert torch.equal(latents(pipe), off)


def test_soft_tokens_go_to_the_text_encoder_that_it_names(tmp_path: Path, pipe: ToyPipeline) -> None:
    (before,) = encode_prompts(pipe, ["a nurse"], guidance_scale=1.0)
    handle = load_fair_adaptor(pipe, write_tiny_tokens(tmp_path, pipe, width=16))
    (after,) = encode_prompts(pipe, ["a nurse"], guidance_scale=1.0)
    assert torch.equal(after[:, :16], before[:, :16]) and not torch.equal(after[:, 16:], before[:, 16:])
    handle.unload()
    assert torch.equal(encode_prompts(pipe, ["a nurse"], guidance_scale=1.0)[0], before)
    tokens = lora.attach(pipe, ("tokens",), num_tokens=2)[lora.TOKENS]
    (with_tokens,) = encode_prompts(pipe, ["a nurse"], guidance_scale=1.0, tokens=tokens)
    with_tokens.sum().backward()
    assert tokens.grad is not None and tokens.grad.norm() > 0
    with pytest.raises(WrongBaseError, match=r"text_encoder_4 takes up to 14 tokens of 16"):
        load_fair_adaptor(pipe, write_tiny_tokens(tmp_path / "wide", pipe, width=32))


def test_a_run_is_checked_planned_set_up_and_looked_at(
    tmp_path: Path, pipe: ToyPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = saved(pipe, tmp_path)
    config = get_recipe("gender", {"base": base, "parts": f"{','.join(PARTS)},tokens", "dtype": "float16", **SMALL})
    check(config)
    attached = lora.attach(pipe, config.parts, rank=config.rank, num_tokens=config.num_tokens)
    assert trained_values(config, skeleton(base)) == sum(p.numel() for p in attached.values())
    lora.detach(pipe, config.parts)
    config = dataclasses.replace(config, activation_checkpointing=True)
    found = memory(config, skeleton(base), 2, 2)
    assert min(found.passing.values()) > 0
    monkeypatch.setattr(setup, "load_pipeline", lambda *base, **settings: pipe)
    assert setup._load_pipeline(config, "cpu") is pipe
    dtypes = {name: pipe.components[name].dtype for name in (*PARTS, "decoder")}
    assert dtypes.pop("transformer") == torch.float16 and set(dtypes.values()) == {torch.float32}
    assert pipe.decoder.is_gradient_checkpointing
    setup_of_it: Any = SimpleNamespace(pipe=pipe)
    assert draw(setup_of_it, CONFIG, "a nurse", []).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("part", PARTS)
def test_its_card_says_whether_negative_prompts_are_read_otherwise(
    tmp_path: Path, pipe: ToyPipeline, part: str
) -> None:
    said = "A negative prompt is read by the same text encoder" in card_of(
        write_tiny_adaptor(tmp_path, pipe, parts=(part,))
    )
    assert said is (part != "transformer")


def test_soft_tokens_and_parts_that_it_lacks_are_refused(
    tmp_path: Path, pipe: ToyPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = dataclasses.replace(TOY, token_encoder="")
    monkeypatch.setattr(table, "FAMILIES", (*table.FAMILIES[:-1], without))
    base = saved(pipe, tmp_path)
    for part, message in (("unet", "has (no )?unet"), ("tokens", "Toy takes no soft tokens")):
        with pytest.raises(ConfigError, match=message):
            lora.attach(pipe, (part,))
        with pytest.raises(ConfigError, match=message):
            check(get_recipe("gender", {"base": base, "parts": part, **SMALL}))


def test_without_its_row_it_is_refused(pipe: ToyPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "FAMILIES", table.FAMILIES[:-1])
    with pytest.raises(WrongBaseError, match="ToyPipeline is not of a known family"):
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
