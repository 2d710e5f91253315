"""Tiny pipelines of the flow-matching families, of the real classes with random weights: images 16 × 16."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from fair_adaptors.families.table import guided
from tests.tiny import LETTERS, tiny_autoencoder, tiny_pipeline

SIDE = 16
"""Pixels along a side of an image."""
OF_FLUX = {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 8, "num_attention_heads": 2}
"""What the transformers of FLUX.1 and FLUX.2 have in common."""


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
            _autoencoder(),
            _clip_with_projection(first),
            first.tokenizer,
            _clip_with_projection(first),
            first.tokenizer,
            tiny_t5() if t5 else None,
            _t5_tokenizer() if t5 else None,
        )
    )


def tiny_flux(*, seed: int = 0, guidance: bool = True) -> FluxPipeline:
    """FLUX.1: dev, or schnell, which is told no ``guidance``."""
    first = tiny_pipeline(width=16, layers=2, seed=seed)
    torch.manual_seed(seed)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        **OF_FLUX,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        guidance_embeds=guidance,
        axes_dims_rope=(4, 2, 2),
    )
    return _quiet(
        FluxPipeline(
            FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=guidance),
            _autoencoder(),
            first.text_encoder,
            first.tokenizer,
            tiny_t5(),
            _t5_tokenizer(),
            transformer.eval(),
        )
    )


def tiny_klein(*, seed: int = 0, distilled: bool = False) -> Flux2KleinPipeline:
    """FLUX.2 klein: the base, or the form that was ``distilled`` to few steps."""
    torch.manual_seed(seed)
    transformer = Flux2Transformer2DModel(
        in_channels=16,
        **OF_FLUX,
        joint_attention_dim=24,
        timestep_guidance_channels=16,
        axes_dims_rope=(2, 2, 2, 2),
        guidance_embeds=False,
    )
    autoencoder = tiny_autoencoder(AutoencoderKLFlux2, latent_channels=4, sample_size=SIDE)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    parts = (scheduler, autoencoder, tiny_qwen(27), _qwen_tokenizer(), transformer.eval())
    return _quiet(Flux2KleinPipeline(*parts, is_distilled=distilled))


def tiny_z_image(*, seed: int = 0) -> ZImagePipeline:
    """Z-Image, with its two refiners."""
    torch.manual_seed(seed)
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=16,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=8,
        axes_dims=[4, 2, 2],
        axes_lens=[64, 16, 16],
    )
    for name, weights in transformer.named_parameters():  # a pad token is random memory until it is loaded
        if name.endswith("pad_token"):
            torch.nn.init.normal_(weights)
    parts = (FlowMatchEulerDiscreteScheduler(shift=3.0), _autoencoder(), tiny_qwen(2), _qwen_tokenizer())
    return _quiet(ZImagePipeline(*parts, transformer.eval()))


def tiny_qwen_image(*, seed: int = 0) -> QwenImagePipeline:
    """Qwen-Image. The text around a prompt has as many tokens before it as the real tokenizer makes of it, 34."""
    torch.manual_seed(seed)
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=8,
        axes_dims_rope=(4, 2, 2),
    )
    torch.nn.init.normal_(transformer.txt_norm.weight)
    mean, spread = [0.1, -0.2, 0.3, 0.0], [1.5, 2.0, 0.7, 1.0]
    blocks = {"base_dim": 8, "dim_mult": [1, 2], "num_res_blocks": 1, "temperal_downsample": [True]}
    autoencoder = AutoencoderKLQwenImage(z_dim=4, **blocks, latents_mean=mean, latents_std=spread).eval()
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    places = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 0]}
    config = Qwen2_5_VLConfig(
        text_config={**sizes, "num_key_value_heads": 1, "vocab_size": 80, "rope_parameters": places}
        | {"bos_token_id": 0, "eos_token_id": 0},
        vision_config={"depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 2, "out_hidden_size": 8},
    )
    encoder, tokenizer = Qwen2_5_VLForConditionalGeneration(config).eval(), _qwen_tokenizer()
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02)
    pipe = QwenImagePipeline(scheduler, autoencoder, encoder, tokenizer, transformer.eval())
    tokenizer.add_tokens(re.findall(r"<\|\w+\|>|\n|[,:]| ?\w+", pipe.prompt_template_encode.replace("{}", "")))
    return _quiet(pipe)


def tiny_sana(*, seed: int = 0) -> SanaPipeline:
    """SANA. Its images are 32 × 32, as its pipeline takes no smaller ones."""
    torch.manual_seed(seed)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 4, "cross_attention_dim": 8, "caption_channels": 8}
    cross = {"num_cross_attention_heads": 2, "cross_attention_head_dim": 4}
    transformer = SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_layers=1, sample_size=8, timestep_scale=0.5, **sizes, **cross
    )
    kinds, scales = ("ResBlock", "ResBlock", "EfficientViTBlock"), ((), (), (5,))
    both = {
        "block_types": kinds,
        "block_out_channels": (8,) * 3,
        "qkv_multiscales": scales,
        "layers_per_block": (1,) * 3,
    }
    autoencoder = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        **{f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in both.items()},
        upsample_block_type="interpolate",
        downsample_block_type="conv",
        scaling_factor=0.4,
    ).eval()
    layers = {"hidden_size": 8, "intermediate_size": 16, "head_dim": 4, "num_hidden_layers": 2}
    config = Gemma2Config(vocab_size=32, num_attention_heads=2, num_key_value_heads=1, **layers)
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "▁", *LETTERS]
    tokenizer = GemmaTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[])
    begin = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    tokenizer.backend_tokenizer.post_processor = begin
    scheduler = DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0, algorithm_type="dpmsolver++"
    )
    return _quiet(SanaPipeline(tokenizer, Gemma2Model(config).eval(), autoencoder, transformer.eval(), scheduler))


def tiny_qwen(layers: int) -> Qwen3ForCausalLM:
    """A Qwen3 of width 8."""
    sizes = {"hidden_size": 8, "intermediate_size": 16, "head_dim": 4, "num_attention_heads": 2}
    return Qwen3ForCausalLM(
        Qwen3Config(vocab_size=32, num_hidden_layers=layers, num_key_value_heads=1, **sizes)
    ).eval()


def _qwen_tokenizer() -> Qwen2Tokenizer:
    words = ["<|endoftext|>", *LETTERS, "Ġ"]  # the last stands for a space
    tokenizer = Qwen2Tokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=512)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return tokenizer


def _autoencoder() -> AutoencoderKL:
    """An autoencoder of four channels, with a shift."""
    plain = {"use_quant_conv": False, "use_post_quant_conv": False}
    return tiny_autoencoder(latent_channels=4, sample_size=SIDE, scaling_factor=1.5, shift_factor=0.1, **plain)


def tiny_t5() -> T5EncoderModel:
    """A T5 of width 32."""
    return T5EncoderModel(
        T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4, is_gated_act=True)
    ).eval()


def _t5_tokenizer() -> T5Tokenizer:
    letters = [(letter, -3.0) for letter in LETTERS]
    return T5Tokenizer(
        vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *letters], extra_ids=0, model_max_length=24
    )


def _clip_with_projection(pipe: Any) -> CLIPTextModelWithProjection:
    settings = {**pipe.text_encoder.config.to_dict(), "projection_dim": 16}
    return CLIPTextModelWithProjection(CLIPTextConfig(**settings)).eval()


def _quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


FLOW_FAMILIES: dict[str, Callable[[], Any]] = {
    "sd3": tiny_sd3,
    "flux": tiny_flux,
    "flux2": tiny_klein,
    "z-image": tiny_z_image,
    "qwen-image": tiny_qwen_image,
    "sana": tiny_sana,
}
"""By the family's name."""


def size(pipe: Any) -> dict[str, Any]:
    """Return the arguments of a call for the smallest image."""
    if isinstance(pipe, SanaPipeline):
        return {"height": 2 * SIDE, "width": 2 * SIDE, "use_resolution_binning": False}
    return {"height": SIDE, "width": SIDE}


def draw(pipe: Any, *, steps: int = 2) -> torch.Tensor:
    """Draw one image [1, 3, 16, 16], always of the same noise."""
    generator = torch.Generator().manual_seed(0)
    settings = {**size(pipe), "num_inference_steps": steps, "generator": generator, "max_sequence_length": 16}
    return pipe(prompt="a nurse", **settings, **guided(pipe, 4.0, 1), output_type="pt").images


def stems(tensors: Mapping[str, torch.Tensor]) -> set[str]:
    """Return the layers that a file's pairs change."""
    return {key.removesuffix(".lora_A.weight") for key in tensors if key.endswith(".lora_A.weight")}
