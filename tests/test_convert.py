"""The authors' checkpoints become adaptors of the same change, and say what was used of them and what not."""

import os
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fair_adaptors import load_fair_adaptor
from fair_adaptors.adaptor.architecture import load_architecture
from fair_adaptors.adaptor.folder import read_adaptor
from fair_adaptors.adaptor.modules import shape_signature
from fair_adaptors.adaptor.record import TOKENS_FILE, WEIGHTS_FILE, AttributeTarget
from fair_adaptors.convert.importing import convert, parse_attributes
from fair_adaptors.errors import ConfigError
from tests.checkpoints import (
    SD15_UNET,
    TEXT,
    TINY_UNET,
    TOKENS,
    UNET,
    as_bytes,
    changes,
    converted,
    converted_changes,
    largest_difference,
    our_name,
    saved,
    text_checkpoint,
    token_checkpoint,
    unet_checkpoint,
    zipped,
)
from tests.commands import Command
from tests.tiny import image, tiny_pipeline


def test_real_stable_diffusion_checkpoints_keep_the_change_of_every_layer(tmp_path: Path) -> None:
    text = text_checkpoint(layers=12, width=768, inner=3072, rank=50)
    unet = unet_checkpoint(SD15_UNET, width=768, rank=50)
    assert (len(text), sum(t.numel() for t in text.values())) == (144, 8_294_400)  # as published
    assert (len(unet), sum(t.numel() for t in unet.values())) == (256, 9_964_800)
    run = "run/checkpoint-9000_exported"
    source = zipped(
        tmp_path / "both.zip", {f"{run}/{TEXT}": as_bytes(text), f"{run}/{UNET}": as_bytes(unet)}, zipfile.ZIP_STORED
    )
    out = convert(source, tmp_path / "gender", attributes=["gender"])
    record = read_adaptor(out).record
    assert (record.rank, record.trained_parts) == (50, ("text_encoder", "unet"))
    expected = {our_name(key): change for key, change in {**changes(text), **changes(unet)}.items()}
    assert largest_difference(converted_changes(out), expected) <= 1e-6


@pytest.mark.parametrize("parts", [("text",), ("unet",), ("text", "unet")])
def test_the_pipeline_draws_what_it_draws_with_the_changes_added_by_hand(
    tmp_path: Path, base: str, parts: tuple[str, ...]
) -> None:
    files = {"text": (TEXT, text_checkpoint()), "unet": (UNET, unet_checkpoint(TINY_UNET))}
    for part in parts:
        saved(tmp_path / "checkpoint" / files[part][0], files[part][1])
    adaptor = converted(tmp_path / "checkpoint", tmp_path / "adaptor", base)
    pipe, by_hand = tiny_pipeline(), tiny_pipeline()
    plain = image(pipe)
    load_fair_adaptor(pipe, adaptor)
    with torch.no_grad():
        for part in parts:
            for key, change in changes(files[part][1]).items():
                name = our_name(key).replace("text_encoder.text_model.", "text_encoder.")
                module, _, path = name.partition(".")
                getattr(by_hand, module).get_submodule(path).weight += change
    assert not torch.allclose(image(pipe), plain, atol=1e-3)
    assert torch.allclose(image(pipe), image(by_hand), atol=1e-6)


def test_soft_tokens_are_all_rows_but_the_empty_one(tmp_path: Path, base: str) -> None:
    tensors = token_checkpoint()
    out = converted(saved(tmp_path / TOKENS, tensors), tmp_path / "tokens", base)
    files = read_adaptor(out)
    assert torch.equal(files.tokens["text_encoder"], tensors["token_embedding.weight"][1:])
    assert files.record.trained_parts == ("tokens",) and not (out / WEIGHTS_FILE).exists()
    assert files.record.training["converted_from"]["not_used"].keys() == {"position_ids", "position_embedding.weight"}
    pipe = tiny_pipeline()
    plain = image(pipe)
    with load_fair_adaptor(pipe, out):
        assert not torch.equal(image(pipe), plain)


def test_tokens_of_the_published_shape_fit_stable_diffusion_1_5(tmp_path: Path) -> None:
    source = saved(tmp_path / TOKENS, token_checkpoint(width=768, length=77))
    out = convert(source, tmp_path / "tokens", attributes=["gender"])
    assert load_file(out / TOKENS_FILE)["text_encoder"].shape == (5, 768)


def test_the_average_goes_before_its_twin_and_that_is_recorded(tmp_path: Path, base: str) -> None:
    average, last = text_checkpoint(seed=1), text_checkpoint(seed=2)
    run = "run/checkpoint-9800_exported/"
    names = {
        run + TEXT: as_bytes(average),
        run + TEXT.replace("_EMA", ""): as_bytes(last),
        "run/": b"",
        "notes.txt": b"",
    }
    out = converted(zipped(tmp_path / "x.zip", names), tmp_path / "out", base)
    assert (
        largest_difference(converted_changes(out), {our_name(key): change for key, change in changes(average).items()})
        == 0
    )
    origin = read_adaptor(out).record.training["converted_from"]
    assert origin["left_out"] == [run + "text_encoder_lora.pth"]
    assert (origin["name"], origin["files"][0]["name"], origin["files"][0]["averaged"]) == ("x.zip", run + TEXT, True)
    assert len(origin["sha256"]) == len(origin["files"][0]["sha256"]) == 64


def test_without_an_average_the_last_weights_are_used(tmp_path: Path, base: str) -> None:
    source = saved(tmp_path / "text_encoder_lora.pth", text_checkpoint())
    origin = read_adaptor(converted(source, tmp_path / "out", base)).record.training
    assert origin["converted_from"]["files"][0]["averaged"] is False


def test_the_name_of_a_known_adaptor_says_what_it_makes_fair(tmp_path: Path, base: str) -> None:
    out = convert(saved(tmp_path / TEXT, text_checkpoint()), tmp_path / "gender-race-age", base=base)
    attributes = read_adaptor(out).record.attributes
    assert attributes["gender"] == AttributeTarget(("female", "male"), (0.5, 0.5))
    assert attributes["race"] == AttributeTarget(("WMELH", "Black", "Indian", "Asian"), (0.25,) * 4)
    assert attributes["age"] == AttributeTarget(("young", "old"), (0.75, 0.25))


def test_shares_and_classes_can_be_given() -> None:
    given = parse_attributes(["age=0.75,0.25", "hair=dark:0.7,fair:0.3"], "x", "sd15")
    assert given["age"].target == (0.75, 0.25)
    assert given["hair"] == AttributeTarget(("dark", "fair"), (0.7, 0.3))
    assert parse_attributes(["tone"], "x", "sandbox")["tone"].target == (0.25,) * 4


def test_shapes_are_known_without_weights(base: str) -> None:
    assert shape_signature(load_architecture(base).pipe) == shape_signature(tiny_pipeline())
    parameters = {
        name: sum(p.numel() for p in load_architecture(name).pipe.unet.parameters())
        for name in ("sd15", "sd21", "sdxl")
    }
    assert parameters == {"sd15": 859_520_964, "sd21": 865_910_724, "sdxl": 2_567_463_684}  # as published


def test_what_is_there_is_not_overwritten(tmp_path: Path, base: str) -> None:
    source = saved(tmp_path / TEXT, text_checkpoint())
    (tmp_path / "out").mkdir()
    converted(source, tmp_path / "out", base)
    with pytest.raises(ConfigError, match="exists already"):
        converted(source, tmp_path / "out", base)
    with pytest.raises(ConfigError, match="exists already"):
        converted(source, source, base)


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("gendr", "Did you mean 'gender'"),
        ("gender=1", "a share for each class"),
        ("gender=0.9,0.2", "add up to 1"),
        ("gender=nan,nan", "add up to 1"),
        ("gender=1.5,-0.5", "must not be negative"),
        ("gender=a,b", "numbers"),
        ("hair=dark:1", "a share for each class"),
        ("hair=dark:0.5,dark:0.5", "a share for each class"),
        ("=a:0.5,b:0.5", "a share for each class"),
    ],
)
def test_an_attribute_that_cannot_be_is_refused(attribute: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_attributes([attribute], "x", "sd15")


def test_a_name_that_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="500 printable characters"):
        convert(tmp_path, tmp_path / "out", name="a\nb")


def test_the_record_of_a_folder_whose_name_is_no_text_is_text(tmp_path: Path, base: str) -> None:
    source = saved(tmp_path / os.fsdecode(b"run\xff") / TEXT, text_checkpoint()).parent
    origin = read_adaptor(converted(source, tmp_path / "out", base)).record.training["converted_from"]
    assert origin["name"] == "run\\udcff"


def test_a_base_that_is_none_is_refused(tmp_path: Path) -> None:
    source = saved(tmp_path / TEXT, text_checkpoint())
    for base, message in (("sd-15", "Did you mean 'sd15'"), (str(tmp_path), "not a folder of a known pipeline")):
        with pytest.raises(ConfigError, match=message):
            converted(source, tmp_path / "out", base)


def test_the_command_says_what_was_used_and_what_not(command: Command, tmp_path: Path, base: str) -> None:
    for name in (TEXT, TEXT.replace("_EMA", "")):
        saved(tmp_path / "checkpoint" / name, text_checkpoint())
    saved(tmp_path / "checkpoint" / TOKENS, token_checkpoint())
    arguments = ["convert", str(tmp_path / "checkpoint"), "--base", base, "--out", str(tmp_path / "out")]
    assert "give --attribute, such as gender" in command(*arguments)[2]
    status, printed, _ = command(*arguments, "--attribute", "gender", "--name", "mine")
    assert status == 0 and "mine: text_encoder and tokens" in printed
    assert f"{TEXT} (authors, moving average of the training)" in printed
    assert "text_encoder_lora.pth: left out" in printed and "position_ids: not used" in printed
