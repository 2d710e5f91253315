"""Draw the images of prompts from seeds that belong to them, and classify images."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fair_adaptors.families.table import guided
from fair_adaptors.seeds import image_seed

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


def generate(
    pipe: Any,
    prompts: Sequence[str],
    *,
    images_per_prompt: int,
    seed: int,
    num_steps: int,
    guidance_scale: float,
    batch_size: int = 64,
    on_batch: Callable[[int], None] = lambda count: None,
) -> "Tensor":
    """Generate images [P, n, 3, H, W] in [0, 1] with the plain pipeline, each from its own seed.

    Args:
        seed: as for ``image_seed``: before and after share their noise, whatever the batches.
        on_batch: called with the number of new images.
    """
    import torch

    pairs = [(prompt, index) for prompt in prompts for index in range(images_per_prompt)]
    batches = []
    for start in range(0, len(pairs), batch_size):
        batch = pairs[start : start + batch_size]
        output = pipe(
            prompt=[prompt for prompt, _ in batch],
            generator=[torch.Generator().manual_seed(image_seed(seed, prompt, index)) for prompt, index in batch],
            num_inference_steps=num_steps,
            output_type="pt",
            **guided(pipe, guidance_scale, len(batch)),
        )
        batches.append(output.images.float().cpu())
        on_batch(len(batch))
    images = torch.cat(batches)
    return images.view(len(prompts), images_per_prompt, *images.shape[1:])


def classify(images: "Tensor", classifier: "Callable[[Tensor], Mapping[str, Tensor]]") -> "dict[str, np.ndarray]":
    """Return the probabilities of each attribute's classes for images [P, n, 3, H, W], [P, n, K] each."""
    import torch

    with torch.no_grad():
        logits = [classifier(batch) for batch in images.flatten(0, 1).split(256)]
    return {
        name: torch.cat([chunk[name].softmax(1) for chunk in logits]).view(*images.shape[:2], -1).numpy()
        for name in logits[0]
    }
