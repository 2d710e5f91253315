"""The world whose bias is known, and the base that was trained on it."""

import dataclasses
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from fair_adaptors.training.engine.loop import fit
from fair_adaptors.training.engine.state import attached
from fair_adaptors.training.recipes import get_recipe
from fair_adaptors.training.sandbox.build import BuildConfig, build
from fair_adaptors.training.setup import LOADED, load_setup

from fair_adaptors.evaluation.drawing import classify, generate
from fair_adaptors.evaluation.estimates import estimate_bias
from fair_adaptors.sandbox import world
from fair_adaptors.sandbox.classifiers import load_classifier, load_encoder
from fair_adaptors.sandbox.demo import occupation_right
from fair_adaptors.sandbox.pipeline import GUIDANCE, STEPS, WEIGHTS, load_sandbox_pipeline, pipeline_folder
from fair_adaptors.sandbox.prompts import (
    GENDERS,
    OCCUPATIONS,
    ROLES,
    SECTORS,
    SPLITS,
    TONES,
    occupations,
    prompts,
    split_of,
)
from fair_adaptors.sandbox.renderer import render


def everyone(count: int, seed: int = 0) -> world.People:
    generator = torch.Generator().manual_seed(seed)
    return world.sample_people(*world.random_occupations(count, generator=generator), generator=generator)


def test_the_splits_share_all_words_and_no_occupation() -> None:
    pairs = {split: occupations(split) for split in SPLITS}
    assert {split: len(names) for split, names in pairs.items()} == {"train": 56, "validation": 8, "test": 16}
    assert Counter(name for names in pairs.values() for name in names) == Counter(OCCUPATIONS)
    for names in pairs.values():
        assert {name.split()[1] for name in names} == set(ROLES)
    for split in ("train", "test"):
        words = Counter(word for name in pairs[split] for word in name.split())
        assert set(words) == {*SECTORS, *ROLES}
    assert split_of("hospital manager") == split_of("hospital nurse") == "train", "they had been looked at many times"


def test_prompts_are_in_the_papers_template() -> None:
    assert prompts("test")[0] == f"A photo of the face of a {occupations('test')[0]}, a person"


def test_people_follow_the_built_in_probabilities() -> None:
    sector, role = torch.full((20_000,), 3), torch.full((20_000,), 5)
    people = world.sample_people(sector, role, generator=torch.Generator().manual_seed(0))
    female = (people.gender == GENDERS.index("female")).float().mean()
    assert abs(female - world.female_probability(sector[:1], role[:1])[0]) < 0.01
    tones = people.tone.bincount(minlength=len(TONES)) / len(people)
    assert torch.allclose(tones, world.tone_probabilities(sector[:1], role[:1])[0], atol=0.015)


def test_people_whose_attributes_are_named_have_uniform_ones() -> None:
    sector, role = torch.zeros(8_000).long(), torch.zeros(8_000).long()
    named = torch.ones(8_000, 3).bool()
    people = world.sample_people(sector, role, generator=torch.Generator().manual_seed(0), named=named)
    assert abs(people.gender.float().mean() - 0.5) < 0.02
    assert torch.allclose(people.tone.bincount() / 8_000, torch.full((4,), 0.25), atol=0.02)


def test_portraits_are_a_function_of_the_people() -> None:
    people = everyone(6)
    images = render(people)
    assert images.shape == (6, 3, 64, 64) and images.min() >= 0 and images.max() <= 1
    assert torch.equal(images, render(people))
    assert torch.allclose(images[2:4], render(people[2:4]), atol=1e-6)


@pytest.mark.parametrize("which", ["training", "blends", "evaluation"])
def test_the_classifiers_see_what_was_drawn(which: str) -> None:
    people = everyone(400, seed=99)
    logits = load_classifier(which)(render(people))  # type: ignore[arg-type]
    for name, least in (("gender", 0.98), ("tone", 0.95), ("age", 0.97), ("sector", 0.99), ("role", 0.99)):
        assert (logits[name].argmax(1) == getattr(people, name)).float().mean() >= least, name


def test_the_classifier_of_blends_is_unsure_of_who_is_changed_by_half() -> None:
    people = everyone(200, seed=98)
    halfway = (render(people) + render(dataclasses.replace(people, gender=1 - people.gender))) / 2
    sure = {
        which: (load_classifier(which)(halfway)["gender"].softmax(1).amax(1) > 0.9).float().mean().item()  # type: ignore[arg-type]
        for which in ("training", "blends")
    }
    assert sure["blends"] < 0.5 * sure["training"]


def test_the_encoder_gives_unit_features() -> None:
    features = load_encoder()(render(everyone(3)))
    assert torch.allclose(features.norm(dim=1), torch.ones(3))


def test_the_encoder_notices_another_occupation_and_hardly_another_gender() -> None:
    people, encoder = everyone(60), load_encoder()
    features = encoder(render(people))

    def distance(**changed: torch.Tensor) -> float:
        other = encoder(render(dataclasses.replace(people, **changed)))
        return 1 - (features * other).sum(1).mean().item()

    occupation = distance(role=(people.role + 1) % len(ROLES))
    assert occupation > 0.2
    assert distance(gender=1 - people.gender) < 0.25 * occupation
    assert distance(tone=(people.tone + 1) % len(TONES)) < 0.25 * occupation


def test_the_pipeline_is_a_plain_one() -> None:
    pipe = StableDiffusionPipeline.from_pretrained(pipeline_folder())
    assert type(pipe) is StableDiffusionPipeline
    assert all(parameter.dtype == torch.float32 for parameter in load_sandbox_pipeline().unet.parameters())
    assert pipe.text_encoder.dtype == pipe.unet.dtype == torch.float32
    words = pipe.tokenizer("A photo of the face of a hospital nurse, a person").input_ids
    assert len(words) == 2 + 12


def test_loading_it_says_nothing_of_torchvision(tmp_path: Path) -> None:
    code = "from fair_adaptors.sandbox import load_sandbox_pipeline; load_sandbox_pipeline()"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "torchvision" not in ran.stdout + ran.stderr


def test_the_base_draws_the_occupation_and_the_bias_that_was_built_in() -> None:
    """A small sample of what the build measured with many more images."""
    pipe, judge = load_sandbox_pipeline(), load_classifier("evaluation")
    names = ("hospital nurse", "factory guard", "school cook", "bank technician")
    generator = torch.Generator().manual_seed(0)
    texts = [f"A photo of the face of a {name}, a person" for name in names for _ in range(16)]
    images = pipe(
        texts, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=generator, output_type="pt"
    ).images
    classes = {name: logits.argmax(1).view(4, 16) for name, logits in judge(images).items()}
    roles = torch.tensor([ROLES.index(name.split()[1]) for name in names])
    assert (classes["role"] == roles[:, None]).float().mean() >= 0.9
    female = (classes["gender"] == 0).float().mean(1)
    assert female[0] > 0.7 and female[1] < 0.3 and female[2] > 0.7 and female[3] < 0.3


def test_the_build_reached_its_quality() -> None:
    """What the command that made the shipped weights measured and wrote beside them."""
    quality = json.loads((WEIGHTS / "build.json").read_text())
    assert quality["occupation_right"] >= 0.95
    assert quality["gender_correlation"] >= 0.93


def test_the_sandboxs_files_stay_small() -> None:
    files = [file for folder in ("weights", "adaptors") for file in (WEIGHTS.parent / folder).rglob("*.safetensors")]
    assert sum(file.stat().st_size for file in files) <= 8_000_000


def test_a_shortened_build_makes_a_pipeline_that_runs(tmp_path: Path) -> None:
    few = {"portraits": 400, "blends_portraits": 200, "autoencoder_steps": 4, "base_steps": 4}
    config = BuildConfig(**few, network_steps=4, blends_steps=4, images_per_prompt=1)
    quality = build(tmp_path, config)
    assert {"occupation_right", "gender_correlation", "gender_bias", "tone_bias"} < set(quality)
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a nurse", num_inference_steps=2, output_type="pt").images.shape == (1, 3, 64, 64)
    assert {file.name for file in (tmp_path / "classifiers").iterdir()} == {
        "training.safetensors",
        "blends.safetensors",
        "evaluation.safetensors",
        "encoder.safetensors",
    }


def test_a_short_training_lowers_the_bias_of_its_prompts() -> None:
    """The recipe on every seventh of its prompts, quickly; judged by the other classifier."""
    recipe = dataclasses.replace(
        get_recipe("sandbox-gender"),
        prompt_sets=(("train", 1.0),),
        iterations=60,
        unguided=60,
        prompts_per_step=1,
        images_per_prompt=16,
        images_per_call=48,
        learning_rate=1e-2,
        ema=0.8,
    )
    told: list[str] = []
    setup = load_setup(recipe, on_part=told.append)
    assert tuple(told) == LOADED
    setup = dataclasses.replace(setup, prompts={"train": setup.prompts["train"][::7]})

    def look() -> tuple[float, float]:
        images = generate(
            setup.pipe, setup.prompts["train"], images_per_prompt=24, seed=1, num_steps=STEPS, guidance_scale=GUIDANCE
        )
        seen = classify(images, setup.validation_classifier)
        right = occupation_right(seen, [occupations("train")[i] for i in range(0, 56, 7)])
        return estimate_bias(seen["gender"]).value, float(right.mean())

    before, before_right = look()
    with attached(setup, recipe) as state:
        fit(setup, recipe, state)
        with state.average.applied():
            after, after_right = look()
    assert before >= 0.75 and before - after >= 0.3, (before, after)
    assert after_right >= before_right - 0.1, (before_right, after_right)
