"""FLUX.1: a CLIP that says one vector, a T5, and a transformer; dev is told its guidance, schnell has none."""

from .family import Distilled, Family, Part, Reading
from .sd import CLIP_LAYERS
from .sd3 import JOINT_LAYERS

_DOUBLE, _SINGLE = "transformer_blocks.#", "single_transformer_blocks.#"
_ORIGINAL = {
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "time_in.in_layer": ("time_text_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_text_embed.timestep_embedder.linear_2",),
    "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
    "guidance_in.in_layer": ("time_text_embed.guidance_embedder.linear_1",),
    "guidance_in.out_layer": ("time_text_embed.guidance_embedder.linear_2",),
    "final_layer.linear": ("proj_out",),
    "double_blocks.#.img_mod.lin": (f"{_DOUBLE}.norm1.linear",),
    "double_blocks.#.txt_mod.lin": (f"{_DOUBLE}.norm1_context.linear",),
    "double_blocks.#.img_attn.qkv": tuple(f"{_DOUBLE}.attn.to_{one}" for one in "qkv"),
    "double_blocks.#.txt_attn.qkv": tuple(f"{_DOUBLE}.attn.add_{one}_proj" for one in "qkv"),
    "double_blocks.#.img_attn.proj": (f"{_DOUBLE}.attn.to_out.0",),
    "double_blocks.#.txt_attn.proj": (f"{_DOUBLE}.attn.to_add_out",),
    "double_blocks.#.img_mlp.0": (f"{_DOUBLE}.ff.net.0.proj",),
    "double_blocks.#.img_mlp.2": (f"{_DOUBLE}.ff.net.2",),
    "double_blocks.#.txt_mlp.0": (f"{_DOUBLE}.ff_context.net.0.proj",),
    "double_blocks.#.txt_mlp.2": (f"{_DOUBLE}.ff_context.net.2",),
    "single_blocks.#.modulation.lin": (f"{_SINGLE}.norm.linear",),
    "single_blocks.#.linear1": (*(f"{_SINGLE}.attn.to_{one}" for one in "qkv"), f"{_SINGLE}.proj_mlp"),
    "single_blocks.#.linear2": (f"{_SINGLE}.proj_out",),
}
"""Without the last modulation, ``norm_out``, whose halves stand the other way round in diffusers."""

FLUX_1 = Family(
    "flux",
    "FLUX.1",
    {
        "text_encoder": Part(
            "transformers:CLIPTextModel",
            CLIP_LAYERS,
            ("lora_te1_", "lora_te_"),
            "text_model.encoder.",
            comfy_prefix="text_encoders.clip_l.transformer.",
        ),
        "transformer": Part(
            "diffusers:FluxTransformer2DModel",
            JOINT_LAYERS,
            ("lora_unet_", "lora_transformer_"),
            original=_ORIGINAL,
            rows={"proj_mlp": 4},
            comfy_prefix="diffusion_model.",
        ),
    },
    network="transformer",
    text_encoders=("text_encoder", "text_encoder_2"),
    readers={"text_encoder_2": "transformers:T5EncoderModel"},
    pipelines=("FluxPipeline",),
    text_entry=("context_embedder",),
    pooled_entry=("time_text_embed.text_embedder.linear_1",),
    readings=(Reading("tokenizer_2", "text_encoder_2", "prompt_2", both_ways=True),),
    pooled=1,
    half_precision="bfloat16",
    num_steps=28,
    guidance_scale=3.5,
    distilled=Distilled("transformer", "guidance_embeds", False, num_steps=4, guidance_scale=0.0),
)
