"""SANA: a Gemma 2 reads the prompt behind an instruction, a linear transformer draws latents of few pixels."""

from .family import Family, Part, Reading

_BLOCK = "transformer_blocks.#"
_ORIGINAL = {
    "t_embedder.mlp.0": ("time_embed.emb.timestep_embedder.linear_1",),
    "t_embedder.mlp.2": ("time_embed.emb.timestep_embedder.linear_2",),
    "t_block.1": ("time_embed.linear",),
    "y_embedder.y_proj.fc1": ("caption_projection.linear_1",),
    "y_embedder.y_proj.fc2": ("caption_projection.linear_2",),
    "final_layer.linear": ("proj_out",),
    "blocks.#.attn.qkv": tuple(f"{_BLOCK}.attn1.to_{one}" for one in "qkv"),
    "blocks.#.attn.proj": (f"{_BLOCK}.attn1.to_out.0",),
    "blocks.#.cross_attn.q_linear": (f"{_BLOCK}.attn2.to_q",),
    "blocks.#.cross_attn.kv_linear": (f"{_BLOCK}.attn2.to_k", f"{_BLOCK}.attn2.to_v"),
    "blocks.#.cross_attn.proj": (f"{_BLOCK}.attn2.to_out.0",),
}

SANA = Family(
    "sana",
    "SANA",
    {
        "transformer": Part(
            "diffusers:SanaTransformer2DModel",
            ("to_q", "to_k", "to_v", "to_out.0"),
            ("lora_unet_", "lora_transformer_"),
            original=_ORIGINAL,
            comfy_prefix="diffusion_model.",
        )
    },
    network="transformer",
    text_encoders=("text_encoder",),
    readers={"text_encoder": "transformers:Gemma2Model"},
    pipelines=("SanaPipeline",),
    text_entry=("caption_projection.linear_1",),
    readings=(Reading(instruction="complex_human_instruction"),),
    mask=1,
    half_precision="bfloat16",
    autoencoder=("vae", "diffusers:AutoencoderDC"),
    num_steps=20,
    guidance_scale=4.5,
)
