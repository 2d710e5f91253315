"""What an evaluation is asked for in words, and everything that follows from them: the one place that reads them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fair_adaptors.adaptor.bases import defaults_of
from fair_adaptors.adaptor.registry import check_base
from fair_adaptors.prompts.sets import load_prompts

from .baselines import baselines_for
from .run import check_targets
from .spec import Evaluation, Instruments, instruments_for, shared_classifiers, targets_for
from .variants import Variant, distinct, variants_for


@dataclass(frozen=True)
class Asked:
    """What is wanted, in words. What is left out is as usual for the base.

    Attributes:
        base: the base model's name, folder or Hub id.
        adaptors: names, folders or Hub ids.
        weights: strengths of the adaptors; none for their own.
        baselines: methods of others to compare with.
        prompts: a prompt set, a file, or the prompts themselves.
        targets: such as ``gender`` or ``age=0.75,0.25``; none for what the adaptors were trained for.
        classifiers, encoders: words of ``vision.catalog``.
        faces: the face detector.
        images_per_prompt, seed, num_steps, guidance_scale, batch_size, keep_images: see ``Evaluation``.
    """

    base: str
    adaptors: Sequence[str] = ()
    weights: Sequence[float] = ()
    baselines: Sequence[str] = ()
    prompts: str | Path | Sequence[str] | None = None
    targets: Sequence[str] = ()
    classifiers: Sequence[str] = ()
    encoders: Sequence[str] = ()
    faces: str | None = None
    images_per_prompt: int = 60
    seed: int = 0
    num_steps: int | None = None
    guidance_scale: float | None = None
    batch_size: int | None = None
    keep_images: bool = True


@dataclass(frozen=True)
class Prepared:
    """What ``evaluate`` takes, besides the pipeline.

    Attributes:
        evaluation: what is drawn and counted.
        variants: what is compared, the original first.
        instruments: what it is measured with.
        warnings: what the reader of the numbers should know before they are made.
    """

    evaluation: Evaluation
    variants: tuple[Variant, ...]
    instruments: Instruments
    warnings: tuple[str, ...]


def drawn_as_usual(evaluation: Evaluation, asked: Asked, pipe: Any) -> Evaluation:
    """Return an evaluation with the settings that were left out as they are usual for the pipeline.

    ``prepare`` has not seen it, and a base that is not in the table of bases may be of any family.
    """
    usual = defaults_of(asked.base, pipe)
    return replace(
        evaluation,
        num_steps=usual.num_steps if asked.num_steps is None else asked.num_steps,
        guidance_scale=usual.guidance_scale if asked.guidance_scale is None else asked.guidance_scale,
    )


def prepare(asked: Asked) -> Prepared:
    """Check what is asked for and load what measures it. The base itself is not loaded: see ``drawn_as_usual``.

    Raises:
        ConfigError: an unknown name, or something that does not fit.
        UnknownAdaptorError, NotPublishedError, HubError: an adaptor cannot be had.
        MissingExtraError: an instrument needs a package that is not installed.
    """
    check_base(asked.adaptors, asked.base)
    usual = defaults_of(asked.base)
    prompts = load_prompts(usual.test_prompts if asked.prompts is None else asked.prompts, base=asked.base)
    instruments = instruments_for(asked.base, asked.classifiers, asked.encoders, asked.faces)
    evaluation = Evaluation(
        asked.base,
        prompts,
        targets_for(asked.targets, asked.adaptors, instruments),
        images_per_prompt=asked.images_per_prompt,
        seed=asked.seed,
        num_steps=usual.num_steps if asked.num_steps is None else asked.num_steps,
        guidance_scale=usual.guidance_scale if asked.guidance_scale is None else asked.guidance_scale,
        batch_size=usual.batch_size if asked.batch_size is None else asked.batch_size,
        keep_images=asked.keep_images,
    )
    check_targets(evaluation, instruments)
    compared = variants_for(asked.adaptors, asked.weights)
    compared += baselines_for(asked.baselines, evaluation.targets, instruments)
    warnings = tuple(shared_classifiers(asked.adaptors, instruments))
    return Prepared(evaluation, distinct(compared), instruments, warnings)
