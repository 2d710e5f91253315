"""Z-Image: a language model reads the prompt, a transformer draws; Turbo takes eight steps without guidance."""

from .family import Family, Part, Reading

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


def _block(name: str) -> dict[str, tuple[str, ...]]:
    return {
        f"{name}.attention.qkv": tuple(f"{name}.attention.to_{one}" for one in "qkv"),
        f"{name}.attention.out": (f"{name}.attention.to_out.0",),
        **{
            f"{name}.{layer}": (f"{name}.{layer}",)
            for layer in ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3", "adaLN_modulation.0")
        },
    }


_ORIGINAL = {
    "x_embedder": ("all_x_embedder.2-1",),
    "cap_embedder.1": ("cap_embedder.1",),
    "t_embedder.mlp.0": ("t_embedder.mlp.0",),
    "t_embedder.mlp.2": ("t_embedder.mlp.2",),
    "final_layer.linear": ("all_final_layer.2-1.linear",),
    "final_layer.adaLN_modulation.1": ("all_final_layer.2-1.adaLN_modulation.1",),
    **_block("layers.#"),
    **_block("noise_refiner.#"),
    **_block("context_refiner.#"),
}

Z_IMAGE = Family(
    "z-image",
    "Z-Image",
    {
        "transformer": Part(
            "diffusers:ZImageTransformer2DModel",
            _ATTENTION,
            ("lora_unet_", "lora_transformer_"),
            original=_ORIGINAL,
            comfy_prefix="diffusion_model.",
        )
    },
    network="transformer",
    text_encoders=("text_encoder",),
    readers={"text_encoder": "transformers:Qwen3ForCausalLM"},
    pipelines=("ZImagePipeline",),
    text_entry=("cap_embedder.1",),
    before_entry=("cap_embedder.0",),
    readings=(Reading(chat={"enable_thinking": True}),),
    half_precision="bfloat16",
    num_steps=50,
    guidance_scale=5.0,
)
