"""``images.csv``: a row per image of an evaluation, for spreadsheets."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fair_adaptors.files import replacing

from .spec import Evaluation, Instruments
from .store import Record, image_path
from .variants import Variant


def write_csv(
    path: Path,
    evaluation: Evaluation,
    *,
    variants: Sequence[Variant],
    instruments: Instruments,
    records: Mapping[str, Record],
) -> None:
    """Write a row per image: what it was made of, what was seen, and how sure each classifier is of every class.

    An image without a face has no class: its cell is empty. Where prompts name classes there is a column for each
    attribute with what the prompt names, empty where it names none: such images count for no bias of the attribute.
    """
    first = records[variants[0].name]
    seen = [(one.name, name, classes) for one in instruments.classifiers for name, classes in one.classes.items()]
    expected = evaluation.prompts.expected
    named = sorted({name for one in expected for name in one})
    columns = ["variant", "prompt", "prompt text", *(f"named {name}" for name in named)]
    columns += ["image", "label", "seed", "file"]
    columns += ["face", "left", "top", "right", "bottom"]
    for classifier, name, classes in seen:
        columns += [f"{classifier} {name}", *(f"{classifier} {name} {word}" for word in classes)]
    columns += [f"{name} similarity" for name in first.features]
    with replacing(path) as aside, aside.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(map(plain_cell, columns))
        for variant in variants:
            record = records[variant.name]
            for p, i in np.ndindex(record.found.shape):
                file = image_path(variant, p, i) if evaluation.keep_images else ""
                row = [plain_cell(variant.name), p, plain_cell(evaluation.prompts.prompts[p])]
                row += [plain_cell(expected[p].get(name, "")) for name in named]
                row += [i, plain_cell(evaluation.prompts.labels[p]), record.seeds[p, i], file]
                row += [int(record.found[p, i]), *(f"{value:.1f}" for value in record.boxes[p, i])]
                for classifier, name, classes in seen:
                    probs = record.probabilities[classifier][name][p, i]
                    said = classes[probs.argmax()] if record.found[p, i] else ""
                    row += [plain_cell(said), *(f"{value:.4f}" for value in probs)]
                alike = {name: values[p, i] @ first.features[name][p, i] for name, values in record.features.items()}
                row += [f"{cosine:.4f}" for cosine in alike.values()]
                writer.writerow(row)


def plain_cell(text: str) -> str:
    """Return text that a spreadsheet does not take for a formula: with an apostrophe in front where it would."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "'")) else text
