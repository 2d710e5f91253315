"""The sandbox's model of a flow: it is built by one command, and is a plain Stable Diffusion 3 pipeline."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from fair_adaptors.training.engine.denoisers import denoiser_for
from fair_adaptors.training.engine.sampling import decode, encode_prompts, initial_noise, sample
from fair_adaptors.training.plan import make_plan
from fair_adaptors.training.recipes import get_recipe
from fair_adaptors.training.sandbox import flow
from fair_adaptors.training.sandbox.measure import measure
from fair_adaptors.training.sandbox.portraits import render_portraits
from torch import Tensor

from fair_adaptors.errors import ConfigError
from fair_adaptors.files import CACHE
from fair_adaptors.pipelines import load_pipeline
from fair_adaptors.sandbox import flow as sandbox_flow
from fair_adaptors.sandbox.classifiers import load_classifier
from fair_adaptors.sandbox.demo import run_demo
from fair_adaptors.sandbox.flow import CHECKOUT, PLACE
from fair_adaptors.sandbox.pipeline import GUIDANCE
from fair_adaptors.sandbox.prompts import TEMPLATE

PROMPT = TEMPLATE.format("old dark female hospital nurse")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained for three steps on few portraits."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    portraits = render_portraits(48, generator=generator, advance=lambda: None)
    pipe = flow.new_pipeline()
    latents = flow.encode_portraits(pipe, portraits)
    assert latents.mean().abs() < 1e-5 and (latents.std() - 1).abs() < 1e-3
    losses = flow.train(pipe, latents, portraits.captions, 3, generator=generator, advance=lambda: None)
    assert all(0 < loss < 3 for loss in losses) and pipe.transformer.proj_out.weight.abs().max() > 0
    flow.save(pipe, out := tmp_path_factory.mktemp("flow"))
    return out


@pytest.fixture
def place(built: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(PLACE, str(built))
    return built


@pytest.mark.slow
def test_the_one_of_the_repository_draws_the_world_as_the_sandbox_does() -> None:
    """It stands in ``benchmarks/sandbox_flow``; with 32 images of each prompt its ``build.json`` has .998 and .996."""
    found = measure(load_pipeline("sandbox-flow"), load_classifier("evaluation"), images_per_prompt=8, seed=1)
    assert found["occupation_right"] >= 0.95 and found["gender_correlation"] >= 0.93


def test_training_sees_prompts_as_the_pipeline_does() -> None:
    torch.manual_seed(0)
    pipe = flow.new_pipeline()
    tokens = flow._tokenize(pipe.tokenizer, [PROMPT])
    assert tokens[0, -1] == pipe.tokenizer.pad_token_id, "a prompt of the sandbox is not cut off"
    for ours, theirs in zip(flow._conditions(pipe, tokens), denoiser_for(pipe).encode(PROMPT), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_its_folder_is_a_pipeline_of_stable_diffusion_3(place: Path) -> None:
    ours = load_pipeline("sandbox-flow")
    plain = StableDiffusion3Pipeline.from_pretrained(
        place / "pipeline", text_encoder_3=None, tokenizer_3=None, dtype=torch.float32
    )
    plain.set_progress_bar_config(disable=True)

    def draw(pipe: StableDiffusion3Pipeline, **settings: int) -> Tensor:
        generator = torch.Generator().manual_seed(7)
        return pipe(
            PROMPT, num_inference_steps=2, guidance_scale=GUIDANCE, generator=generator, output_type="pt", **settings
        ).images

    images = draw(ours)
    assert images.shape == (1, 3, 64, 64) and torch.equal(images, draw(plain, max_sequence_length=1))
    with torch.no_grad():
        conditions = encode_prompts(ours, [PROMPT], guidance_scale=GUIDANCE)
        run = sample(ours, conditions, initial_noise(ours, [7]), num_steps=2, guidance_scale=GUIDANCE)
        torch.testing.assert_close(decode(ours, run.latents).clamp(0, 1), images, rtol=0, atol=1e-6)
    assert not [file for file in place.rglob("*.json") if str(CHECKOUT) in file.read_text()]
    megabytes = sum(file.stat().st_size for file in place.rglob("*.safetensors")) / 1e6
    assert megabytes < 6


@pytest.mark.usefixtures("place")
def test_its_recipe_trains_the_text_encoders_or_the_entry_of_text_alone() -> None:
    recipe = get_recipe("sandbox-flow-gender")
    plan = make_plan(recipe)
    assert recipe.parts == ("text_encoder", "text_encoder_2") and not plan.downloads and not plan.missing
    entry = make_plan(
        get_recipe("sandbox-flow-gender", {"parts": "transformer", "target_modules": "context_embedder"})
    )
    assert entry.trained == 8 * (sum(flow.WIDTHS) + flow.INNER) < plan.trained / 20


@pytest.mark.usefixtures("place")
def test_the_demo_is_of_it_too_and_says_how_to_train_its_adaptor(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fair-adaptors train sandbox-flow-gender --out \S+/sandbox-flow-gender"):
        run_demo(tmp_path, base="sandbox-flow")
    with pytest.raises(ConfigError, match="give sandbox, sandbox-flow, or use `evaluate`"):
        run_demo(tmp_path, base="sdxl")


def test_where_it_was_not_built_the_command_that_builds_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLACE, str(tmp_path))
    for call in (load_pipeline, lambda base: run_demo(tmp_path, base=base)):
        with pytest.raises(ConfigError, match=r"python -m fair_adaptors.training.sandbox.flow"):
            call("sandbox-flow")


def test_installed_from_a_wheel_it_is_in_the_cache_and_not_among_other_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sandbox_flow.flow_folder() == sandbox_flow.CHECKOUT / "benchmarks" / "sandbox_flow"
    monkeypatch.setattr(sandbox_flow, "CHECKOUT", tmp_path / "site-packages")
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    assert sandbox_flow.flow_folder() == tmp_path / "cache" / "sandbox-flow"
