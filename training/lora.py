"""Low-rank adaptors on the text encoder and the U-Net: attach, switch off, average, take out again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

ADAPTOR = "fair"
TARGET_MODULES = {
    "text_encoder": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
    "unet": ["to_q", "to_k", "to_v", "to_out.0"],
}
"""The linear layers that the published adaptors train (paper §4)."""


def attach(pipe: StableDiffusionPipeline, parts: Sequence[str], *, rank: int) -> list[nn.Parameter]:
    """Freeze the pipeline, add float32 LoRA layers (alpha = rank) to the named parts, and return their parameters.

    The initial values come from torch's global generator; the second factor is zero, so that nothing changes yet.
    """
    for component in (pipe.text_encoder, pipe.unet, pipe.vae):
        component.requires_grad_(False)
    parameters = []
    for part in parts:
        model = getattr(pipe, part)
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGET_MODULES[part])
        inject_adapter_in_model(config, model, ADAPTOR)
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.data = parameter.data.float()
                parameters.append(parameter.requires_grad_(True))
    return parameters


def extract(pipe: StableDiffusionPipeline, parts: Sequence[str]) -> dict[str, Tensor]:
    """Return the adaptor's tensors under the names of the file format (``fair_adaptors.formats``), on the CPU."""
    tensors = {}
    for part in parts:
        prefix = "text_encoder.text_model." if part == "text_encoder" else "unet."
        for name, tensor in get_peft_model_state_dict(getattr(pipe, part), adapter_name=ADAPTOR).items():
            tensors[prefix + name.removeprefix("text_model.")] = tensor.detach().float().cpu().contiguous()
    return tensors


def detach(pipe: StableDiffusionPipeline, parts: Sequence[str]) -> None:
    """Take the LoRA layers out again; the base's weights were never touched."""
    for part in parts:
        model = getattr(pipe, part)
        for name, layer in _layers(model):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer.get_base_layer())
        if hasattr(model, "peft_config"):
            del model.peft_config


@contextmanager
def switched_off(pipe: StableDiffusionPipeline) -> Iterator[None]:
    """Run the original model inside the block."""
    layers = [layer for part in TARGET_MODULES for _, layer in _layers(getattr(pipe, part))]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _layers(model: nn.Module) -> list[tuple[str, BaseTunerLayer]]:
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)]


class ExponentialAverage:
    """Exponential moving average of parameters, warmed up by min(decay, (1 + k)/(10 + k)) (paper §4)."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float):
        self.parameters = list(parameters)
        self.decay = decay
        self.updates = 0
        self.means = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take the parameters' present values in."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for mean, parameter in zip(self.means, self.parameters, strict=True):
            mean.lerp_(parameter, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages in the parameters' place inside the block."""
        values = [parameter.detach().clone() for parameter in self.parameters]
        self._write(self.means)
        try:
            yield
        finally:
            self._write(values)

    @torch.no_grad()
    def _write(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)
