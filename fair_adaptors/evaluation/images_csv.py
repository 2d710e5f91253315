"""``images.csv``: a row per image of an evaluation, for spreadsheets."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .spec import Evaluation
from .store import Record, image_path
from .variants import Variant


def write_csv(path: Path, evaluation: Evaluation, variants: Sequence[Variant], records: Mapping[str, Record]) -> None:
    """Write a row per image: what it was made of, what was seen, and how sure each classifier is."""
    first = records[variants[0].name]
    seen = [(classifier, name) for classifier, attributes in first.probabilities.items() for name in attributes]
    columns = ["variant", "prompt", "image", "label", "seed", "file", "face", "left", "top", "right", "bottom"]
    for classifier, name in seen:
        number = first.probabilities[classifier][name].shape[-1]
        columns += [f"{classifier} {name}", *(f"{classifier} {name} p{k}" for k in range(number))]
    columns += [f"{name} similarity" for name in first.features]
    aside = path.with_name(f".{path.name}")
    with aside.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        for variant in variants:
            record = records[variant.name]
            for p, i in np.ndindex(record.found.shape):
                file = image_path(variant, p, i) if evaluation.keep_images else ""
                row = [plain_cell(variant.name), p, i, plain_cell(evaluation.prompts.labels[p])]
                row += [record.seeds[p, i], file]
                row += [int(record.found[p, i]), *(f"{value:.1f}" for value in record.boxes[p, i])]
                for classifier, name in seen:
                    probs = record.probabilities[classifier][name][p, i]
                    row += [int(probs.argmax()), *(f"{value:.4f}" for value in probs)]
                alike = {name: values[p, i] @ first.features[name][p, i] for name, values in record.features.items()}
                row += [f"{cosine:.4f}" for cosine in alike.values()]
                writer.writerow(row)
    os.replace(aside, path)


def plain_cell(text: str) -> str:
    """Return text that a spreadsheet does not take for a formula: with an apostrophe in front where it would."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "'")) else text
