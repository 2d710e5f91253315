"""Which parts of a flow to train: an adaptor of sandbox-flow in each, on the validation prompts.

The same recipe and seed, with another ``parts``. Figures are as in ``sandbox_bias``, by the evaluation classifier, and
means over noises: on eight prompts the bias of one adaptor differs much from noise to noise.
"""

import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks._report import report
from benchmarks.sandbox_bias import ALARMS, EXPLICIT, NAMED, NOISE, OBEYED, SHARE, figures, measure, obeyed, train
from fair_adaptors.adaptor.bases import SANDBOX_FLOW
from fair_adaptors.pipelines import load_pipeline

RECIPE = "sandbox-flow-gender"
PARTS: Mapping[str, Sequence[str]] = {
    "text encoders and transformer": ("parts=text_encoder,text_encoder_2,transformer",),
    "transformer": ("parts=transformer",),
    "text encoders": ("parts=text_encoder,text_encoder_2",),
    "text encoders, two prompts of 24 images": (
        "parts=text_encoder,text_encoder_2",
        "prompts_per_step=2",
        "images_per_prompt=24",
    ),
    "text encoders, rank 4": ("parts=text_encoder,text_encoder_2", "rank=4"),
    "context_embedder alone": ("parts=transformer", "target_modules=context_embedder"),
    "context_embedder and pooled entry": (
        "parts=transformer",
        "target_modules=context_embedder,text_embedder.linear_1",
    ),
}
SHOWN = (
    "gender", "tone shift", "age shift", SHARE, ALARMS, "occupation", OBEYED.format("gender"), NAMED,
)  # fmt: skip


def main() -> None:
    """Print a row for the original, and one for each of the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adaptors", type=Path, help="use the adaptors in this folder, by the parts' names")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--noises", type=int, default=1, help="how many seeds of noise the figures are means of")
    parser.add_argument("--name", default="flow_parts", help="name of the JSON file")
    parser.add_argument("--set", nargs="+", default=[], help="other settings, such as iterations=2: does it run?")
    arguments = parser.parse_args()
    pipe = load_pipeline(SANDBOX_FLOW)
    with tempfile.TemporaryDirectory() as temporary:
        place = arguments.adaptors or Path(temporary)
        adaptors = {parts: place / parts.replace(" ", "-") for parts in arguments.only}
        for parts, folder in adaptors.items():
            train(RECIPE, 0, folder, [*PARTS[parts], *arguments.set])
        found: dict[str, list[dict[str, float]]] = {parts: [] for parts in ("none", *adaptors)}
        for seed in range(NOISE, NOISE + arguments.noises):
            plain = measure(pipe, "validation", adaptors, arguments.images, base=SANDBOX_FLOW, seed=seed)
            asked = measure(
                pipe, EXPLICIT["validation"], adaptors, arguments.images // 8, base=SANDBOX_FLOW, seed=seed
            )
            for each, shown, named in zip(found.values(), plain.variants, asked.variants, strict=True):
                each.append(figures(plain, shown) | obeyed(asked, named))
    rows = []
    for parts, each in found.items():
        means = {name: statistics.fmean(one[name] for one in each) if name in each[0] else "–" for name in SHOWN}
        rows.append(
            {"parts": parts, **means, "gender of each noise": ", ".join(f"{one['gender']:.2f}" for one in each)}
        )
    report(arguments.name, rows, images=arguments.images, noises=arguments.noises, settings=arguments.set)


if __name__ == "__main__":
    main()
