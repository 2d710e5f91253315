"""Soft tokens stand before prompts and not before negative prompts, and leave without a trace."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from fair_adaptors.training.engine.sampling import encode_prompts

from fair_adaptors.adaptor.tokens import set_prefix
from fair_adaptors.convert import export
from fair_adaptors.errors import FairAdaptorError, WrongBaseError
from fair_adaptors.load import load_fair_adaptor
from tests.tiny import FAMILIES, tiny_pipeline, write_tiny_adaptor
from tests.tiny import write_tiny_tokens as write

PROMPTS = ["a nurse", "a guard on a very long night watch in the harbor"]  # the second one is cut at 16 tokens


@pytest.fixture
def pipe() -> Any:
    return tiny_pipeline()


def encoded(pipe: Any, prompt: Any, **settings: Any) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return pipe.encode_prompt(prompt, "cpu", 1, True, **settings)


@pytest.mark.parametrize("prompt", [*PROMPTS, PROMPTS])
def test_the_prompt_has_them_and_the_negative_prompt_does_not(tmp_path: Path, pipe: Any, prompt: Any) -> None:
    negative = "ugly" if isinstance(prompt, str) else ["ugly"] * len(prompt)
    before = encoded(pipe, prompt, negative_prompt=negative)
    with load_fair_adaptor(pipe, write(tmp_path, pipe)) as handle:
        after = encoded(pipe, prompt, negative_prompt=negative)
        assert torch.equal(after[1], before[1]) and not torch.allclose(after[0], before[0])
        assert after[0].shape == before[0].shape
        handle.set_weight(0.0)
        assert torch.equal(encoded(pipe, prompt, negative_prompt=negative)[0], before[0])
        handle.set_weight(0.5)
        half = encoded(pipe, prompt, negative_prompt=negative)[0]
        assert torch.allclose(half, (before[0] + after[0]) / 2, atol=1e-5)
    assert torch.equal(encoded(pipe, prompt, negative_prompt=negative)[0], before[0])
    assert "encode_prompt" not in vars(pipe)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_training_and_generation_put_them_in_alike(tmp_path: Path, pipe: Any, prompt: str) -> None:
    from safetensors.torch import load_file

    folder = write(tmp_path, pipe)
    tokens = load_file(folder / "fair_tokens.safetensors")["text_encoder"]
    with torch.no_grad():
        trained = encode_prompts(pipe, [prompt], guidance_scale=2.0, tokens=tokens)[0]
    with load_fair_adaptor(pipe, folder):
        positive, negative = encoded(pipe, prompt)
    assert torch.equal(trained, torch.cat([negative, positive]))


def test_several_add_up_in_any_order(tmp_path: Path, pipe: Any) -> None:
    one, other = (write(tmp_path / str(seed), pipe, seed=seed) for seed in (1, 2))
    plain = encoded(pipe, "a nurse")[0]
    results = []
    for order in ((one, other), (other, one)):
        handles = [load_fair_adaptor(pipe, folder) for folder in order]
        results.append(encoded(pipe, "a nurse")[0])
        for handle in handles:
            handle.unload()
    assert torch.equal(*results) and not torch.allclose(results[0], plain)
    assert torch.equal(encoded(pipe, "a nurse")[0], plain)


def test_a_compiled_text_encoder_gets_them_too(tmp_path: Path, pipe: Any) -> None:
    folder = write(tmp_path, pipe)
    with load_fair_adaptor(pipe, folder):
        expected = encoded(pipe, "a nurse")[0]
    pipe.text_encoder.compile(backend="eager")
    encoded(pipe, "a nurse")
    with load_fair_adaptor(pipe, folder):
        assert torch.allclose(encoded(pipe, "a nurse")[0], expected, atol=1e-5)


def test_another_thread_that_shares_the_encoder_is_not_touched(tmp_path: Path, pipe: Any) -> None:
    from threading import Thread

    from fair_adaptors.adaptor.tokens import inserted

    ids = pipe.tokenizer("a nurse", padding="max_length", max_length=16, return_tensors="pt").input_ids
    found: list[torch.Tensor] = []

    def work() -> None:
        with torch.no_grad():
            found.append(pipe.text_encoder(ids)[0])

    work()
    with inserted(pipe.text_encoder, torch.randn(2, 32)):
        thread = Thread(target=work)
        thread.start()
        thread.join()
        work()
    assert torch.equal(found[0], found[1]) and not torch.allclose(found[0], found[2])


@pytest.mark.parametrize(("count", "width"), [(2, 16), (15, 32)])
def test_tokens_that_do_not_fit_are_refused(tmp_path: Path, pipe: Any, count: int, width: int) -> None:
    with pytest.raises(WrongBaseError, match="tokens of 32"):
        load_fair_adaptor(pipe, write(tmp_path, pipe, count=count, width=width))
    assert "encode_prompt" not in vars(pipe)
    load_fair_adaptor(pipe, write(tmp_path / "most", pipe, count=14)).unload()


def test_two_text_encoders_are_refused(tmp_path: Path, pipe: Any) -> None:
    other = FAMILIES["SDXL"]()
    for base, message in ((pipe, "it is Stable Diffusion XL"), (other, "takes no soft tokens")):
        with pytest.raises(WrongBaseError, match=message):
            load_fair_adaptor(other, write(tmp_path, base))


def test_tokens_cannot_be_fused_and_do_not_keep_the_pipeline(tmp_path: Path, pipe: Any) -> None:
    handle = load_fair_adaptor(pipe, write(tmp_path, pipe))
    with pytest.raises(FairAdaptorError, match="not part of a weight"):
        handle.fuse()
    other = tiny_pipeline()
    load_fair_adaptor(other, tmp_path)
    gone = weakref.ref(other)
    del other
    gc.collect()
    assert gone() is None


def test_unloaded_they_can_be_loaded_again_and_the_old_handle_stays_out(tmp_path: Path, pipe: Any) -> None:
    handle = load_fair_adaptor(pipe, write(tmp_path, pipe))
    assert load_fair_adaptor(pipe, tmp_path) is handle
    handle.unload()
    again = load_fair_adaptor(pipe, tmp_path)
    assert again.enabled and not handle.loaded and "encode_prompt" in vars(pipe)


def test_pipelines_made_in_turn_each_get_their_tokens(tmp_path: Path, pipe: Any) -> None:
    """A new pipeline may stand where a freed one stood in memory, whose handle somebody still holds."""
    folder = write(tmp_path, pipe)
    handles, prompting, gone = [], [], []
    for _ in range(20):
        sibling = type(pipe)(**pipe.components, requires_safety_checker=False)
        handles.append(load_fair_adaptor(sibling, folder))
        prompting.append("encode_prompt" in vars(sibling))
        gone.append(weakref.ref(sibling))
        del sibling
    assert all(prompting) and len(set(handles)) == 20
    assert not any(reference() for reference in gone)  # a handle keeps no pipeline


def test_no_end_of_a_prompt_is_lost_in_silence(tmp_path: Path, pipe: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Of 16 places two are taken by the ends and three by soft tokens: eleven letters fit, and no twelfth."""

    def lost() -> list[str]:
        found = [record.getMessage() for record in caplog.records if record.name == "fair_adaptors.adaptor.tokens"]
        caplog.clear()
        return [message.rpartition("not read: ")[2] for message in found]

    fits, longer, beyond = (" ".join("abcdefghijklmnopqrst"[:count]) for count in (11, 12, 17))
    with load_fair_adaptor(pipe, write(tmp_path, pipe, count=3)):
        encoded(pipe, fits, negative_prompt=beyond)
        assert lost() == []
        encoded(pipe, [fits, longer, beyond, longer], negative_prompt=[beyond] * 4)
        assert lost() == ["'l'", "'l m n o p q'"]
        encoded(pipe, longer)
        encoded(pipe, beyond)
        assert lost() == []  # each prompt is told of once
    encoded(pipe, longer)
    assert lost() == []


def test_what_is_cut_is_what_was_told(tmp_path: Path, pipe: Any) -> None:
    """The letter that has no room changes nothing, the one before it does."""
    letters = "a b c d e f g h i j k"
    with load_fair_adaptor(pipe, write(tmp_path, pipe, count=3)):
        whole = encoded(pipe, letters)[0]
        assert torch.equal(encoded(pipe, f"{letters} z")[0], whole)
        assert not torch.equal(encoded(pipe, f"{letters[:-1]}z")[0], whole)


@pytest.mark.parametrize("length", range(9, 18))
def test_prompts_near_the_limit_keep_their_embedding_in_lists_and_alone(
    tmp_path: Path, pipe: Any, length: int
) -> None:
    prompt = " ".join("abcdefghijklmnopqrst"[:length])
    with load_fair_adaptor(pipe, write(tmp_path, pipe, count=3)):
        alone = encoded(pipe, prompt)[0]
        listed = encoded(pipe, ["x", prompt])[0]
        assert alone.shape == (1, 16, 32) and torch.allclose(listed[1:], alone, atol=1e-6)


def told(caplog: pytest.LogCaptureFixture) -> int:
    """How often it was said that a prompt has no soft tokens, since it was last asked."""
    messages = [record.getMessage() for record in caplog.records if record.name == "fair_adaptors.adaptor.tokens"]
    caplog.clear()
    assert all("textual-inversion" in message for message in messages)
    return len(messages)


def draw(pipe: Any, **prompt: Any) -> torch.Tensor:
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return pipe(**prompt, latents=noise, num_inference_steps=2, output_type="latent").images


def read_directly(pipe: Any) -> None:
    """As compel does."""
    pipe.text_encoder(pipe.tokenizer("a nurse", return_tensors="pt").input_ids)


def drawn_from_embeddings(pipe: Any) -> None:
    draw(pipe, prompt_embeds=torch.randn(1, 16, 32), negative_prompt_embeds=torch.randn(1, 16, 32))


def drawn_by_another_pipeline(pipe: Any) -> None:
    from diffusers import StableDiffusionImg2ImgPipeline

    other = StableDiffusionImg2ImgPipeline.from_pipe(pipe)
    encoded(other, "a nurse")


@pytest.mark.parametrize("use", [read_directly, drawn_from_embeddings, drawn_by_another_pipeline])
def test_a_prompt_that_does_not_have_them_is_told_of_once(
    tmp_path: Path, pipe: Any, use: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with load_fair_adaptor(pipe, write(tmp_path, pipe)):
        with_them = draw(pipe, prompt="a nurse", negative_prompt="ugly")
        positive, negative = encoded(pipe, "a nurse", negative_prompt="ugly")
        again = draw(pipe, prompt_embeds=positive, negative_prompt_embeds=negative)
        assert torch.allclose(again, with_them, atol=1e-4) and told(caplog) == 0
        use(pipe)
        assert told(caplog) == 1
        use(pipe)
        assert told(caplog) == 0
    hooks = list(pipe.text_encoder._forward_pre_hooks.values())
    use(pipe)
    assert told(caplog) == 0 and not hooks


def test_a_copy_of_the_pipeline_has_none_and_says_so(
    tmp_path: Path, pipe: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from copy import deepcopy

    plain = encoded(pipe, "a nurse")[0]
    handle = load_fair_adaptor(pipe, write(tmp_path, pipe))
    expected, other = encoded(pipe, "a nurse")[0], deepcopy(pipe)
    handle.unload()
    other.text_encoder.to(torch.float64)  # it is the copy's own that is asked
    encoded(other, "a guard")
    assert torch.allclose(encoded(other, "a nurse")[0].float(), plain, atol=1e-5) and told(caplog) == 1
    with load_fair_adaptor(other, tmp_path):
        assert torch.allclose(encoded(other, "a nurse")[0].float(), expected, atol=1e-5)
    assert torch.allclose(encoded(other, "a nurse")[0].float(), plain, atol=1e-5) and told(caplog) == 0


def test_a_text_encoder_compiled_as_one_graph_can_be_asked_directly(tmp_path: Path, pipe: Any) -> None:
    """What tells of prompts without soft tokens is no part of the graph: it would break it."""
    torch.compiler.reset()  # what another test compiled decides nothing here
    pipe.text_encoder.compile(backend="eager", fullgraph=True)
    with load_fair_adaptor(pipe, write(tmp_path, pipe)), torch.no_grad():
        read_directly(pipe)


def test_taking_out_what_was_never_in_leaves_the_pipelines_own_way_to_encode(pipe: Any) -> None:
    pipe.encode_prompt = own = lambda *prompt: None
    set_prefix(pipe, "none", None)
    assert vars(pipe)["encode_prompt"] is own


@pytest.mark.parametrize("out", ["fair.safetensors", "folder"])
def test_as_a_word_for_diffusers_they_make_the_same_image(tmp_path: Path, pipe: Any, out: str) -> None:
    folder = write(tmp_path / "adaptor", pipe)
    plain = draw(pipe, prompt="a nurse")
    with load_fair_adaptor(pipe, folder):
        expected = draw(pipe, prompt="a nurse", negative_prompt="ugly")
    path = export(folder, tmp_path / out, format="textual-inversion")
    pipe.load_textual_inversion(path)
    word = f"<{path.stem}>"
    assert path.stem == ("fair" if out == "fair.safetensors" else "tokens-0")
    assert torch.allclose(draw(pipe, prompt=f"{word} a nurse", negative_prompt="ugly"), expected, atol=1e-5)
    assert not torch.allclose(plain, expected, atol=1e-2)


def test_what_a_word_has_no_place_for_is_refused(tmp_path: Path, pipe: Any) -> None:
    folder = write_tiny_adaptor(tmp_path / "adaptor", pipe)
    with pytest.raises(FairAdaptorError, match="has LoRAs, which the format textual-inversion cannot hold; kohya"):
        export(folder, tmp_path / "out", format="textual-inversion")
