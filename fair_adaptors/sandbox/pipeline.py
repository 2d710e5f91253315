"""The sandbox's Stable Diffusion: a plain diffusers folder in the package data."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

WEIGHTS = Path(__file__).parent / "weights"
GUIDANCE = 1.5
STEPS = 10


def pipeline_folder() -> Path:
    """Return the folder that ``StableDiffusionPipeline.from_pretrained`` reads."""
    return WEIGHTS / "pipeline"


def load_sandbox_pipeline() -> "StableDiffusionPipeline":
    """Load the sandbox's base model in float32, without progress bars. Portraits are 64×64.

    The tuned settings are ``num_inference_steps=STEPS`` and ``guidance_scale=GUIDANCE``.
    """
    import torch
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # else it says twice that torchvision is missing, which nothing here needs
    try:
        from diffusers import StableDiffusionPipeline

        pipe = StableDiffusionPipeline.from_pretrained(pipeline_folder(), dtype=torch.float32, local_files_only=True)
    finally:
        logging.set_verbosity(verbosity)
    pipe.set_progress_bar_config(disable=True)
    return pipe
