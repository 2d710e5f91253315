"""How the paper's authors draw: their solver's schedule, and prompts that are not padded to the encoder's length."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fair_adaptors.adaptor.tokens import prefix_length
from fair_adaptors.errors import ConfigError
from fair_adaptors.families.table import family_of

NOT_PADDED = "not padded"


def draw_as_authors(pipe: Any) -> None:
    """Give a pipeline the solver of ``gen-images.py``: DPM-Solver++ 2M, as diffusers 0.19.3 has it.

    Its timesteps divide the whole range evenly, and it ends at the least noise that the model knows. What today's
    diffusers does by default ends at none, and its latents are others by .05. The safety checker is taken out, which
    they do not have: it blackens some portraits, and those would count as images without a face.
    """
    from diffusers import DPMSolverMultistepScheduler

    pipe.scheduler = DPMSolverMultistepScheduler.from_config(
        pipe.scheduler.config,
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        lower_order_final=True,
        euler_at_final=False,
        timestep_spacing="linspace",
        final_sigmas_type="sigma_min",
    )
    if getattr(pipe, "safety_checker", None) is not None:
        pipe.register_modules(safety_checker=None)


@contextmanager
def unpadded(pipe: Any) -> Iterator[None]:
    """Within the block, condition a pipeline as the authors do: prompts are as long as they are.

    Stock pipelines pad every prompt to the text encoder's length, and the U-Net attends to the padding. Here the
    longest prompt of a call gives the length, soft tokens included. The empty prompt is padded to the same length;
    its padding is hidden from its words by a mask, but not where there are soft tokens: their ``generate_image`` gives
    the mask, and their ``generate_image_w_prefix_embedding`` does not.

    Raises:
        ConfigError: the pipeline is of another family than the authors'.
    """
    if family_of(pipe).name != "sd":
        raise ConfigError(
            f"only Stable Diffusion 1.x takes prompts without padding, and this is a {type(pipe).__name__}"
        )
    own = type(pipe)
    pipe.__class__ = type(own.__name__, (_Unpadded, own), {})  # a call is looked up in the class, not in the pipeline
    try:
        yield
    finally:
        pipe.__class__ = own


class _Unpadded:
    """What a call of the pipeline does before the pipeline's own: it sets the length, and undoes that in the end."""

    def __call__(self, prompt: str | list[str], **named: Any) -> Any:
        pipe: Any = self
        tokenizer, config = pipe.tokenizer, pipe.text_encoder.config
        longest, masked = tokenizer.model_max_length, getattr(config, "use_attention_mask", False)
        texts, room = [prompt] if isinstance(prompt, str) else prompt, prefix_length(pipe)
        length = max(map(len, tokenizer(texts, truncation=True).input_ids))
        try:
            tokenizer.model_max_length = min(length + room, longest)
            config.use_attention_mask = not room
            return super().__call__(prompt, **named)  # type: ignore[misc]
        finally:
            tokenizer.model_max_length, config.use_attention_mask = longest, masked
