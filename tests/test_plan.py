"""The dry run: what it counts, what it asks the Hub, and where the recipes for people differ from the paper."""

import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from fair_adaptors.training.cost import hours
from fair_adaptors.training.downloads import downloads, main_file, model_files, pipeline_files
from fair_adaptors.training.engine import lora
from fair_adaptors.training.meta_memory import peak_megabytes
from fair_adaptors.training.paper import (
    OURS,
    OURS_FOR_XL,
    PAPER,
    TABLE,
    authors_parts,
    deviations,
    published_settings,
)
from fair_adaptors.training.plan import Plan, _time, make_plan, memory, originals_made, skeleton, trained_values
from fair_adaptors.training.preflight import check
from fair_adaptors.training.recipes import RECIPES, get_recipe
from fair_adaptors.training.run import validation
from fair_adaptors.training.setup import _load_pipeline, checkpoint_activations

from fair_adaptors.cli import main
from fair_adaptors.cli.common import load_base
from fair_adaptors.errors import ConfigError
from fair_adaptors.files import CACHE
from tests.hub.fixtures import contents, publish
from tests.hub.server import Hub
from tests.tiny import FAMILIES, tiny_pipeline
from tests.tiny_training import CONFIG, tiny_setup

EVERY = ["images", "images", "classifier,", "an", "prompts", "the", "the", "validation"]
"""What every recipe for people does otherwise than the published code, by the first word."""
PEOPLE = [name for name in RECIPES if not name.startswith("sandbox")]


@functools.cache
def plan_of(name: str) -> Plan:
    return make_plan(get_recipe(name))


def distinct() -> list[Any]:
    """All recipes, those marked slow that train the same parts of the same base as an earlier one."""
    shapes = [(config.base, config.parts) for config in map(get_recipe, RECIPES)]
    again = [shape in shapes[:i] for i, shape in enumerate(shapes)]
    return [pytest.param(name, marks=[pytest.mark.slow] * late) for name, late in zip(RECIPES, again, strict=True)]


@pytest.mark.parametrize("name", distinct())
def test_every_recipe_can_be_planned_without_its_weights(name: str) -> None:
    plan = plan_of(name)
    assert plan.trained > 0 and plan.iterations > 0
    assert all(math.isfinite(megabytes) and megabytes > 0 for megabytes in plan.megabytes.values())
    *kept, plain, taught, measured, decoded, together = plan.megabytes.values()
    assert together == pytest.approx(sum(kept) + max(plain, taught, measured, decoded))


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
    config = get_recipe("gender", {"originals_pool": "0", "gradient_steps": "5"})
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


@pytest.mark.parametrize("name", PEOPLE)
def test_where_a_recipe_leaves_the_paper_the_reason_is_named(name: str) -> None:
    config = get_recipe(name)
    reasons = OURS | (OURS_FOR_XL if name.startswith("sdxl") else {})
    said = deviations(config)
    different = {key for key, value in published_settings(config).items() if getattr(config, key) != value}
    assert different == set(reasons) and len(published_settings(config)) > len(PAPER)
    for key in different:
        assert any(line.startswith(f"{key} is ") and reasons[key][1] in line for line in said)
    beside = [line.partition(" ")[0] for line in said[len(different) :]]
    others = ["base"] * (config.base != get_recipe("gender").base)
    age = ["the"] * ("age" in name)
    mine = ["classifier", "face_encoder", "face_bank", "prompts", "prompts"]
    draws = ["targets"] * ("race" in name)
    precise = ["trained"] * (config.parts != ("unet",))
    assert beside == [*others, *precise, *mine, *age, *draws, *EVERY]


def test_all_that_the_papers_table_has_is_compared() -> None:
    """Paper §4. Betas are AdamW's own; the solver and the warm-up of the average are no settings."""
    table = {"images_per_prompt", "preservation", "face_weight", "iterations", "parts"}
    common = {
        "optimizer", "learning_rate", "schedule", "warmup", "weight_decay", "max_grad_norm", "ema", "guidance_scale",
        "num_steps", "max_steps", "dtype", "prompts_per_step", "rank", "alpha", "num_tokens", "target_modules",
    }  # fmt: skip
    for name in ("race", "gender-race", "gender-race-age", "gender-race-many-concepts"):
        assert table | common <= set(published_settings(get_recipe(name)))
    assert torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))]).defaults["betas"] == (0.9, 0.999)


def test_what_is_said_of_the_steps_in_validation_is_so(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []

    def sample(*arguments: object, num_steps: int, **settings: object) -> object:
        steps.append(num_steps)
        return original(*arguments, num_steps=num_steps, **settings)  # type: ignore[arg-type]

    original = validation.sample
    monkeypatch.setattr(validation, "sample", sample)
    validation.draw(tiny_setup(), CONFIG, "a nurse", [1])
    config = get_recipe("gender")
    assert steps == [CONFIG.num_steps]
    assert f"validation samples in {config.num_steps} steps, and did in 25" in deviations(config)[-1]


def test_the_papers_own_settings_can_be_asked_for() -> None:
    settings = {name: ",".join(value) if isinstance(value, tuple) else str(value) for name, value in PAPER.items()}
    wanted = get_recipe("gender-race", settings | {"face_bank": "faces", "classifier": "mobilenet:theirs"})
    said = [line.partition(" ")[0] for line in deviations(wanted)]
    assert said == ["trained", "face_encoder", "prompts", "prompts", "faces", "targets", "a", *EVERY]
    assert deviations(get_recipe("sandbox-gender")) == []


@pytest.mark.parametrize("name", TABLE)
def test_paper_stands_for_all_settings_of_the_published_adaptor_and_for_the_authors_parts(name: str) -> None:
    wanted = get_recipe(name, {"paper": "true", "iterations": "7"})
    published = published_settings(wanted) | authors_parts(name) | {"iterations": 7}
    assert {key: getattr(wanted, key) for key in published} == published
    said = [line.partition(" ")[0] for line in deviations(wanted)]
    many, age, several = name.endswith("many-concepts"), "age" in name, name != "gender"
    beside = ["trained"] + ["prompt_sets"] * many + ["faces"] + ["the"] * age + ["targets"] * several + ["a"]
    assert said == ["iterations", *beside, *EVERY]
    own = {"name", "parts", "images_per_call", "save_every", "seed"}
    assert {key: getattr(wanted, key) for key in own} == {key: getattr(get_recipe(name), key) for key in own}
    assert get_recipe(name, {"paper": "false"}) == get_recipe(name)


def test_the_paper_has_no_adaptor_for_other_attributes_and_other_bases() -> None:
    for name in ("sdxl-gender-race", "sandbox-gender"):
        with pytest.raises(ConfigError, match="the paper has no adaptor for gender"):
            get_recipe(name, {"paper": "true"})
    with pytest.raises(ConfigError, match="paper: 'perhaps' is not true or false"):
        get_recipe("gender", {"paper": "perhaps"})


@pytest.mark.usefixtures("authors_data")
def test_the_papers_run_is_planned_with_the_authors_parts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["fair-adaptors", "train", "gender-race", "--set", "paper=true", "--dry-run"])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().out
    assert not end.value.code and "data.zip" not in said
    for part in ("classifier: authors:gender-race", "face_bank: authors:fairface", "authors:occupations: 1.0"):
        assert part in said
    assert "# not as the paper: images are not clamped" in said and "# not as the paper: classifier is" not in said


def test_for_a_plan_the_authors_archive_is_named_and_not_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    for settings, named in (
        ({"paper": "true"}, "classifier, judge, prompt_sets, validation_set, face_encoder, face_bank"),
        ({"prompts": "authors:occupations,authors:sports:3"}, "prompt_sets"),
    ):
        config = get_recipe("gender-race", settings)
        check(config)
        (found,) = (one for one in downloads(config) if one.repo_id == "data.zip")
        assert str(found).startswith(f"{named}: data.zip of the paper's authors, from https://drive.google.com/")
    assert config.prompt_sets == (("authors:occupations", 1.0), ("authors:sports", 3.0))
    assert not any(tmp_path.iterdir())
    for wrong in ("prompts=authors:job", "classifier=authors:hair", "face_encoder=authors:x", "face_bank=authors:x"):
        with pytest.raises(ConfigError, match="the authors have no|mean nothing"):
            check(get_recipe("gender-race", dict([wrong.split("=")])))


@pytest.mark.parametrize(
    ("name", "images", "weight", "face", "sure"),
    [
        ("gender", 24, 8, 1, 0.9),
        ("race", 32, 6, 0.1, 0.9),
        ("gender-race", 32, 8, 0.1, 0.8),
        ("gender-race-age", 40, 8, 0.1, 0.75),
        ("gender-race-many-concepts", 40, 8, 0.1, 0.8),
    ],
)
def test_the_recipes_are_the_papers_table(name: str, images: int, weight: float, face: float, sure: float) -> None:
    config = get_recipe(name)
    found = config.images_per_prompt, config.preservation, config.face_weight, config.face_confidence
    assert found == (images, weight, face, sure)
    factors = {a.name: (a.factor1, a.factor2) for a in config.attributes}
    assert factors.items() <= {"gender": (0.2, 0.2), "race": (0.6, 0.3), "age": (0.6, 0.3)}.items()


def test_what_cannot_be_planned_is_said() -> None:
    with pytest.raises(ConfigError, match="there is no prompt set 'ocupations'"):
        make_plan(get_recipe("gender", {"prompt_sets": "ocupations"}))
    plan = make_plan(dataclasses.replace(get_recipe("gender"), base="who/knows"))
    assert plan.megabytes == {} and plan.trained == 0


def test_a_known_base_is_known_by_its_other_names_and_at_any_commit() -> None:
    config = get_recipe("gender")
    for base in ("runwayml/stable-diffusion-v1-5", f"{config.base}@0123abc"):
        assert trained_values(config, skeleton(base)) == 8_294_400


def with_extras(files: dict[str, bytes], family: str) -> dict[str, bytes]:
    """What repositories of Stable Diffusion have beside the pipeline."""
    unet, vae = "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"
    extra = {f"{unet}.fp16.safetensors": 700, f"{unet}.bin": 800, f"{unet}.non_ema.safetensors": 900}
    extra |= {"text_encoder/model.onnx": 300, "text_encoder/flax_model.msgpack": 400, "unet/model.onnx_data": 500}
    extra |= {"text_encoder/openvino_model.bin": 600, "text_encoder/openvino_model.xml": 10, "unet/model.onnx": 20}
    extra |= {"v1-5-pruned.safetensors": 5000, "v1-5-pruned.ckpt": 6000, "README.md": 30, "images/grid.png": 40}
    if family == "SDXL":
        extra |= {"vae_1_0/diffusion_pytorch_model.safetensors": 2000, "vae_1_0/config.json": 50}
        extra |= {"vae_decoder/model.onnx": 2100, "sd_xl_base_1.0.safetensors": 7000, "vae_decoder/config.json": 60}
    if family == "SD 2.x":  # in no other format than torch's, and one component in both
        names = {"/model.safetensors": "/pytorch_model.bin", "_model.safetensors": "_model.bin"}
        for safe, pickled in names.items():
            files = {name.replace(safe, pickled): data for name, data in files.items()}
        extra |= {f"{vae}.safetensors": 1000}
    return files | {name: b"0" * size for name, size in extra.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_downloads_are_what_diffusers_fetches(family: str, online_hub: Hub, tmp_path: Path) -> None:
    """Without the safety checker, which training does not load."""
    FAMILIES[family]().save_pretrained(tmp_path / "pipe")
    files = with_extras(contents(tmp_path / "pipe"), family)
    if family != "SDXL":
        checker = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
        files["model_index.json"] = json.dumps(json.loads(files["model_index.json"]) | checker).encode()
        files |= {"safety_checker/model.safetensors": b"0" * 9000, "safety_checker/config.json": b"0" * 70}
    name = f"org/{family.replace(' ', '-')}"
    publish(online_hub, name, files)
    fetched = contents(Path(DiffusionPipeline.download(name, cache_dir=tmp_path / "cache", safety_checker=None)))
    index = main_file("pipeline", name)
    assert set(pipeline_files(list(files), index)) == set(fetched)
    assert ("vae_1_0/diffusion_pytorch_model.safetensors" in fetched) == (family == "SDXL"), "diffusers takes it, too"
    config = dataclasses.replace(get_recipe("gender"), base=name, encoders=(), classifier="a:b", judge="a:b")
    found = downloads(config)[0]
    assert found.megabytes == pytest.approx(sum(map(len, fetched.values())) / 1e6)


def test_a_base_is_loaded_at_the_commit_that_is_named(online_hub: Hub, tmp_path: Path) -> None:
    files = {}
    for seed in (0, 1):
        tiny_pipeline(seed=seed).save_pretrained(tmp_path / str(seed))
        files[seed] = contents(tmp_path / str(seed))
    first = publish(online_hub, "org/versions", files[0])
    online_hub.repositories["org/versions"].commit("main", "another", files=files[1], parent=first)
    config = dataclasses.replace(get_recipe("gender"), dtype="float32", encoders=(), classifier="a:b", judge="a:b")
    for base, seed in ((f"org/versions@{first}", 0), ("org/versions", 1)):
        config = dataclasses.replace(config, base=base)
        wanted = tiny_pipeline(seed=seed).unet.conv_in.weight
        for pipe in (_load_pipeline(config, "cpu"), load_base(base)):  # to train, and to evaluate
            assert torch.equal(pipe.unet.conv_in.weight, wanted)
        assert (downloads(config)[0].commit == first) == (seed == 0)


def test_of_a_model_one_format_is_fetched() -> None:
    config = ["config.json", "vocab.json", "merges.txt"]
    both = ["model.safetensors", "pytorch_model.bin", "model.fp16.safetensors", "open_clip_model.safetensors"]
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    others = ["README.md", "tf_model.h5", "onnx/model.onnx", "onnx/config.json"]
    assert set(model_files([*config, *both, *others])) == {*config, "model.safetensors"}
    assert set(model_files([*config, *shards, "pytorch_model.bin", *others])) == {*config, *shards}
    assert set(model_files([*config, "pytorch_model.bin", *others])) == {*config, "pytorch_model.bin"}


def test_downloads_are_named_with_commit_size_and_licence(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "pipe"
    FAMILIES["SD 1.x"]().save_pretrained(folder)
    files = contents(folder)
    weights = sum(len(data) for data in files.values())
    half = {"unet/diffusion_pytorch_model.fp16.safetensors": b"0" * 999_999}
    extra = half | {"README.md": b"---\nlicense: openrail++\n---\n"}
    commit = publish(hub, "org/base", files | extra)
    config = dataclasses.replace(
        get_recipe("gender"), base="org/base", classifier="a:b", judge="a:b", encoders=("clip:org/none",)
    )
    found, absent, auraface = downloads(config, endpoint=hub.url)  # the face detector comes with the package
    assert auraface.what == "face_encoder" and auraface.megabytes > 200
    assert (found.what, found.repo_id, found.commit, found.licence) == ("base", "org/base", commit, "openrail++")
    assert found.megabytes == pytest.approx(weights / 1e6, rel=0.01)
    assert absent.what == "encoders" and "none of that name" in absent.problem


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
