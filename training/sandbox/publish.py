"""From a sandbox adaptor to results, picture and card: ``python -m fair_adaptors.training.sandbox.publish FOLDER``.

The results are those of ``fair-adaptors evaluate sandbox`` on the held-out occupations, for what the adaptor was
trained for and for the attributes that it was not.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from fair_adaptors.adaptor.record import CARD_FILE, RESULTS_FILE, read_record
from fair_adaptors.adaptor.registry import list_adaptors
from fair_adaptors.adaptor.results import Results
from fair_adaptors.adaptor.results_file import to_json, variant_of
from fair_adaptors.evaluation import evaluate
from fair_adaptors.evaluation.spec import Evaluation, targets_for
from fair_adaptors.evaluation.store import write_json
from fair_adaptors.evaluation.variants import ORIGINAL, with_adaptor
from fair_adaptors.evaluation.wording import percent
from fair_adaptors.prompts.sets import load_prompts
from fair_adaptors.report.card import card_of
from fair_adaptors.report.gallery import find_pictures
from fair_adaptors.report.grid import before_after_grid
from fair_adaptors.sandbox.instruments import instruments
from fair_adaptors.sandbox.pipeline import GUIDANCE, STEPS, load_sandbox_pipeline

SEED = 2_026
PROMPTS, COLUMNS = 4, 8
"""Rows of prompts and columns of noises in the picture."""


def measure_adaptor(folder: Path, *, images_per_prompt: int = 64) -> Results:
    """Evaluate an adaptor of the sandbox, and write ``results.json`` and the picture; returns the results."""
    seen_by = instruments()
    evaluation = Evaluation(
        "sandbox",
        load_prompts("sandbox-test"),
        targets_for([], [str(folder)], seen_by),
        images_per_prompt=images_per_prompt,
        seed=SEED,
        num_steps=STEPS,
        guidance_scale=GUIDANCE,
        batch_size=64,
    )
    with tempfile.TemporaryDirectory() as out:
        results = evaluate(load_sandbox_pipeline(), evaluation, [with_adaptor(str(folder))], seen_by, Path(out))
        _draw(folder, results, Path(out))
    write_json(folder / RESULTS_FILE, to_json(results))
    return results


def write_card(folder: Path) -> str:
    """Write the card of an adaptor folder from its record, its results and its row in the registry; returns it."""
    name = read_record(folder).name
    text = card_of(folder, info=next((info for info in list_adaptors() if info.name == name), None))
    (folder / CARD_FILE).write_text(text, encoding="utf-8")
    return text


def _draw(folder: Path, results: Results, out: Path) -> None:
    """Put the first images of the first prompts into one picture, with how often the first class was seen."""
    import numpy as np
    import torch
    from PIL import Image

    record = read_record(folder)
    prompts = min(PROMPTS, len(results.labels))
    found = find_pictures(out, results, range(prompts), COLUMNS)
    variants = (results.original, variant_of(record, results))

    def images(name: str) -> torch.Tensor:
        rows = [[np.asarray(Image.open(one.path)) for one in found[name, p]] for p in range(prompts)]
        return torch.from_numpy(np.array(rows)).permute(0, 1, 4, 2, 3) / 255

    attribute, target = next(iter(record.attributes.items()))
    first = target.classes[0]
    shares = [[row.frequencies[0] for row in results.figures(one, attribute).prompts] for one in variants]
    grid = before_after_grid(
        images(ORIGINAL),
        images(variants[1].name),
        results.labels[:prompts],
        title=f"{record.name}: before and after",
        subtitle=f"Held-out occupations. Shares are of {results.settings.images_per_prompt} images; each column"
        " has one noise.",
        notes=[(f"{percent(shares[0][p])} {first}", f"{percent(shares[1][p])} {first}") for p in range(prompts)],
    )
    (folder / "images").mkdir(exist_ok=True)
    grid.save(folder / "images" / "before_after.png", optimize=True)


def main() -> None:
    """Measure adaptors and write their cards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=64, help="images per prompt")
    parser.add_argument("--cards", type=Path, help="copy the cards to this folder, under the adaptors' names")
    parser.add_argument(
        "--only-cards", action="store_true", help="write the cards anew from the results that are there"
    )
    arguments = parser.parse_args()
    for folder in arguments.folders:
        if not arguments.only_cards:
            measure_adaptor(folder, images_per_prompt=arguments.images)
        write_card(folder)
        if arguments.cards:
            arguments.cards.mkdir(exist_ok=True)
            shutil.copy(folder / CARD_FILE, arguments.cards / f"{folder.name}.md")
        print(f"{folder}: {RESULTS_FILE} and {CARD_FILE} written")


if __name__ == "__main__":
    main()
