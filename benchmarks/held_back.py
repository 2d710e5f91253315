"""What holds an adaptor back: the gradient of each loss at the trained weights, beside that of the alignment.

Batches of one training prompt each, with all steps in the gradient. A cosine below zero says that the loss pulls
against the alignment, and a length near one that it pulls as hard.
"""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.engine.batches import Batch
from fair_adaptors.training.engine.state import TrainingState, attached
from fair_adaptors.training.engine.step import train_step
from fair_adaptors.training.recipes import get_recipe
from fair_adaptors.training.setup import Setup, load_setup
from safetensors.torch import load_file
from torch import Tensor

from benchmarks._report import report
from benchmarks.seen_by import ADAPTOR
from fair_adaptors.adaptor.record import WEIGHTS_FILE
from fair_adaptors.sandbox.prompts import prompts

ALIGNMENT, PRESERVATION = "alignment", "preservation"


def main() -> None:
    """Print a row for each loss."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adaptor", nargs="?", type=Path, default=ADAPTOR, help="folder")
    parser.add_argument("--recipe", default="sandbox-flow-gender", help="that it was trained with")
    parser.add_argument("--prompts", type=int, default=14, help="how many of the training prompts, evenly chosen")
    parser.add_argument("--images", type=int, default=24, help="of each")
    parser.add_argument("--name", default="held_back", help="name of the JSON file")
    arguments = parser.parse_args()
    config = dataclasses.replace(get_recipe(arguments.recipe), gradient_steps=0, dropout=0.0)
    setup, every = load_setup(config), prompts("train")
    chosen = every[:: max(1, len(every) // arguments.prompts)][: arguments.prompts]
    with attached(setup, config) as state:
        put_in(state, arguments.adaptor)
        found = {prompt: gradients(setup, config, state, prompt, arguments.images) for prompt in chosen}
    rows = []
    for loss in next(iter(found.values())):
        pairs = [(each[loss], each[ALIGNMENT]) for each in found.values()]
        lengths = torch.stack([one.norm() / other.norm() for one, other in pairs])
        cosines = torch.stack([torch.cosine_similarity(one, other, 0) for one, other in pairs])
        units = torch.stack([one / one.norm() for one, _ in pairs])
        between = (units @ units.T)[~torch.eye(len(units), dtype=torch.bool)]
        rows.append(
            {
                "loss": loss,
                "length over the alignment's, median": float(lengths.median()),
                "cosine to it, median": float(cosines.median()),
                "prompts where it pulls against it": int((cosines < 0).sum()),
                "cosine between two prompts, mean": float(between.mean()),
                "prompts": len(pairs),
            }
        )
    report(arguments.name, rows, images=arguments.images, prompts=chosen)


def put_in(state: TrainingState, folder: Path) -> None:
    """Go on from a trained adaptor's weights."""
    trained = load_file(folder / WEIGHTS_FILE)
    with torch.no_grad():
        for name, parameter in state.parameters.items():
            parameter.copy_(trained[name.replace(".fair.", ".")])


def gradients(
    setup: Setup, config: TrainConfig, state: TrainingState, prompt: str, images: int
) -> Mapping[str, Tensor]:
    """Return the gradient [P] of each loss, all on the same batch.

    What a loss adds is the gradient with it less that of the alignment alone: they are sums.
    """
    plain = dataclasses.replace(config, preservation=0.0)

    def gradient(kept: tuple[str, ...], config: TrainConfig = plain) -> Tensor:
        batch = Batch((prompt,) * images, tuple(range(images)), config.num_steps, config.guidance_scale, draws=0)
        train_step(dataclasses.replace(setup, kept_attributes=kept), config, state, batch)
        found = torch.cat([p.grad.flatten() for p in state.parameters.values() if p.grad is not None])
        for parameter in state.parameters.values():
            parameter.grad = None
        return found

    alignment = gradient(())
    kept = {f"keep {name}": gradient((name,)) - alignment for name in setup.kept_attributes}
    return {ALIGNMENT: alignment, **kept, PRESERVATION: gradient((), config) - alignment}


if __name__ == "__main__":
    main()
