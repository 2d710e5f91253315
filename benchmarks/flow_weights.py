"""How near the adjusted gradient comes to the whole one on sandbox-flow, by the steps' weights and what is trained.

A batch: the gradient of the loss at the latents, taken through the whole sampler, and by the training's way with each
of the weights. Of both the part of each kind of trained weights, LoRAs on text encoders, transformer and the entry of
the text. A cosine of 1 is the whole gradient's direction. Beside it the cosine between batches of other noises: a
direction that is the same whatever the noise is learnt faster. Nothing is trained.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import torch
from fair_adaptors.training.engine import lora
from fair_adaptors.training.engine.gradients import accumulate_gradients, step_weights
from fair_adaptors.training.engine.objective import observe
from fair_adaptors.training.engine.sampling import encode_prompts, initial_noise, sample
from fair_adaptors.training.engine.schedule import scheduler_for
from fair_adaptors.training.engine.targets import assign_targets
from fair_adaptors.training.recipes import get_recipe
from fair_adaptors.training.setup import Setup, load_setup
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from benchmarks._report import report
from tests.reference import whole_graph_gradients

PROMPT = "A photo of the face of a hospital nurse, a person"
KINDS = ("noise", "velocity", "image", "exact")
WHOLE = "whole"
ENTRY = "context_embedder"
PARTS = {
    "text encoders": ("text_encoder.", "text_encoder_2."),
    "transformer": ("transformer.",),
    f"{ENTRY} alone": (f"transformer.{ENTRY}.",),
}
"""By what their names begin with; the LoRA of the entry is no part of the transformer's."""


def gradients(setup: Setup, images: int, num_steps: int, guidance_scale: float, seed: int) -> dict[str, Any]:
    """Return the gradient of each of ``KINDS`` and the ``WHOLE`` one, of each of ``PARTS`` flat, [P]."""
    pipe = setup.pipe
    family = lora.family_of(pipe)
    layers = {part: row.target_modules for part, row in family.parts.items()}
    names = tuple(dict.fromkeys([*(name for row in layers.values() for name in row), ENTRY]))
    torch.manual_seed(0)
    parameters = lora.attach(pipe, list(family.parts), rank=8, target_modules=names)
    noise = initial_noise(pipe, range(seed * images, (seed + 1) * images))
    drawn = {"num_steps": num_steps, "guidance_scale": guidance_scale}
    with torch.no_grad():
        conditions = encode_prompts(pipe, [PROMPT], guidance_scale=guidance_scale)
    run = sample(pipe, conditions, noise, **drawn)
    seen = observe(setup, run.latents)
    wanted = assign_targets({"gender": seen.logits["gender"].detach().softmax(1)}, {"gender": (0.5, 0.5)})["gender"]
    each = torch.where(wanted.keep, cross_entropy(seen.logits["gender"], wanted.labels, reduction="none"), 0.0)
    (v,) = torch.autograd.grad(each.sum(), seen.latents)
    found = {}
    for kind in KINDS:
        weights = step_weights(scheduler_for(pipe, num_steps), kind)
        accumulate_gradients(pipe, run, v, [PROMPT], guidance_scale=guidance_scale, weights=weights)
        found[kind] = _taken(parameters)
    ones = torch.ones(num_steps)
    whole_graph_gradients(pipe, PROMPT, noise, v, **drawn, factors=ones, checkpointing=False, detached=False)
    found[WHOLE] = _taken(parameters)
    lora.detach(pipe, list(family.parts))
    return found


def _taken(parameters: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the gradients by part, and remove them. Of a LoRA at its start only the second factor has one."""
    rows = {name: one.grad.flatten() for name, one in parameters.items() if one.grad is not None}
    for one in parameters.values():
        one.grad = None
    entry = PARTS[f"{ENTRY} alone"]
    return {
        part: torch.cat(
            [row for name, row in rows.items() if name.startswith(starts) and (starts == entry or ENTRY not in name)]
        )
        for part, starts in PARTS.items()
    }


def main() -> None:
    """Print a row for each part and kind of weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6, help="T")
    parser.add_argument("--images", type=int, default=16, help="N")
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--name", default="flow_weights", help="name of the JSON file")
    arguments = parser.parse_args()
    config = get_recipe("sandbox-flow-gender")
    setup = load_setup(config)
    given = (arguments.images, arguments.steps, config.guidance_scale)
    batches = [gradients(setup, *given, seed) for seed in range(arguments.batches)]
    pairs = [(i, j) for j in range(len(batches)) for i in range(j)]
    rows = []
    for part in PARTS:
        for kind in (*KINDS, WHOLE):
            mine = [batch[kind][part] for batch in batches]
            near = [_cosine(one, batch[WHOLE][part]) for one, batch in zip(mine, batches, strict=True)]
            alike = [_cosine(mine[i], mine[j]) for i, j in pairs]
            cosines = {"cosine to the whole gradient": _mean(near), "cosine between batches": _mean(alike)}
            rows.append({"part": part, "numbers": len(mine[0]), "weights": kind, **cosines})
    report(arguments.name, rows, steps=arguments.steps, images=arguments.images, batches=arguments.batches)


def _cosine(one: Tensor, other: Tensor) -> float:
    return float(cosine_similarity(one.double(), other.double(), 0))


def _mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 3) if values else float("nan")


if __name__ == "__main__":
    main()
