"""Seconds and peak memory of a training iteration on models of Stable Diffusion's size, with random weights.

One prompt, N images of 512² (XL: 1024²), T steps, with the settings of the recipe of that base, but for one attribute
and one encoder, of CLIP ViT-L's size. The published form: a pass without gradient for the targets, then the sampler as
one graph whose U-Net is checkpointed. Ours with all steps, with a quarter of them, with the originals kept, and beside
that each lever alone. One process, one run, a GPU, both bases; no form is begun when the minutes are over. ``--tiny``
runs the same on small models anywhere, to see that it works.
"""

import argparse
import copy
import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from fair_adaptors.training.config import Attribute, TrainConfig
from fair_adaptors.training.engine import loop, step
from fair_adaptors.training.engine.denoisers import denoiser_for
from fair_adaptors.training.engine.families.denoiser import decode_with
from fair_adaptors.training.engine.reference_images import ReferenceImages
from fair_adaptors.training.engine.state import attached
from fair_adaptors.training.recipes import get_recipe
from fair_adaptors.training.setup import Setup, checkpoint_activations
from fair_adaptors.training.speed import faster_by, speed_up
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from benchmarks._report import report
from fair_adaptors.adaptor.architecture import load_architecture
from tests.reference import whole_graph_gradients
from tests.tiny import tiny_pipeline, tiny_xl_pipeline

RECIPES = {"sd15": "gender", "sdxl": "sdxl-gender-race"}
TINY = {"sd15": tiny_pipeline, "sdxl": tiny_xl_pipeline}
AIM = {"peak gigabytes, 5 of 20 steps": 16.0, "images/s with the subset over the published form": 3.0}
PUBLISHED = "published form"
LEVERS: Mapping[str, Mapping[str, Any]] = {
    "conditional branch alone": {"unconditional_gradient": False},
    "two updates of a rollout": {"updates_per_rollout": 2},
    "small decoder": {"gradient_decoder": "of TAESD's shape"},
    "channels_last": {"channels_last": True},
    "tf32": {"tf32": True},
    "compile": {"compile": True},
}
"""What a form changes beside the settings of ours."""


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

    def __init__(self, config: CLIPVisionConfig):
        super().__init__()
        self.size, self.tower = config.image_size, CLIPVisionModel(config)
        self.tower.gradient_checkpointing = True

    def forward(self, images: Tensor) -> Tensor:
        """Encode images [N, 3, H, W]."""
        small = F.interpolate(images, self.size, mode="bilinear", antialias=True)
        return F.normalize(self.tower(small).pooler_output, dim=1)


def build_setup(base: str, tiny: bool, dtype: torch.dtype, device: torch.device) -> Setup:
    """Build everything that an iteration needs."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    if not tiny:
        sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    vision = CLIPVisionConfig(image_size=224, patch_size=14, **sizes)
    with device:
        judge, encoder = Judge().requires_grad_(False), Encoder(vision).requires_grad_(False)
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


@dataclass(frozen=True)
class Form:
    """A way to train: its settings, and whether the gradient is the published form's."""

    config: TrainConfig
    published: bool = False


def forms(config: TrainConfig) -> dict[str, Form]:
    """Return what is measured, in order: each of ``LEVERS`` alone on top of ours, and in the end all of them."""
    ours = dataclasses.replace(config, gradient_steps=max(1, config.num_steps // 4))
    kept = dataclasses.replace(ours, originals_pool=1)
    every: dict[str, Any] = {name: value for changes in LEVERS.values() for name, value in changes.items()}
    return {
        PUBLISHED: Form(config, published=True),
        "all steps": Form(config),
        "a quarter of the steps": Form(ours),
        "a quarter, originals kept": Form(kept),
        **{f"{name}, beside": Form(dataclasses.replace(kept, **changes)) for name, changes in LEVERS.items()},
        "all of these": Form(dataclasses.replace(kept, **every)),
    }


def measure(setup: Setup, form: Form, device: torch.device, repeats: int) -> dict[str, Any]:
    """Return the seconds of an iteration, the least of some, and the peak memory."""
    plain, config, seconds = step.accumulate_gradients, form.config, []
    with (
        tempfile.TemporaryDirectory() as folder,
        as_asked(setup, config, device) as there,
        attached(there, config) as state,
    ):
        references = ReferenceImages(Path(folder) if config.originals_pool else None)
        step.accumulate_gradients = published_form(setup, config) if form.published else plain  # type: ignore[assignment]
        try:
            for number in range(repeats + 1):
                if device.type == "cuda":
                    torch.cuda.synchronize()
                    torch.cuda.reset_peak_memory_stats()
                started = time.perf_counter()
                state.iteration = 0 if config.originals_pool else number
                loop.fit(there, config, state, references=references, on_step=lambda *_: True)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                seconds.append(time.perf_counter() - started)
        finally:
            step.accumulate_gradients = plain
    peak = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else None
    least = min(seconds[1:])
    rates = {"images/s": config.images_per_prompt / least, "updates/s": config.updates_per_rollout / least}
    return {"seconds": least, **rates, "peak gigabytes": peak}


@contextmanager
def as_asked(setup: Setup, config: TrainConfig, device: torch.device) -> Iterator[Setup]:
    """Prepare the models as a run's settings ask for, and put them back as they were."""
    unet, vae = setup.pipe.unet, setup.pipe.vae
    if config.activation_checkpointing:
        checkpoint_activations(unet, vae)
    speed_up(faster_by(config, device), denoiser_for(setup.pipe))
    small = None
    if config.gradient_decoder:
        stages = len(vae.config.block_out_channels)
        shape: dict[str, Any] = {"num_encoder_blocks": (1,) * stages, "num_decoder_blocks": (3,) * (stages - 1) + (1,)}
        shape |= {f"{part}coder_block_out_channels": (64,) * stages for part in ("en", "de")}
        small = partial(decode_with, AutoencoderTiny(**shape).to(device, unet.dtype).requires_grad_(False).eval())
    try:
        yield dataclasses.replace(setup, gradient_decoder=small)
    finally:
        torch.set_float32_matmul_precision("highest")
        unet._compiled_call_impl = None  # what ``compile`` has set
        for model in (unet, vae):
            model.to(memory_format=torch.contiguous_format)
            model.disable_gradient_checkpointing()
            model.eval()  # the reference leaves it training


def run(base: str, arguments: argparse.Namespace) -> None:
    """Measure one base until its minutes are over, and print a row per form."""
    device = torch.device("cpu" if arguments.tiny else "cuda")
    dtype = torch.float32 if arguments.tiny else torch.bfloat16
    started, setup = time.perf_counter(), build_setup(base, arguments.tiny, dtype, device)
    recipe = get_recipe(RECIPES[base])
    config = dataclasses.replace(
        recipe,
        attributes=(Attribute("gender", ("female", "male"), (0.5, 0.5)),),
        prompt_sets=(("train", 1.0),),
        named_images=0,
        faces="",
        face_weight=0.0,
        images_per_prompt=arguments.images,
        num_steps=arguments.steps,
        max_steps=0,
        gradient_steps=0,
        originals_pool=0,
        images_per_call=arguments.images_per_call or recipe.images_per_call,
        images_per_decode=arguments.images_per_decode or recipe.images_per_decode,
        dtype="float32" if arguments.tiny else "bfloat16",
    )
    rows: list[dict[str, Any]] = []
    left_out = []
    for name, form in forms(config).items():
        if rows and time.perf_counter() - started > 60 * arguments.minutes / len(arguments.bases):
            left_out.append(name)
            continue
        rows.append({"form": name, **measure(setup, form, device, arguments.repeats)})
        rows[-1]["speed / published"] = rows[-1]["images/s"] / rows[0]["images/s"]
        print(base, rows[-1], flush=True)
    kind = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    name = f"gpu_{base}{'_tiny' if arguments.tiny else ''}"
    report(name, rows, device=kind, settings=vars(arguments), aims=AIM, left_out=left_out)


def main() -> None:
    """Measure each base."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bases", nargs="*", default=list(RECIPES), help=f"of {', '.join(RECIPES)}; both by default")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=7.0, help="in which forms may begin, shared by the bases")
    parser.add_argument("--images-per-call", type=int, help="the recipe's by default")
    parser.add_argument("--images-per-decode", type=int, help="the recipe's by default")
    arguments = parser.parse_args()
    if not arguments.tiny and not torch.cuda.is_available():
        sys.exit("there is no GPU here; --tiny runs on a CPU")
    for base in arguments.bases:
        run(base, arguments)


if __name__ == "__main__":
    main()
