"""Builds the sandbox's model of a flow: ``python -m fair_adaptors.training.sandbox.flow``.

A small Stable Diffusion 3 without T5, of the sandbox's portraits: the sandbox's autoencoder and tokenizer, its text
encoder to start from and a smaller one beside it, and a transformer that learns the flow from noise to portraits.
Saves a pipeline folder in half precision, measures it, and draws a picture to look at. Seeded; half an hour on two
cores.
"""

import argparse
import functools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from fair_adaptors.training.engine.lora import ExponentialAverage
from rich.progress import Progress
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from fair_adaptors.report.grid import plain_grid
from fair_adaptors.sandbox.classifiers import load_classifier
from fair_adaptors.sandbox.flow import flow_folder, with_one_zero
from fair_adaptors.sandbox.pipeline import GUIDANCE, STEPS, load_sandbox_pipeline
from fair_adaptors.sandbox.prompts import TEMPLATE, occupations

from .building import load_as_float32, minimise, stage_of
from .measure import measure
from .portraits import Portraits, render_portraits
from .tokenizer import build_tokenizer

LENGTH = 32
"""Tokens of a prompt. Those of the sandbox have 17 at most."""
WIDTHS = (64, 32)
"""Of the text encoders."""
INNER, HEAD, LAYERS = 96, 32, 6
"""Width of the transformer and of its heads, and how many blocks it has."""
POOLED = 32
SHIFT = 2.0
"""Of the scheduler: more of the steps where there is much noise."""


def new_pipeline() -> StableDiffusion3Pipeline:
    """Return the pipeline before training: autoencoder and first text encoder of the sandbox, the rest random."""
    sandbox = load_sandbox_pipeline()
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = LENGTH
    first, second = (_text_encoder(tokenizer, width) for width in WIDTHS)
    trained = sandbox.text_encoder.state_dict()
    place = next(name for name in trained if name.endswith("position_embedding.weight"))
    trained[place] = trained[place][:LENGTH].clone()
    missing, unexpected = first.load_state_dict({f"text_model.{name}": row for name, row in trained.items()}, False)
    assert not unexpected and missing == ["text_projection.weight"], (missing, unexpected)
    transformer = SD3Transformer2DModel(
        sample_size=sandbox.unet.config.sample_size,
        in_channels=sandbox.vae.config.latent_channels,
        out_channels=sandbox.vae.config.latent_channels,
        num_layers=LAYERS,
        attention_head_dim=HEAD,
        num_attention_heads=INNER // HEAD,
        joint_attention_dim=sum(WIDTHS),
        caption_projection_dim=INNER,
        pooled_projection_dim=2 * POOLED,
        pos_embed_max_size=sandbox.unet.config.sample_size // 2,
        qk_norm="rms_norm",
    )
    _silence(transformer)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=SHIFT)
    pipe = StableDiffusion3Pipeline(
        transformer, scheduler, sandbox.vae, first, tokenizer, second, tokenizer, None, None
    )
    pipe.set_progress_bar_config(disable=True)
    return with_one_zero(pipe)


def _text_encoder(tokenizer: CLIPTokenizer, width: int) -> CLIPTextModelWithProjection:
    end = tokenizer.eos_token_id
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        projection_dim=POOLED,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end,
        pad_token_id=end,
    )
    return CLIPTextModelWithProjection(config)


def _silence(transformer: Any) -> None:
    """Let every block, and the output, be zero at first (adaLN-Zero, Peebles & Xie 2023)."""
    last = [transformer.norm_out.linear, transformer.proj_out]
    for block in transformer.transformer_blocks:
        last += [block.norm1.linear, block.norm1_context.linear]
    for layer in last:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


@torch.no_grad()
def encode_portraits(pipe: Any, portraits: Portraits) -> Tensor:
    """Encode all portraits to latents [N, C, h, w] of mean 0 and variance 1; the autoencoder's config says how."""
    index = torch.arange(len(portraits.captions))
    rows = [pipe.vae.encode(2 * portraits.images(chunk) - 1).latent_dist.mean for chunk in index.split(64)]
    latents = torch.cat(rows)
    mean, spread = latents.mean().item(), latents.std().item()
    pipe.vae.register_to_config(shift_factor=mean, scaling_factor=1 / spread)
    return (latents - mean) / spread


def train(
    pipe: Any,
    latents: Tensor,
    captions: list[str],
    steps: int,
    *,
    generator: torch.Generator,
    advance: Callable[[], None],
) -> list[float]:
    """Train transformer and text encoders together, and put their average over the steps in; returns the losses.

    The noise levels are those of Stable Diffusion 3 (logit-normal, Esser et al. 2024); one caption in ten is empty.
    """
    parts = [pipe.transformer, pipe.text_encoder, pipe.text_encoder_2]
    parameters = [parameter for part in parts for parameter in part.train().requires_grad_(True).parameters()]
    average = ExponentialAverage(parameters, 0.998)
    tokens, empty = _tokenize(pipe.tokenizer, captions), _tokenize(pipe.tokenizer, [""])
    losses = []
    for index in minimise(parameters, steps, len(captions), 64, 2e-3, generator, advance):
        average.update()
        dropped = torch.rand(len(index), 1, generator=generator) < 0.1
        states, pooled = _conditions(pipe, torch.where(dropped, empty, tokens[index]))
        sigma = torch.randn(len(index), generator=generator).sigmoid()
        noise = torch.randn(latents[index].shape, generator=generator)
        level = sigma[:, None, None, None]
        noisy = (1 - level) * latents[index] + level * noise
        times = sigma * pipe.scheduler.config.num_train_timesteps
        output = pipe.transformer(noisy, states, pooled, times, return_dict=False)[0]
        loss = (output - (noise - latents[index])).square().mean()
        loss.backward()
        losses.append(loss.item())
    with torch.no_grad():
        for mean, parameter in zip(average.means, parameters, strict=True):
            parameter.copy_(mean)
    for part in parts:
        part.eval().requires_grad_(False)
    return losses


def _conditions(pipe: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the pipeline's ``encode_prompt`` does of tokens [N, L]: embeddings and pooled ones."""
    said = [encoder(tokens, output_hidden_states=True) for encoder in (pipe.text_encoder, pipe.text_encoder_2)]
    states = torch.cat([each.hidden_states[-2] for each in said], -1)
    states = torch.cat([states, states.new_zeros(len(states), 1, states.shape[-1])], 1)
    return states, torch.cat([each[0] for each in said], -1)


def _tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    return tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids


def build(out: Path, *, portraits: int, steps: int, images_per_prompt: int, seed: int) -> dict[str, Any]:
    """Build everything into ``out``: ``pipeline/``, ``build.json`` with the measured quality, and ``pictures.png``."""
    started = time.perf_counter()
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    with Progress() as progress:
        stage = functools.partial(stage_of, progress)
        rendering = stage("portraits", math.ceil(portraits / 200))
        drawn = render_portraits(portraits, generator=generator, advance=rendering)
        pipe = new_pipeline()
        latents = encode_portraits(pipe, drawn)
        training = stage("transformer and text encoders", steps)
        losses = train(pipe, latents, drawn.captions, steps, generator=generator, advance=training)
    save(pipe, out)
    last = losses[-100:]
    quality = {"loss": sum(last) / len(last), **measure(pipe, load_classifier("evaluation"), images_per_prompt, seed)}
    quality["seconds"] = time.perf_counter() - started
    quality["megabytes"] = sum(f.stat().st_size for f in out.rglob("*.safetensors")) / 1e6
    (out / "build.json").write_text(json.dumps(quality, indent=2) + "\n")
    draw(pipe, out / "pictures.png", seed=seed)
    return quality


def save(pipe: Any, out: Path) -> None:
    """Save the pipeline in half precision, and have it in float32 again, rounded."""
    pipe.to(dtype=torch.float16).save_pretrained(out / "pipeline")
    config = out / "pipeline" / "vae" / "config.json"
    without = {name: value for name, value in json.loads(config.read_text()).items() if name != "_name_or_path"}
    config.write_text(json.dumps(without, indent=2) + "\n")  # where the sandbox's lies is nobody else's to know
    for name in ("text_encoder", "text_encoder_2"):
        load_as_float32(out / "pipeline" / name / "config.json")
    pipe.to(dtype=torch.float32)


@torch.no_grad()
def draw(pipe: Any, path: Path, *, seed: int, columns: int = 8) -> None:
    """Draw test occupations, one a row, into one picture."""
    labels = list(occupations("test")[:6])
    rows = [
        pipe(
            TEMPLATE.format(label),
            num_images_per_prompt=columns,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=torch.Generator().manual_seed(seed),
            output_type="pt",
        ).images
        for label in labels
    ]
    plain_grid(torch.cat(rows), title="sandbox-flow", columns=columns, tile=96, labels=labels).save(path)


def main() -> None:
    """Build the model from the command line and print the measured quality."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=flow_folder(), help="folder to write to")
    parser.add_argument("--portraits", type=int, default=24_000)
    parser.add_argument("--steps", type=int, default=4_500)
    parser.add_argument("--images", type=int, default=32, help="images per prompt of the measurement")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sizes = {"portraits": arguments.portraits, "steps": arguments.steps, "images_per_prompt": arguments.images}
    for name, value in build(arguments.out, **sizes, seed=arguments.seed).items():
        print(f"{name:20} {value:.3f}")


if __name__ == "__main__":
    main()
