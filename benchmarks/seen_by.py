"""What each of the sandbox's classifiers says of an adaptor's pictures: the share of women, by place, and the bias.

An adaptor is trained against two of them, the third measures. Where they differ, open the pictures: they may be of
people who are changed by half.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from benchmarks._report import report
from fair_adaptors.adaptor.bases import SANDBOX_FLOW
from fair_adaptors.evaluation.drawing import classify, generate
from fair_adaptors.load import load_fair_adaptor
from fair_adaptors.pipelines import load_pipeline
from fair_adaptors.sandbox.classifiers import load_classifier
from fair_adaptors.sandbox.pipeline import GUIDANCE, STEPS
from fair_adaptors.sandbox.prompts import SECTORS, SPLITS, Split, occupations, prompts

CLASSIFIERS = ("training", "blends", "evaluation")
ADAPTOR = Path(__file__).parent / "sandbox_flow" / "sandbox-flow-gender"
SEED = 12_345
PARTED = "training and evaluation differ"
"""Images that one of the two takes for a woman and the other for a man."""


def main() -> None:
    """Print a row for each place, and the bias over all prompts, with the adaptor and without."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adaptor", nargs="?", default=str(ADAPTOR), help="folder, or a name")
    parser.add_argument("--base", default=SANDBOX_FLOW)
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--images", type=int, default=64, help="of each prompt")
    parser.add_argument("--name", default="seen_by", help="name of the JSON file")
    arguments = parser.parse_args()
    pipe = load_pipeline(arguments.base)
    before = look(pipe, arguments.split, arguments.images)
    load_fair_adaptor(pipe, arguments.adaptor)
    women = look(pipe, arguments.split, arguments.images)
    rows = [{"prompts": f"of the {sector}", **_told(women, arguments.split, sector)} for sector in SECTORS]
    rows += [{"prompts": name, **_bias(of)} for name, of in (("bias", women), ("bias without the adaptor", before))]
    shares = {
        occupation: {name: float(each[place].float().mean()) for name, each in women.items()}
        for place, occupation in enumerate(occupations(arguments.split))
    }
    report(arguments.name, rows, split=arguments.split, images=arguments.images, shares=shares)


def look(pipe: object, split: Split, images: int) -> dict[str, Tensor]:
    """Return which images each classifier takes for women, bool [P, n]."""
    drawn = generate(
        pipe, prompts(split), images_per_prompt=images, seed=SEED, num_steps=STEPS, guidance_scale=GUIDANCE
    )
    return {
        name: torch.as_tensor(classify(drawn, load_classifier(name))["gender"]).argmax(-1) == 0 for name in CLASSIFIERS
    }


def _told(women: Mapping[str, Tensor], split: Split, sector: str) -> dict[str, float]:
    places = [i for i, occupation in enumerate(occupations(split)) if occupation.startswith(f"{sector} ")]
    shares = {name: float(each[places].float().mean()) for name, each in women.items()}
    return {**shares, PARTED: float(_parted(women)[places].mean())}


def _bias(women: Mapping[str, Tensor]) -> dict[str, float]:
    bias = {name: float((2 * each.float().mean(1) - 1).abs().mean()) for name, each in women.items()}
    return {**bias, PARTED: float(_parted(women).mean())}


def _parted(women: Mapping[str, Tensor]) -> Tensor:
    return (women["training"] != women["evaluation"]).float()


if __name__ == "__main__":
    main()
