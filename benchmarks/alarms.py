"""How often an erasure is told: where classes flip without a direction, and where dark-skinned gardeners turn pale.

Three attributes of people are looked at, with 2, 4 and 2 classes, in every prompt and over all of them. Without a
direction, images move as often from a class to its neighbour as back, whatever the prompt's shares, so every alarm is
a false one. The gardener is the case that an adaptor for gender brought about: of dark people 85 % before and none
after in one prompt, 16 % and 7 % over 16 prompts. It is told if the alarm names that class in that prompt.
"""

import argparse

import numpy as np
from numpy.typing import NDArray

from benchmarks._report import report
from fair_adaptors.adaptor.results import Erasure
from fair_adaptors.evaluation import beside

CLASSES = {"gender": 2, "tone": 4, "age": 2}
FLIPS = (0.1, 0.4, 1.0)
PROMPTS = (4, 16, 50)
IMAGES = (16, 64)
DARK = np.array([0.85, 0.3, 0.25, 0.22, 0.2, 0.15, 0.1, 0.08, *[0.05] * 8])
"""Share of dark people in each prompt before: the gardener's first."""
DARK_AFTER = np.array([0.0, 0.15, 0.13, 0.12, 0.11, 0.09, 0.06, 0.05, *[0.05] * 8])


def chances(shares: NDArray[np.float64], leaving: NDArray[np.float64], flips: float) -> NDArray[np.float64]:
    """Return the chances of every pair of classes, [P, K, K], from the shares before, [P, K].

    Args:
        shares: of the classes before.
        leaving: what of the last class's share moves to its neighbour, [P].
        flips: how much of the smaller one of two neighbours' shares is of images that flip, half of them either way.
    """
    stay = shares.copy()
    stay[:, -1] -= leaving
    cells = stay[..., None] * np.eye(shares.shape[1])
    cells[:, -1, -2] = leaving
    for k in range(shares.shape[1] - 1):
        flip = flips / 2 * np.minimum(stay[:, k], stay[:, k + 1])
        for one, other in ((k, k + 1), (k + 1, k)):
            cells[:, one, other] += flip
            cells[:, one, one] -= flip
    return cells


def alarms(tables: dict[str, NDArray[np.float64]], images: int, rng: np.random.Generator) -> tuple[Erasure, ...]:
    """Return the alarms of images drawn from every prompt's chances, by an adaptor that is made for gender."""
    pairs = {
        name: rng.multinomial(images, cells.reshape(len(cells), -1)).reshape(cells.shape)
        for name, cells in tables.items()
    }
    names = {name: tuple(map(str, range(number))) for name, number in CLASSES.items()}
    return beside.erasures(pairs, names, {"gender": (0.5, 0.5)})


def without_direction(prompts: int, images: int, flips: float, trials: int) -> tuple[float, float, float]:
    """Return how many of 100 images flip, and of 100 trials raise an alarm, and raise one over all prompts."""
    rng = np.random.default_rng((prompts, images, round(10 * flips)))
    flipped, found = [], []
    for _ in range(trials):
        tables = {
            name: chances(rng.dirichlet([1.0] * number, prompts), np.zeros(prompts), flips)
            for name, number in CLASSES.items()
        }
        flipped += [1 - float(np.trace(cells, axis1=1, axis2=2).mean()) for cells in tables.values()]
        found.append(alarms(tables, images, rng))
    over_all = [any(one.prompt is None for one in each) for each in found]
    return 100 * float(np.mean(flipped)), 100 * float(np.mean(list(map(bool, found)))), 100 * float(np.mean(over_all))


def gardener(images: int, trials: int) -> tuple[float, float, float]:
    """Return the same of the gardener: of 100 trials those that tell of him, and of dark people over all prompts."""
    rng = np.random.default_rng(images)
    prompts = len(DARK)
    flipped, told, over_all = [], [], []
    for _ in range(trials):
        others = rng.dirichlet([1.0] * 3, prompts) * (1 - DARK)[:, None]
        gender = rng.beta(0.5, 0.5, prompts)
        tables = {
            "gender": chances(np.stack([1 - gender, gender], 1), np.maximum(0, gender - 0.5), 0.2),
            "tone": chances(np.column_stack([others, DARK]), DARK - DARK_AFTER, 0.5),
            "age": chances(rng.dirichlet([1.0] * 2, prompts), np.zeros(prompts), 0.2),
        }
        flipped.append(1 - float(np.trace(tables["tone"], axis1=1, axis2=2).mean()))
        raised = alarms(tables, images, rng)
        found = [one.prompt for one in raised if (one.target, one.class_name) == ("tone", "3")]
        told.append(0 in found)
        over_all.append(None in found)
    return 100 * float(np.mean(flipped)), 100 * float(np.mean(told)), 100 * float(np.mean(over_all))


def main() -> None:
    """Print a row per case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    trials = parser.parse_args().trials
    cases = [(False, prompts, images, flips) for flips in FLIPS for prompts in PROMPTS for images in IMAGES]
    rows = []
    for farm, prompts, images, flips in [*cases, *((True, len(DARK), images, 0.0) for images in (16, 32, 64))]:
        found = gardener(images, trials) if farm else without_direction(prompts, images, flips, trials)
        names = ("images that flip, %", "told, %", "told over all prompts, %")
        case = "the gardener" if farm else "no direction"
        rows.append({"case": case, "prompts": prompts, "images": images, **dict(zip(names, found, strict=True))})
    report("alarms", rows, trials=trials)


if __name__ == "__main__":
    main()
