"""Floating-point operations of models of the published sizes, counted on torch's meta device, without weights."""

from collections.abc import Callable
from typing import Any

from fair_adaptors.training.cost import Operations

VISION = {
    "CLIP ViT-L/14": ((1024, 4096, 24, 16), (768, 3072, 12, 12)),
    "CLIP ViT-H/14": ((1280, 5120, 32, 16), (1024, 4096, 24, 16)),
    "DINOv2 ViT-B/14": ((768, 3072, 12, 12), None),
}
"""What the recipes for people look at images with: width, width of the MLP, layers and heads of the vision tower and
of the text tower, as the configurations on the Hub have them. All see 224² pixels in patches of 14²."""


def count_operations(call: Callable[[], Any]) -> Operations:
    """Count what ``call`` computes, and what the backward pass from the tensor that it returns does."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as forward:
        output = call()
    with FlopCounterMode(display=False) as backward:
        output.backward(torch.empty_like(output))
    return Operations(forward.get_total_flops() / 1e12, backward.get_total_flops() / 1e12)


def base_operations(base: str) -> dict[str, Operations]:
    """Count the operations of a row through the network, whose gradient goes to the embeddings, and through decoders.

    The small decoder is that of diffusers' ``AutoencoderTiny`` as it is by default, which is TAESD, for latents of as
    many channels. There is none for other autoencoders than ``AutoencoderKL``.

    Args:
        base: as ``fair_adaptors.adaptor.bases`` has it, such as ``sd15``.
    """
    import torch
    from diffusers import AutoencoderKL, AutoencoderTiny
    from fair_adaptors.training.engine.denoisers import denoiser_of
    from fair_adaptors.training.memory import TOKENS_LENGTH, skeleton

    denoiser = denoiser_of(skeleton(base))
    denoiser.model.requires_grad_(False)
    denoiser.autoencoder.requires_grad_(False)

    def empty(*sizes: int, leaf: bool = False) -> Any:
        return torch.empty(1, *sizes, device="meta").requires_grad_(leaf)

    shape = denoiser.latent_shape
    embeds, *others = denoiser.condition_shapes(TOKENS_LENGTH)
    conditions = (empty(*embeds, leaf=True), *(empty(*sizes) for sizes in others))
    leaf = empty(*shape, leaf=True)
    found = {
        "network": count_operations(lambda: denoiser.predict(empty(*shape), empty(), conditions, 1.0)),
        "decoder": count_operations(lambda: denoiser.decode(leaf)),
    }
    if isinstance(denoiser.autoencoder, AutoencoderKL):
        with torch.device("meta"):
            small = AutoencoderTiny(latent_channels=shape[0]).requires_grad_(False)
        found["small decoder"] = count_operations(lambda: small.decode(leaf).sample)
    return found


def vision_operations(name: str) -> tuple[Operations, float]:
    """Count the operations of an image through one of ``VISION``, and the megabytes of its weights in float32.

    Of CLIP those that images need: a training has done with texts before the first image.
    """
    import torch
    from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model

    def sizes(width: int, inner: int, layers: int, heads: int) -> dict[str, int]:
        names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        return dict(zip(names, (width, inner, layers, heads), strict=True))

    vision, text = VISION[name]
    patches = {"image_size": 224, "patch_size": 14}
    with torch.device("meta"):
        pixels = torch.empty(1, 3, 224, 224).requires_grad_(True)
        if text is None:
            model: Any = Dinov2Model(Dinov2Config(**sizes(*vision), **patches)).requires_grad_(False)
            found = count_operations(lambda: model(pixels).pooler_output)
        else:
            model = CLIPModel(
                CLIPConfig(text_config=sizes(*text), vision_config=sizes(*vision) | patches, projection_dim=text[0])
            ).requires_grad_(False)
            found = count_operations(lambda: model.get_image_features(pixels).pooler_output)
            model.text_model = model.text_projection = None
    return found, sum(parameter.numel() for parameter in model.parameters()) * 4 / 1e6
