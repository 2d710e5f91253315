"""An edit, which is made without training: a change of the layers through which prompts come in."""

from pathlib import Path

import pytest
import torch

from fair_adaptors import load_fair_adaptor
from fair_adaptors.adaptor.folder import read_adaptor
from fair_adaptors.convert import convert, export
from fair_adaptors.families.table import guided
from fair_adaptors.steering.states import encode
from tests.making import PEOPLE, made
from tests.tiny import tiny_pipeline
from tests.tiny_flow import FLOW_FAMILIES, SIDE


def test_an_edit_is_exact_of_low_rank_and_keeps_prompts_that_name_a_class(tmp_path: Path, prompts: Path) -> None:
    pipe = tiny_pipeline()
    plain = encode(pipe, [f"a {one}" for one in PEOPLE]).means()
    named = [encode(pipe, [f"a {word} {one}" for one in PEOPLE]).means() for word in ("female", "male")]
    files = read_adaptor(made(tmp_path, pipe, prompts, "edit"))
    assert files.record.rank <= len(PEOPLE) and files.record.trained_parts == ("unet",)
    assert {key.split(".lora_")[0].rpartition("attn2.")[2] for key in files.tensors} == {"to_k", "to_v"}
    layer = next(key.removesuffix(".lora_A.weight") for key in files.tensors if key.endswith("to_k.lora_A.weight"))
    change = (files.tensors[f"{layer}.lora_B.weight"] @ files.tensors[f"{layer}.lora_A.weight"]).T
    weight = pipe.unet.get_submodule(layer.removeprefix("unet.")).weight.T
    wanted = (sum(named) / 2 - plain) @ weight
    left = (plain @ change - wanted).norm() / wanted.norm()
    assert left < 0.5 and all((one @ change).norm() < (plain @ change).norm() for one in named)


@pytest.mark.parametrize(
    ("family", "layer", "behind"), [("qwen-image", "txt_in", 5), ("z-image", "cap_embedder.1", 0)]
)
def test_an_edit_is_of_what_comes_to_the_layer(
    tmp_path: Path, prompts: Path, family: str, layer: str, behind: int
) -> None:
    """The layer for text has a norm before it here: its inputs are looked at while the pipeline draws.

    Every letter is a row, with some rows ``behind`` the prompt: these are edited, or the last letter's.
    """
    pipe, seen = FLOW_FAMILIES[family](), []
    module = pipe.transformer.get_submodule(layer)
    module.register_forward_pre_hook(lambda _, given: seen.append(given[0].flatten(0, -2)))
    texts = [f"a{word} {one}" for word in ("", " female", " male") for one in PEOPLE]
    for text in texts:
        pipe(text, num_inference_steps=2, height=SIDE, width=SIDE, output_type="latent", **guided(pipe, 0.0, 1))
    ends = [rows[-behind or len(text) - 1 :][: behind or 1] for rows, text in zip(seen[::2], texts, strict=True)]
    plain, female, male = torch.stack([rows.mean(0) for rows in ends]).split(len(PEOPLE))
    tensors = read_adaptor(made(tmp_path, pipe, prompts, "edit")).tensors
    down, up = (tensors[f"transformer.{layer}.lora_{one}.weight"] for one in "AB")
    wanted = ((female + male) / 2 - plain) @ module.weight.T
    assert (plain @ down.T @ up.T - wanted).norm() < 0.6 * wanted.norm()


@pytest.mark.parametrize("family", ["flux", "sd3"])
def test_an_edit_is_of_what_is_pooled_too_and_others_read_it(tmp_path: Path, prompts: Path, family: str) -> None:
    pipe, layer = FLOW_FAMILIES[family](), "time_text_embed.text_embedder.linear_1"
    texts = [[f"a{word} {one}" for one in PEOPLE] for word in ("", " female", " male")]
    plain, female, male, empty = (encode(pipe, each).pooled for each in (*texts, [""]))
    assert plain is not None and female is not None and male is not None and empty is not None
    folder = made(tmp_path, pipe, prompts, "edit")
    tensors = read_adaptor(folder).tensors
    change = (tensors[f"transformer.{layer}.lora_B.weight"] @ tensors[f"transformer.{layer}.lora_A.weight"]).T
    wanted = ((female + male) / 2 - plain) @ pipe.transformer.get_submodule(layer).weight.T
    assert (plain @ change - wanted).norm() < 0.6 * wanted.norm()
    moved = (plain @ change).norm(dim=1).mean()
    assert all((one @ change).norm(dim=1).mean() < 0.6 * moved for one in (female, male, empty))
    settings = {
        "num_inference_steps": 2,
        "height": SIDE,
        "width": SIDE,
        "output_type": "pt",
        "max_sequence_length": 24,
    }
    with load_fair_adaptor(pipe, folder):
        ours = pipe("a nurse", generator=torch.Generator().manual_seed(0), **settings).images
    pipe.load_lora_weights(folder)
    theirs = pipe("a nurse", generator=torch.Generator().manual_seed(0), **settings).images
    pipe.unload_lora_weights()
    assert (ours - theirs).abs().max() < 1e-4
    pipe.save_pretrained(tmp_path / "base")
    there = export(folder, tmp_path / "kohya", format="kohya")
    back = read_adaptor(convert(there, tmp_path / "back", base=str(tmp_path / "base"), attributes=["gender"])).tensors
    assert back.keys() == tensors.keys() and all(torch.equal(one, back[key]) for key, one in tensors.items())
