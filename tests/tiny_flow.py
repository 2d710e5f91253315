"""Tiny pipelines of the flow-matching families, of the real classes with random weights: images 16 × 16."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5Tokenizer

from tests.tiny import tiny_pipeline

SIDE = 16
"""Pixels along a side of an image."""


def tiny_sd3(*, seed: int = 0, t5: bool = True) -> StableDiffusion3Pipeline:
    """As Stable Diffusion 3.5: block 0 attends twice, the last has no output for text. The T5 may be left out."""
    first = tiny_pipeline(width=16, layers=2, seed=seed)
    torch.manual_seed(seed)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        pos_embed_max_size=8,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    return _quiet(
        StableDiffusion3Pipeline(
            transformer.eval(),
            FlowMatchEulerDiscreteScheduler(shift=3.0),
            tiny_autoencoder(),
            _clip_with_projection(first),
            first.tokenizer,
            _clip_with_projection(first),
            first.tokenizer,
            tiny_t5() if t5 else None,
            _t5_tokenizer() if t5 else None,
        )
    )


def tiny_autoencoder() -> AutoencoderKL:
    """An autoencoder of four channels, with a shift."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        latent_channels=4,
        sample_size=SIDE,
        scaling_factor=1.5,
        shift_factor=0.1,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()


def tiny_t5() -> T5EncoderModel:
    """A T5 of width 32."""
    return T5EncoderModel(
        T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4, is_gated_act=True)
    ).eval()


def _t5_tokenizer() -> T5Tokenizer:
    letters = [(chr(code), -3.0) for code in range(97, 123)]
    return T5Tokenizer(
        vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *letters], extra_ids=0, model_max_length=24
    )


def _clip_with_projection(pipe: Any) -> CLIPTextModelWithProjection:
    settings = {**pipe.text_encoder.config.to_dict(), "projection_dim": 16}
    return CLIPTextModelWithProjection(CLIPTextConfig(**settings)).eval()


def _quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


FLOW_FAMILIES: dict[str, Callable[[], Any]] = {"sd3": tiny_sd3}
"""By the family's name."""


def draw(pipe: Any, *, steps: int = 2) -> torch.Tensor:
    """Draw one image [1, 3, 16, 16], always of the same noise."""
    generator = torch.Generator().manual_seed(0)
    settings = {"height": SIDE, "width": SIDE, "num_inference_steps": steps, "generator": generator}
    return pipe("a nurse", **settings, output_type="pt").images
