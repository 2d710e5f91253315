"""The sandbox's model of a flow: a small Stable Diffusion 3 of the same world. Its weights are not in the package."""

import os
from pathlib import Path
from typing import Any

from fair_adaptors.errors import ConfigError
from fair_adaptors.files import cache_folder

PLACE = "FAIR_ADAPTORS_SANDBOX_FLOW"
"""Environment variable with the folder to read it from, and to build it into."""
CHECKOUT = Path(__file__).parents[2]
"""The folder of the project, where the package was not installed from a wheel."""


def flow_folder() -> Path:
    """Return the folder that the model is in, whether it is there or not: in a checkout, or else in the cache."""
    usual = CHECKOUT / "benchmarks" / "sandbox_flow"
    if not (CHECKOUT / "setup.cfg").is_file():
        usual = cache_folder() / "sandbox-flow"
    return Path(os.environ.get(PLACE) or usual).expanduser()


def flow_pipeline_folder() -> Path:
    """Return the folder of its pipeline.

    Raises:
        ConfigError: it was not built.
    """
    folder = flow_folder() / "pipeline"
    if not (folder / "model_index.json").is_file():
        raise ConfigError(
            f"sandbox-flow is not in {flow_folder()}, and the package does not bring it: build it with `python -m"
            f" fair_adaptors.training.sandbox.flow`, or name its folder in the environment variable {PLACE}"
        )
    return folder


def load_flow_sandbox() -> Any:
    """Load the pipeline in float32, without progress bars. Portraits are 64×64.

    Raises:
        ConfigError: it was not built.
    """
    import torch
    from diffusers import StableDiffusion3Pipeline

    without = {"text_encoder_3": None, "tokenizer_3": None}  # or the folder would have to have them
    pipe = StableDiffusion3Pipeline.from_pretrained(
        flow_pipeline_folder(), **without, dtype=torch.float32, local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    return with_one_zero(pipe)


def with_one_zero(pipe: Any) -> Any:
    """Let one row of zeros stand for the T5 that a pipeline has not, and return it.

    By itself the pipeline puts in 256 of them: four fifths of all tokens here, and of the time. This model was trained
    with one. Whoever loads its folder with ``text_encoder_3=None, tokenizer_3=None`` gets the same pictures with
    ``max_sequence_length=1`` in the call.
    """
    zeros = pipe._get_t5_prompt_embeds

    def one(**settings: Any) -> Any:
        return zeros(**settings | {"max_sequence_length": 1})

    pipe._get_t5_prompt_embeds = one
    return pipe
