"""How a base is loaded for training: in which precision, frozen, and without what training has no use for."""

import dataclasses
import json
import shutil
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.engine import lora
from fair_adaptors.training.engine.denoisers import denoiser_for
from fair_adaptors.training.engine.sampling import encode_prompts, initial_noise, sample
from fair_adaptors.training.memory import memory, skeleton
from fair_adaptors.training.plan import make_plan
from fair_adaptors.training.recipes import get_recipe
from fair_adaptors.training.run.finish import _write
from fair_adaptors.training.setup import _autoencoder_warning, _load_pipeline, part_dtype
from fair_adaptors.training.speed import faster_by, speed_up
from torch import Tensor, nn

from fair_adaptors.adaptor.architecture import load_architecture
from fair_adaptors.adaptor.bases import STABLE_DIFFUSION_1_5
from fair_adaptors.adaptor.modules import fingerprint
from fair_adaptors.adaptor.record import CONFIG_FILE, read_record
from fair_adaptors.hub.publish import files_to_publish
from tests.single_file import write_single_file
from tests.tiny import FAMILIES, tiny_pipeline
from tests.tiny_training import CONFIG, tiny_setup

HALF = dataclasses.replace(CONFIG, dtype="bfloat16")


def config_of(base: Path | str, **settings: Any) -> TrainConfig:
    return dataclasses.replace(HALF, base=str(base), **settings)


def dtypes(pipe: Any) -> dict[str, torch.dtype]:
    return {name: part.dtype for name, part in pipe.components.items() if isinstance(part, nn.Module)}


@pytest.mark.parametrize(
    ("parts", "precise"), [(("text_encoder",), {"text_encoder"}), (("tokens",), {"text_encoder"}), (("unet",), set())]
)
def test_a_text_encoder_that_is_trained_keeps_the_bits_of_float32(
    base: str, parts: tuple[str, ...], precise: set[str]
) -> None:
    """Those of the file: it was not in half precision on the way. The plan counts with the same."""
    pipe = _load_pipeline(config_of(base, parts=parts), "cpu")
    half = dict.fromkeys(("text_encoder", "unet", "vae"), torch.bfloat16)
    assert dtypes(pipe) == half | dict.fromkeys(precise, torch.float32)
    whole = FAMILIES["SD 1.x"]().text_encoder.state_dict()
    exact = all(torch.equal(value, whole[name].to(value)) for name, value in pipe.text_encoder.state_dict().items())
    assert exact and denoiser_for(pipe).encode("a nurse")[0].dtype == torch.bfloat16
    planned = memory(config_of(base, parts=parts), skeleton(base), 1, 2).kept["base"]
    tensors = [p for part in pipe.components.values() if isinstance(part, nn.Module) for p in part.parameters()]
    assert planned == pytest.approx(sum(p.numel() * p.element_size() for p in tensors) / 1e6)


def test_one_file_is_a_base_with_the_configurations_of_another(base: str, tmp_path: Path) -> None:
    """It is the same to what comes after, and to the plan."""
    file = write_single_file(tiny_pipeline(seed=3), tmp_path / "model.safetensors")
    config = config_of(file, base_config=base)
    loaded, whole = _load_pipeline(config, "cpu"), _load_pipeline(config_of(base), "cpu")
    assert dtypes(loaded) == dtypes(whole) and type(loaded.scheduler) is type(whole.scheduler)
    assert torch.equal(loaded.unet.conv_in.weight, tiny_pipeline(seed=3).unet.conv_in.weight.bfloat16())
    assert not any(p.requires_grad for part in (loaded.text_encoder, loaded.unet) for p in part.parameters())
    plan = make_plan(dataclasses.replace(get_recipe("gender"), base=str(file), base_config=base))
    assert plan.trained and not any(str(one).startswith("base") for one in plan.downloads)


FILE = f"mine (sha256 {sha256(b'weights').hexdigest()})"


@pytest.mark.parametrize(
    ("kind", "shapes", "base_model", "recorded"),
    [
        ("file", "sd15", STABLE_DIFFUSION_1_5, FILE),
        ("file", "tiny", FILE, FILE),
        ("folder", "sd15", STABLE_DIFFUSION_1_5, "mine"),
        ("folder", "tiny", "mine", "mine"),
        ("folder from the Hub", "tiny", "ann/base", "mine"),
        ("folder that is gone", "tiny", "mine", "mine"),
    ],
)
def test_a_record_says_which_base_it_was_and_nothing_of_where_files_lay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, shapes: str, base_model: str, recorded: str
) -> None:
    """The Hub id of the base with the same shapes can be found by others; a path on this disk by nobody."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    base = tmp_path / "mine"
    if kind == "file":
        base.write_bytes(b"weights")
    elif kind != "folder that is gone":
        base.mkdir()
        index = {"_name_or_path": "ann/base" if kind == "folder from the Hub" else str(base)}
        (base / "model_index.json").write_text(json.dumps(index))
    pipe = load_architecture(shapes).pipe if shapes == "sd15" else tiny_pipeline()
    tensors = {f"unet.conv_in.lora_{end}.weight": torch.zeros(1, 1, 1, 1) for end in "AB"}
    places = {
        "base": str(base),
        "base_config": f"{tmp_path}/config",
        "classifier": f"mobilenet:gender:{tmp_path}/faces+clip:ann/clip",
        "face_bank": "~/bank.safetensors",
        "prompt_sets": ((f"{tmp_path}/prompts.txt", 1.0),),
    }
    _write(
        SimpleNamespace(
            config=dataclasses.replace(CONFIG, rank=1, **places),
            setup=dataclasses.replace(tiny_setup(), pipe=pipe),
            out=tmp_path / "out",
            world=SimpleNamespace(size=1),
        ),
        SimpleNamespace(iteration=3, skipped=0, history={"seconds": 1.0}),
        tensors,
        None,
    )
    record = read_record(tmp_path / "out")
    assert (record.base_model, record.training["base"], record.training["base_config"]) == (
        base_model,
        recorded,
        "config",
    )
    assert record.training["classifier"] == "mobilenet:gender:faces+clip:ann/clip"
    before = json.loads((tmp_path / "out" / CONFIG_FILE).read_text())
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    # An earlier version wrote places down; what is published of its folders has none either.
    (tmp_path / "out" / CONFIG_FILE).write_text(json.dumps({**before, "base_model": str(base), "training": places}))
    for files in (written, files_to_publish(tmp_path / "out", "ann/x")):
        assert CONFIG_FILE in files
        every = [file if isinstance(file, bytes) else file.read_bytes() for file in files.values()]
        assert not any(str(tmp_path).encode() in content for content in every)


def test_what_a_hundred_updates_do_to_the_embeddings_is_not_lost_in_rounding(base: str) -> None:
    """Adam moves each value by the learning rate and hardly more: 5e-5, a hundred times."""

    def change(pipe: Any) -> Tensor:
        torch.manual_seed(0)
        parameters = lora.attach(pipe, ["text_encoder"], rank=4)
        before = denoiser_for(pipe).encode("a nurse")[0].float()
        for name, parameter in parameters.items():
            if "lora_B" in name:
                nn.init.uniform_(parameter, -100 * 5e-5, 100 * 5e-5)
        return (denoiser_for(pipe).encode("a nurse")[0].float() - before).detach()

    exact = change(_load_pipeline(config_of(base, dtype="float32"), "cpu"))
    ours = change(_load_pipeline(config_of(base), "cpu"))
    pipe = _load_pipeline(config_of(base), "cpu")
    pipe.text_encoder.bfloat16()
    rough = change(pipe)
    error, other = ((found - exact).norm() / exact.norm() for found in (ours, rough))
    print(f"error of the change: {error:.3f}; in bfloat16 {other:.3f}")
    assert error < other / 2


def test_graphs_that_were_compiled_before_the_loras_came_are_used_with_them(base: str) -> None:
    """The numbers before training are measured first; a parameter that asks for a gradient would be another graph."""
    from torch._dynamo.testing import CompileCounter

    pipe = _load_pipeline(config_of(base, dtype="float32"), "cpu")
    assert not any(p.requires_grad for part in (pipe.unet, pipe.text_encoder, pipe.vae) for p in part.parameters())
    counter = CompileCounter()
    pipe.unet.compile(backend=counter)

    def draw() -> None:
        with torch.no_grad():
            sample(
                pipe, encode_prompts(pipe, ["a nurse"], guidance_scale=2.0), initial_noise(pipe, [0]), num_steps=2,
                guidance_scale=2.0,
            )  # fmt: skip

    draw()
    before = counter.frame_count
    lora.attach(pipe, ["text_encoder"], rank=2)
    draw()
    assert counter.frame_count == before > 0


def test_what_makes_an_nvidia_card_faster_is_on_there_alone_and_changes_no_weight(base: str) -> None:
    config = config_of(base, dtype="float32", channels_last=True, compile=True)
    assert faster_by(config, "cuda") == ("channels_last", "compile") and faster_by(config, "cpu") == ()
    assert faster_by(dataclasses.replace(config, shard_base=True, tf32=True), "cuda:1") == ("tf32", "compile")
    pipe, plain = _load_pipeline(config, "cpu"), _load_pipeline(config, "cpu")
    speed_up(("channels_last",), denoiser_for(pipe))
    assert pipe.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert fingerprint(pipe.components) == fingerprint(plain.components)
    drawn = []
    for one in (pipe, plain):
        with torch.no_grad():
            given = encode_prompts(one, ["a nurse"], guidance_scale=1.0), initial_noise(one, [0])
            run = sample(one, *given, num_steps=2, guidance_scale=1.0)
            drawn.append(denoiser_for(one).decode(run.latents))
    torch.testing.assert_close(*drawn, rtol=1e-3, atol=1e-4)


def test_a_safety_checker_is_not_even_read(base: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)
    index = json.loads((tmp_path / "model_index.json").read_text())
    named = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"], "requires_safety_checker": True}
    (tmp_path / "model_index.json").write_text(json.dumps(index | named))
    assert not (tmp_path / "safety_checker").exists()
    assert _load_pipeline(config_of(tmp_path), "cpu").safety_checker is None
    assert "safety checker" not in caplog.text


def test_only_xls_own_autoencoder_is_kept_out_of_float16_and_a_better_one_is_named() -> None:
    """``force_upcast`` is true wherever a configuration does not say: of Stable Diffusion 1.x it means nothing."""
    half = dataclasses.replace(CONFIG, dtype="float16")
    for family, make in FAMILIES.items():
        pipe = make()
        pipe.vae.register_to_config(force_upcast=True)
        wide = family == "SDXL"
        assert part_dtype(half, pipe, "vae") == (torch.float32 if wide else torch.float16)
        assert part_dtype(HALF, pipe, "vae") == torch.bfloat16
        for config in (half, HALF):
            assert ("madebyollin/sdxl-vae-fp16-fix" in _autoencoder_warning(config, pipe)) == wide
        pipe.vae.register_to_config(force_upcast=False)
        assert part_dtype(half, pipe, "vae") == torch.float16 and not _autoencoder_warning(half, pipe)
    assert not _autoencoder_warning(CONFIG, FAMILIES["SDXL"]())
