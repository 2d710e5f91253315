"""The dry run: what it counts, what it asks the Hub, and where the recipes for people differ from the paper."""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from fair_adaptors.training.cost import hours
from fair_adaptors.training.engine import lora
from fair_adaptors.training.memory import _small_decoder, memory, skeleton, trained_values
from fair_adaptors.training.meta_memory import peak_megabytes
from fair_adaptors.training.plan import Plan, _time, make_plan, originals_made
from fair_adaptors.training.recipes import RECIPES, get_recipe
from fair_adaptors.training.setup import checkpoint_activations

from fair_adaptors.adaptor.bases import SANDBOX_FLOW
from fair_adaptors.errors import ConfigError
from tests.tiny import FAMILIES, tiny_pipeline


@functools.cache
def plan_of(name: str) -> Plan:
    return make_plan(get_recipe(name))


def distinct() -> list[Any]:
    """All recipes but that of a base to be built first; slow is what trains an earlier one's parts of its base."""
    names = [name for name in RECIPES if get_recipe(name).base != SANDBOX_FLOW]  # tests/test_sandbox_flow.py has it
    shapes = [(config.base, config.parts) for config in map(get_recipe, names)]
    again = [shape in shapes[:i] for i, shape in enumerate(shapes)]
    return [pytest.param(name, marks=[pytest.mark.slow] * late) for name, late in zip(names, again, strict=True)]


@pytest.mark.parametrize("name", distinct())
def test_every_recipe_can_be_planned_without_its_weights(name: str) -> None:
    plan = plan_of(name)
    assert plan.trained > 0 and plan.iterations > 0
    assert all(math.isfinite(megabytes) and megabytes > 0 for megabytes in plan.megabytes.values())
    *kept, plain, taught, measured, decoded, together = plan.megabytes.values()
    assert together == pytest.approx(sum(kept) + max(plain, taught, measured, decoded))


@pytest.mark.parametrize(("name", "steps"), [("klein-gender-race", 4), ("z-image-gender-race", 8)])
def test_a_base_of_few_steps_is_trained_in_its_own_and_without_guidance(name: str, steps: int) -> None:
    config, plan = get_recipe(name), plan_of(name)
    assert (config.num_steps, config.max_steps) == (steps, steps)
    slow, fast = ({"base": base} for base in ("Tongyi-MAI/Z-Image", f"{config.base}@main"))
    other = get_recipe(name, slow)
    assert (other.num_steps, other.max_steps, other.guidance_scale) == (6, 0, 5)
    assert get_recipe("flux-gender-race", fast).num_steps == steps
    assert get_recipe("flux-gender-race", {**fast, "num_steps": "3"}).num_steps == 3
    made = 1 + originals_made(config)
    assert plan.rows == pytest.approx((plan.images * steps * made, plan.images * config.gradient_steps))


def test_the_licence_of_the_base_is_told_and_what_only_reads_the_prompt_needs_memory() -> None:
    licence = "flux-1-dev-non-commercial-license, for non-commercial use only"
    assert licence in plan_of("flux-gender-race").licence and "apache-2.0;" in plan_of("klein-gender-race").licence
    with_t5 = (11.9 + 4.76 + 0.12 + 0.08) * 2e3  # 10⁹ parameters of transformer, T5, CLIP and autoencoder
    assert plan_of("flux-gender-race").megabytes["base"] == pytest.approx(with_t5, rel=0.01)
    assert _small_decoder(get_recipe("gender", {"gradient_decoder": "who/taef1"}), 16).config.latent_channels == 16


@pytest.mark.parametrize(
    ("card", "here"),
    [
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA H200", "H100"),
        ("Tesla T4", None),
        (None, None),
    ],
)
def test_the_hours_on_the_card_that_is_here_are_told_and_those_on_others(
    card: str | None, here: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """24 images and 10,000 iterations on an RTX 4090, all made by the published steps: by hand from docs/cost.md."""
    published = {"originals_pool": "0", "gradient_steps": "5", "num_steps": "19", "max_steps": "23"}
    published["iterations"] = "10000"
    config = get_recipe("gender", published)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: card is not None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: card)
    half, whole = 84 * 0.803 + 10 * (0.803 + 0.866) + 3 * 2.515 + 2.549, 3 * 0.162 + 0.169 + 2 * 0.381 + 0.394
    found = hours(config, "sd15", 1.0)
    assert found["RTX 4090"] == pytest.approx(240_000 / 3600 * (half / 0.35 / 165.2 + whole / 0.7 / 82.6), rel=2e-3)
    less = hours(dataclasses.replace(config, unconditional_gradient=False), "sd15", 1.0)["RTX 4090"]
    assert found["RTX 4090"] - less == pytest.approx(240_000 / 3600 * 5 * (0.803 + 0.866) / 0.35 / 165.2, rel=2e-3)
    more = hours(dataclasses.replace(config, updates_per_rollout=2), "sd15", 1.0)["RTX 4090"]
    assert more - found["RTX 4090"] == pytest.approx(2 * (found["RTX 4090"] - less), rel=1e-6)
    assert hours(config, "sd15", 1.0, 2)["A100"] == pytest.approx(found["A100"] / 2)
    told = _time(config, 1)
    assert f"{found['A100']:,.0f} h on A100" in told
    if here is not None:
        assert f"{found[here]:,.0f} h on the card here ({card})" in told
    else:
        assert ("not known how long on the card here (Tesla T4)" in told) == (card is not None)
    assert "it may end earlier (`stop_below`)" in told
    for endless in ({"stop_below": 0.0}, {"base": "who/knows"}):
        assert "earlier" not in _time(dataclasses.replace(config, **endless), 1)
    assert "not counted" not in told
    assert _time(dataclasses.replace(config, compile=True), 1).endswith(
        "; not counted: compile, which an NVIDIA card is faster by"
    )
    assert "not known" in _time(dataclasses.replace(config, base="who/knows"), 1)


@pytest.mark.parametrize(
    ("name", "count"),
    [("gender", 8_294_400), ("gender-unet", 9_964_800), ("gender-both", 18_259_200), ("gender-tokens", 3840)],
)
def test_as_many_numbers_are_trained_as_in_the_published_adaptors(name: str, count: int) -> None:
    config = get_recipe(name)
    assert trained_values(config, skeleton(config.base)) == count


@pytest.mark.parametrize("family", FAMILIES)
def test_counted_numbers_are_those_that_are_attached(tmp_path: Path, family: str) -> None:
    pipe = FAMILIES[family]()
    pipe.save_pretrained(tmp_path)
    parts = ("text_encoder", "unet", *(["text_encoder_2"] if family == "SDXL" else ["tokens"]))
    config = get_recipe("gender", {"parts": ",".join(parts), "rank": "3"})
    attached = lora.attach(pipe, parts, rank=3, num_tokens=config.num_tokens)
    assert trained_values(config, skeleton(str(tmp_path))) == sum(p.numel() for p in attached.values())


def test_the_peak_is_of_tensors_that_are_alive_at_one_time() -> None:
    tensor = torch.empty(1_000_000, device="meta")

    def call() -> None:
        first = tensor + 1
        second = first + 1  # two of 4 MB
        del first
        second + 1

    assert peak_megabytes(call) == 8.0
    parameter = torch.empty(1000, 1000, device="meta", requires_grad=True)
    assert peak_megabytes(lambda: parameter.t(), [parameter]) == 0.0


def test_decoding_without_gradient_is_counted_as_validation_does_it() -> None:
    """Of XL one image at once; in the last block, at 1024² pixels and 256 channels, three tensors are alive."""
    found = plan_of("sdxl-gender-race").megabytes
    assert found["decoding 1 images, in validation"] > 3 * 256 * 1024**2 * 2 / 1e6


def test_what_is_computed_again_in_the_backward_pass_is_counted() -> None:
    config = dataclasses.replace(get_recipe("gender"), images_per_call=1, images_per_decode=1)
    plain = memory(config, skeleton(config.base), 1, 2).passing
    config = dataclasses.replace(config, activation_checkpointing=True)
    saved = memory(config, skeleton(config.base), 1, 2).passing
    without, with_gradient = "decoding 1 images, in validation", "decoding 1 images, with gradient"
    assert saved[without] == plain[without]
    assert 2 * saved[without] < saved[with_gradient] < 0.45 * plain[with_gradient]


def test_checkpointing_layer_by_layer_changes_no_gradient_and_needs_less_than_by_blocks() -> None:
    pipe = tiny_pipeline()
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def gradient() -> torch.Tensor:
        leaf = latents.clone().requires_grad_(True)
        (found,) = torch.autograd.grad(pipe.vae.decode(leaf).sample.square().sum(), leaf)
        return found

    plain = gradient()
    checkpoint_activations(pipe.unet, pipe.vae)
    assert torch.equal(gradient(), plain)
    base = skeleton("sd15")
    parameters = list(base.vae.requires_grad_(False).parameters())
    leaf = torch.empty(1, 4, 64, 64, device="meta", requires_grad=True)
    call = lambda: base.vae.decode(leaf).sample.sum().backward()  # noqa: E731
    base.vae.enable_gradient_checkpointing()
    by_blocks = peak_megabytes(call, parameters)
    checkpoint_activations(base.unet, base.vae)
    assert peak_megabytes(call, parameters) < 0.75 * by_blocks


def test_what_cannot_be_planned_is_said() -> None:
    with pytest.raises(ConfigError, match="there is no prompt set 'ocupations'"):
        make_plan(get_recipe("gender", {"prompt_sets": "ocupations"}))
    plan = make_plan(dataclasses.replace(get_recipe("gender"), base="who/knows"))
    assert plan.megabytes == {} and plan.trained == 0


def test_a_known_base_is_known_by_its_other_names_and_at_any_commit() -> None:
    config = get_recipe("gender")
    for base in ("runwayml/stable-diffusion-v1-5", f"{config.base}@0123abc"):
        assert trained_values(config, skeleton(base)) == 8_294_400


def test_of_a_pool_the_originals_are_made_once() -> None:
    given = {"prompt_sets": "train:3,named-gender:1", "iterations": "560", "originals_pool": "2"}
    config = get_recipe("sandbox-gender", given)
    images = 560 * 2 * 24
    assert originals_made(config) == pytest.approx(56 * 2 * 24 / images + 112 * 2 * 24 / images)
    assert originals_made(get_recipe("sandbox-gender", given | {"iterations": "20"})) == 1
    assert originals_made(get_recipe("sandbox-gender", given | {"originals_pool": "0"})) == 1
    made = [make_plan(get_recipe("sandbox-gender", given | {"originals_pool": pool})).rows[0] for pool in "02"]
    assert made[1] / made[0] == pytest.approx((1 + originals_made(config)) / 2)


def test_each_update_of_a_rollout_has_rows_with_gradient_of_its_own() -> None:
    once, thrice = (make_plan(get_recipe("sandbox-gender", {"updates_per_rollout": n})).rows for n in "13")
    assert thrice == (once[0], 3 * once[1])
