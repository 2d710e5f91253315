"""What the gradient loses that leaves out the unconditional branch of guidance, on the sandbox, by guidance.

``unconditional_gradient=false`` does without that branch. Beside the gradient of both branches, of the same images and
the same loss of gender: the cosine, and how much longer it is. Nothing is trained.
"""

import argparse
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
from torch.nn.functional import cosine_similarity, cross_entropy

from benchmarks._report import report

PROMPT = "A photo of the face of a hospital nurse, a person"
STEPS = 6


def gradients(setup: Setup, parameters: dict[str, Any], guidance_scale: float, images: range) -> list[dict[str, Any]]:
    """Return the gradient of both branches, and of the conditional one alone, by parameter."""
    pipe = setup.pipe
    with torch.no_grad():
        conditions = encode_prompts(pipe, [PROMPT], guidance_scale=guidance_scale)
    run = sample(pipe, conditions, initial_noise(pipe, images), num_steps=STEPS, guidance_scale=guidance_scale)
    seen = observe(setup, run.latents)
    wanted = assign_targets({"gender": seen.logits["gender"].detach().softmax(1)}, {"gender": (0.5, 0.5)})["gender"]
    each = torch.where(wanted.keep, cross_entropy(seen.logits["gender"], wanted.labels, reduction="none"), 0.0)
    (v,) = torch.autograd.grad(each.sum(), seen.latents)
    weights, found = step_weights(scheduler_for(pipe, STEPS), "uniform"), []
    for unconditional in (True, False):
        for parameter in parameters.values():
            parameter.grad = None
        given: dict[str, Any] = {"guidance_scale": guidance_scale, "weights": weights, "unconditional": unconditional}
        accumulate_gradients(pipe, run, v, [PROMPT], **given)
        found.append({name: parameter.grad.clone() for name, parameter in parameters.items()})
    return found


def main() -> None:
    """Print a row for each part and each guidance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guidance", nargs="+", type=float, default=[1.5, 3.0, 7.5])
    parser.add_argument("--images", type=int, default=8, help="of a batch")
    parser.add_argument("--batches", type=int, default=2)
    arguments = parser.parse_args()
    setup = load_setup(get_recipe("sandbox-gender"))
    parts = lora.family_of(setup.pipe).parts
    torch.manual_seed(0)
    layers = tuple(dict.fromkeys(name for row in parts.values() for name in row.target_modules))
    parameters = lora.attach(setup.pipe, list(parts), rank=8, target_modules=layers)
    rows = []
    for guidance in arguments.guidance:
        firsts = [batch * arguments.images for batch in range(arguments.batches)]
        batches = [gradients(setup, parameters, guidance, range(one, one + arguments.images)) for one in firsts]
        for part in parts:
            pairs = [[torch.cat([g.flatten() for n, g in one.items() if n.startswith(f"{part}.")]) for one in batch]
                     for batch in batches]  # fmt: skip
            cosine = sum(cosine_similarity(both, alone, 0).item() for both, alone in pairs) / len(pairs)
            longer = sum((alone.norm() / both.norm()).item() for both, alone in pairs) / len(pairs)
            rows.append({"part": part, "guidance": guidance, "cosine": cosine, "times as long": longer})
    report("one_branch", rows, settings=vars(arguments))


if __name__ == "__main__":
    main()
