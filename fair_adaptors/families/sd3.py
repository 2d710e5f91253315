"""Stable Diffusion 3 and 3.5: two CLIP text encoders, a T5 that may be left out, and a flow-matching transformer."""

from .family import Family, Part, Reading
from .sd import CLIP_LAYERS

JOINT_LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""The attention of image and text, as diffusers' own trainers take it."""

_BLOCK = "transformer_blocks.#"
_ORIGINAL = {
    "x_embedder.proj": ("pos_embed.proj",),
    "context_embedder": ("context_embedder",),
    "t_embedder.mlp.0": ("time_text_embed.timestep_embedder.linear_1",),
    "t_embedder.mlp.2": ("time_text_embed.timestep_embedder.linear_2",),
    "y_embedder.mlp.0": ("time_text_embed.text_embedder.linear_1",),
    "y_embedder.mlp.2": ("time_text_embed.text_embedder.linear_2",),
    "final_layer.linear": ("proj_out",),
    "joint_blocks.#.x_block.adaLN_modulation.1": (f"{_BLOCK}.norm1.linear",),
    "joint_blocks.#.x_block.attn.qkv": (f"{_BLOCK}.attn.to_q", f"{_BLOCK}.attn.to_k", f"{_BLOCK}.attn.to_v"),
    "joint_blocks.#.x_block.attn.proj": (f"{_BLOCK}.attn.to_out.0",),
    "joint_blocks.#.x_block.attn2.qkv": (f"{_BLOCK}.attn2.to_q", f"{_BLOCK}.attn2.to_k", f"{_BLOCK}.attn2.to_v"),
    "joint_blocks.#.x_block.attn2.proj": (f"{_BLOCK}.attn2.to_out.0",),
    "joint_blocks.#.x_block.mlp.fc1": (f"{_BLOCK}.ff.net.0.proj",),
    "joint_blocks.#.x_block.mlp.fc2": (f"{_BLOCK}.ff.net.2",),
    "joint_blocks.#.context_block.attn.qkv": tuple(f"{_BLOCK}.attn.add_{one}_proj" for one in "qkv"),
    "joint_blocks.#.context_block.attn.proj": (f"{_BLOCK}.attn.to_add_out",),
    "joint_blocks.#.context_block.mlp.fc1": (f"{_BLOCK}.ff_context.net.0.proj",),
    "joint_blocks.#.context_block.mlp.fc2": (f"{_BLOCK}.ff_context.net.2",),
}
"""Without the modulations whose halves stand the other way round in diffusers (``norm_out``, the last block's)."""

_CLIP = "transformers:CLIPTextModelWithProjection"

STABLE_DIFFUSION_3 = Family(
    "sd3",
    "Stable Diffusion 3 or 3.5",
    {
        "text_encoder": Part(_CLIP, CLIP_LAYERS, ("lora_te1_",), comfy_prefix="text_encoders.clip_l.transformer."),
        "text_encoder_2": Part(_CLIP, CLIP_LAYERS, ("lora_te2_",), comfy_prefix="text_encoders.clip_g.transformer."),
        "transformer": Part(
            "diffusers:SD3Transformer2DModel",
            JOINT_LAYERS,
            ("lora_unet_", "lora_transformer_"),
            original=_ORIGINAL,
            comfy_prefix="diffusion_model.",
        ),
    },
    network="transformer",
    text_encoders=("text_encoder", "text_encoder_2", "text_encoder_3"),
    readers={"text_encoder_3": "transformers:T5EncoderModel"},
    pipelines=("StableDiffusion3Pipeline",),
    text_entry=("context_embedder",),
    pooled_entry=("time_text_embed.text_embedder.linear_1",),
    readings=(Reading(), Reading("tokenizer_3", "text_encoder_3", "prompt_3", both_ways=True)),
    pooled=2,
    half_precision="bfloat16",
    optional_text_encoders=("text_encoder_3",),
    num_steps=28,
    guidance_scale=7.0,  # both as the pipeline's own
)
