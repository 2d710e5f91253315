"""Adaptors that need no training: the prompt of each image names a class that is drawn of its noise."""

import copy
import gc
import pickle
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoPipelineForImage2Image, StableDiffusionPipeline

from fair_adaptors import FairAdaptorError, WrongBaseError, evaluate, load_fair_adaptor
from fair_adaptors.load import in_force
from fair_adaptors.sandbox import load_sandbox_pipeline
from fair_adaptors.steering.calls import Call
from fair_adaptors.steering.encoding import once
from fair_adaptors.steering.gate import Gate
from fair_adaptors.steering.noise import noise_keys
from fair_adaptors.steering.words import read_words
from tests.tiny import same, state, tiny_pipeline, tiny_xl_pipeline, write_tiny_adaptor

KINDS = {"SD": tiny_pipeline, "SDXL": tiny_xl_pipeline}
STEPS = {"num_inference_steps": 2, "output_type": "pt"}


@pytest.fixture(scope="module", params=KINDS)
def pipe(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]()


@pytest.fixture
def small() -> Any:
    return tiny_pipeline()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(pipe: Any, prompt: Any = "a nurse", **more: Any) -> torch.Tensor:
    """Draw with seed 0 unless told otherwise."""
    return pipe(prompt, **{"generator": seeded()} | STEPS | more).images


def test_the_picture_is_that_of_the_prompt_with_the_word_and_afterwards_the_plain_one(pipe: Any) -> None:
    plain, kind = draw(pipe), type(pipe)
    with load_fair_adaptor(pipe, "words:gender") as handle:
        images = draw(pipe)
        (classes,) = handle.classes
        assert in_force(pipe) == ["words:gender=0.5,0.5"] and isinstance(pipe, kind)
        handle.disable()
        assert torch.equal(draw(pipe), plain) and in_force(pipe) == []
        handle.enable()
        assert torch.equal(draw(pipe), images)
    assert type(pipe) is kind
    assert torch.equal(draw(pipe), plain) and torch.equal(draw(pipe, f"a {classes['gender']} nurse"), images)


def test_a_class_belongs_to_the_noise_however_images_are_batched(pipe: Any) -> None:
    with load_fair_adaptor(pipe, "words:gender+tone") as handle:
        images = draw(pipe, num_images_per_prompt=6)
        classes = list(handle.classes)
        assert len({tuple(one.items()) for one in classes}) > 2
        generator, pieces, found = seeded(), [], []
        for prompts, each in (("a nurse", 1), (["a nurse"] * 3, 1), (["a nurse"], 2)):
            pieces.append(draw(pipe, prompts, generator=generator, num_images_per_prompt=each))
            found += handle.classes
        assert found == classes and torch.allclose(torch.cat(pieces), images, atol=1e-4)
        noise = torch.randn(6, 4, 8, 8, generator=seeded())
        draw(pipe, generator=None, latents=noise, num_images_per_prompt=6)
        assert list(handle.classes) == classes
        draw(pipe, ["a nurse"] * 3, generator=None, latents=noise[3:])
        assert list(handle.classes) == classes[3:]
        draw(pipe, ["a nurse"] * 2, generator=[seeded(7), seeded(0)])
        assert handle.classes[1] == classes[0]
        torch.manual_seed(0)
        draw(pipe, generator=None, num_images_per_prompt=6)
        assert list(handle.classes) == classes, "without a generator the noise is torch's own"


@pytest.mark.parametrize("negative", [None, ["bad", "dull"]])
def test_images_that_are_left_alone_are_the_same_bit_for_bit(pipe: Any, negative: Any) -> None:
    prompts = ["a nurse", "a hut"]
    call = {"negative_prompt": negative, "num_images_per_prompt": 2}
    plain, alone = draw(pipe, prompts, **call), draw(pipe, "a hut")
    with load_fair_adaptor(pipe, "words:gender=0,1") as handle:
        images = draw(pipe, prompts, **call)
        assert handle.classes == ({"gender": "male"},) * 2 + ({"gender": None},) * 2
        assert torch.equal(images[2:], plain[2:]) and not torch.equal(images[:2], plain[:2])
        assert torch.equal(draw(pipe, "a hut"), alone)


@pytest.mark.parametrize(
    ("tokens", "more", "encoded"),
    [
        (5, {}, [2]),
        (5, {"negative_prompt": ["x", "y", "y"]}, [3]),
        (5, {"negative_prompt_embeds": torch.zeros(3, 5, 4)}, [3]),
        (5, {"layers": [1, 2, 3]}, [3]),
        (2, {}, [2, 3]),  # FLUX.1's row for each token is none for each wording
    ],
)
def test_prompts_are_encoded_once_where_all_that_belongs_to_them_is_text(
    tokens: int, more: dict[str, Any], encoded: list[int]
) -> None:
    seen = []

    def encode_prompt(prompt: list[str], **named: Any) -> Any:
        seen.append(len(prompt))
        rows = torch.tensor([float(ord(one)) for one in prompt])
        return rows[:, None, None].expand(-1, tokens, 4), rows, torch.arange(tokens), None

    embeds, pooled, each_token, none = once(encode_prompt)(prompt=["b", "a", "b"], **more)
    assert seen == encoded and embeds[:, 0, 0].tolist() == pooled.tolist() == [98, 97, 98]
    assert len(each_token) == tokens and none is None


def test_further_text_encoders_and_negative_prompts_are_served() -> None:
    pipe = tiny_xl_pipeline()
    more = {"num_images_per_prompt": 2, "negative_prompt": "no", "negative_prompt_2": "bad"}
    wanted = draw(pipe, "a male nurse", prompt_2="a male cook", **more)
    with load_fair_adaptor(pipe, "words:gender=0,1"):
        images = draw(pipe, prompt_2="a cook", **more)
    assert torch.equal(images, wanted)


def test_copies_and_other_pipelines_are_plain_and_a_copy_says_so(
    small: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = draw(small)
    with load_fair_adaptor(small, "words:gender"):
        for copied in (copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
            assert type(copied) is StableDiffusionPipeline and torch.equal(draw(copied), plain)
        assert caplog.text.count("is not steered") == 2
        small.save_pretrained(tmp_path)
        assert '"_class_name": "StableDiffusionPipeline"' in (tmp_path / "model_index.json").read_text()
        other = StableDiffusionPipeline.from_pipe(small)
        assert type(other) is StableDiffusionPipeline and torch.equal(draw(other), plain)
        image = AutoPipelineForImage2Image.from_pipe(small)
        assert type(image).__name__ == "StableDiffusionImg2ImgPipeline"
        with load_fair_adaptor(image, "words:gender=0,1") as handle:
            draw(image, image=plain, strength=0.9)
            assert handle.classes == ({"gender": "male"},)


def test_the_weight_is_the_share_of_images(small: Any) -> None:
    noise = torch.randn(400, 4, 8, 8, generator=seeded())
    handle: Any = load_fair_adaptor(small, "words:gender", weight=0.5)
    call = Call(small, {}, ("a nurse",) * 400, tuple(noise_keys(small, {"latents": noise}, 400)))
    steered = {}
    for weight in (0.25, 0.5, 1.0):
        handle.set_weight(weight)
        handle.see(call)
        steered[weight] = {i for i, one in enumerate(handle.classes) if one["gender"]}
        assert abs(len(steered[weight]) / 400 - weight) < 0.07
    assert steered[0.25] <= steered[0.5] <= steered[1.0]
    handle.set_weight(0)
    assert type(small) is StableDiffusionPipeline
    for wrong in (1.5, -0.1, float("nan")):
        with pytest.raises(FairAdaptorError, match="`weight` is"):
            handle.set_weight(wrong)


def test_targets_are_drawn_exactly_and_jointly(small: Any) -> None:
    handle: Any = load_fair_adaptor(small, "words:gender=0.25,0.75+tone")
    handle.see(Call(small, {}, ("a nurse",) * 4000, tuple(range(4000))))
    drawn = np.zeros((2, 4))
    for one in handle.classes:
        drawn[handle.info.attributes["gender"].classes.index(one["gender"]),
              handle.info.attributes["tone"].classes.index(one["tone"])] += 1 / 4000  # fmt: skip
    assert np.allclose(drawn, np.outer([0.25, 0.75], [0.25] * 4), atol=0.02)


@pytest.mark.parametrize("names", [("words:gender=0,1", "words:age=1,0"), ("words:age=1,0", "words:gender=0,1")])
def test_several_are_named_in_the_order_of_speech(small: Any, names: tuple[str, str]) -> None:
    wanted = draw(small, "a young male nun")
    handles = [load_fair_adaptor(small, name) for name in names]
    for handle in handles:
        handle.gate = Gate(lexicon={"people": {"en": ["nun"]}, "attributes": {"gender": {"people": {"en": ["-nun"]}}}})
    assert torch.equal(draw(small, "a nun"), wanted)
    assert load_fair_adaptor(small, names[0], weight=0.5) is handles[0] and handles[0].weight == 0.5
    with pytest.raises(FairAdaptorError, match="unload it first"):
        load_fair_adaptor(small, "words:gender")
    for handle in handles:
        handle.unload()
        handle.unload()
    assert type(small) is StableDiffusionPipeline


def test_beside_a_lora_both_act_and_both_leave(small: Any, tmp_path: Path) -> None:
    before, plain = state(small), draw(small)
    folder = write_tiny_adaptor(tmp_path, small)
    with load_fair_adaptor(small, folder):
        wanted = draw(small, "a male nurse")
        with load_fair_adaptor(small, "words:gender=0,1") as words:
            assert torch.equal(draw(small), wanted) and len(in_force(small)) == 2
            with pytest.raises(FairAdaptorError, match="cannot be fused"):
                words.fuse()
    assert same(before, state(small)) and torch.equal(draw(small), plain)


def test_a_call_without_a_text_is_not_steered_and_it_is_said_once(
    small: Any, caplog: pytest.LogCaptureFixture
) -> None:
    embeds, _ = small.encode_prompt("a nurse", "cpu", 1, False)
    plain = draw(small, None, prompt_embeds=embeds, guidance_scale=1.0)
    with load_fair_adaptor(small, "words:gender") as handle:
        for _ in range(2):
            assert torch.equal(draw(small, None, prompt_embeds=embeds, guidance_scale=1.0), plain)
            assert handle.classes == ()
        with pytest.raises(TypeError):
            small("a nurse", prompt="a nurse")
    assert caplog.text.count("not given as text") == 1


def test_a_pipeline_with_words_is_freed() -> None:
    pipe = tiny_pipeline()
    load_fair_adaptor(pipe, "words:gender")
    reference = weakref.ref(pipe)
    del pipe
    gc.collect()
    assert reference() is None


def test_what_is_done_with_a_prompt_is_explained(small: Any) -> None:
    with load_fair_adaptor(small, "words:gender=0.4,0.6+race+age") as handle:
        gender, race, age = handle.explain("A photo of an elderly actor").splitlines()
        assert "female 40%, male 60%" in gender and "'A photo of a male elderly actor'" in gender
        assert race.startswith("race: drawn") and age.startswith("age: left alone") and "'elderly'" in age
        assert "'a male person, une photo d’un médecin'" in handle.explain("une photo d’un médecin")
        handle.gate = Gate(exempt="*actor*")
        assert handle.explain("an actor").count("exempt") == 3


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("words:", "no attribute ''"),
        ("words:gendr", "Did you mean 'gender'"),
        ("words:gender=1", "2 classes, and 1 shares"),
        ("words:gender=0.5,0.6", "add up to 1"),
        ("words:gender=a,b", "NAME=SHARE"),
        ("words:gender+gender", "twice"),
    ],
)
def test_a_spec_that_is_none_is_refused_with_the_reason(small: Any, spec: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_fair_adaptor(small, spec)
    assert type(small) is StableDiffusionPipeline


def test_what_has_no_prompt_is_refused() -> None:
    class Unconditional:
        def __call__(self, batch_size: int = 1) -> None: ...

    with pytest.raises(WrongBaseError, match="not called with a prompt"):
        load_fair_adaptor(Unconditional(), "words:gender")


def test_a_class_of_several_words_is_said_in_each_of_them() -> None:
    words, gate = read_words("words:race=1,0,0,0"), Gate()
    said = {words.reword("a nurse", {"race": "WMELH"}, gate, key) for key in range(40)}
    assert said == {"a White nurse", "a Middle Eastern nurse", "a Latino nurse"}


def test_they_are_measured_as_any_adaptor_is() -> None:
    prompts = ["A photo of the face of a bank manager, a person"]
    result = evaluate(load_sandbox_pipeline(), "words:gender=1,0", prompts=prompts, images_per_prompt=8)
    figures = [result.results.figures(variant, "gender") for variant in result.results.variants]
    women = [found.frequencies[0].value for found in figures]
    assert women[0] < 0.5 < 0.8 <= women[1] and figures[1].frequencies[0].target == 1
    assert set(result.shift["words:gender=1,0"]) == {"tone", "age"}
