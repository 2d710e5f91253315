"""What our recipes for people have otherwise than the published adaptors, and why: on every base, and on some more."""

from collections.abc import Mapping
from typing import Any

from fair_adaptors.adaptor.bases import (
    FLUX_1_DEV,
    FLUX_2_KLEIN,
    STABLE_DIFFUSION_3_5_MEDIUM,
    STABLE_DIFFUSION_XL,
    Z_IMAGE_TURBO,
    defaults_of,
    is_few_step,
)

Reasoned = dict[str, tuple[Any, str]]
"""Settings with their values, and why they have them."""

OURS: Reasoned = {
    "step_weights": ("uniform", "the paper's A := 1; the published code's weights are an artefact of its solver"),
    "num_steps": (6, "where it was tried, an adaptor trained in few steps leaves the same bias in many"),
    "max_steps": (0, "the number of steps does not vary: more of them would only cost more"),
    "gradient_steps": (
        1,
        "one of the steps, another one for each image: where it was tried an adaptor becomes good after as many"
        " iterations as with two, and each costs less",
    ),
    "originals_pool": (
        2,
        "what the losses need of the original model's images is made twice for each prompt, not whenever it comes",
    ),
    "dtype": ("bfloat16", "as large as float16, and no gradient vanishes or overflows in it"),
    "num_draws": (1000, "with 100, up to five of 32 images got another target than with many"),
    "max_grad_norm": (1.0, "one bad batch cannot throw the run off"),
    "warmup": (5, "AdamW's first steps are as large as its later ones, while its averages are still empty"),
    "stop_below": (
        0.4,
        "most of the effect is there long before the last iteration; by their figures, about what their adaptors would"
        " score here with the whole interval",
    ),
    "keep_attributes": (
        ("others",),
        "an adaptor for one attribute can change others that nobody looks at; theirs were not kept from that",
    ),
    "preserve_unassigned": (
        "full",
        "an image that has no target, or no face, should stay as the original model draws it",
    ),
    "tf32": (False, "the LoRAs, the encoders and the losses keep the precision of float32"),
    "faces": ("yunet", "insightface's weights are for non-commercial research only"),
}
"""Settings that our recipes have otherwise, and why."""

_FLOW: Reasoned = {
    "step_weights": ("uniform", "the paper's A := 1, for the velocity, which is what these models predict"),
    "rank": (16, "their layers are wide: the file is large enough with less than a third of the published rank"),
}
_NETWORK_ALONE = "no loader takes a LoRA on what reads the prompt here, so the network that draws has it"


def drawn(base: str) -> Reasoned:
    """Return how pictures of a base are made in training: if it was distilled to few steps, in those, unguided."""
    usual = defaults_of(base)
    if not is_few_step(base, usual.num_steps):
        steps = {name: OURS[name] for name in ("num_steps", "max_steps")}
        return {**steps, "guidance_scale": (usual.guidance_scale, "as its makers draw with it")}
    own = usual.num_steps, "this base was distilled to draw in as many"
    unguided = usual.guidance_scale, "this base was distilled to draw without guidance"
    return {"num_steps": own, "max_steps": own, "guidance_scale": unguided}


OURS_FOR: dict[str, Reasoned] = {
    STABLE_DIFFUSION_XL: {
        "parts": (("text_encoder", "text_encoder_2"), "this base has two text encoders"),
        "guidance_scale": (5.0, "its pipeline's default, and so what most of its pictures are made with"),
    },
    STABLE_DIFFUSION_3_5_MEDIUM: {
        **_FLOW,
        **drawn(STABLE_DIFFUSION_3_5_MEDIUM),
        "parts": (
            ("transformer",),
            "its CLIPs say only a part of the prompt: the T5, which says the rest, takes no LoRA",
        ),
    },
    FLUX_1_DEV: {
        **_FLOW,
        **drawn(FLUX_1_DEV),
        "parts": (("transformer",), "its CLIP says one vector, and the T5, which says the rest, takes no LoRA"),
    },
    FLUX_2_KLEIN: {**_FLOW, **drawn(FLUX_2_KLEIN), "parts": (("transformer",), _NETWORK_ALONE)},
    Z_IMAGE_TURBO: {**_FLOW, **drawn(Z_IMAGE_TURBO), "parts": (("transformer",), _NETWORK_ALONE)},
}
"""By base, beside these; what is here goes before."""


def ours_for(base: str, published: Mapping[str, Any]) -> Reasoned:
    """Return all that a recipe for a base has otherwise.

    Args:
        base: its Hub id.
        published: settings of the published adaptor with the same aim.
    """
    found = OURS | OURS_FOR.get(base, {})
    if "iterations" in published:
        why = "a fifth of the published ones: the paper found most of the effect there by then"
        found["iterations"] = (published["iterations"] // 5, why)
    return found
