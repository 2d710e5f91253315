"""Qwen-Image: a Qwen2.5-VL reads the prompt, a transformer draws; guidance is rescaled and takes a negative prompt."""

from .family import Family, Part, Reading
from .sd3 import JOINT_LAYERS

QWEN_IMAGE = Family(
    "qwen-image",
    "Qwen-Image",
    {
        "transformer": Part(
            "diffusers:QwenImageTransformer2DModel",
            JOINT_LAYERS,
            ("lora_unet_", "lora_transformer_"),
            comfy_prefix="diffusion_model.",
        )
    },
    network="transformer",
    text_encoders=("text_encoder",),
    readers={"text_encoder": "transformers:Qwen2_5_VLForConditionalGeneration"},
    pipelines=("QwenImagePipeline",),
    text_entry=("txt_in",),
    before_entry=("txt_norm",),
    readings=(Reading(template="prompt_template_encode"),),
    mask=1,
    guidance="true_cfg_scale",
    negative_prompt=" ",  # as in its makers' examples; without one there is no guidance
    half_precision="bfloat16",
    autoencoder=("vae", "diffusers:AutoencoderKLQwenImage"),
    num_steps=50,
    guidance_scale=4.0,
)
