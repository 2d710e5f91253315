"""FLUX.2: a language model reads the prompt, a transformer draws; klein, the small one, has a form of four steps."""

from .family import Distilled, Family, Part, Reading
from .sd3 import JOINT_LAYERS

_DOUBLE, _SINGLE = "transformer_blocks.#", "single_transformer_blocks.#"
_MOST_SINGLE_BLOCKS = 48
_ORIGINAL = {
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "time_in.in_layer": ("time_guidance_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_guidance_embed.timestep_embedder.linear_2",),
    "guidance_in.in_layer": ("time_guidance_embed.guidance_embedder.linear_1",),
    "guidance_in.out_layer": ("time_guidance_embed.guidance_embedder.linear_2",),
    "double_stream_modulation_img.lin": ("double_stream_modulation_img.linear",),
    "double_stream_modulation_txt.lin": ("double_stream_modulation_txt.linear",),
    "single_stream_modulation.lin": ("single_stream_modulation.linear",),
    "final_layer.linear": ("proj_out",),
    "double_blocks.#.img_attn.qkv": tuple(f"{_DOUBLE}.attn.to_{one}" for one in "qkv"),
    "double_blocks.#.txt_attn.qkv": tuple(f"{_DOUBLE}.attn.add_{one}_proj" for one in "qkv"),
    "double_blocks.#.img_attn.proj": (f"{_DOUBLE}.attn.to_out.0",),
    "double_blocks.#.txt_attn.proj": (f"{_DOUBLE}.attn.to_add_out",),
    "double_blocks.#.img_mlp.0": (f"{_DOUBLE}.ff.linear_in",),
    "double_blocks.#.img_mlp.2": (f"{_DOUBLE}.ff.linear_out",),
    "double_blocks.#.txt_mlp.0": (f"{_DOUBLE}.ff_context.linear_in",),
    "double_blocks.#.txt_mlp.2": (f"{_DOUBLE}.ff_context.linear_out",),
    "single_blocks.#.linear1": (f"{_SINGLE}.attn.to_qkv_mlp_proj",),
    "single_blocks.#.linear2": (f"{_SINGLE}.attn.to_out",),
}
"""Without the last modulation, ``norm_out``, whose halves stand the other way round in diffusers."""

FLUX_2 = Family(
    "flux2",
    "FLUX.2",
    {
        "transformer": Part(
            "diffusers:Flux2Transformer2DModel",
            (
                *JOINT_LAYERS,
                "to_qkv_mlp_proj",
                *(f"single_transformer_blocks.{i}.attn.to_out" for i in range(_MOST_SINGLE_BLOCKS)),
            ),
            ("lora_unet_", "lora_transformer_"),
            original=_ORIGINAL,
            comfy_prefix="diffusion_model.",
        )
    },
    network="transformer",
    text_encoders=("text_encoder",),
    readers={"text_encoder": "transformers:Qwen3ForCausalLM"},
    pipelines=("Flux2KleinPipeline",),
    text_entry=("context_embedder",),
    readings=(Reading(chat={"enable_thinking": False}),),
    half_precision="bfloat16",
    autoencoder=("vae", "diffusers:AutoencoderKLFlux2"),
    num_steps=50,
    guidance_scale=4.0,
    distilled=Distilled("", "is_distilled", True, num_steps=4, guidance_scale=1.0),
)
