"""An evaluation: variants of a model draw the same prompts from the same noise, and everything is counted."""

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fair_adaptors.errors import ConfigError, InvalidResultsError
from fair_adaptors.families.table import guided
from fair_adaptors.files import replacing
from fair_adaptors.seeds import image_seed
from fair_adaptors.vision.checked import check_logits
from fair_adaptors.vision.faces import whole_image
from fair_adaptors.vision.seeing import see
from fair_adaptors.vision.types import Logits

from .spec import Evaluation, Instruments, Target, all_targets, known_targets
from .store import (
    IMAGES_FILE,
    RESULTS_FILE,
    TIMING_FILE,
    Record,
    claim,
    image_path,
    join,
    load_record,
    record_mark,
    record_path,
    save_record,
    settings_of,
    stack,
    write_json,
)
from .variants import Variant, distinct

if TYPE_CHECKING:
    from torch import Tensor

    from fair_adaptors.adaptor.results import Results


def evaluate(
    pipe: Any,
    evaluation: Evaluation,
    variants: Sequence[Variant],
    instruments: Instruments,
    out: Path,
    *,
    overwrite: bool = False,
    on_images: Callable[[int, int], None] = lambda done, total: None,
    on_results: "Callable[[Results], None]" = lambda results: None,
) -> "Results":
    """Draw, see and count; leave ``results.json``, ``images.csv`` and the images in a folder, and return the results.

    What is there already of the same evaluation is not done again: an interrupted one goes on, a finished one is read.
    The targets of a finished one are counted again, besides those that are asked for now.
    Under torchrun the prompts are shared out; every process returns the same results, and they are those of one.

    Args:
        variants: what is compared with the original model, which need not be named.
        out: a folder, made if need be; for several processes one that all of them see.
        overwrite: remove another evaluation that is in the way.
        on_images: called with the images that are there and all there will be.
        on_results: called with the results by the first process, while the others wait for it.

    Raises:
        ConfigError: the folder holds another evaluation, a target does not fit the classifiers, or a classifier does
            not return what it knows.
    """
    from fair_adaptors.adaptor.results_file import to_json

    from .images_csv import write_csv
    from .summary import summarise

    evaluation = dataclasses.replace(evaluation, targets=all_targets(evaluation.targets, instruments))
    check_targets(evaluation, instruments)
    every = distinct(variants)
    settings = settings_of(pipe, evaluation, instruments)
    marks = {one.name: record_mark(settings, one) for one in every}
    with _processes() as (rank, size, wait):
        if rank == 0:
            claim(out, settings, overwrite)
        wait()
        evaluation = dataclasses.replace(evaluation, targets=_with_earlier(evaluation.targets, out / RESULTS_FILE))
        _draw_all(pipe, evaluation, every, instruments, out, marks, (rank, size), on_images)
        wait()
        records = {one.name: stack(_read_all(evaluation, one, instruments, out, marks)) for one in every}
        results = summarise(evaluation, every, instruments, records, settings)
        if rank == 0:
            write_json(out / TIMING_FILE, {name: _timing(record) for name, record in records.items()})
            write_csv(out / IMAGES_FILE, evaluation, variants=every, instruments=instruments, records=records)
            write_json(out / RESULTS_FILE, to_json(results))
            on_results(results)
        wait()
    return results


def _with_earlier(targets: Sequence[Target], path: Path) -> tuple[Target, ...]:
    """Return the targets with those that an earlier evaluation in the folder declared: nothing reported is dropped."""
    from fair_adaptors.adaptor.results_file import load_results

    try:
        rows = list(load_results(path).targets.values())
    except InvalidResultsError:  # none, or of another version
        rows = []
    # Shares have six digits in the file.
    earlier = [Target(row.attributes, tuple(s / sum(row.shares) for s in row.shares)) for row in rows if row.declared]
    found: dict[tuple[str, ...], Target] = {}
    for one in (*(one for one in targets if one.declared), *earlier, *targets):
        found.setdefault(one.attributes, one)
    return tuple(found.values())


def check_targets(evaluation: Evaluation, instruments: Instruments) -> None:
    """Raise ConfigError unless the first classifier knows every target, and the others' classes fit what they know."""
    targets = evaluation.targets
    first = instruments.classifiers[0]
    for target in targets:
        if not any(known_targets([target], one) for one in instruments.classifiers):
            known = "; ".join(f"{one.name} knows {', '.join(one.classes)}" for one in instruments.classifiers)
            raise ConfigError(f"no classifier knows {target.name}: {known}")
    for named in evaluation.prompts.expected:
        for attribute, wanted in named.items():
            if attribute not in first.classes:
                known = ", ".join(first.classes)
                raise ConfigError(f"a prompt expects {attribute} {wanted!r}; {first.name} knows {known}")
            if wanted not in first.classes[attribute]:
                known = ", ".join(first.classes[attribute])
                raise ConfigError(f"a prompt expects {attribute} {wanted!r}; {first.name} knows {known}")
    for other in instruments.classifiers[1:]:
        for name in set(other.classes) & set(first.classes):
            if tuple(other.classes[name]) != tuple(first.classes[name]):
                raise ConfigError(
                    f"{other.name} and {first.name} do not list the same classes of {name} in the same order"
                )
    for target in targets:
        knows = next(one for one in instruments.classifiers if known_targets([target], one))
        number = int(np.prod([len(knows.classes[name]) for name in target.attributes]))
        if number != len(target.shares):
            raise ConfigError(
                f"{target.name} needs {number} shares, one for each class; its target has {len(target.shares)}"
            )


def _draw_all(
    pipe: Any,
    evaluation: Evaluation,
    variants: Sequence[Variant],
    instruments: Instruments,
    out: Path,
    marks: Mapping[str, str],
    share: tuple[int, int],
    on_images: Callable[[int, int], None],
) -> None:
    """Draw what is not there yet, of this process's share of the prompts."""
    rank, size = share
    mine = range(rank, len(evaluation.prompts.prompts), size)
    total, done = len(mine) * len(variants) * evaluation.images_per_prompt, 0
    for variant in variants:
        with ExitStack() as stack_:
            applied = None
            for index in mine:
                path, mark = record_path(out, variant, index), marks[variant.name]
                seen = load_record(path, instruments, mark)
                if seen is None or not _pictures_are_there(evaluation, variant, index, out):
                    applied = stack_.enter_context(variant.applied(pipe)) if applied is None else applied
                    save_record(path, _draw_and_see(applied, evaluation, variant, instruments, index, out), mark)
                done += evaluation.images_per_prompt
                on_images(done, total)


def _draw_and_see(
    pipe: Any, evaluation: Evaluation, variant: Variant, instruments: Instruments, index: int, out: Path
) -> Record:
    """Draw the images of one prompt, as 8-bit pictures, and look at them."""
    import torch

    started = time.perf_counter()
    prompt, label = evaluation.prompts.prompts[index], evaluation.prompts.labels[index]
    seeds = [image_seed(evaluation.seed, prompt, image) for image in range(evaluation.images_per_prompt)]
    words = variant.prompts(prompt, label, seeds)
    batches: list[Tensor] = []
    hidden: list[bool] = []
    for start in range(0, len(seeds), evaluation.batch_size):
        batch = slice(start, start + evaluation.batch_size)
        output = pipe(
            prompt=words[batch],
            generator=[torch.Generator().manual_seed(seed) for seed in seeds[batch]],
            num_inference_steps=evaluation.num_steps,
            output_type="pt",
            **guided(pipe, evaluation.guidance_scale, len(words[batch])),
        )
        batches.append((output.images.float().cpu().clamp(0, 1) * 255).round().byte())
        hidden += getattr(output, "nsfw_content_detected", None) or [False] * len(seeds[batch])
    pixels = torch.cat(batches)
    if evaluation.keep_images:
        _save_pictures(pixels, [out / image_path(variant, index, image) for image in range(len(seeds))])
    parts = [part.float() / 255 for part in pixels.split(evaluation.batch_size)]
    seen = join([look_at(part, prompt, label, instruments) for part in parts])
    # What a safety checker has blackened shows nobody.
    found = np.logical_and(seen.found, np.logical_not(hidden))
    seconds = time.perf_counter() - started
    return dataclasses.replace(seen, found=found, seeds=np.array(seeds), seconds=np.array(seconds))


def look_at(images: "Tensor", prompt: str, label: str, instruments: Instruments) -> Record:
    """Judge images [n, 3, H, W], each as the PNG file has it: classifiers see its face, encoders all of it."""
    import torch

    with torch.no_grad():
        faces = (instruments.faces or whole_image()).find(images)
        boxes = faces.boxes if instruments.faces and instruments.faces.crops else None
        logits: dict[str, Logits] = {one.name: see(one, images, boxes) for one in instruments.classifiers}
        for one in instruments.classifiers:
            check_logits(one, logits[one.name], faces.found)
        features = {one.name: one.encode(images).float().cpu() for one in instruments.encoders}
        text = {
            one.name: (features[one.name] * one.encode_text([prompt]).float().cpu()).sum(1).numpy()
            for one in instruments.encoders
            if one.encode_text is not None
        }
    return Record(
        seeds=np.zeros(len(images), np.int64),
        found=faces.found.cpu().numpy(),
        boxes=faces.boxes.float().cpu().numpy(),
        probabilities={
            one.name: {name: logits[one.name][name].float().softmax(1).cpu().numpy() for name in one.classes}
            for one in instruments.classifiers
        },
        features={name: values.numpy() for name, values in features.items()},
        text=text,
        right=instruments.kept.right(label, logits[instruments.classifiers[0].name]) if instruments.kept else None,
    )


def _save_pictures(pixels: "Tensor", paths: Sequence[Path]) -> None:
    from PIL import Image

    paths[0].parent.mkdir(parents=True, exist_ok=True)
    for array, path in zip(pixels.permute(0, 2, 3, 1).numpy(), paths, strict=True):
        with replacing(path) as aside:
            Image.fromarray(array).save(aside, "PNG")


def _pictures_are_there(evaluation: Evaluation, variant: Variant, index: int, out: Path) -> bool:
    """Tell whether the images of a prompt are saved as they should be. A file is there whole or not at all."""
    count = evaluation.images_per_prompt if evaluation.keep_images else 0
    return all((out / image_path(variant, index, image)).is_file() for image in range(count))


def _read_all(
    evaluation: Evaluation, variant: Variant, instruments: Instruments, out: Path, marks: Mapping[str, str]
) -> list[Record]:
    records = []
    for index in range(len(evaluation.prompts.prompts)):
        path = record_path(out, variant, index)
        record = load_record(path, instruments, marks[variant.name])
        if record is None:
            raise ConfigError(f"{path} is gone: do all processes see the same folder, with the same settings?")
        records.append(record)
    return records


def _timing(record: Record) -> dict[str, float]:
    """Return the seconds that making and seeing an image took, the median of the prompts: others may be busy, too."""
    return {"seconds_per_image": float(np.median(record.seconds)) / record.found.shape[1]}


@contextmanager
def _processes() -> Iterator[tuple[int, int, Callable[[], None]]]:
    """Yield this process's number, how many torchrun started, and what waits for all of them."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield 0, 1, lambda: None
        return
    from datetime import timedelta

    import torch.distributed as processes

    processes.init_process_group("gloo", timeout=timedelta(days=7))
    try:
        yield processes.get_rank(), size, processes.barrier
    finally:
        processes.destroy_process_group()
