"""A LoRA on the Hub that is not an adaptor of this package: refused with the command that makes one of it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from fair_adaptors import load_fair_adaptor
from fair_adaptors.adaptor.folder import read_adaptor
from fair_adaptors.adaptor.modules import all_modules
from fair_adaptors.adaptor.record import CONFIG_FILE, WEIGHTS_FILE
from fair_adaptors.errors import FairAdaptorError, InvalidAdaptorError
from fair_adaptors.hub.lora import fetch_lora
from tests.commands import Command
from tests.hub.connection import Hub
from tests.hub.fixtures import publish
from tests.tiny import image, tiny_xl_pipeline

Pair = tuple[Tensor, Tensor]
LAYOUTS: dict[str, Callable[[str, Pair], dict[str, Tensor]]] = {
    "of today": lambda stem, pair: {f"{stem}.lora_A.weight": pair[0], f"{stem}.lora_B.weight": pair[1]},
    "of 2024": lambda stem, pair: {
        f"{stem}.{'lora' if stem.startswith('unet') else 'lora_linear_layer'}.{end}.weight": half
        for end, half in zip(("down", "up"), pair, strict=True)
    },
    "of early 2023": lambda stem, pair: {
        re.sub(r"\.(?=to_\w+$)", ".processor.", re.sub(r"(\w+)_proj$", r"to_\1", stem.removesuffix(".0")))
        + f"_lora.{end}.weight": half
        for end, half in zip(("down", "up"), pair, strict=True)
    },
}
"""What diffusers has called the layers of SDXL, the U-Net's and the text encoders'."""


def lora(layout: str, parts: tuple[str, ...]) -> bytes:
    """A LoRA on the attention of the tiny SDXL, as one of a profession for each class lies on the Hub."""
    make, tensors = torch.Generator().manual_seed(0), {}
    for stem, module in all_modules(tiny_xl_pipeline()).items():
        if stem.startswith(parts) and re.search(r"\.(to_(q|k|v|out\.0)|(q|k|v|out)_proj)$", stem):
            out, into = module.weight.shape
            pair = torch.randn(4, into, generator=make) * 0.2, torch.randn(out, 4, generator=make) * 0.2
            tensors |= LAYOUTS[layout](stem, pair)
    return save(tensors, {"format": "pt"})


@pytest.mark.parametrize(
    ("layout", "parts"), [(layout, ("unet.",)) for layout in LAYOUTS] + [(layout, ("",)) for layout in LAYOUTS]
)
def test_a_plain_lora_is_refused_with_the_command_that_makes_an_adaptor_of_it(
    online_hub: Hub, command: Command, tmp_path: Path, layout: str, parts: tuple[str, ...]
) -> None:
    repo_id = f"org/Asian_Female_Profession_Model_{len(online_hub.repositories)}"
    data = lora(layout, parts)
    files = {WEIGHTS_FILE: data, "README.md": b"# LoRA", "image_0.png": b"png"}
    commit = publish(online_hub, repo_id, files)
    pipe = tiny_xl_pipeline()
    with pytest.raises(InvalidAdaptorError, match=f"'{repo_id}' has no fair_adaptor.json") as refused:
        load_fair_adaptor(pipe, repo_id, cache_dir=tmp_path)
    told = re.search(r"`fair-adaptors (convert [^`]*)`", str(refused.value))
    pipe.save_pretrained(tmp_path / "base")
    out = tmp_path / "adaptor"
    words = {"sdxl": str(tmp_path / "base"), "FOLDER": str(out)}
    status, printed, errors = command(*(words.get(word, word) for word in told[1].split()))
    assert status == 0 and f"converted from {repo_id}/{WEIGHTS_FILE}@{commit}" in printed, errors
    assert read_adaptor(out).record.rank == 4
    plain = image(pipe)
    with load_fair_adaptor(pipe, out):
        ours = image(pipe)
    (tmp_path / WEIGHTS_FILE).write_bytes(data)
    pipe.load_lora_weights(tmp_path, weight_name=WEIGHTS_FILE)
    assert torch.allclose(ours, image(pipe), atol=1e-4) and not torch.allclose(ours, plain, atol=1e-2)


@pytest.mark.parametrize(
    ("files", "asked", "message"),
    [
        ({"a.safetensors": b"a", "b.safetensors": b"b"}, "", "several files that could be meant: a.safetensors, b"),
        ({"model.bin": b"a"}, "", "has no .safetensors file"),
        ({"a.safetensors": b"a"}, "/c.safetensors", "no file 'c.safetensors'.*Did you mean 'a.safetensors'"),
        ({"a.safetensors": b"a"}, "@v9", "no such|v9"),
        ({CONFIG_FILE: b"{}", WEIGHTS_FILE: b"a"}, "", "already an adaptor of this package"),
        ({"a.safetensors": b"a" * 101}, "", "a.safetensors has 101 bytes; no LoRA is that large"),
    ],
)
def test_what_is_not_clear_or_too_large_is_refused(
    online_hub: Hub, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], asked: str, message: str
) -> None:
    monkeypatch.setattr("fair_adaptors.hub.lora.MOST_BYTES", 100)
    repo_id = f"org/lora{len(online_hub.repositories)}"
    publish(online_hub, repo_id, files)
    with pytest.raises(FairAdaptorError, match=message):
        fetch_lora(repo_id + asked)


def test_a_file_of_several_is_taken_by_its_name(online_hub: Hub) -> None:
    publish(online_hub, "org/two", {"sub/a.safetensors": b"a", "b.safetensors": b"b"})
    assert fetch_lora("org/two/sub/a.safetensors")[0].read_bytes() == b"a"
    assert fetch_lora("org/two@main")[0].read_bytes() == b"b"
    publish(online_hub, "org/peft", {"adapter_model.safetensors": b"c", "adapter_config.json": b"{}", "a.bin": b"d"})
    path, _ = fetch_lora("org/peft")
    assert {one.name for one in path.parent.iterdir()} == {"adapter_model.safetensors", "adapter_config.json"}
