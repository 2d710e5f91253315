"""What published bases are made of: of each part the settings of its configuration that tell its shapes."""

from collections.abc import Mapping
from typing import Any

from .base_model import Configurations


def _clip(width: int, inner: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "vocab_size": 49408,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": 77,
        "projection_dim": width,
    }


_AUTOENCODER: Mapping[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
_SIXTEEN_CHANNELS: Mapping[str, Any] = {
    **_AUTOENCODER,
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
_T5_XXL = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "is_gated_act": True}
_QWEN_3_4B = {
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": True,
}
_QWEN_2_5_VL_7B = {
    "text_config": {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
    },
    "vision_config": {"hidden_size": 1280, "out_hidden_size": 3584},
}
_TWO_CLIPS: Configurations = {"text_encoder": _clip(768, 3072, 12, 12), "text_encoder_2": _clip(1280, 5120, 32, 20)}


def _sd35(**transformer: Any) -> Configurations:
    """Return a size of Stable Diffusion 3.5: they differ in the transformer."""
    return {
        **_TWO_CLIPS,
        "text_encoder_3": _T5_XXL,
        "transformer": {"joint_attention_dim": 4096, "qk_norm": "rms_norm", **transformer},
        "vae": _SIXTEEN_CHANNELS,
    }


def _flux(guided: bool) -> Configurations:
    """Return those of FLUX.1 dev, which is told its guidance, or of schnell, which was distilled without any."""
    texts = {"text_encoder": _clip(768, 3072, 12, 12), "text_encoder_2": _T5_XXL}
    return {**texts, "transformer": {"guidance_embeds": guided}, "vae": _SIXTEEN_CHANNELS}


SD_1_5: Configurations = {
    "text_encoder": _clip(768, 3072, 12, 12),
    "unet": {"sample_size": 64, "cross_attention_dim": 768},
    "vae": _AUTOENCODER,
}
SD_2_1: Configurations = {
    "text_encoder": _clip(1024, 4096, 23, 16),
    "unet": {
        "sample_size": 96,
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "use_linear_projection": True,
    },
    "vae": _AUTOENCODER,
}
SDXL: Configurations = {
    **_TWO_CLIPS,
    "unet": {
        "sample_size": 128,
        "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [5, 10, 20],
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "vae": _AUTOENCODER,
}
SD_3_5_MEDIUM = _sd35(
    num_layers=24,
    num_attention_heads=24,
    caption_projection_dim=1536,
    pos_embed_max_size=384,
    dual_attention_layers=tuple(range(13)),
)
SD_3_5_LARGE = _sd35(num_layers=38, num_attention_heads=38, caption_projection_dim=2432, pos_embed_max_size=192)
FLUX_1_DEV, FLUX_1_SCHNELL = _flux(guided=True), _flux(guided=False)
FLUX_2_KLEIN: Configurations = {
    "text_encoder": _QWEN_3_4B,
    "transformer": {
        "num_layers": 5,
        "num_single_layers": 20,
        "num_attention_heads": 24,
        "joint_attention_dim": 7680,
        "guidance_embeds": False,
    },
    "vae": {},
}
"""With four billion parameters."""
Z_IMAGE: Configurations = {"text_encoder": _QWEN_3_4B, "transformer": {}, "vae": _SIXTEEN_CHANNELS}
"""The sizes of its transformer are its class's own."""
QWEN_IMAGE: Configurations = {"text_encoder": _QWEN_2_5_VL_7B, "transformer": {}, "vae": {}}
"""The sizes of its transformer and autoencoder are their classes' own."""
SANA: Configurations = {
    "text_encoder": {},
    "transformer": {},
    "vae": {
        "encoder_block_types": ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
        "decoder_block_types": ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
        "upsample_block_type": "interpolate",
        "downsample_block_type": "conv",
    },
}
"""With 1.6 billion parameters, the sizes of its class; so are those of Gemma 2 with two billion."""
