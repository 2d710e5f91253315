"""What makes weights that cannot be written in place: libraries that quantise, cast, shard or move them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fair_adaptors.adaptor.modules import all_modules
from fair_adaptors.families.table import family_of


def layers(pipe: Any) -> dict[str, nn.Linear]:
    """The linear layers of a pipeline's attentions."""
    found = {name: module for name, module in all_modules(pipe).items() if isinstance(module, nn.Linear)}
    return {name: module for name, module in found.items() if "attn" in name or "attention" in name}


def models(pipe: Any) -> list[nn.Module]:
    """The models of a pipeline that a LoRA can be on."""
    return [getattr(pipe, part) for part in family_of(pipe).parts]


def each(pipe: Any, make: Callable[[nn.Linear], nn.Module]) -> None:
    """Put another layer in the place of each of ``layers``."""
    made = {module: make(module) for module in layers(pipe).values()}
    for model in models(pipe):
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if child in made:
                    setattr(parent, name, made[child])


def bitsandbytes(bits: int) -> Callable[[Any], None]:
    def quantise(layer: nn.Linear) -> nn.Module:
        import bitsandbytes as bnb

        sizes = layer.in_features, layer.out_features, layer.bias is not None
        made = (
            bnb.nn.Linear8bitLt(*sizes, has_fp16_weights=False)
            if bits == 8
            else bnb.nn.Linear4bit(*sizes, compute_dtype=torch.float32, quant_type="nf4")
        )
        made.load_state_dict(layer.state_dict())
        return made.to("cpu")

    return lambda pipe: each(pipe, quantise)


def quanto(pipe: Any) -> None:
    from optimum.quanto import freeze, qint8, quantize

    for model in models(pipe):
        quantize(model, weights=qint8, include="*attn*")
        freeze(model)


def torchao(pipe: Any) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    for model in models(pipe):
        quantize_(model, Int8WeightOnlyConfig())


def gguf(pipe: Any) -> None:
    def quantise(layer: nn.Linear) -> nn.Module:
        import gguf
        from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter

        kind = gguf.GGMLQuantizationType.Q8_0
        made = GGUFLinear(layer.in_features, layer.out_features, layer.bias is not None, compute_dtype=torch.float32)
        packed = gguf.quants.quantize(layer.weight.detach().numpy(), kind)
        made.weight, made.bias = GGUFParameter(torch.from_numpy(packed), quant_type=kind), layer.bias
        return made

    each(pipe, quantise)


class Packed(nn.Linear):
    """Stands for the layers of libraries that quantise: its weight is bytes of another shape, until it is called."""

    def __init__(self, layer: nn.Linear):
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.bias = layer.bias
        self.weight = nn.Parameter(layer.weight.detach().flatten().view(torch.uint8)[:, None], requires_grad=False)

    def forward(self, given: Tensor) -> Tensor:
        weight = self.weight.flatten().view(torch.float32).view(self.out_features, self.in_features)
        return nn.functional.linear(given, weight, self.bias)


class Sharded(nn.Parameter):
    """Stands for the weights of libraries that shard: another class, of a floating dtype."""


def shard(pipe: Any) -> None:
    for layer in layers(pipe).values():
        layer.weight = Sharded(layer.weight.detach())


def cast(pipe: Any) -> None:
    network = getattr(pipe, family_of(pipe).network)
    network.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)


def to_disk(pipe: Any, folder: Path, kind: str = "leaf_level") -> None:
    from diffusers.hooks import apply_group_offloading

    cpu = torch.device("cpu")
    for model in models(pipe):
        blocks = {} if kind == "leaf_level" else {"num_blocks_per_group": 1}
        apply_group_offloading(
            model, cpu, cpu, kind, offload_to_disk_path=str(folder / type(model).__name__), **blocks
        )


def out_of_memory(pipe: Any) -> None:
    """What enable_sequential_cpu_offload and a device_map leave: weights come when a layer is called."""
    from accelerate import cpu_offload

    for model in (*models(pipe), pipe.vae):
        cpu_offload(model, torch.device("cpu"))


WAYS: dict[str, tuple[Callable[[Any], None], float, str]] = {
    "bitsandbytes, 8 bits": (bitsandbytes(8), 0.05, "bitsandbytes"),  # it rounds inputs as well
    "bitsandbytes, 4 bits": (bitsandbytes(4), 1e-4, "bitsandbytes"),
    "quanto": (quanto, 1e-4, "optimum"),
    "torchao": (torchao, 1e-4, "torchao"),
    "GGUF": (gguf, 1e-4, "gguf"),
    "bytes": (lambda pipe: each(pipe, Packed), 1e-5, "torch"),
    "sharded": (shard, 1e-5, "torch"),
    "8-bit casting": (cast, 1e-5, "diffusers"),
    "sequential offload": (out_of_memory, 1e-5, "accelerate"),
}
"""What makes weights that cannot be written, how far products may then be off, and the library that it takes."""
