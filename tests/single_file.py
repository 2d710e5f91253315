"""Writes a pipeline as one checkpoint in the layout of Stable Diffusion's original code."""

import re
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from fair_adaptors.convert.original_names import original_names

_AUTOENCODER = (
    (r"\.(down|up)_blocks\.(\d+)\.resnets\.", r".\1.\2.block."),
    (r"\.(down|up)_blocks\.(\d+)\.(down|up)samplers\.0\.", r".\1.\2.\3sample."),
    (r"\.mid_block\.resnets\.0", ".mid.block_1"),
    (r"\.mid_block\.resnets\.1", ".mid.block_2"),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".proj_out."),
    (r"\.group_norm\.", ".norm."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.conv_norm_out\.", ".norm_out."),
)


def write_single_file(pipe: Any, path: Path) -> Path:
    """Write U-Net, autoencoder and text encoder of a Stable Diffusion 1.x pipeline into one file."""
    tensors = {f"model.diffusion_model.{name}": value for name, value in _unet(pipe.unet).items()}
    tensors |= {f"first_stage_model.{name}": value for name, value in _autoencoder(pipe.vae).items()}
    for name, value in pipe.text_encoder.state_dict().items():
        tensors[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = value
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    return path


def _unet(unet: Any) -> dict[str, Tensor]:
    names = original_names([n for n, m in unet.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)])
    names["conv_norm_out"] = "out.0"
    renamed = {}
    for key, value in unet.state_dict().items():
        module, _, kind = key.rpartition(".")
        if found := re.fullmatch(r"(.*resnets\.\d+\.)norm(\d)", module):  # it stands before its convolution
            place = names[f"{found[1]}conv{found[2]}"].rpartition(".")[0] + ".0"
        elif module not in names and (found := re.fullmatch(r"(.*attentions\.\d+\.)(.*)", module)):
            place = names[f"{found[1]}proj_in"].removesuffix("proj_in") + found[2]
        else:
            place = names[module]
        renamed[f"{place}.{kind}"] = value
    return renamed


def _autoencoder(vae: Any) -> dict[str, Tensor]:
    last = len(vae.config.block_out_channels) - 1
    renamed = {}
    for key, value in vae.state_dict().items():
        name = key
        for pattern, new in _AUTOENCODER:
            name = re.sub(pattern, new, name)
        name = re.sub(r"decoder\.up\.(\d+)", lambda found: f"decoder.up.{last - int(found[1])}", name)
        is_attention = ".attn_1." in name and value.ndim == 2  # a convolution in the original code
        renamed[name] = value[..., None, None] if is_attention else value
    return renamed
