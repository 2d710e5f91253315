import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler
from fair_adaptors.training.engine.denoisers import denoiser_for
from fair_adaptors.training.engine.sampling import decode, encode_prompts, initial_noise, sample

from fair_adaptors.errors import ConfigError
from tests.tiny import FAMILIES, tiny_pipeline

SCHEDULERS = [DPMSolverMultistepScheduler, DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler]


@pytest.mark.parametrize("guidance_scale", [1.0, 7.5])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_sampling_is_what_the_pipeline_does(family: str, scheduler: type, guidance_scale: float) -> None:
    pipe = FAMILIES[family]()
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    noise = initial_noise(pipe, [3, 4])
    expected = pipe(
        "a nurse",
        latents=noise,
        num_images_per_prompt=2,
        num_inference_steps=6,
        guidance_scale=guidance_scale,
        output_type="latent",
    ).images
    embeds = encode_prompts(pipe, ["a nurse"], guidance_scale=guidance_scale)
    run = sample(pipe, embeds, noise, num_steps=6, guidance_scale=guidance_scale)
    assert torch.equal(run.latents, expected)


def test_a_trajectory_keeps_a_latent_for_each_step_and_the_last_one() -> None:
    pipe = tiny_pipeline()
    noise = initial_noise(pipe, [0, 1])
    run = sample(pipe, encode_prompts(pipe, ["a nurse"], guidance_scale=1.0), noise, num_steps=5, guidance_scale=1.0)
    kept = [tensor for tensor in vars(run).values() if tensor is not run.timesteps]
    assert sum(tensor.numel() for tensor in kept) == (5 + 1) * noise.numel()


@pytest.mark.parametrize("family", FAMILIES)
def test_decoding_is_what_the_pipeline_does_but_for_the_cut_to_0_and_1(family: str) -> None:
    pipe = FAMILIES[family]()
    noise = initial_noise(pipe, [0])
    settings = {"latents": noise, "num_inference_steps": 2, "guidance_scale": 1.0}
    latents = pipe("a nurse", output_type="latent", **settings).images
    images = pipe("a nurse", output_type="pt", **settings).images
    assert torch.equal(decode(pipe, latents).detach().clamp(0, 1), images)


def test_an_empty_prompt_of_xl_is_zeros_or_encoded_as_its_configuration_says() -> None:
    pipe = FAMILIES["SDXL"]()
    found = []
    for zeros in (True, False):
        pipe.register_to_config(force_zeros_for_empty_prompt=zeros)
        noise = initial_noise(pipe, [0])
        expected = pipe(
            "a nurse", latents=noise, num_inference_steps=3, guidance_scale=5.0, output_type="latent"
        ).images
        embeds = encode_prompts(pipe, ["a nurse"], guidance_scale=5.0)
        found.append(sample(pipe, embeds, noise, num_steps=3, guidance_scale=5.0).latents)
        assert torch.equal(found[-1], expected)
    assert not torch.equal(*found)


def test_latents_of_another_mean_and_spread_are_decoded_as_the_pipeline_does() -> None:
    pipe = FAMILIES["SDXL"]()
    pipe.vae.register_to_config(latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.0, 2.0, 0.5, 1.5])
    settings = {"latents": initial_noise(pipe, [0]), "num_inference_steps": 2, "guidance_scale": 1.0}
    latents = pipe("a nurse", output_type="latent", **settings).images
    images = pipe("a nurse", output_type="pt", **settings).images
    assert torch.allclose(decode(pipe, latents).detach().clamp(0, 1), images, atol=1e-6)


def test_an_autoencoder_that_would_overflow_in_float16_decodes_in_float32() -> None:
    pipe = FAMILIES["SDXL"]()
    latents = initial_noise(pipe, [0])
    expected = decode(pipe, latents).detach()
    pipe.vae.register_to_config(force_upcast=True)
    pipe.vae.half()
    found = decode(pipe, latents.half()).detach()
    assert found.dtype == torch.float32 and (found - expected).abs().max() < 0.01


def test_an_image_has_its_noise_whatever_the_batch() -> None:
    pipe = tiny_pipeline()
    assert torch.equal(initial_noise(pipe, [5, 6, 7])[1:], initial_noise(pipe, [6, 7]))


def test_a_prompt_is_padded_to_the_length_of_the_model() -> None:
    pipe = tiny_pipeline()
    assert encode_prompts(pipe, ["a nurse"], guidance_scale=7.5)[0].shape[:2] == (2, pipe.tokenizer.model_max_length)
    assert encode_prompts(pipe, ["a nurse"], guidance_scale=1.0)[0].shape[0] == 1


def test_images_can_be_drawn_a_few_at_a_time() -> None:
    pipe = tiny_pipeline()
    noise, prompt = initial_noise(pipe, [3, 4, 5]), encode_prompts(pipe, ["a nurse"], guidance_scale=7.5)
    together = sample(pipe, prompt, noise, num_steps=3, guidance_scale=7.5)
    split = sample(pipe, prompt, noise, num_steps=3, guidance_scale=7.5, images_per_call=2)
    assert (together.latents - split.latents).norm() < 1e-5 * together.latents.norm()


def test_another_family_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="DDPMPipeline cannot be trained"):
        denoiser_for(DDPMPipeline(tiny_pipeline().unet, DDIMScheduler()))
