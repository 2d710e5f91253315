"""What the text encoders of a pipeline say of prompts, by its own ``encode_prompt``, and where a prompt ends in it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fair_adaptors.errors import ConfigError
from fair_adaptors.families.table import family_of

if TYPE_CHECKING:
    from torch import Tensor

FAMILIES = ("sd", "sdxl")
"""Families whose text encoders are CLIP's: a prompt ends in a token that has read all of it, as has the padding."""
CHUNK = 16
"""Prompts that are encoded at once."""


@dataclass(frozen=True)
class States:
    """Encoded prompts.

    Attributes:
        embeds: of each of T tokens, [N, T, D].
        pooled: of each prompt, [N, P]; None where a family has none.
        ends: the place of each prompt's last token, [N]; what is behind is padding.
    """

    embeds: "Tensor"
    pooled: "Tensor | None"
    ends: "Tensor"

    def means(self) -> "Tensor":
        """Return the mean of each prompt's last token and padding, [N, D], which have read all of the prompt."""
        import torch

        rows = zip(self.embeds, self.ends.tolist(), strict=True)
        return torch.stack([row[end:].mean(0) for row, end in rows])


def check_family(pipe: Any) -> None:
    """Refuse a pipeline whose prompts cannot be read here.

    Raises:
        ConfigError: it is of another family, or has no text encoder.
    """
    family = family_of(pipe)
    if family.name not in FAMILIES:
        raise ConfigError(
            f"directions and edits are made for Stable Diffusion 1, 2 and XL, not yet for {family.title}; use words,"
            " which works in every pipeline"
        )
    if missing := [name for name in family.text_encoders if getattr(pipe, name, None) is None]:
        raise ConfigError(f"this pipeline has no {' and no '.join(missing)}; load it with its text encoders")


def pooled_width(pipe: Any) -> int:
    """Return how wide the pooled embedding of a prompt is; 0 where the pipeline has none."""
    second = getattr(pipe, "text_encoder_2", None)
    return second.config.projection_dim if second is not None else 0


def encode(pipe: Any, texts: Sequence[str], *, on_texts: Callable[[int], None] = lambda count: None) -> States:
    """Encode texts as the pipeline itself does, in float32 on the CPU.

    Args:
        on_texts: called with the number of texts that were encoded.
    """
    import torch

    found = []
    for start in range(0, len(texts), CHUNK):
        part = list(texts[start : start + CHUNK])
        with torch.no_grad():
            encoded = pipe.encode_prompt(
                prompt=part,
                device=pipe.text_encoder.device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=False,
            )
        found.append([one.float().cpu() for one in encoded[::2] if one is not None])  # between them the negative ones
        on_texts(len(part))
    embeds, *pooled = (torch.cat(parts) for parts in zip(*found, strict=True))
    return States(embeds, pooled[0] if pooled else None, ends_of(pipe, texts))


def ends_of(pipe: Any, texts: Sequence[str]) -> "Tensor":
    """Return the place of the token that ends each text, [N]; a text that is too long ends at the last place."""
    import torch

    convert = getattr(pipe, "maybe_convert_prompt", lambda text, tokenizer: text)  # for textual inversions
    longest = pipe.tokenizer.model_max_length
    every = [pipe.tokenizer(convert(text, pipe.tokenizer)).input_ids for text in texts]
    return torch.tensor([min(len(ids), longest) - 1 for ids in every])
