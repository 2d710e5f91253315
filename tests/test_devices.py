"""One place decides where models run and in which precision, and bases load as they are asked for."""

from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import tqdm

from fair_adaptors import devices
from fair_adaptors.cli.common import load_base, quiet
from fair_adaptors.devices import accelerator, choose_device, weights_dtype
from fair_adaptors.errors import ConfigError
from fair_adaptors.pipelines import load_pipeline
from tests.commands import Command
from tests.single_file import write_single_file
from tests.tiny import image, tiny_pipeline, write_tiny_adaptor


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_chosen", None)


@pytest.fixture
def xpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says to have Intel's accelerator, which nothing can be moved to."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("xpu"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_pipeline().save_pretrained(folder)
    tiny_pipeline(seed=1).save_pretrained(folder, variant="fp16")
    return str(folder)


def test_any_accelerator_of_torch_is_taken_and_each_process_gets_its_own(
    xpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert accelerator() == "xpu:0"
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert accelerator() == "xpu:2"
    choose_device("cpu")
    assert accelerator() == "cpu"
    choose_device(None)
    assert accelerator() == "xpu:2"


@pytest.mark.parametrize("device", ["", "nonsense", "meta", "cpu:one"])
def test_a_device_that_cannot_be_used_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match=f"device '{device}' cannot be used here: \\w"):
        choose_device(device)


def test_precision_is_half_on_an_accelerator_unless_told() -> None:
    assert weights_dtype(None, "cpu") == torch.float32 and weights_dtype(None, "mps:0") == torch.float16
    assert weights_dtype("bfloat16", "cpu") == torch.bfloat16 and weights_dtype("float32", "cuda:0") == torch.float32
    with pytest.raises(ConfigError, match="Did you mean 'float16'"):
        weights_dtype("float61", "cpu")


def test_a_base_goes_to_the_accelerator_in_half_precision(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = load_base(base)
    assert (pipe.device.type, pipe.unet.dtype, pipe.text_encoder.dtype) == ("cpu", torch.float32, torch.float32)
    assert load_base(base, dtype="bfloat16").vae.dtype == torch.bfloat16
    monkeypatch.setattr(devices, "_chosen", "meta")  # of all devices that are not the CPU this one is everywhere
    monkeypatch.setattr(devices, "choose_device", lambda device: None)
    pipe = load_base(base)
    assert (pipe.device.type, pipe.unet.dtype, pipe.text_encoder.dtype) == ("meta", torch.float16, torch.float16)
    assert load_base("sandbox").device.type == "cpu" and load_base("sandbox", device="meta").device.type == "meta"


def test_the_files_of_a_variant_are_taken(base: str) -> None:
    for variant, seed in ((None, 0), ("fp16", 1)):
        assert torch.equal(
            load_base(base, variant=variant).unet.conv_in.weight, tiny_pipeline(seed=seed).unet.conv_in.weight
        )
    with pytest.raises(ConfigError, match="cannot be loaded as a pipeline.*bf16"):
        load_base(base, variant="bf16")


def test_one_file_is_a_base(base: str, tmp_path: Path) -> None:
    file = write_single_file(tiny_pipeline(seed=3), tmp_path / "model.safetensors")
    pipe = load_base(str(file), base_config=base)
    assert torch.allclose(image(pipe), image(tiny_pipeline(seed=3)), atol=1e-5) and pipe.unet.dtype == torch.float32


def test_one_file_without_its_configuration_or_of_another_kind_is_refused(base: str, tmp_path: Path) -> None:
    file = str(write_single_file(tiny_pipeline(), tmp_path / "model.safetensors"))
    with pytest.raises(ConfigError, match="or from `base_config`, the folder or Hub id"):
        load_base(file)  # the Hub is not asked in tests
    lora = write_tiny_adaptor(tmp_path / "lora", tiny_pipeline()) / "pytorch_lora_weights.safetensors"
    with pytest.raises(ConfigError, match="pytorch_lora_weights.safetensors cannot be loaded as a whole model"):
        load_base(str(lora), base_config=base)
    with pytest.raises(ConfigError, match=f"`base_config` is for a base that is one file; {base} has its own"):
        load_pipeline(base, base_config=base)
    (tmp_path / "model.ckpt").write_bytes(b"PK")
    with pytest.raises(ConfigError, match="other formats can run code"):
        load_base(str(tmp_path / "model.ckpt"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "nonsense"], "device 'nonsense' cannot be used here"),
        (["--dtype", "float16"], "sandbox is always float32: leave --dtype out"),
        (["--variant", "fp16"], "--variant chooses among the files"),
        (["--base-config", "org/x"], "--base-config is for a base that is one file"),
    ],
)
@pytest.mark.parametrize("name", ["generate nurse", "evaluate sandbox -n 1", "app --port 0 --no-browser"])
def test_every_command_that_loads_a_base_has_the_settings(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, said = command(*name.split(), *words)
    assert status == 1 and message in said and "Traceback" not in said


def test_the_instruments_go_where_the_base_goes(command: Command, xpu: None) -> None:
    status, printed, said = command("evaluate", "sandbox", "--device", "cpu", "--plan", "0.1")
    assert status == 0 and printed, said
    status, _, said = command("reproduce", "sandbox-gender", "--device", "nonsense")
    assert status == 1 and "device 'nonsense' cannot be used here" in said


@pytest.mark.parametrize("switched_off", [None, True])
def test_downloads_keep_their_progress_bars_unless_the_user_switched_them_off(
    monkeypatch: pytest.MonkeyPatch, switched_off: bool | None
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", switched_off)
    quiet()
    assert tqdm(total=1, disable=False).disable == bool(switched_off)
