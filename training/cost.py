"""How long a training takes on a card, by operations and data sheets: an estimate, which docs/cost.md explains.

Rows through the models by formula, times their operations, over what a card sustains. ``benchmarks/cost.py`` counts
the rows on a tiny pipeline and the operations on models of the published sizes, and writes the tables.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from .config import TrainConfig

CARDS: dict[str, dict[str, Any]] = {
    "RTX 4090": {"bfloat16": 165.2, "float32": 82.6, "source": "Ada GPU Architecture, appendix A"},
    "A100": {"bfloat16": 312.0, "float32": 19.5, "source": "A100 data sheet"},
    "H100": {"bfloat16": 989.0, "float32": 67.0, "source": "H100 data sheet, SXM, without sparsity"},
}
"""Peak teraflops per second as NVIDIA states them: bfloat16 of the tensor cores, adding in float32; plain float32."""
ALIKE = {"H200": "H100"}
"""Other cards with the chip of one of these."""
SUSTAINED = {"bfloat16": 0.35, "float32": 0.7}
"""Assumed share of its peak that a card sustains."""
SEES = {"classifier": ("CLIP ViT-L/14",), "encoder": ("CLIP ViT-H/14", "DINOv2 ViT-B/14")}
"""What looks at the images of the recipes for people."""


class Operations(NamedTuple):
    """Teraflops of one row through a model with frozen weights: forward, and back to the gradient of its input."""

    forward: float
    backward: float


BASES = {
    "sd15": {
        "network": Operations(0.8033, 0.8659),
        "decoder": Operations(2.5145, 2.5489),
        "small decoder": Operations(0.1414, 0.1414),
    },
    "sd21": {
        "network": Operations(2.1491, 2.5138),
        "decoder": Operations(5.7543, 5.9283),
        "small decoder": Operations(0.3180, 0.3180),
    },
    "sdxl": {
        "network": Operations(6.7612, 7.2630),
        "decoder": Operations(10.4704, 11.0201),
        "small decoder": Operations(0.5654, 0.5654),
    },
    "sd35-medium": {
        "network": Operations(11.2496, 15.1383),
        "decoder": Operations(10.4722, 11.0220),
        "small decoder": Operations(0.5656, 0.5656),
    },
    "sd35-large": {
        "network": Operations(31.1211, 38.2204),
        "decoder": Operations(10.4722, 11.0220),
        "small decoder": Operations(0.5656, 0.5656),
    },
    "flux-dev": {
        "network": Operations(74.3847, 89.0170),
        "decoder": Operations(10.4722, 11.0220),
        "small decoder": Operations(0.5656, 0.5656),
    },
    "flux-schnell": {
        "network": Operations(74.3846, 89.0170),
        "decoder": Operations(10.4722, 11.0220),
        "small decoder": Operations(0.5656, 0.5656),
    },
    "klein-base-4b": {"network": Operations(34.8202, 41.1077), "decoder": Operations(10.4747, 11.0244)},
    "klein-4b": {"network": Operations(34.8202, 41.1077), "decoder": Operations(10.4747, 11.0244)},
    "z-image": {
        "network": Operations(62.5064, 68.8821),
        "decoder": Operations(10.4722, 11.0220),
        "small decoder": Operations(0.5656, 0.5656),
    },
    "z-image-turbo": {
        "network": Operations(62.5064, 68.8821),
        "decoder": Operations(10.4722, 11.0220),
        "small decoder": Operations(0.5656, 0.5656),
    },
    "qwen-image": {"network": Operations(78.3039, 93.6249), "decoder": Operations(11.6826, 12.0949)},
    "sana": {"network": Operations(2.9667, 2.9742), "decoder": Operations(8.3686, 8.3794)},
}
"""By the base's short name, as ``benchmarks/cost.py`` counts them; the small decoder is TAESD's."""
VISION = {
    "CLIP ViT-L/14": Operations(0.1620, 0.1685),
    "CLIP ViT-H/14": Operations(0.3346, 0.3454),
    "DINOv2 ViT-B/14": Operations(0.0463, 0.0488),
}


class Passes(NamedTuple):
    """Rows through a model per image and iteration: forward without and with gradient, recomputed, backward."""

    plain: float
    graph: float
    again: float
    backward: float

    def teraflops(self, one: Operations) -> float:
        """Return the operations of all rows through a model."""
        return (self.plain + self.graph + self.again) * one.forward + self.backward * one.backward


def passes(
    steps: float,
    gradient_steps: float,
    *,
    branches: int = 2,
    gradient_branches: int = 2,
    all_steps: bool = False,
    originals: float = 1.0,
    checkpointed: Collection[str] = (),
    small_decoder: bool = False,
) -> dict[str, Passes]:
    """Return by formula how many rows go through each model.

    Originals and images are b·T rows each without gradient; the gradient is b′·K rows forward and backward.

    Args:
        steps: T.
        gradient_steps: K.
        branches: b, two with guidance.
        gradient_branches: b′.
        all_steps: K is T.
        originals: share of the images whose originals are made; what is needed of the others is read from a disk.
        checkpointed: models whose forward pass is computed again in the backward pass.
        small_decoder: whether the gradient goes through one.
    """
    rows = {
        "network": (branches * steps * (1 + originals), gradient_branches * (steps if all_steps else gradient_steps)),
        "decoder": (1 + originals, 1),  # originals and images; images again with gradient
        "classifier": (1 + originals, 1),
        "encoder": (originals, 1),  # originals; images with gradient
    }
    if small_decoder:
        rows |= {"decoder": (1 + originals, 0), "small decoder": (0, 1)}
    return {
        model: Passes(plain, graph, graph if model in checkpointed else 0, graph)
        for model, (plain, graph) in rows.items()
    }


def work_per_image(
    config: TrainConfig,
    originals: float,
    base: Mapping[str, Operations],
    vision: Mapping[str, Operations] = VISION,
    *,
    branches: int = 2,
) -> dict[str, float]:
    """Return the teraflops of an image and iteration, in half precision and in float32.

    Args:
        originals: as for ``passes``.
        base: operations of its network, its decoder and, where there is one, a small one.
        branches: rows of the network for an image with guidance.
    """
    steps = (config.num_steps + max(config.num_steps, config.max_steps)) / 2
    rows = passes(
        steps,
        config.updates_per_rollout * (config.gradient_steps or steps),
        branches=branches,
        gradient_branches=branches if config.unconditional_gradient else 1,
        originals=originals,
        checkpointed=("network", "decoder") if config.activation_checkpointing else (),
        small_decoder=bool(config.gradient_decoder),
    )
    seen_by = [(rows[role], vision[name]) for role, names in SEES.items() for name in names]
    return {
        "bfloat16": sum(rows[model].teraflops(one) for model, one in base.items() if model in rows),
        "float32": sum(row.teraflops(one) for row, one in seen_by),
    }


def seconds_per_image(work: Mapping[str, float], card: str) -> float:
    """Return how long a card takes for teraflops by dtype."""
    return sum(work[dtype] / (CARDS[card][dtype] * SUSTAINED[dtype]) for dtype in work)


def hours(
    config: TrainConfig, base: str, originals: float, num_processes: int = 1, *, branches: int = 2
) -> dict[str, float]:
    """Return how long all iterations take on each of ``CARDS``, one of them for each process.

    Args:
        base: short name; none are returned for one whose operations are not known.
        originals, branches: as for ``work_per_image``.
    """
    if base not in BASES:
        return {}
    images = config.prompts_per_step * config.images_per_prompt * config.iterations
    work = work_per_image(config, originals, BASES[base], branches=branches)
    return {card: images * seconds_per_image(work, card) / 3600 / num_processes for card in CARDS}


def said(found: Mapping[str, float], card: str | None) -> str:
    """Say how long a training takes on the card that is here, and on others.

    Args:
        found: from ``hours``.
        card: the name of the card that is here, as its driver has it; None if there is none.
    """
    if not found:
        return "how long it takes is not known: the base's operations are not"
    known = next((ALIKE.get(name, name) for name in (*CARDS, *ALIKE) if card is not None and name in card), None)
    here = f"{found[known]:,.0f} h on the card here ({card}); " if known else ""
    if card is not None and not known:
        here = f"not known how long on the card here ({card}); "
    listed = ", ".join(f"{value:,.0f} h on {card}" for card, value in found.items())
    return f"estimated time of all iterations: {here}{listed} (docs/cost.md)"
