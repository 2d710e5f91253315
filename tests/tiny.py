"""Tiny models of the real classes, and adaptors for them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from fair_adaptors.training.engine import lora
from safetensors.torch import save
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from fair_adaptors.adaptor.folder import write_adaptor
from fair_adaptors.adaptor.record import CONFIG_FILE, WEIGHTS_FILE, AttributeTarget
from fair_adaptors.families.table import all_parts, family_of

State = dict[str, torch.Tensor]
LETTERS = [chr(code) for code in range(97, 123)]
AIM = {"gender": AttributeTarget(("female", "male"), (0.5, 0.5))}


def letter_tokenizer(length: int) -> CLIPTokenizer:
    """A tokenizer of CLIP's to which every letter is a token."""
    symbols = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={s: i for i, s in enumerate(symbols)}, merges=[], model_max_length=length)


def tiny_autoencoder(kind: Any = AutoencoderKL, **settings: Any) -> Any:
    """An autoencoder whose latents have half the sides of an image."""
    down, up = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
    blocks = {"down_block_types": down, "up_block_types": up, "block_out_channels": (8, 16), "norm_num_groups": 4}
    return kind(**blocks, **settings).eval()


def tiny_pipeline(
    *, width: int = 32, layers: int = 2, channels: tuple[int, int] = (32, 64), seed: int = 0, side: int = 8
) -> StableDiffusionPipeline:
    """A Stable Diffusion pipeline with random weights: latents ``side`` × ``side``, images twice as large."""
    torch.manual_seed(seed)
    tokenizer = letter_tokenizer(16)
    end = tokenizer.eos_token_id
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=16,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=end,
            pad_token_id=end,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=side,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=channels,
        layers_per_block=1,
        cross_attention_dim=width,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    autoencoder = tiny_autoencoder(sample_size=2 * side)
    scheduler = DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    )
    pipe = StableDiffusionPipeline(
        autoencoder, text_encoder.eval(), tokenizer, unet.eval(), scheduler, None, None, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_v_pipeline(*, seed: int = 0, side: int = 8) -> StableDiffusionPipeline:
    """A pipeline as Stable Diffusion 2.1: its U-Net predicts velocity and projects by linear layers."""
    pipe = tiny_pipeline(seed=seed, side=side)
    config = {key: value for key, value in pipe.unet.config.items() if not key.startswith("_")}
    torch.manual_seed(seed)
    pipe.register_modules(
        unet=UNet2DConditionModel(**config | {"use_linear_projection": True, "attention_head_dim": (2, 4)}).eval(),
        scheduler=DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, prediction_type="v_prediction"),
    )
    return pipe


def tiny_xl_pipeline(*, seed: int = 0, side: int = 8) -> StableDiffusionXLPipeline:
    """A Stable Diffusion XL pipeline with random weights: two text encoders, of width 32 and 16."""
    first = tiny_pipeline(seed=seed, side=side)
    settings = {
        **first.text_encoder.config.to_dict(),
        "hidden_size": 16,
        "projection_dim": 16,
        "intermediate_size": 32,
    }
    torch.manual_seed(seed + 1)
    second = CLIPTextModelWithProjection(CLIPTextConfig(**settings)).eval()
    unet = UNet2DConditionModel(
        sample_size=side,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64),
        layers_per_block=1,
        cross_attention_dim=48,
        attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
        norm_num_groups=8,
    )
    schedule = {key: first.scheduler.config[key] for key in ("beta_start", "beta_end", "beta_schedule")}
    pipe = StableDiffusionXLPipeline(
        first.vae,
        first.text_encoder,
        second,
        first.tokenizer,
        first.tokenizer,
        unet.eval(),
        EulerDiscreteScheduler(**schedule, timestep_spacing="leading", steps_offset=1),
        add_watermarker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


FAMILIES = {"SD 1.x": tiny_pipeline, "SD 2.x": tiny_v_pipeline, "SDXL": tiny_xl_pipeline}


def write_tiny_adaptor(
    folder: Path, pipe: Any, *, rank: int = 2, seed: int = 1, parts: tuple[str, ...] = ("text_encoder", "unet")
) -> Path:
    """Write an adaptor with random weights for a pipeline, which is left as it was."""
    torch.manual_seed(seed)
    for parameter in lora.attach(pipe, parts, rank=rank).values():
        torch.nn.init.normal_(parameter, std=0.2)
    tensors = lora.extract(pipe, parts)
    lora.detach(pipe, parts)
    return write_adaptor(
        folder, tensors, name=f"tiny-{seed}", pipe=pipe, base_model="tiny", attributes=AIM, rank=rank, training={}
    )


def write_tiny_tokens(folder: Path, pipe: Any, *, count: int = 2, width: int = 32, seed: int = 0) -> Path:
    """Write an adaptor of soft tokens."""
    rows = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    tokens = {family_of(pipe).token_encoder or "text_encoder": rows}
    return write_adaptor(
        folder,
        {},
        tokens=tokens,
        name=f"tokens-{seed}",
        pipe=pipe,
        base_model="tiny",
        attributes=AIM,
        rank=1,
        training={},
    )


def set_config(folder: Path, **fields: Any) -> None:
    """Change fields of an adaptor's record."""
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps({**config, **fields}))


def write_tensors(folder: Path, tensors: State, file: str = WEIGHTS_FILE) -> None:
    """Put other tensors into an adaptor folder, with a record that fits them, as another tool might."""
    write_weights(folder, save(tensors), file)


def write_weights(folder: Path, data: bytes, file: str = WEIGHTS_FILE) -> None:
    """Put other bytes into an adaptor folder as its weights, with a record that fits them."""
    (folder / file).write_bytes(data)
    config = json.loads((folder / CONFIG_FILE).read_text())
    config["files"] = {file: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}}
    (folder / CONFIG_FILE).write_text(json.dumps(config))


def image(pipe: Any) -> torch.Tensor:
    """Draw one image [1, 3, H, W], always of the same noise."""
    generator = torch.Generator().manual_seed(0)
    return pipe("a nurse", num_inference_steps=2, generator=generator, output_type="pt").images


def latents(pipe: Any) -> torch.Tensor:
    """Draw one image, always of the same noise, and do not decode it: latents [1, 4, 8, 8]."""
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).to(pipe.vae.dtype)
    return pipe("a nurse", latents=noise, num_inference_steps=2, output_type="latent").images


def state(pipe: Any) -> State:
    """Return a copy of all weights of a pipeline."""
    names = [name for name in all_parts() if getattr(pipe, name, None) is not None]
    parts = {name: getattr(pipe, name) for name in (*names, "vae")}
    return {
        f"{part}.{k}": v.detach().cpu().clone() for part, model in parts.items() for k, v in model.state_dict().items()
    }


def same(one: State, two: State) -> bool:
    """Tell whether two states are equal bit for bit."""
    return one.keys() == two.keys() and all(
        one[key].dtype == two[key].dtype and torch.equal(one[key], two[key]) for key in one
    )


def animated(pipe: Any) -> Any:
    """Return AnimateDiff's pipeline with the parts of another."""
    from diffusers import AnimateDiffPipeline, MotionAdapter

    motion = MotionAdapter(
        block_out_channels=(32, 64),
        motion_layers_per_block=1,
        motion_num_attention_heads=4,
        motion_norm_num_groups=8,
        motion_max_seq_length=4,
        use_motion_mid_block=False,
    )
    parts = (pipe.vae, pipe.text_encoder, pipe.tokenizer, pipe.unet, motion, pipe.scheduler)
    return AnimateDiffPipeline(*parts)


def with_unet(pipe: Any, **changes: Any) -> Any:
    """The pipeline with another U-Net of the same weights where names and shapes agree."""
    config = {key: value for key, value in pipe.unet.config.items() if not key.startswith("_")}
    unet = UNet2DConditionModel(**config | changes).eval()
    ours = pipe.unet.state_dict()
    unet.load_state_dict({k: v for k, v in ours.items() if unet.state_dict()[k].shape == v.shape}, strict=False)
    pipe.unet = unet
    return pipe


def ip_adapter(pipe: Any) -> Any:
    """What `load_ip_adapter` puts in: its own keys and values in every cross attention, and a projection of images."""
    from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
    from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection

    width = pipe.unet.config.cross_attention_dim
    for name, module in pipe.unet.named_modules():
        if name.endswith("attn2"):
            module.processor = IPAdapterAttnProcessor2_0(module.to_q.out_features, width)
    pipe.unet.encoder_hid_proj = MultiIPAdapterImageProjection([ImageProjection(width, width)])
    return pipe
