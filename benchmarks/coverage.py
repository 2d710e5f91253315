"""How often the interval of the bias covers what the same measurement gives on average, on simulated samplers.

A prompt's share of the first class is drawn from a distribution, its images from that share; the truth is the mean of
many prompts. The last two columns are the least and the most of 100 trials, over the images per prompt.
"""

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks._report import report
from fair_adaptors.evaluation.estimates import estimate_mean
from fair_adaptors.evaluation.metrics import bias

Shares = Callable[[np.random.Generator, int], NDArray[np.float64]]

SAMPLERS: dict[str, Shares] = {
    "fair": lambda rng, count: np.full(count, 0.5),
    "any share": lambda rng, count: rng.beta(1.0, 1.0, count),
    "unequal": lambda rng, count: rng.beta(0.2, 0.2, count),
    "one class more": lambda rng, count: rng.beta(0.9, 0.1, count),
    "nearly one-sided": lambda rng, count: rng.beta(0.05, 0.05, count),
    "one-sided": lambda rng, count: rng.beta(0.02, 0.02, count),
    "one-sided, some fair": lambda rng, count: np.where(rng.random(count) < 0.9, 0.98, 0.5),
}
IMAGES = (16, 64)
PROMPTS = (3, 5, 8, 12, 20, 50)
MANY = 400_000


def covered(shares: Shares, num_prompts: int, num_images: int, trials: int, resamples: int) -> float:
    """Return in how many of 100 trials the interval covers the truth."""
    rng = np.random.default_rng(num_prompts * 1000 + num_images)

    def measure(count: int) -> NDArray[np.int64]:
        first = rng.binomial(num_images, shares(rng, count))
        return np.stack([first, num_images - first], -1)

    truth = bias(measure(MANY).astype(float)).mean()
    found = [
        estimate_mean(measure(num_prompts), bias, generator=rng, bounds=(0.0, 1.0), num_resamples=resamples)
        for _ in range(trials)
    ]
    return 100 * float(np.mean([one.low <= truth <= one.high for one in found]))


def main() -> None:
    """Print a row per sampler and number of prompts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--resamples", type=int, default=500)
    arguments = parser.parse_args()
    rows = []
    for name, shares in SAMPLERS.items():
        for prompts in PROMPTS:
            found = [covered(shares, prompts, images, arguments.trials, arguments.resamples) for images in IMAGES]
            rows.append({"prompts are": name, "prompts": prompts, "least": min(found), "most": max(found)})
    report("coverage", rows, images=IMAGES, trials=arguments.trials, resamples=arguments.resamples)


if __name__ == "__main__":
    main()
