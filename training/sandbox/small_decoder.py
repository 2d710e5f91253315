"""Distils a small autoencoder for the sandbox: ``python -m fair_adaptors.training.sandbox.small_decoder``.

Its decoder learns to draw what the sandbox's own draws, from latents of portraits with some noise. Its encoder is not
trained: a training run takes the decoder alone (``gradient_decoder=FOLDER``). A picture of both is drawn beside it.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny
from fair_adaptors.training.engine.denoisers import denoiser_for
from fair_adaptors.training.engine.families.denoiser import decode_with
from torch import Tensor

from fair_adaptors.report.grid import plain_grid
from fair_adaptors.sandbox.pipeline import load_sandbox_pipeline

from .build import DOWNSAMPLING, LATENT_CHANNELS
from .building import minimise
from .portraits import render_portraits

STAGES = DOWNSAMPLING.bit_length()
"""All but the last double the sides of a picture."""
SHOWN = 8


def new_decoder() -> AutoencoderTiny:
    """Return one that draws what the sandbox's own does, with random weights: 39,000 numbers in the decoder."""
    return AutoencoderTiny(
        encoder_block_out_channels=(4,) * STAGES,
        decoder_block_out_channels=(20,) * STAGES,
        num_encoder_blocks=(1,) * STAGES,
        num_decoder_blocks=(1,) * STAGES,
        latent_channels=LATENT_CHANNELS,
    )


@torch.no_grad()
def examples(pipe: Any, count: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return latents of portraits [N, C, h, w], and what ``pipe`` decodes of them [N, 3, H, W].

    A tenth of noise is added to the latents: those of a training run are not quite a portrait's.
    """
    portraits = render_portraits(count, generator=generator, advance=lambda: None)
    latents, pictures = [], []
    for index in torch.arange(count).split(64):
        mean = pipe.vae.encode(2 * portraits.images(index) - 1).latent_dist.mean * pipe.vae.config.scaling_factor
        latents.append(mean + 0.1 * torch.randn(mean.shape, generator=generator))
        pictures.append(denoiser_for(pipe).decode(latents[-1]))
    return torch.cat(latents), torch.cat(pictures)


def distil(
    latents: Tensor, pictures: Tensor, *, steps: int, batch: int, generator: torch.Generator
) -> AutoencoderTiny:
    """Train a decoder on colours and on edges, as the sandbox's own was."""
    small = new_decoder()
    for index in minimise(
        small.decoder.parameters(), steps, len(latents), batch, 4e-3, generator, advance=lambda: None
    ):
        error = decode_with(small, latents[index]) - pictures[index]
        edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        (error.abs().mean() + error.square().mean() + edges).backward()
    return small.eval().requires_grad_(False)


def main() -> None:
    """Distil one from the command line, save it in half precision and say how far its pictures are from the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build") / "small_decoder", help="folder to write to")
    parser.add_argument("--examples", type=int, default=1_500)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=16)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    generator, pipe = torch.Generator().manual_seed(0), load_sandbox_pipeline()
    latents, pictures = examples(pipe, arguments.examples, generator=generator)
    held = slice(0, 4 * SHOWN)
    small = distil(
        latents[held.stop :], pictures[held.stop :], steps=arguments.steps, batch=arguments.batch, generator=generator
    )
    small.to(dtype=torch.float16).save_pretrained(arguments.out)
    drawn = decode_with(small.float(), latents[held])
    rows = torch.cat([pictures[:SHOWN], drawn[:SHOWN]]).clamp(0, 1)
    plain_grid(rows, title="sandbox", columns=SHOWN, tile=96, labels=["its own", "small"]).save(
        arguments.out / "pictures.png"
    )
    size = sum(file.stat().st_size for file in arguments.out.glob("*.safetensors")) / 1e3
    print(f"mean error of a pixel {(drawn - pictures[held]).abs().mean():.4f}; {size:.0f} kB in {arguments.out}")


if __name__ == "__main__":
    main()
