"""Stable Diffusion 3 and 3.5: two CLIP text encoders, a T5 that may be left out, and a flow-matching transformer."""

from .family import Family, Part
from .sd import CLIP_LAYERS

JOINT_LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""The attention of image and text, as diffusers' own trainers take it."""

_CLIP = "transformers:CLIPTextModelWithProjection"

STABLE_DIFFUSION_3 = Family(
    "sd3",
    "Stable Diffusion 3 or 3.5",
    {
        "text_encoder": Part(_CLIP, CLIP_LAYERS, ("lora_te1_",)),
        "text_encoder_2": Part(_CLIP, CLIP_LAYERS, ("lora_te2_",)),
        "transformer": Part("diffusers:SD3Transformer2DModel", JOINT_LAYERS, ("lora_unet_",)),
    },
    network="transformer",
    text_encoders=("text_encoder", "text_encoder_2", "text_encoder_3"),
    pipelines=("StableDiffusion3Pipeline",),
    text_entry=("context_embedder",),
    optional_text_encoders=("text_encoder_3",),
    num_steps=28,
    guidance_scale=7.0,  # both as the pipeline's own
)
