"""Adaptors that are made without training: directions, edits and words, on small models of the real classes."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from fair_adaptors import load_fair_adaptor, make
from fair_adaptors.adaptor.folder import read_adaptor
from fair_adaptors.adaptor.record import CARD_FILE, DIRECTIONS_FILE, WEIGHTS_FILE, read_record
from fair_adaptors.errors import ConfigError, InvalidAdaptorError, WrongBaseError
from fair_adaptors.steering import calls
from fair_adaptors.steering.affine import fit
from fair_adaptors.steering.directions import Axis
from fair_adaptors.steering.fitting import map_of
from fair_adaptors.steering.states import encode
from tests.commands import Command
from tests.making import made
from tests.tiny import FAMILIES, same, state, tiny_pipeline, tiny_xl_pipeline, write_weights
from tests.tiny_flow import FLOW_FAMILIES, size, tiny_sd3

METHODS = ("directions", "edit", "words")
EVERY = {**FAMILIES, **FLOW_FAMILIES, "sd3, no T5": lambda: tiny_sd3(t5=False)}


def drawn(pipe: Any, prompt: str = "a nurse", count: int = 8) -> torch.Tensor:
    generators = [torch.Generator().manual_seed(seed) for seed in range(count)]
    small = {**size(pipe), "max_sequence_length": 24} if hasattr(pipe, "transformer") else {}
    settings = {"num_inference_steps": 2, "output_type": "pt", **small}
    return pipe(prompt=[prompt] * count, generator=generators, **settings).images


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("method", METHODS)
def test_what_is_made_loads_changes_images_leaves_prompts_alone_and_unloads_exactly(
    tmp_path: Path, prompts: Path, family: str, method: str
) -> None:
    pipe = EVERY[family]()
    kind, before, weights = type(pipe), drawn(pipe), state(pipe)
    named = drawn(pipe, "a male nurse", 2)
    handle = load_fair_adaptor(pipe, made(tmp_path, pipe, prompts, method))
    assert not torch.equal(drawn(pipe), before)
    assert method == "edit" or torch.equal(drawn(pipe, "a male nurse", 2), named)
    handle.set_weight(0)
    assert torch.equal(drawn(pipe), before)
    handle.unload()
    assert torch.equal(drawn(pipe), before) and same(state(pipe), weights)
    assert type(pipe) is kind and "encode_prompt" not in vars(pipe)
    card = (tmp_path / method / CARD_FILE).read_text()
    assert "fair-adaptors make" in card and "distributional alignment with" not in card.lower().split("## how to c")[0]
    assert read_record(tmp_path / method).training["method"] == method


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("method", ["words", "directions"])
def test_each_distinct_wording_is_encoded_once_and_the_pictures_are_those_of_before(
    tmp_path: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch, family: str, method: str
) -> None:
    pipe = EVERY[family]().to(torch.float64)  # other batches round otherwise
    encoders = [one for name, one in pipe.components.items() if name.startswith("text_encoder") and one is not None]
    rows: list[int] = []
    with load_fair_adaptor(pipe, made(tmp_path, pipe, prompts, method)) as handle:
        with monkeypatch.context() as without:
            without.setattr(calls, "once", lambda plain: plain)
            before = drawn(pipe)
        for encoder in encoders:
            encoder.register_forward_pre_hook(
                lambda module, given, named: rows.append(len(given[0] if given else named["input_ids"])),
                with_kwargs=True,
            )
        images, wordings = drawn(pipe), 2 if method == "words" else 1
        assert {one["gender"] for one in handle.classes} == {"female", "male"} and max(rows) == wordings
    assert torch.allclose(images, before, atol=1e-6, rtol=0)


def test_directions_move_each_image_to_the_class_that_is_drawn_for_it(tmp_path: Path, prompts: Path) -> None:
    pipe, seen = tiny_xl_pipeline(), []
    plain = type(pipe).encode_prompt(pipe, "a nurse", negative_prompt="a cook")  # once, as the call does
    folder = made(tmp_path, pipe, prompts, "directions", "gender", "age=0.75,0.25")
    with load_fair_adaptor(pipe, folder) as handle:
        pipe.unet.register_forward_pre_hook(lambda module, given, named: seen.append(named), with_kwargs=True)
        generators = [torch.Generator().manual_seed(seed) for seed in range(8)]
        settings = {"num_inference_steps": 1, "output_type": "latent", "negative_prompt": ["a cook"] * 8}
        pipe(["a nurse"] * 8, generator=generators, **settings)
        classes = [tuple(one.values()) for one in handle.classes]
    states, pooled = seen[0]["encoder_hidden_states"], seen[0]["added_cond_kwargs"]["text_embeds"]
    assert torch.equal(states[:8], plain[1].expand(8, -1, -1))  # the negative ones
    assert torch.equal(pooled[:8], plain[3].expand(8, -1))
    states, pooled = states[8:], pooled[8:]
    begin = 6  # "a nurse" has as many tokens before its last one
    assert torch.equal(states[:, : begin + 1], plain[0][:, : begin + 1].expand(8, -1, -1))
    assert len(set(classes)) > 2
    for one in range(8):
        for other in range(one):
            alike = classes[one] == classes[other]
            assert torch.allclose(states[one], states[other]) == alike
            assert torch.allclose(pooled[one], pooled[other]) == alike


def test_prompts_that_name_a_class_and_copies_and_other_calls_are_left_alone(tmp_path: Path, prompts: Path) -> None:
    pipe = tiny_pipeline()
    before, lonely = drawn(pipe, "a male nurse", 2), pipe.encode_prompt("a nurse", "cpu", 1, False)[0]
    with load_fair_adaptor(pipe, made(tmp_path, pipe, prompts)) as handle:
        assert torch.equal(drawn(pipe, "a male nurse", 2), before) and handle.classes == ({"gender": None},) * 2
        assert torch.equal(pipe.encode_prompt("a nurse", "cpu", 1, False)[0], lonely)
        with pytest.raises(ValueError, match="callback"):
            pipe("a nurse", num_inference_steps=1, callback_on_step_end_tensor_inputs=["callback"])
        assert "encode_prompt" not in vars(pipe)
        assert "moved to female" in handle.explain("a nurse")


def test_strength_is_continuous(tmp_path: Path, prompts: Path) -> None:
    pipe = tiny_pipeline()
    files = read_adaptor(made(tmp_path, pipe, prompts))
    handle = load_fair_adaptor(pipe, tmp_path / "directions")
    steering, states = handle._steering, encode(pipe, ["a nurse"])  # type: ignore[attr-defined]
    plain = (torch.stack([*states.embeds]), None)
    moves = [steering.moved(pipe, plain, states, [{"gender": 0}], much)[0] - plain[0] for much in (0.5, 1.0, 2.0)]
    assert torch.allclose(2 * moves[0], moves[1], atol=1e-5) and torch.allclose(moves[2], 2 * moves[1], atol=1e-5)
    assert moves[1].abs().max() > 0.01 and files.record.default_weight > 0
    handle.set_weight(1.5)
    assert handle.weight == 1.5


def test_a_prompt_is_moved_less_the_more_it_says_of_the_class_already() -> None:
    axis = Axis({}, torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([1.0, 0.0, torch.inf]))
    ends = torch.tensor([[-2.0, 5.0], [0.0, 5.0], [0.375, 5.0], [0.75, 5.0], [2.0, 5.0]])
    assert axis.needed(ends, 0).tolist() == [1, 1, 0.5, 0, 0]
    assert axis.needed(ends, 1).tolist() == [0, 1, 1, 1, 1]
    assert not axis.names(ends[4]) and Axis({}, axis.levels, torch.tensor([1.0, 0.0, 1.5])).names(ends[4])


def test_the_word_for_a_class_turns_no_occupation_into_another_and_reaches_as_far() -> None:
    occupations, classes = torch.randn(20, 2), torch.tensor([1.0, -1.0])
    states = torch.cat([occupations, torch.zeros(20, 6)], 1)
    moved = torch.zeros(2, 20, 8)
    moved[:, :, 2], moved[:, :, 0] = classes[:, None], 0.8 * classes[:, None]  # "female" says a bit of "nurse"
    found = map_of(states, moved, range(20), rank=4)
    for kind in range(2):
        added = found(states, kind)
        assert added[:, :2].abs().max() < 1e-4 and added.abs().max() > 1
        assert torch.allclose(added @ moved[kind, 0], moved[kind, 0].square().sum(), atol=1e-3)


def test_an_affine_map_of_low_rank_is_found_again() -> None:
    down, up, states = torch.randn(8, 2), torch.randn(3, 2, 8), torch.randn(200, 8)
    wanted = states @ down @ up + torch.randn(3, 1, 8)
    found = fit(states, wanted, rank=2, ridge=1e-6)
    assert found.down.shape == (8, 2)
    for kind in range(3):
        assert torch.allclose(found(states, kind), wanted[kind], atol=1e-2)
    worse = fit(states, wanted, rank=1, ridge=1e-6)
    assert (worse(states, 0) - wanted[0]).norm() > 0.1


@pytest.mark.parametrize("family", ["qwen-image", "sana"])
def test_what_is_read_of_a_prompt_is_neither_padding_nor_the_text_around_it(family: str) -> None:
    pipe = FLOW_FAMILIES[family]()
    alone, beside = encode(pipe, ["a nurse"]), encode(pipe, ["a nurse", "a very old nurse"])
    assert torch.allclose(alone.embeds[0], beside.embeds[0], atol=1e-6)
    (span,) = alone.spans[0]
    read = pipe.tokenizer.convert_ids_to_tokens(list(span.tokens))
    assert span.stop == len(read) == len(alone.embeds[0])
    place = read.index("u")  # what stands before a letter has not read it
    changed = (alone.embeds[0] != encode(pipe, ["a norse"]).embeds[0]).any(1)
    assert changed.tolist() == [False] * place + [True] * (len(read) - place)
    assert read[: span.end] == [*{"qwen-image": "aĠnurse", "sana": ["<bos>", "▁", *"a▁nurs"]}[family]]


def test_only_text_encoders_are_loaded(tmp_path: Path, base: str, prompts: Path) -> None:
    folder = shutil.copytree(base, tmp_path / "base")
    for part in ("unet", "vae"):
        shutil.rmtree(folder / part)
    found = make(folder, ["gender"], out=tmp_path / "made", prompts=prompts)
    assert read_record(found).base_signature.keys() == {"text_encoder"}
    load_fair_adaptor(tiny_pipeline(), found).unload()
    with pytest.raises(ConfigError, match="cannot be loaded"):
        make(folder, ["gender"], out=tmp_path / "edit", method="edit", prompts=prompts)


def test_what_cannot_be_made_is_refused_before_the_work(tmp_path: Path, prompts: Path) -> None:
    pipe, out = tiny_pipeline(), tmp_path / "made"
    out.mkdir()
    (out / "file").touch()
    blind = tiny_sd3(t5=False)
    blind.text_encoder_2 = None
    refused: list[tuple[dict[str, Any], str]] = [
        ({}, "exists already"),
        ({"out": tmp_path / "new", "method": "direction"}, "Did you mean 'directions'"),
        ({"out": tmp_path / "new", "attributes": ["gendre"]}, "Did you mean 'gender'"),
        ({"out": tmp_path / "new", "attributes": []}, "name at least one attribute"),
        ({"out": tmp_path / "new", "attributes": ["gender=0.5,0.6"]}, "add up to 1"),
        ({"out": tmp_path / "new", "prompts": ["a cook", "a nurse"]}, "2 prompts that name no gender"),
        ({"out": tmp_path / "new", "base": blind}, "no text_encoder_2;"),
        ({"out": tmp_path / "new", "name": "a\nb"}, "printable"),
    ]
    read: list[int] = []
    for changed, message in refused:
        given = {"base": pipe, "attributes": "gender", "out": out, "prompts": prompts} | changed
        with pytest.raises(ConfigError, match=message):
            make(**given, on_texts=lambda done, total: read.append(done))  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists() and not read


def test_damaged_directions_and_those_of_another_base_are_refused(tmp_path: Path, prompts: Path) -> None:
    from safetensors.torch import save

    pipe = tiny_pipeline()
    folder = made(tmp_path, pipe, prompts)
    with pytest.raises(WrongBaseError, match="Stable Diffusion XL"):
        load_fair_adaptor(tiny_xl_pipeline(), folder)
    with pytest.raises(WrongBaseError, match=r"give 32 numbers \(end\); those of this pipeline give 48"):
        load_fair_adaptor(tiny_pipeline(width=48), folder)
    whole = read_adaptor(folder).directions
    shorter = ("levels", "gate", "end.offset", "end.down")
    narrow = {f"gender.end.{one}": whole[f"gender.end.{one}"][..., :-1] for one in ("mean", "offset", "up")}
    damaged = [
        ({key: one for key, one in whole.items() if key != "gender.levels"}, "lacks a tensor"),
        (whole | {"gender.end.up": whole["gender.end.up"][:1]}, "do not fit"),
        *((whole | {f"gender.{one}": whole[f"gender.{one}"][:-1]}, "do not fit") for one in shorter),
        ({key: one for key, one in whole.items() if ".end." not in key}, "do not fit"),
        (whole | narrow | {"gender.end.down": whole["gender.end.down"][:-1]}, "do not fit"),
        (whole | {"gender.levels": whole["gender.levels"] * torch.nan}, "finite"),
        (whole | {"gender.levels": whole["gender.levels"].half()}, "float32"),
        (whole | {"race.levels": whole["gender.levels"].clone()}, "no attribute: race.levels"),
        ({}, "lacks a tensor"),
    ]
    for tensors, message in damaged:
        write_weights(folder, save({key: one.contiguous() for key, one in tensors.items()}), DIRECTIONS_FILE)
        with pytest.raises(InvalidAdaptorError, match=message):
            load_fair_adaptor(pipe, folder)
    assert type(pipe) is type(tiny_pipeline())
    xl = tiny_xl_pipeline()
    larger = made(tmp_path / "xl", xl, prompts)
    unpooled = {key: one for key, one in read_adaptor(larger).directions.items() if ".pooled." not in key}
    write_weights(larger, save({key: one.contiguous() for key, one in unpooled.items()}), DIRECTIONS_FILE)
    with pytest.raises(WrongBaseError, match=r"\(pooled\)"):
        load_fair_adaptor(xl, larger)


def test_the_command_makes_one_and_says_how_to_go_on(
    tmp_path: Path, base: str, prompts: Path, command: Command
) -> None:
    words = ["make", base, "--attribute", "gender", "--attribute", "age", "--prompts", str(prompts)]
    status, said, _ = command(*words, "--method", "edit", "--out", str(tmp_path / "mine"))
    assert status == 0 and f"--adaptor {tmp_path / 'mine'}" in said
    assert (tmp_path / "mine" / WEIGHTS_FILE).is_file()
    status, said, told = command(*words, "--out", str(tmp_path / "mine"))
    assert status == 1 and "exists already" in told and len(told.splitlines()) == 1
