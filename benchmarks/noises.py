"""What an adaptor has learned of the noises it was trained with: the gender bias on them, and on as many others.

With ``originals_pool`` the same noises come again and again. What is even on them need not be even on others.
"""

import argparse
import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.engine.batches import batch_at
from fair_adaptors.training.engine.sampling import decode, encode_prompts, initial_noise, sample
from fair_adaptors.training.prompt_sets import named_classes, prompt_sets
from fair_adaptors.training.recipes import get_recipe
from torch import Tensor

from benchmarks._report import report
from benchmarks.seen_by import ADAPTOR
from fair_adaptors.adaptor.record import read_record
from fair_adaptors.evaluation.metrics import noise_floor
from fair_adaptors.hub.resolve import resolve
from fair_adaptors.load import load_fair_adaptor
from fair_adaptors.pipelines import load_pipeline
from fair_adaptors.sandbox.classifiers import load_classifier
from fair_adaptors.sandbox.prompts import prompts
from fair_adaptors.seeds import derived_seed

CLASSIFIERS = ("training", "evaluation")


def main() -> None:
    """Print two rows for each adaptor: on the noises of its training, and on others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adaptors", nargs="*", default=[str(ADAPTOR), "sandbox-gender", "sandbox-gender-tone"])
    parser.add_argument("--most", type=int, default=64, help="noises of a prompt")
    parser.add_argument("--name", default="noises", help="name of the JSON file")
    arguments = parser.parse_args()
    classifiers = {name: load_classifier(name) for name in CLASSIFIERS}
    rows = []
    for folder in map(resolve, arguments.adaptors):
        training = read_record(folder).training
        config = get_recipe(training["name"])
        names = (
            "seed",
            "iterations",
            "originals_pool",
            "prompts_per_step",
            "images_per_prompt",
            "num_steps",
            "strength",
        )
        config = dataclasses.replace(config, **{name: training[name] for name in names})
        known = {prompt: seeds[-arguments.most :] for prompt, seeds in noises_of(config).items()}
        others = {
            prompt: [derived_seed("other noise", prompt, number) for number in range(len(seeds))]
            for prompt, seeds in known.items()
        }
        pipe = load_pipeline(config.base)
        handle = load_fair_adaptor(pipe, folder)
        handle.set_weight(1 / config.strength)  # as it was trained
        for which, seeds in (("of the training", known), ("others", others)):
            drawn = {prompt: draw(pipe, config, prompt, each) for prompt, each in seeds.items()}
            row: dict[str, Any] = {"adaptor": folder.name, "noises of a prompt": len(known[prompts("train")[0]])}
            row |= {"which": which, "floor": statistics.fmean(noise_floor(len(each), 2) for each in seeds.values())}
            for name, classifier in classifiers.items():
                each = _bias(drawn, classifier)
                row[f"gender bias ({name})"] = statistics.fmean(each)
                row[f"its standard error ({name})"] = statistics.stdev(each) / len(each) ** 0.5
            rows.append(row)
    report(arguments.name, rows, most=arguments.most)


def noises_of(config: TrainConfig) -> Mapping[str, Sequence[int]]:
    """Return the seeds of the noises of each training prompt that names no class, in the order of the training."""
    sets, named, free = prompt_sets(config), named_classes(config), set(prompts("train"))
    found: dict[str, dict[int, None]] = defaultdict(dict)
    for iteration in range(config.iterations):
        for number in range(config.prompts_per_step):
            batch = batch_at(config, sets, iteration, number, named=named)
            for prompt, seed in zip(batch.prompts, batch.seeds, strict=True):
                if prompt in free:
                    found[prompt][seed] = None
    return {prompt: list(seeds) for prompt, seeds in found.items()}


def draw(pipe: Any, config: TrainConfig, prompt: str, seeds: Sequence[int]) -> Tensor:
    """Draw a prompt with noises of these seeds, as the end of the training does, images [n, 3, H, W]."""
    scale = config.guidance_scale
    with torch.no_grad():
        embeds = encode_prompts(pipe, [prompt], guidance_scale=scale)
        noise = initial_noise(pipe, seeds)
        return decode(pipe, sample(pipe, embeds, noise, num_steps=config.num_steps, guidance_scale=scale).latents)


def _bias(drawn: Mapping[str, Tensor], classifier: Callable[[Tensor], Mapping[str, Tensor]]) -> list[float]:
    with torch.no_grad():
        women = [float((classifier(images)["gender"].argmax(1) == 0).float().mean()) for images in drawn.values()]
    return [abs(2 * share - 1) for share in women]


if __name__ == "__main__":
    main()
