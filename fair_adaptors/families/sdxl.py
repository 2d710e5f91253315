"""Stable Diffusion XL: two CLIP text encoders and a U-Net."""

from .family import Family, Part
from .sd import CLIP_LAYERS, UNET

STABLE_DIFFUSION_XL = Family(
    "sdxl",
    "Stable Diffusion XL",
    {
        "text_encoder": Part(
            "transformers:CLIPTextModel", CLIP_LAYERS, ("lora_te1_", "lora_te_"), "text_model.encoder."
        ),
        "text_encoder_2": Part("transformers:CLIPTextModelWithProjection", CLIP_LAYERS, ("lora_te2_",)),
        "unet": UNET,
    },
    network="unet",
    text_encoders=("text_encoder", "text_encoder_2"),
    pipelines=("StableDiffusionXLPipeline",),
    pooled=2,
    scheduler="diffusers:DPMSolverMultistepScheduler",
    wide_autoencoder=True,
)
