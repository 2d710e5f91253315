"""Seconds and peak memory of a training iteration on models of Stable Diffusion's size, with random weights.

One prompt, N images of 512² (XL: 1024²), T steps, with the settings of the recipe of that base, but for one attribute
and one encoder, of CLIP ViT-L's size. Ours with all steps, with a quarter of them, and with the originals kept; and
the published form: a pass without gradient for the targets, then the sampler as one graph whose U-Net is checkpointed.
One process, one run, a GPU; ``--tiny`` runs the same on small models anywhere, to see that it works.
"""

import argparse
import copy
import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from fair_adaptors.training.config import Attribute, TrainConfig
from fair_adaptors.training.engine import loop, step
from fair_adaptors.training.engine.batches import batch_at
from fair_adaptors.training.engine.processes import World
from fair_adaptors.training.engine.reference_images import ReferenceImages
from fair_adaptors.training.engine.state import attached
from fair_adaptors.training.recipes import get_recipe
from fair_adaptors.training.setup import Setup, checkpoint_activations
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from benchmarks._report import report
from fair_adaptors.adaptor.architecture import load_architecture
from tests.reference import whole_graph_gradients
from tests.tiny import tiny_pipeline, tiny_xl_pipeline

RECIPES = {"sd15": "gender", "sdxl": "sdxl-gender-race"}
TINY = {"sd15": tiny_pipeline, "sdxl": tiny_xl_pipeline}
AIM = {"peak gigabytes, 5 of 20 steps": 16.0, "images/s with the subset over the published form": 3.0}


def build_pipeline(base: str, dtype: torch.dtype, device: torch.device) -> Any:
    """Build a pipeline of a base's size, with random weights and a small pipeline's words."""
    small, shapes = TINY[base](), load_architecture(base).pipe
    parts: dict[str, Any] = {}
    with device:
        for part in ("text_encoder", "text_encoder_2"):
            if (shape := getattr(shapes, part, None)) is not None:
                words = getattr(small, part.replace("text_encoder", "tokenizer"))
                config = copy.deepcopy(shape.config)
                config.eos_token_id, config.bos_token_id = words.eos_token_id, words.bos_token_id
                parts[part] = type(shape)(config).eval()
        parts["unet"] = UNet2DConditionModel.from_config(shapes.unet.config).eval()
        parts["vae"] = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        ).eval()
    pipe = type(small)(**(small.components | parts))
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device, dtype)


class Judge(nn.Module):
    """A classifier of two classes, of a small network's cost."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 32, 7, stride=4), nn.SiLU(), nn.Conv2d(32, 64, 3, stride=2), nn.AdaptiveAvgPool2d(1)
        )
        self.head = nn.Linear(64, 2)

    def forward(self, images: Tensor) -> Mapping[str, Tensor]:
        """Classify images [N, 3, H, W]."""
        small = F.interpolate(images, 224, mode="bilinear", antialias=True)
        return {"gender": 50 * self.head(self.layers(small).flatten(1))}


class Encoder(nn.Module):
    """Unit features of a CLIP vision tower with random weights."""

    def __init__(self, config: CLIPVisionConfig, dtype: torch.dtype):
        super().__init__()
        self.size, self.tower = config.image_size, CLIPVisionModel(config).to(dtype)
        self.tower.gradient_checkpointing = True

    def forward(self, images: Tensor) -> Tensor:
        """Encode images [N, 3, H, W]."""
        small = F.interpolate(images, self.size, mode="bilinear", antialias=True)
        dtype = next(self.tower.parameters()).dtype
        return F.normalize(self.tower(small.to(dtype)).pooler_output.float(), dim=1)


def build_setup(base: str, tiny: bool, dtype: torch.dtype, device: torch.device) -> Setup:
    """Build everything that an iteration needs."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    if not tiny:
        sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    vision = CLIPVisionConfig(image_size=224, patch_size=14, **sizes)
    with device:
        judge, encoder = Judge().requires_grad_(False), Encoder(vision, dtype).requires_grad_(False)
    pipe = TINY[base]().to(device, dtype) if tiny else build_pipeline(base, dtype, device)
    prompts = ("a nurse", "a guard")
    return Setup(pipe, {"train": prompts}, prompts, judge, judge, {"clip": encoder})


def published_form(setup: Setup, config: TrainConfig) -> Callable[..., None]:
    """Return what replaces our gradient: the whole graph over the steps; the pass without gradient stays."""

    def gradient(pipe: Any, run: Any, latent_gradient: Tensor, prompts: Sequence[str], **settings: Any) -> None:
        whole_graph_gradients(
            pipe,
            prompts[0],
            run.scaled_inputs[0],  # the noise itself: the scheduler is DPM-Solver
            latent_gradient.to(run.latents),
            num_steps=config.num_steps,
            guidance_scale=config.guidance_scale,
            factors=torch.ones(len(run.timesteps)),
        )

    return gradient


def measure(setup: Setup, config: TrainConfig, device: torch.device, repeats: int, *, published: bool) -> dict:
    """Return the seconds of an iteration, the least of some, and the peak memory."""
    plain = step.accumulate_gradients
    seconds = []
    if config.activation_checkpointing:
        checkpoint_activations(setup.pipe.unet, setup.pipe.vae)
    with tempfile.TemporaryDirectory() as folder, attached(setup, config) as state:
        references = ReferenceImages(Path(folder) if config.originals_pool else None)
        step.accumulate_gradients = published_form(setup, config) if published else plain  # type: ignore[assignment]
        try:
            for number in range(repeats + 1):
                if device.type == "cuda":
                    torch.cuda.synchronize()
                    torch.cuda.reset_peak_memory_stats()
                started = time.perf_counter()
                batch = batch_at(config, setup.prompts, 0 if config.originals_pool else number, 0)
                result = step.train_step(setup, config, state, batch, references=references)
                loop.apply_gradients(state, config, [result], World())
                if device.type == "cuda":
                    torch.cuda.synchronize()
                seconds.append(time.perf_counter() - started)
        finally:
            step.accumulate_gradients = plain
            for model in (setup.pipe.unet, setup.pipe.vae):  # the reference leaves it training
                model.disable_gradient_checkpointing()
                model.eval()
    peak = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else None
    least = min(seconds[1:])
    return {"seconds": least, "images/s": config.images_per_prompt / least, "peak gigabytes": peak}


def main() -> None:
    """Print a row per form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", choices=RECIPES, default="sd15")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--images-per-call", type=int, help="the recipe's by default")
    parser.add_argument("--images-per-decode", type=int, help="the recipe's by default")
    arguments = parser.parse_args()
    if not arguments.tiny and not torch.cuda.is_available():
        sys.exit("there is no GPU here; --tiny runs on a CPU")
    device = torch.device("cpu" if arguments.tiny else "cuda")
    dtype = torch.float32 if arguments.tiny else torch.bfloat16
    setup = build_setup(arguments.base, arguments.tiny, dtype, device)
    recipe = get_recipe(RECIPES[arguments.base])
    config = dataclasses.replace(
        recipe,
        attributes=(Attribute("gender", ("female", "male"), (0.5, 0.5)),),
        prompt_sets=(("train", 1.0),),
        faces="",
        face_weight=0.0,
        images_per_prompt=arguments.images,
        num_steps=arguments.steps,
        max_steps=0,
        gradient_steps=0,
        images_per_call=arguments.images_per_call or recipe.images_per_call,
        images_per_decode=arguments.images_per_decode or recipe.images_per_decode,
        dtype="float32" if arguments.tiny else "bfloat16",
    )
    few = dataclasses.replace(config, gradient_steps=max(1, arguments.steps // 4))
    forms = {
        "all steps": (config, False),
        "a quarter of the steps": (few, False),
        "a quarter, originals kept": (dataclasses.replace(few, originals_pool=1), False),
        "published form": (config, True),
    }
    rows = []
    for name, (settings, published) in forms.items():
        rows.append({"form": name, **measure(setup, settings, device, arguments.repeats, published=published)})
        print(rows[-1], flush=True)
    for row in rows:
        row["speed / published"] = row["images/s"] / rows[-1]["images/s"]
    kind = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    name = f"gpu_{arguments.base}{'_tiny' if arguments.tiny else ''}"
    report(name, rows, device=kind, settings=vars(arguments), aims=AIM)


if __name__ == "__main__":
    main()
