"""Stable Diffusion 1.x and 2.x: one CLIP text encoder and a U-Net."""

from .family import Family, Part

CLIP_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
UNET_LAYERS = ("to_q", "to_k", "to_v", "to_out.0")
"""The linear layers that the published adaptors train (paper §4)."""

UNET = Part("diffusers:UNet2DConditionModel", UNET_LAYERS, ("lora_unet_",), also=("UNetMotionModel",))  # AnimateDiff's

STABLE_DIFFUSION = Family(
    "sd",
    "Stable Diffusion 1.x or 2.x",
    {
        "text_encoder": Part(
            "transformers:CLIPTextModel", CLIP_LAYERS, ("lora_te_", "lora_te1_"), "text_model.encoder."
        ),
        "unet": UNET,
    },
    network="unet",
    text_encoders=("text_encoder",),
    pipelines=("StableDiffusionPipeline",),
    token_encoder="text_encoder",
    scheduler="diffusers:DPMSolverMultistepScheduler",  # the paper's
)
