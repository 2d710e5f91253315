"""What is trained, LoRAs on text encoder and U-Net and soft tokens: attach, switch off, average, take out again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from fair_adaptors.adaptor.modules import name_in_file
from fair_adaptors.adaptor.tokens import token_encoder
from fair_adaptors.errors import ConfigError
from fair_adaptors.families.table import family_of

ADAPTOR = "fair"
TOKENS = "tokens"


def attach(
    pipe: Any,
    parts: Sequence[str],
    *,
    rank: int = 1,
    alpha: int = 0,
    dropout: float = 0.0,
    target_modules: Sequence[str] = (),
    num_tokens: int = 5,
) -> dict[str, nn.Parameter]:
    """Freeze the pipeline, add what is trained in float32, and return the parameters by name.

    A LoRA changes nothing at first: its second factor is zero. Soft tokens, ``tokens`` [n, D], are embeddings of
    random words (paper §4); they are in no module, see ``fair_adaptors.adaptor.tokens``. Random values come from
    torch's global generator.

    Args:
        parts: of the family's, and ``tokens``.
        alpha: the change is alpha/rank · BA; 0 means alpha = rank.
        dropout: of the LoRA's input, in training mode, see ``dropout_on``.
        target_modules: names of linear layers; none for the family's.

    Raises:
        ConfigError: the base lacks a part, or it has no layer of these names, or a LoRA already.
    """
    family = family_of(pipe)
    for part in (part for part in parts if part != "tokens"):
        if part not in family.parts:
            raise ConfigError(f"the base has no {part}; take it out of parts")
        if _layers(getattr(pipe, part)):
            raise ConfigError(f"the {part} has a LoRA already; unload or fuse it before training another")
    if "tokens" in parts and not family.token_encoder:
        raise ConfigError(f"{family.title} takes no soft tokens; train its text encoders instead")
    for component in pipe.components.values():
        if isinstance(component, nn.Module):
            component.requires_grad_(False)
    parameters = {}
    for part in (part for part in family.parts if part in parts):
        model = getattr(pipe, part)
        names = list(target_modules or family.parts[part].target_modules)
        config = LoraConfig(r=rank, lora_alpha=alpha or rank, lora_dropout=dropout, target_modules=names)
        try:
            inject_adapter_in_model(config, model, ADAPTOR)
        except ValueError as error:
            detach(pipe, parts)
            raise ConfigError(f"the {part} has no layers named {', '.join(names)}") from error
        model.eval()  # new dropout layers come in training mode
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.data = parameter.data.float()
                parameters[f"{part}.{name}"] = parameter.requires_grad_(True)
    if "tokens" in parts:
        vocabulary = token_encoder(pipe).get_input_embeddings().weight
        rows = vocabulary[torch.randint(len(vocabulary), (num_tokens,)).to(vocabulary.device)]
        parameters[TOKENS] = nn.Parameter(rows.detach().float().clone())
    return parameters


def extract(pipe: Any, parts: Sequence[str]) -> dict[str, Tensor]:
    """Return the LoRAs' tensors under the names of the file format (``fair_adaptors.adaptor.folder``), on the CPU.

    The file has alpha = rank: another alpha is folded into the second factor.
    """
    tensors, family = {}, family_of(pipe)
    for part in (part for part in family.parts if part in parts):
        model = getattr(pipe, part)
        scale = {name: layer.scaling[ADAPTOR] for name, layer in _layers(model)}
        for name, tensor in get_peft_model_state_dict(model, adapter_name=ADAPTOR).items():
            module, second, _ = name.partition(".lora_B")
            value = tensor.detach().float().cpu() * (scale[module] if second else 1.0)
            tensors[name_in_file(family, part, name)] = value.contiguous()
    return tensors


def detach(pipe: Any, parts: Sequence[str]) -> None:
    """Take the LoRA layers out again; the base's weights were never touched."""
    for part in (part for part in family_of(pipe).parts if part in parts):
        model: Any = getattr(pipe, part, None)
        for name, layer in _layers(model):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer.get_base_layer())
        if hasattr(model, "peft_config"):
            del model.peft_config


@contextmanager
def dropout_on(pipe: Any, seed: int) -> Iterator[None]:
    """Let the LoRAs' dropout act inside the block, with masks from ``seed``; global generators are restored."""
    family = family_of(pipe)
    drops = [
        drop
        for part in family.parts
        for _, layer in _layers(getattr(pipe, part))
        for drop in layer.lora_dropout.values()
        if isinstance(drop, nn.Dropout)
    ]
    if not drops:
        yield
        return
    device = getattr(pipe, family.network).device
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        for drop in drops:
            drop.train()
        try:
            yield
        finally:
            for drop in drops:
                drop.eval()


@contextmanager
def strengthened(pipe: Any, strength: float) -> Iterator[None]:
    """Multiply what the LoRAs change inside the block; ``extract`` takes them as they are there."""
    layers = [layer for part in family_of(pipe).parts for _, layer in _layers(getattr(pipe, part))]
    scales = [layer.scaling[ADAPTOR] for layer in layers]
    try:
        for layer, scale in zip(layers, scales, strict=True):
            layer.scaling[ADAPTOR] = scale * strength
        yield
    finally:
        for layer, scale in zip(layers, scales, strict=True):
            layer.scaling[ADAPTOR] = scale


@contextmanager
def switched_off(pipe: Any) -> Iterator[None]:
    """Run the original model inside the block."""
    layers = [layer for part in family_of(pipe).parts for _, layer in _layers(getattr(pipe, part))]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _layers(model: nn.Module | None) -> list[tuple[str, Any]]:
    modules = model.named_modules() if model is not None else ()
    return [(name, layer) for name, layer in modules if isinstance(layer, BaseTunerLayer)]


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
