"""The authors' checkpoints, and LoRAs of others, become adaptors of the same change; what is wrong becomes nothing."""

import io
import json
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from fair_adaptors import InvalidAdaptorError, load_fair_adaptor, untrusted
from fair_adaptors.bases import load_base
from fair_adaptors.cli import main
from fair_adaptors.convert import convert, parse_attributes
from fair_adaptors.errors import ConfigError
from fair_adaptors.formats import TOKENS_FILE, WEIGHTS_FILE, read_adaptor, shape_signature
from tests.tiny import tiny_pipeline

State = dict[str, Tensor]
TEXT, UNET, TOKENS = "text_encoder_lora_EMA.pth", "unet_lora_EMA.pth", "prefix_embedding_EMA.pth"


def text_checkpoint(*, layers: int = 2, width: int = 32, inner: int = 64, rank: int = 3, seed: int = 0) -> State:
    """The authors' text encoder file, by what is known of it (paper.md §7)."""
    make = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(layers):
        for name in (
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.out_proj",
            "mlp.fc1",
            "mlp.fc2",
        ):
            into, out = {"mlp.fc1": (width, inner), "mlp.fc2": (inner, width)}.get(name, (width, width))
            start = f"text_model.encoder.layers.{layer}.{name}.lora_linear_layer"
            tensors[f"{start}.down.weight"] = torch.randn(rank, into, generator=make) * 0.2
            tensors[f"{start}.up.weight"] = torch.randn(out, rank, generator=make) * 0.2
    return tensors


def unet_checkpoint(attentions: dict[str, int], *, width: int = 32, rank: int = 3, seed: int = 1) -> State:
    """The authors' U-Net file: ``attentions`` are the blocks and their widths."""
    make = torch.Generator().manual_seed(seed)
    tensors = {}
    for block, inside in attentions.items():
        for attention in ("attn1", "attn2"):
            for layer in ("to_q", "to_k", "to_v", "to_out"):
                into = width if attention == "attn2" and layer in ("to_k", "to_v") else inside
                start = f"{block}.transformer_blocks.0.{attention}.processor.{layer}_lora"
                tensors[f"{start}.down.weight"] = torch.randn(rank, into, generator=make) * 0.2
                tensors[f"{start}.up.weight"] = torch.randn(inside, rank, generator=make) * 0.2
    return tensors


TINY_UNET = {
    "down_blocks.0.attentions.0": 32,
    "mid_block.attentions.0": 64,
    "up_blocks.1.attentions.0": 32,
    "up_blocks.1.attentions.1": 32,
}
SD15_UNET = {
    **{f"down_blocks.{i}.attentions.{j}": 320 * 2**i for i in range(3) for j in range(2)},
    **{f"up_blocks.{i}.attentions.{j}": 1280 // 2 ** (i - 1) for i in range(1, 4) for j in range(3)},
    "mid_block.attentions.0": 1280,
}


def token_checkpoint(*, count: int = 5, width: int = 32, length: int = 16) -> State:
    rows = torch.randn(count + 1, width)
    rows[0] = 0
    return {
        "position_ids": torch.arange(length)[None],
        "position_embedding.weight": torch.randn(length, width),
        "token_embedding.weight": rows,
    }


def changes(tensors: State) -> State:
    """up @ down of each pair, by the authors' names without their ends."""
    return {
        key.removesuffix("down.weight"): tensors[key.replace("down.weight", "up.weight")] @ down
        for key, down in tensors.items()
        if key.endswith("down.weight")
    }


def our_name(key: str) -> str:
    if ".lora_linear_layer." in key:
        return "text_encoder." + key.removesuffix(".lora_linear_layer.")
    name = "unet." + key.replace(".processor.", ".").removesuffix("_lora.")
    return name + ".0" if name.endswith("to_out") else name


def converted_changes(folder: Path) -> State:
    tensors = read_adaptor(folder).tensors
    return {
        key.removesuffix(".lora_A.weight"): tensors[key.replace("lora_A", "lora_B")].float().flatten(1)
        @ tensors[key].float().flatten(1)
        for key in tensors
        if "lora_A" in key
    }


def largest_difference(ours: State, theirs: State) -> float:
    assert ours.keys() == theirs.keys()
    return max(float((ours[key] - theirs[key]).abs().max()) for key in ours)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny") / "base"
    tiny_pipeline().save_pretrained(folder)
    return str(folder)


def saved(path: Path, tensors: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, path)
    return path


def as_bytes(tensors: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(tensors, stream)
    return stream.getvalue()


def zipped(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


# What is converted


def test_real_stable_diffusion_checkpoints_keep_the_change_of_every_layer(tmp_path: Path) -> None:
    text = text_checkpoint(layers=12, width=768, inner=3072, rank=50)
    unet = unet_checkpoint(SD15_UNET, width=768, rank=50)
    assert (len(text), sum(t.numel() for t in text.values())) == (144, 8_294_400)  # as published
    assert (len(unet), sum(t.numel() for t in unet.values())) == (256, 9_964_800)
    run = "run/checkpoint-9000_exported"
    source = zipped(
        tmp_path / "both.zip",
        {f"{run}/{TEXT}": as_bytes(text), f"{run}/{UNET}": as_bytes(unet)},
        zipfile.ZIP_STORED,
    )
    out = convert(source, tmp_path / "gender", attributes=["gender"])
    config = read_adaptor(out).config
    assert (config["rank"], config["trained_parts"]) == (50, ["text_encoder", "unet"])
    expected = {our_name(key): change for key, change in {**changes(text), **changes(unet)}.items()}
    assert largest_difference(converted_changes(out), expected) <= 1e-6


def test_a_real_stable_diffusion_text_encoder_answers_as_with_the_changes_added_by_hand(tmp_path: Path) -> None:
    checkpoint = {
        key: value * 0.1 for key, value in text_checkpoint(layers=12, width=768, inner=3072, rank=50).items()
    }
    source = saved(tmp_path / TEXT, checkpoint)
    adaptor = convert(source, tmp_path / "gender", attributes=["gender"])
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    encoder = CLIPTextModel(CLIPTextConfig(**sizes)).eval()
    pipe = SimpleNamespace(text_encoder=encoder, unet=tiny_pipeline().unet, config={"_name_or_path": "stand-in"})
    ids = torch.tensor([[49406, 320, 1125, 539, 320, 2533, 49407]])
    with torch.no_grad(), load_fair_adaptor(pipe, adaptor):
        ours = encoder(ids).last_hidden_state
    for key, change in changes(checkpoint).items():
        name = key.removeprefix("text_model.").removesuffix(".lora_linear_layer.")
        encoder.get_submodule(name).weight.data += change
    with torch.no_grad():
        by_hand = encoder(ids).last_hidden_state
    assert torch.allclose(ours, by_hand, atol=1e-6)


@pytest.mark.parametrize("parts", [("text",), ("unet",), ("text", "unet")])
def test_the_pipeline_draws_what_it_draws_with_the_changes_added_by_hand(
    tmp_path: Path, base: str, parts: tuple[str, ...]
) -> None:
    files = {"text": (TEXT, text_checkpoint()), "unet": (UNET, unet_checkpoint(TINY_UNET))}
    for part in parts:
        saved(tmp_path / "checkpoint" / files[part][0], files[part][1])
    adaptor = convert(tmp_path / "checkpoint", tmp_path / "adaptor", base=base, attributes=["gender"])
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


def image(pipe: Any) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return pipe("a nurse", num_inference_steps=3, generator=generator, output_type="pt").images


def test_soft_tokens_are_all_rows_but_the_empty_one(tmp_path: Path, base: str) -> None:
    tensors = token_checkpoint()
    out = convert(saved(tmp_path / TOKENS, tensors), tmp_path / "tokens", base=base, attributes=["gender"])
    files = read_adaptor(out)
    assert torch.equal(files.tokens["text_encoder"], tensors["token_embedding.weight"][1:])
    assert files.config["trained_parts"] == ["tokens"] and not (out / WEIGHTS_FILE).exists()
    assert files.config["training"]["converted_from"]["not_used"].keys() == {
        "position_ids",
        "position_embedding.weight",
    }
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
    out = convert(zipped(tmp_path / "x.zip", names), tmp_path / "out", base=base, attributes=["gender"])
    assert (
        largest_difference(converted_changes(out), {our_name(key): change for key, change in changes(average).items()})
        == 0
    )
    origin = read_adaptor(out).config["training"]["converted_from"]
    assert origin["left_out"] == [run + "text_encoder_lora.pth"]
    assert (origin["name"], origin["files"][0]["name"], origin["files"][0]["averaged"]) == ("x.zip", run + TEXT, True)
    assert len(origin["sha256"]) == len(origin["files"][0]["sha256"]) == 64


def test_without_an_average_the_last_weights_are_used(tmp_path: Path, base: str) -> None:
    source = saved(tmp_path / "text_encoder_lora.pth", text_checkpoint())
    origin = read_adaptor(convert(source, tmp_path / "out", base=base, attributes=["gender"])).config["training"]
    assert origin["converted_from"]["files"][0]["averaged"] is False


def test_the_name_of_a_known_adaptor_says_what_it_makes_fair(tmp_path: Path, base: str) -> None:
    out = convert(saved(tmp_path / TEXT, text_checkpoint()), tmp_path / "gender-race-age", base=base)
    attributes = read_adaptor(out).config["attributes"]
    assert attributes["gender"] == {"classes": ["female", "male"], "target": [0.5, 0.5]}
    assert attributes["race"] == {"classes": ["WMELH", "Black", "Indian", "Asian"], "target": [0.25] * 4}
    assert attributes["age"] == {"classes": ["young", "old"], "target": [0.75, 0.25]}


def test_shares_and_classes_can_be_given() -> None:
    given = parse_attributes(["age=0.75,0.25", "hair=dark:0.7,fair:0.3"], "x", "sd15")
    assert given["age"]["target"] == [0.75, 0.25]
    assert given["hair"] == {"classes": ["dark", "fair"], "target": [0.7, 0.3]}
    assert parse_attributes(["tone"], "x", "sandbox")["tone"]["target"] == [0.25] * 4


def test_shapes_are_known_without_weights(base: str) -> None:
    assert shape_signature(load_base(base).pipe) == shape_signature(tiny_pipeline())
    parameters = {
        name: sum(p.numel() for p in load_base(name).pipe.unet.parameters()) for name in ("sd15", "sd21", "sdxl")
    }
    assert parameters == {"sd15": 859_520_964, "sd21": 865_910_724, "sdxl": 2_567_463_684}  # as published


# LoRAs of others, with an alpha


def test_the_alpha_of_kohya_is_folded_in_and_half_precision_is_kept(tmp_path: Path, base: str) -> None:
    name, conv = "lora_te_text_model_encoder_layers_1_mlp_fc1", "lora_unet_conv_in"
    down, up = torch.randn(4, 32).half(), torch.randn(64, 4).half()
    down_conv, up_conv = torch.randn(4, 4, 3, 3), torch.randn(32, 4, 1, 1)
    tensors = {
        f"{name}.lora_down.weight": down,
        f"{name}.lora_up.weight": up,
        f"{conv}.lora_down.weight": down_conv,
        f"{conv}.lora_up.weight": up_conv,
        f"{conv}.alpha": torch.tensor(1.0),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    out = convert(tmp_path / "x.safetensors", tmp_path / "out", base=base, attributes=["gender"])
    assert (
        read_adaptor(out).tensors["text_encoder.text_model.encoder.layers.1.mlp.fc1.lora_A.weight"].dtype == torch.half
    )
    expected = {
        "text_encoder.text_model.encoder.layers.1.mlp.fc1": up.float() @ down.float(),
        "unet.conv_in": up_conv.flatten(1) @ down_conv.flatten(1) / 4,
    }
    assert largest_difference(converted_changes(out), expected) <= 1e-6


CONFIG = {"r": 4, "lora_alpha": 10, "target_modules": ["to_q", "to_out.0"]}


def randomised(unet: Any) -> Any:
    for name, parameter in unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return unet


def peft_unet() -> Any:
    return randomised(get_peft_model(tiny_pipeline().unet, LoraConfig(**CONFIG)))


def differences(after: State) -> State:
    """What was added to each weight of the U-Net."""
    before = tiny_pipeline().unet.state_dict()
    return {
        f"unet.{name.removesuffix('.weight')}": after[name] - before[name]
        for name in before
        if not torch.equal(after[name], before[name])
    }


def test_what_peft_saves_keeps_its_change(tmp_path: Path, base: str) -> None:
    unet = peft_unet()
    unet.save_pretrained(tmp_path / "peft")
    expected = differences(unet.merge_and_unload().state_dict())
    for number, source in enumerate((tmp_path / "peft", tmp_path / "peft" / "adapter_model.safetensors")):
        out = convert(source, tmp_path / str(number), base=base, attributes=["gender"])
        assert largest_difference(converted_changes(out), expected) <= 1e-6


def test_what_diffusers_saves_keeps_its_change(tmp_path: Path, base: str) -> None:
    unet = tiny_pipeline().unet
    unet.add_adapter(LoraConfig(**CONFIG))
    StableDiffusionPipeline.save_lora_weights(
        tmp_path / "lora",
        unet_lora_layers=get_peft_model_state_dict(randomised(unet)),
        **_collate_lora_metadata({"unet": unet}),
    )
    unet.fuse_lora()
    merged = {name.replace(".base_layer", ""): value for name, value in unet.state_dict().items()}
    out = convert(tmp_path / "lora", tmp_path / "out", base=base, attributes=["gender"])
    assert largest_difference(converted_changes(out), differences(merged)) <= 1e-6


@pytest.mark.parametrize(
    "settings", [{"use_rslora": True}, {"alpha_pattern": {"to_q": 2}}, {"r": 5}, {"lora_alpha": -1}]
)
def test_settings_that_would_change_the_change_are_refused(
    tmp_path: Path, base: str, settings: dict[str, Any]
) -> None:
    peft_unet().save_pretrained(tmp_path / "peft")
    path = tmp_path / "peft" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    refused(tmp_path / "peft", tmp_path, "its settings", base)


def test_a_file_of_peft_without_its_settings_is_refused(tmp_path: Path, base: str) -> None:
    peft_unet().save_pretrained(tmp_path / "peft")
    (tmp_path / "peft" / "adapter_config.json").unlink()
    refused(tmp_path / "peft", tmp_path, "scale is not known", base)


# What is refused, with nothing written


def refused(source: Path, folder: Path, message: str, base: str) -> None:
    before = sorted(folder.rglob("*"))
    with pytest.raises(InvalidAdaptorError, match=message):
        convert(source, folder / "out", base=base, attributes=["gender"])
    assert sorted(folder.rglob("*")) == before


class Hostile:
    """A pickle that would make a file if it were run."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


FIRST = "text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.down.weight"

WRONG: dict[str, tuple[Callable[[State], Any], str]] = {
    "a layer is missing": (lambda t: {k: v for k, v in t.items() if "layers.1.mlp.fc2" not in k}, "1 of 12 layers"),
    "half a pair is missing": (lambda t: {k: v for k, v in t.items() if k != FIRST}, "of pairs one is missing"),
    "a key is unknown": (lambda t: {**t, "text_model.final.weight": t[FIRST]}, "unexpected keys: 'text_model.final"),
    "a layer is too much": (
        lambda t: {**t, **{k.replace("layers.0", "layers.9"): v for k, v in t.items()}},
        "unexpected keys",
    ),
    "a shape is wrong": (lambda t: {**t, FIRST: torch.zeros(3, 31)}, r"shapes \[3, 31\]"),
    "the ranks of a pair differ": (lambda t: {**t, FIRST: torch.zeros(2, 32)}, r"shapes \[2, 32\]"),
    "the rank is 0": (lambda t: {k: v[:0] if "down" in k else v[:, :0] for k, v in t.items()}, "are no LoRA"),
    "the ranks of layers differ": (
        lambda t: {**t, FIRST: torch.zeros(9, 32), FIRST.replace("down", "up"): torch.zeros(64, 9)},
        "ranks 3, 9",
    ),
    "a value is not a number": (lambda t: {**t, FIRST: torch.full((3, 32), float("nan"))}, "not finite"),
    "a value is infinite": (lambda t: {**t, FIRST: torch.full((3, 32), float("inf"))}, "not finite"),
    "a tensor is of integers": (lambda t: {**t, FIRST: torch.zeros(3, 32, dtype=torch.int64)}, "floating"),
    "a tensor is of complex numbers": (lambda t: {**t, FIRST: torch.zeros(3, 32, dtype=torch.cfloat)}, "complex64"),
    "a tensor is sparse": (lambda t: {**t, FIRST: t[FIRST].to_sparse()}, "no tensor of weights"),
    "a tensor is nowhere": (lambda t: {**t, FIRST: torch.zeros(3, 32, device="meta")}, "on meta"),
    "a tensor says to be huge": (lambda t: {**t, FIRST: torch.zeros(1, 1).expand(10**6, 10**6)}, "say to hold"),
    "a value is a text": (lambda t: {**t, FIRST: "text"}, "no tensor of weights: str"),
    "it is nested": (lambda t: {"state_dict": t}, "no tensor of weights: dict"),
    "a key is a number": (lambda t: {1: t[FIRST]}, "no dictionary of tensors"),
    "it is a list": (lambda t: [t], "no dictionary"),
    "it is empty": (lambda t: {}, "no dictionary"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_checkpoint_is_refused_when(tmp_path: Path, base: str, case: str) -> None:
    spoil, message = WRONG[case]
    refused(saved(tmp_path / TEXT, spoil(text_checkpoint())), tmp_path, message, base)


def test_a_checkpoint_of_another_base_is_refused(tmp_path: Path) -> None:
    refused(
        saved(tmp_path / TEXT, text_checkpoint()), tmp_path, r"are no LoRA on the weight|layers are missing", "sd15"
    )


@pytest.mark.parametrize("legacy", [False, True])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path, base: str, legacy: bool) -> None:
    mark = tmp_path / "mark"
    tensors = {**text_checkpoint(), "x": Hostile(mark)}
    torch.save(tensors, tmp_path / TEXT, _use_new_zipfile_serialization=not legacy)
    refused(tmp_path / TEXT, tmp_path, "neither safetensors" if legacy else "a pickle could run code", base)
    (tmp_path / TEXT).write_bytes(pickle.dumps(Hostile(mark)))
    refused(tmp_path / TEXT, tmp_path, "neither safetensors", base)
    assert not mark.exists()


def test_what_a_hostile_file_makes_torch_say_can_be_printed(tmp_path: Path, base: str) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(as_bytes(text_checkpoint()))) as old, zipfile.ZipFile(data, "w") as new:
        for member in old.namelist():
            new.writestr(member, b"\x80\x02c\x1b[2Jos\nsystem\n." if member.endswith("data.pkl") else old.read(member))
    (tmp_path / TEXT).write_bytes(data.getvalue())
    with pytest.raises(InvalidAdaptorError, match="could run code") as refusal:
        convert(tmp_path / TEXT, tmp_path / "out", base=base, attributes=["gender"])
    assert str(refusal.value).isprintable() and "os" in str(refusal.value)


def broken_files() -> dict[str, bytes]:
    good = as_bytes(text_checkpoint())
    flipped = bytearray(good)
    flipped[good.index(text_checkpoint()[FIRST].numpy().tobytes()) + 5] ^= 64
    inner = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good)) as old, zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            new.writestr(member, old.read(member))
    return {
        "empty": b"",
        "text": b"<html>404</html>",
        "truncated": good[: len(good) // 2],
        "flipped": bytes(flipped),
        "compressed": inner.getvalue(),
        "header": (2**63).to_bytes(8, "little") + b"{}",
        "no zip": b"PK\x03\x04" + bytes(100),
    }


@pytest.mark.parametrize("case", ["empty", "text", "truncated", "flipped", "compressed", "header", "no zip"])
@pytest.mark.parametrize("name", [TEXT, "x.safetensors"])
def test_a_broken_file_is_refused(tmp_path: Path, base: str, case: str, name: str) -> None:
    (tmp_path / name).write_bytes(broken_files()[case])
    refused(tmp_path / name, tmp_path, "neither safetensors|damaged|compressed records", base)


@pytest.mark.parametrize("name", ["../x.pth", "/tmp/x.pth", "a/../../x.pth", "..\\x.pth", "C:x.pth", "a\nb.pth"])
def test_a_zip_whose_names_lead_elsewhere_is_refused(tmp_path: Path, base: str, name: str) -> None:
    refused(zipped(tmp_path / "x.zip", {name: as_bytes(text_checkpoint())}), tmp_path, "leads elsewhere", base)


def test_a_zip_with_a_link_is_refused(tmp_path: Path, base: str) -> None:
    link = zipfile.ZipInfo(TEXT)
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    refused(tmp_path / "x.zip", tmp_path, "is a link", base)


def patched(path: Path, offset: int, value: bytes) -> Path:
    """Change the first entry of a zip's table of contents."""
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\x01\x02") + offset
    data[start : start + len(value)] = value
    path.write_bytes(data)
    return path


def test_an_encrypted_zip_is_refused(tmp_path: Path, base: str) -> None:
    source = patched(zipped(tmp_path / "x.zip", {TEXT: as_bytes(text_checkpoint())}), 8, b"\x01")
    refused(source, tmp_path, "encrypted", base)


def test_a_zip_that_declares_more_than_an_adaptor_is_refused_before_it_is_read(tmp_path: Path, base: str) -> None:
    source = patched(zipped(tmp_path / "x.zip", {TEXT: bytes(1_000_000)}), 24, struct.pack("<I", 2**31))
    refused(source, tmp_path, "unpacked it would have 2,147,483,648 bytes", base)


def test_a_zip_that_holds_more_than_it_declares_is_not_read_further(tmp_path: Path, base: str) -> None:
    source = patched(zipped(tmp_path / "x.zip", {TEXT: bytes(50_000_000)}), 24, struct.pack("<I", 1000))
    refused(source, tmp_path, "is damaged", base)


def test_a_zip_of_too_many_files_or_too_long_a_table_is_refused(tmp_path: Path, base: str) -> None:
    many = zipped(tmp_path / "many.zip", {f"{number}": b"" for number in range(untrusted._MOST_FILES + 1)})
    refused(many, tmp_path, "members", base)
    size = untrusted._MOST_TEXT_BYTES + 1
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, size, 0, 0)
    (tmp_path / "long.zip").write_bytes(b"PK" + bytes(size - 2) + end)
    refused(tmp_path / "long.zip", tmp_path, "table of contents is too long", base)


def test_a_way_of_compression_that_inflates_without_a_bound_is_refused(tmp_path: Path, base: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr(TEXT, as_bytes(text_checkpoint()))
    refused(tmp_path / "x.zip", tmp_path, "by a method that is not read", base)


def test_a_damaged_zip_is_refused(tmp_path: Path, base: str) -> None:
    source = patched(zipped(tmp_path / "x.zip", {TEXT: as_bytes(text_checkpoint())}), 16, b"\x00\x00\x00\x00")
    refused(source, tmp_path, "CRC", base)
    (tmp_path / "x.zip").write_bytes((tmp_path / "x.zip").read_bytes()[:-30])
    refused(tmp_path / "x.zip", tmp_path, "damaged zip", base)


def test_two_files_for_one_place_are_refused(tmp_path: Path, base: str) -> None:
    two = {f"run/checkpoint-{step}_exported/{TEXT}": as_bytes(text_checkpoint(seed=step)) for step in (1, 2)}
    refused(zipped(tmp_path / "x.zip", two), tmp_path, "in another file too", base)
    tokens = {f"{step}/{TOKENS}": as_bytes(token_checkpoint()) for step in (1, 2)}
    refused(zipped(tmp_path / "y.zip", tokens), tmp_path, "in another file too", base)


def test_a_file_of_weights_that_is_not_understood_is_not_passed_over(tmp_path: Path, base: str) -> None:
    files = {TEXT: as_bytes(text_checkpoint()), "optimizer.bin": as_bytes({"state": torch.zeros(3)})}
    refused(zipped(tmp_path / "x.zip", files), tmp_path, "optimizer.bin: unexpected keys", base)


WRONG_TOKENS: dict[str, tuple[Callable[[State], State], str]] = {
    "row 0 is not empty": (lambda t: {**t, "token_embedding.weight": torch.ones(6, 32)}, "row 0"),
    "there is no token": (lambda t: {**t, "token_embedding.weight": torch.zeros(1, 32)}, "do not fit"),
    "the width is another": (lambda t: {**t, "token_embedding.weight": torch.zeros(6, 31)}, "do not fit"),
    "a prompt has no room for them": (lambda t: {**t, "token_embedding.weight": torch.zeros(16, 32)}, "do not fit"),
    "positions are missing": (lambda t: {k: v for k, v in t.items() if k != "position_ids"}, "missing: 'position_ids"),
    "a key is unknown": (lambda t: {**t, "bias": torch.zeros(1)}, "missing: 'bias'"),
    "positions are of another length": (
        lambda t: {**t, "position_embedding.weight": torch.zeros(9, 32)},
        "do not fit",
    ),
    "positions are out of order": (lambda t: {**t, "position_ids": torch.zeros(1, 16, dtype=torch.int64)}, "0 to 15"),
    "a value is not a number": (lambda t: {k: v / 0 if v.is_floating_point() else v for k, v in t.items()}, "finite"),
}


@pytest.mark.parametrize("case", WRONG_TOKENS)
def test_tokens_are_refused_when(tmp_path: Path, base: str, case: str) -> None:
    spoil, message = WRONG_TOKENS[case]
    refused(saved(tmp_path / TOKENS, spoil(token_checkpoint())), tmp_path, message, base)


def test_a_source_that_is_not_there_empty_or_ours_is_refused(tmp_path: Path, base: str) -> None:
    refused(tmp_path / "nothing.zip", tmp_path, "no file or folder", base)
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", tmp_path, "no file of weights", base)
    ours = convert(saved(tmp_path / TEXT, text_checkpoint()), tmp_path / "ours", base=base, attributes=["gender"])
    refused(ours, tmp_path, "adaptor of this package already", base)


def test_what_is_there_is_not_overwritten(tmp_path: Path, base: str) -> None:
    source = saved(tmp_path / TEXT, text_checkpoint())
    (tmp_path / "out").mkdir()
    convert(source, tmp_path / "out", base=base, attributes=["gender"])
    with pytest.raises(ConfigError, match="exists already"):
        convert(source, tmp_path / "out", base=base, attributes=["gender"])
    with pytest.raises(ConfigError, match="exists already"):
        convert(source, source, base=base, attributes=["gender"])


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("gendr", "Did you mean 'gender'"),
        ("gender=1", "a share for each class"),
        ("gender=0.9,0.2", "sum to 1"),
        ("gender=nan,nan", "sum to 1"),
        ("gender=a,b", "numbers"),
        ("hair=dark:1", "a share for each class"),
        ("hair=dark:0.5,dark:0.5", "a share for each class"),
        ("=a:0.5,b:0.5", "a share for each class"),
    ],
)
def test_an_attribute_that_cannot_be_is_refused(attribute: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_attributes([attribute], "x", "sd15")


def test_a_base_that_is_none_is_refused(tmp_path: Path) -> None:
    source = saved(tmp_path / TEXT, text_checkpoint())
    for base, message in (("sd-15", "Did you mean 'sd15'"), (str(tmp_path), "no folder of a Stable Diffusion")):
        with pytest.raises(ConfigError, match=message):
            convert(source, tmp_path / "out", base=base, attributes=["gender"])


def test_the_command_says_what_was_used_and_what_not(
    tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (TEXT, TEXT.replace("_EMA", "")):
        saved(tmp_path / "checkpoint" / name, text_checkpoint())
    saved(tmp_path / "checkpoint" / TOKENS, token_checkpoint())
    arguments = ["convert", str(tmp_path / "checkpoint"), "--base", base, "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["fair-adaptors", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert "give --attribute gender" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["fair-adaptors", *arguments, "--attribute", "gender", "--name", "mine"])
    with pytest.raises(SystemExit) as end:
        main()
    printed = capsys.readouterr().out
    assert not end.value.code and "mine: text_encoder and tokens" in printed
    assert f"{TEXT} (authors, moving average of the training)" in printed
    assert "text_encoder_lora.pth: left out" in printed and "position_ids: not used" in printed
