"""Whatever cannot be loaded is refused with the reason, and the pipeline is as it was."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fair_adaptors import (
    InvalidAdaptorError,
    NotPublishedError,
    UnknownAdaptorError,
    WrongBaseError,
    load_fair_adaptor,
)
from fair_adaptors.adaptor.record import CONFIG_FILE, WEIGHTS_FILE
from fair_adaptors.errors import FairAdaptorError
from tests.checkpoints import as_bytes
from tests.tiny import State, same, state, tiny_pipeline, write_tensors


def in_bytes(file: str, change: Callable[[bytes], bytes]) -> Callable[[Path], Any]:
    return lambda folder: (folder / file).write_bytes(change((folder / file).read_bytes()))


def in_tensors(change: Callable[[State], State]) -> Callable[[Path], Any]:
    return lambda folder: write_tensors(folder, change(load_file(folder / WEIGHTS_FILE)))


def only_a_pickle(folder: Path) -> None:
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        (folder / name).unlink()
    torch.save({"a": torch.zeros(1)}, folder / "text_encoder_lora_EMA.pth")


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated": (in_bytes(WEIGHTS_FILE, lambda data: data[:-100]), "truncated"),
    "a changed byte": (in_bytes(WEIGHTS_FILE, lambda data: data[:-1] + bytes([data[-1] ^ 1])), "sha256"),
    "as many other bytes": (in_bytes(WEIGHTS_FILE, lambda data: b"{" * len(data)), "sha256"),
    "a pickle": (in_bytes(WEIGHTS_FILE, lambda data: as_bytes({"a": torch.zeros(1)})), "pickle"),
    "a web page": (in_bytes(WEIGHTS_FILE, lambda data: b"<html>404</html>"), "truncated"),
    "only a pickle": (only_a_pickle, "pickles"),
    "other keys": (
        in_tensors(lambda t: {f"module.{key}": value for key, value in t.items()}),
        "unexpected keys: 'module.text_encoder",
    ),
    "a key less": (in_tensors(lambda t: dict(sorted(t.items())[1:])), "missing keys: 'text_encoder"),
    "a key more": (in_tensors(lambda t: t | {"unet.extra.weight": torch.zeros(2)}), "unet.extra.weight"),
    "not finite": (in_tensors(lambda t: t | {max(t): torch.full_like(t[max(t)], torch.nan)}), "not finite"),
    "empty": (in_tensors(lambda t: {}), "no tensors"),
    "no JSON": (in_bytes(CONFIG_FILE, lambda data: b"{"), "JSON"),
    "a later schema": (
        in_bytes(CONFIG_FILE, lambda data: data.replace(b'"schema_version": 1', b'"schema_version": 2')),
        "schema version 2",
    ),
    "no fields": (in_bytes(CONFIG_FILE, lambda data: b'{"schema_version": 1, "files": []}'), "base_model"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_adaptor_is_refused_and_nothing_changes(pipe: Any, adaptor: Path, case: str) -> None:
    before, (damage, message) = state(pipe), DAMAGES[case]
    damage(adaptor)
    with pytest.raises(InvalidAdaptorError, match=message):
        load_fair_adaptor(pipe, adaptor)
    assert same(state(pipe), before)


def test_another_base_is_refused_and_nothing_changes(pipe: Any, adaptor: Path) -> None:
    wider = tiny_pipeline(width=64)
    before = state(wider)
    with pytest.raises(WrongBaseError, match="made for tiny"):
        load_fair_adaptor(wider, adaptor)
    assert same(state(wider), before)


def test_a_module_that_the_base_lacks_is_named(pipe: Any, adaptor: Path) -> None:
    tensors = load_file(adaptor / WEIGHTS_FILE)
    write_tensors(adaptor, {key.replace("layers.0", "layers.9"): value for key, value in tensors.items()})
    with pytest.raises(WrongBaseError, match=r"layers\.9"):
        load_fair_adaptor(pipe, adaptor)


@pytest.mark.parametrize(
    ("stem", "down", "up", "message"),
    [
        ("unet.conv_in", (2, 5, 3, 3), (32, 2, 1, 1), r"\[32, 4, 3, 3\], the adaptor's \[32, 5\]"),
        ("unet.conv_in", (2, 4, 3, 3), (31, 2, 1, 1), r"\[32, 4, 3, 3\], the adaptor's \[31, 4\]"),
        ("unet.conv_in", (2, 4), (32, 2), r"\[32, 4, 3, 3\], the adaptor's \[32, 4\]"),
        ("unet.conv_in", (2, 4, 1, 1), (32, 2, 1, 1), "a convolution of another kernel"),
        ("unet.conv_in", (2, 4, 3, 3), (32, 2, 3, 3), "a convolution of another kernel"),
        ("unet.time_embedding.linear_1", (2, 32, 1, 1), (128, 2, 1, 1), r"\[128, 32\], the adaptor's \[128, 32\]"),
    ],
)
def test_a_module_of_another_shape_is_named(
    pipe: Any, adaptor: Path, stem: str, down: tuple[int, ...], up: tuple[int, ...], message: str
) -> None:
    """Though the base's signature is the recorded one."""
    more = {f"{stem}.lora_A.weight": torch.zeros(down), f"{stem}.lora_B.weight": torch.zeros(up)}
    write_tensors(adaptor, load_file(adaptor / WEIGHTS_FILE) | more)
    with pytest.raises(WrongBaseError, match=f"{stem} is {message}. Nothing was changed"):
        load_fair_adaptor(pipe, adaptor)


def test_something_that_is_no_pipeline_is_refused(adaptor: Path) -> None:
    with pytest.raises(WrongBaseError, match="text_encoder"):
        load_fair_adaptor(object(), adaptor)


def test_an_unknown_name_gets_a_suggestion(pipe: Any) -> None:
    with pytest.raises(UnknownAdaptorError, match="Did you mean 'sandbox-gender'"):
        load_fair_adaptor(pipe, "sandbox-gendr")


def test_a_recipe_without_weights_says_so(pipe: Any) -> None:
    with pytest.raises(NotPublishedError, match="not published"):
        load_fair_adaptor(pipe, "sd21-gender-race")


@pytest.mark.parametrize("name", ["./nowhere", "/no/where/at/all", "nobody/nothing"])
def test_what_is_not_there_is_said_not_to_be(pipe: Any, name: str) -> None:
    with pytest.raises(UnknownAdaptorError, match=name.lstrip(".")):
        load_fair_adaptor(pipe, name, local_files_only=True)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), 100, "much", True])
def test_a_weight_that_is_no_number_is_refused(pipe: Any, adaptor: Path, weight: Any) -> None:
    before = state(pipe)
    with pytest.raises(FairAdaptorError, match="weight"):
        load_fair_adaptor(pipe, adaptor, weight=weight)
    assert same(state(pipe), before)
    handle = load_fair_adaptor(pipe, adaptor)
    with pytest.raises(FairAdaptorError, match="weight"):
        handle.set_weight(weight)
    assert handle.weight == 1


def test_without_a_name_an_unknown_base_is_an_error(pipe: Any) -> None:
    with pytest.raises(UnknownAdaptorError, match="Name one"):
        load_fair_adaptor(pipe)


def test_a_folder_in_the_hubs_cache_is_found_offline(pipe: Any, adaptor: Path, tmp_path: Path) -> None:
    repo = tmp_path / "cache" / "models--owner--fair"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0" * 40)
    (repo / "snapshots").mkdir()
    adaptor.rename(repo / "snapshots" / ("0" * 40))
    handle = load_fair_adaptor(pipe, "owner/fair", cache_dir=tmp_path / "cache", local_files_only=True)
    assert handle.info.name == "tiny-1"


def test_an_adaptor_whose_product_is_not_finite_is_refused_and_nothing_changes(pipe: Any, adaptor: Path) -> None:
    before = state(pipe)
    tensors = {key: torch.full_like(value, 1e30) for key, value in load_file(adaptor / WEIGHTS_FILE).items()}
    write_tensors(adaptor, tensors)
    with pytest.raises(FairAdaptorError, match="infinite"):
        load_fair_adaptor(pipe, adaptor)
    assert same(state(pipe), before)


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt", "x.pth", "x.zip"])
@pytest.mark.parametrize("given", ["file", "folder"])
def test_weights_of_others_are_refused_with_the_command_that_converts_them(
    pipe: Any, tmp_path: Path, name: str, given: str
) -> None:
    place = tmp_path / "a lora"
    place.mkdir()
    (place / name).write_bytes(b"weights")
    wanted = place / name if given == "file" else place
    with pytest.raises(FairAdaptorError) as refused:
        load_fair_adaptor(pipe, str(wanted))
    assert f"`fair-adaptors convert '{wanted}' --base sd15" in str(refused.value)
