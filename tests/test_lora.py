from pathlib import Path

import pytest
import torch
from fair_adaptors.training.engine import lora

from fair_adaptors.adaptor.folder import write_adaptor
from fair_adaptors.load import load_fair_adaptor
from tests.tiny import image, tiny_pipeline

PARTS = ("text_encoder", "unet")


def test_a_new_adaptor_changes_nothing_and_detaching_leaves_the_base() -> None:
    pipe = tiny_pipeline()
    before = image(pipe)
    names = [name for name, _ in pipe.unet.named_modules()]
    lora.attach(pipe, PARTS, rank=2)
    assert torch.equal(image(pipe), before)
    lora.detach(pipe, PARTS)
    assert [name for name, _ in pipe.unet.named_modules()] == names
    assert torch.equal(image(pipe), before)


def test_only_the_adaptor_is_trained_and_in_float32() -> None:
    pipe = tiny_pipeline()
    pipe.to(dtype=torch.bfloat16)
    parameters = list(lora.attach(pipe, PARTS, rank=2).values())
    assert all(parameter.dtype == torch.float32 and parameter.requires_grad for parameter in parameters)
    trained = [p for model in (pipe.text_encoder, pipe.unet, pipe.vae) for p in model.parameters() if p.requires_grad]
    assert len(trained) == len(parameters)


def test_the_published_layers_are_trained() -> None:
    pipe = tiny_pipeline()
    lora.attach(pipe, PARTS, rank=2)
    keys = lora.extract(pipe, PARTS)
    text = {
        key.rsplit(".lora_", 1)[0].rsplit(".", 1)[-1] for key in keys if key.startswith("text_encoder.text_model.")
    }
    assert text == {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}
    unet = [key for key in keys if key.startswith("unet.")]
    assert unet and all("attn1.to_" in key or "attn2.to_" in key for key in unet)


def test_an_extracted_adaptor_loads_to_the_same_images(tmp_path: Path) -> None:
    pipe = tiny_pipeline()
    for parameter in lora.attach(pipe, PARTS, rank=2).values():
        torch.nn.init.normal_(parameter, std=0.2)
    trained = image(pipe)
    tensors = lora.extract(pipe, PARTS)
    lora.detach(pipe, PARTS)
    write_adaptor(tmp_path, tensors, name="t", pipe=pipe, base_model="tiny", attributes={}, rank=2, training={})
    load_fair_adaptor(pipe, tmp_path)
    assert torch.allclose(image(pipe), trained, atol=1e-5)


def test_an_adaptor_is_extracted_at_the_strength_that_it_has_in_the_block(tmp_path: Path) -> None:
    pipe = tiny_pipeline()
    for parameter in lora.attach(pipe, PARTS, rank=2, alpha=4).values():
        torch.nn.init.normal_(parameter, std=0.2)
    plain = image(pipe)
    with pytest.raises(RuntimeError), lora.strengthened(pipe, 1.5):
        stronger, tensors = image(pipe), lora.extract(pipe, PARTS)
        raise RuntimeError
    assert torch.equal(image(pipe), plain) and not torch.allclose(stronger, plain, atol=1e-3)
    lora.detach(pipe, PARTS)
    write_adaptor(tmp_path, tensors, name="t", pipe=pipe, base_model="tiny", attributes={}, rank=2, training={})
    with load_fair_adaptor(pipe, tmp_path):
        assert torch.allclose(image(pipe), stronger, atol=1e-5)
    with load_fair_adaptor(pipe, tmp_path, weight=1 / 1.5):
        assert torch.allclose(image(pipe), plain, atol=1e-5)


def test_switched_off_it_is_the_original_model_even_after_an_error() -> None:
    pipe = tiny_pipeline()
    original = image(pipe)
    for parameter in lora.attach(pipe, PARTS, rank=2).values():
        torch.nn.init.normal_(parameter, std=0.2)
    trained = image(pipe)
    with pytest.raises(RuntimeError), lora.switched_off(pipe):
        assert torch.equal(image(pipe), original)
        raise RuntimeError
    assert torch.equal(image(pipe), trained)


def test_the_average_starts_at_the_values_and_follows_them() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    average = lora.ExponentialAverage([parameter], decay=0.9)
    with torch.no_grad():
        parameter.fill_(1)
    for _ in range(500):
        average.update()
    with average.applied():
        assert abs(parameter.item() - 1) < 1e-6
    average.means[0].fill_(3)
    with average.applied():
        assert parameter.item() == 3
    assert parameter.item() == 1
