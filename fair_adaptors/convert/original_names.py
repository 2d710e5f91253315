"""The layers of a U-Net under the names of Stable Diffusion's original code, which kohya's scripts use for SDXL."""

import re
from collections.abc import Collection

_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_IN_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_LAYER = re.compile(r"(down|mid|up)_block(?:s\.(\d+))?\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")


def original_names(modules: Collection[str]) -> dict[str, str]:
    """Return the original name of each layer, such as ``input_blocks.4.1.proj_in``.

    Args:
        modules: all convolution and linear layers of a ``UNet2DConditionModel``; they tell how deep its blocks are.
    """
    found = {module: _LAYER.fullmatch(module) for module in modules}
    layers = {module: match.groups() for module, match in found.items() if match}
    depth = sum(module.startswith("down_blocks.0.") and module.endswith(".conv1") for module in layers)
    attending = {block for side, block, kind, _, _ in layers.values() if (side, kind) == ("up", "attentions")}
    return {module: _OUTSIDE[module] for module in modules if module in _OUTSIDE} | {
        module: _original(*layer, depth=depth, attends=layer[1] in attending) for module, layer in layers.items()
    }


def _original(side: str, block: str, kind: str, index: str, rest: str, *, depth: int, attends: bool) -> str:
    """Return one name. The original code counts its blocks through, each with what changes the size at its end."""
    rest = _IN_RESNET.get(rest, rest)
    if side == "mid":
        return f"middle_block.{2 * int(index) + (kind == 'attentions')}.{rest}"
    number = int(block) * (depth + 1)
    if side == "down":  # block 0 is the first convolution
        if kind == "downsamplers":
            return f"input_blocks.{number + depth + 1}.0.op"
        return f"input_blocks.{number + int(index) + 1}.{int(kind == 'attentions')}.{rest}"
    if kind == "upsamplers":
        return f"output_blocks.{number + depth}.{1 + attends}.{rest}"
    return f"output_blocks.{number + int(index)}.{int(kind == 'attentions')}.{rest}"
