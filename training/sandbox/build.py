"""Builds the weights of the sandbox: ``python -m fair_adaptors.training.sandbox.build``.

Renders the world, trains the four portrait networks on its truth, the autoencoder, and a text encoder with a U-Net;
saves a Stable Diffusion pipeline folder in half precision and measures it. Seeded; under 30 minutes on two cores.
"""

import argparse
import functools
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from fair_adaptors.training.engine.lora import ExponentialAverage
from rich.progress import Progress
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from fair_adaptors.sandbox import world
from fair_adaptors.sandbox.classifiers import NETWORKS, PortraitNetwork
from fair_adaptors.sandbox.pipeline import WEIGHTS

from .building import load_as_float32, minimise, stage_of, tokenize
from .measure import measure
from .portraits import Portraits, render_portraits
from .tokenizer import build_tokenizer

LATENT_CHANNELS = 4
DOWNSAMPLING = 4


@dataclass(frozen=True)
class BuildConfig:
    """Sizes and step counts of a build; the defaults make the shipped weights."""

    portraits: int = 24_000
    network_steps: int = 700
    blends_portraits: int = 16_000
    blends_steps: int = 900
    autoencoder_steps: int = 2_500
    base_steps: int = 2_400
    images_per_prompt: int = 32
    seed: int = 0


MIXUP = 0.4
"""Both parameters of the Beta distribution that the share of one portrait in a blend is drawn from."""


def train_network(
    which: str, portraits: Portraits, steps: int, *, generator: torch.Generator, advance: Callable[[], None]
) -> PortraitNetwork:
    """Train one portrait network on the renderer's truth, on renders made noisy and soft as generated images are.

    ``blends`` learns from blends of two portraits, with the labels blended alike (mixup, Zhang et al. 2018).
    """
    width, heads = NETWORKS[which]
    network = PortraitNetwork(width, heads)
    truth = {name: getattr(portraits.people, name) for name in heads if name != "nuisances"}
    nuisances = torch.stack([getattr(portraits.people, name) for name in world.NUISANCES], 1)
    for index in minimise(network.parameters(), steps, len(nuisances), 64, 3e-3, generator, advance):
        labels = {name: F.one_hot(truth[name][index], heads[name]).float() for name in truth}
        images = portraits.images(index)
        if which == "blends":
            images, labels = _blended(images, labels, generator)
        logits = network(_soften(images, generator))
        loss = torch.stack([F.cross_entropy(logits[name], labels[name]) for name in truth]).sum()
        if "nuisances" in logits:
            loss = loss + 4 * F.mse_loss(logits["nuisances"], nuisances[index])
        loss.backward()
    return network.eval().requires_grad_(False)


def _blended(
    images: Tensor, labels: dict[str, Tensor], generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Blend each image with another one of the batch, and its labels [N, K] alike."""
    gammas = torch._standard_gamma(torch.full((2, len(images), 1), MIXUP), generator=generator)  # two make a Beta
    share = gammas[0] / gammas.sum(0)
    other = torch.randperm(len(images), generator=generator)

    def blend(rows: Tensor) -> Tensor:
        part = share.view(-1, *[1] * (rows.ndim - 1))
        return part * rows + (1 - part) * rows[other]

    return blend(images), {name: blend(rows) for name, rows in labels.items()}


def _soften(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blur half of the images and add noise to all, by an amount drawn for each."""
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    draw = torch.rand(2, len(images), 1, 1, 1, generator=generator)
    noise = torch.randn(images.shape, generator=generator)
    return images + (2 * draw[0] - 1).clamp(min=0) * (blurred - images) + 0.06 * draw[1] * noise


def train_autoencoder(
    portraits: Portraits, steps: int, *, generator: torch.Generator, advance: Callable[[], None]
) -> AutoencoderKL:
    """Train the autoencoder on colours and on edges (differences of neighbouring pixels), which keeps it sharp."""
    autoencoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        sample_size=world.IMAGE_SIZE,
        mid_block_add_attention=False,
    ).to(memory_format=torch.channels_last)
    for index in minimise(autoencoder.parameters(), steps, len(portraits.captions), 16, 2e-3, generator, advance):
        target = (2 * portraits.images(index) - 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = autoencoder.encode(target).latent_dist
            image = autoencoder.decode(posterior.sample(generator)).sample
        error = image.float() - target
        edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        (error.abs().mean() + error.square().mean() + edges + 1e-5 * posterior.kl().float().mean()).backward()
    return autoencoder.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)


@torch.no_grad()
def encode_portraits(autoencoder: AutoencoderKL, portraits: Portraits) -> Tensor:
    """Encode all portraits to unit-variance latents [N, C, 16, 16]; writes the scale into the autoencoder's config."""
    latents = torch.cat(
        [
            autoencoder.encode(2 * portraits.images(index) - 1).latent_dist.mean
            for index in torch.arange(len(portraits.captions)).split(64)
        ]
    )
    autoencoder.register_to_config(scaling_factor=1 / latents.std().item())
    return latents * autoencoder.config.scaling_factor


def train_base(
    latents: Tensor,
    captions: list[str],
    tokenizer: CLIPTokenizer,
    scheduler: DPMSolverMultistepScheduler,
    steps: int,
    *,
    generator: torch.Generator,
    advance: Callable[[], None],
) -> tuple[CLIPTextModel, UNet2DConditionModel]:
    """Train text encoder and U-Net together: noise prediction, one caption in ten left empty, min-SNR weights, EMA."""
    end = tokenizer.eos_token_id
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=192,
            num_hidden_layers=3,
            num_attention_heads=4,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=end,
            pad_token_id=end,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=world.IMAGE_SIZE // DOWNSAMPLING,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64, 80),
        layers_per_block=1,
        cross_attention_dim=64,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    tokens = tokenize(tokenizer, captions)
    empty = tokenize(tokenizer, [""])
    alphas = scheduler.alphas_cumprod
    parameters = [*text_encoder.parameters(), *unet.parameters()]
    average = ExponentialAverage(parameters, 0.998)
    for index in minimise(parameters, steps, len(captions), 64, 1.6e-3, generator, advance):
        average.update()
        dropped = torch.rand(len(index), 1, generator=generator) < 0.1
        states = text_encoder(torch.where(dropped, empty, tokens[index])).last_hidden_state
        timesteps = torch.randint(len(alphas), (len(index),), generator=generator)
        noise = torch.randn(latents[index].shape, generator=generator)
        alpha = alphas[timesteps][:, None, None, None]
        noisy = alpha.sqrt() * latents[index] + (1 - alpha).sqrt() * noise
        error = (unet(noisy, timesteps, states).sample - noise).square().mean((1, 2, 3))
        snr = (alpha / (1 - alpha)).flatten()
        (error * (5 / snr).clamp(max=1)).mean().backward()
    with torch.no_grad():
        for mean, parameter in zip(average.means, parameters, strict=True):
            parameter.copy_(mean)
    return text_encoder.eval().requires_grad_(False), unet.eval().requires_grad_(False)


def build_blends(out: Path, config: BuildConfig, stage: Callable[[str, int], Callable[[], None]]) -> None:
    """Train and save the network that learns from blends, on portraits of its own."""
    torch.manual_seed(config.seed + 1)
    generator = torch.Generator().manual_seed(config.seed + 1)
    advance = stage("portraits to blend", math.ceil(config.blends_portraits / 200))
    portraits = render_portraits(config.blends_portraits, generator=generator, advance=advance, even=True)
    advance = stage("blends network", config.blends_steps)
    save(train_network("blends", portraits, config.blends_steps, generator=generator, advance=advance), "blends", out)


def save(network: PortraitNetwork, which: str, out: Path) -> None:
    """Save a portrait network in half precision."""
    state = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    (out / "classifiers").mkdir(parents=True, exist_ok=True)
    save_file(state, out / "classifiers" / f"{which}.safetensors")


def build(out: Path, config: BuildConfig) -> dict[str, Any]:
    """Build everything into ``out``: ``pipeline/``, ``classifiers/`` and ``build.json`` with the measured quality."""
    started = time.perf_counter()
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    with Progress() as progress:
        stage = functools.partial(stage_of, progress)
        rendering = stage("portraits", math.ceil(config.portraits / 200))
        portraits = render_portraits(config.portraits, generator=generator, advance=rendering)
        networks = {}
        for which in ("training", "evaluation", "encoder"):
            advance = stage(f"{which} network", config.network_steps)
            networks[which] = train_network(
                which, portraits, config.network_steps, generator=generator, advance=advance
            )
            save(networks[which], which, out)
        advance = stage("autoencoder", config.autoencoder_steps)
        autoencoder = train_autoencoder(portraits, config.autoencoder_steps, generator=generator, advance=advance)
        latents = encode_portraits(autoencoder, portraits)
        tokenizer = build_tokenizer()
        scheduler = DPMSolverMultistepScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        )
        text_encoder, unet = train_base(
            latents,
            portraits.captions,
            tokenizer,
            scheduler,
            config.base_steps,
            generator=generator,
            advance=stage("text encoder and U-Net", config.base_steps),
        )
        build_blends(out, config, stage)
    pipe = StableDiffusionPipeline(
        autoencoder, text_encoder, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )
    pipe.to(dtype=torch.float16).save_pretrained(out / "pipeline")
    load_as_float32(out / "pipeline" / "text_encoder" / "config.json")
    pipe.to(dtype=torch.float32)
    quality = measure(pipe, networks["evaluation"], config.images_per_prompt, config.seed)
    quality["seconds"] = time.perf_counter() - started
    quality["megabytes"] = sum(f.stat().st_size for f in out.rglob("*.safetensors")) / 1e6
    (out / "build.json").write_text(json.dumps(quality, indent=2) + "\n")
    return quality


def main() -> None:
    """Build the sandbox's weights from the command line and print the measured quality."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only-blends", action="store_true", help="train the network of blends, and nothing else")
    arguments = parser.parse_args()
    config = BuildConfig(seed=arguments.seed)
    if arguments.only_blends:
        with Progress() as progress:
            build_blends(arguments.out, config, functools.partial(stage_of, progress))
        return
    for name, value in build(arguments.out, config).items():
        print(f"{name:20} {value:.3f}")


if __name__ == "__main__":
    main()
