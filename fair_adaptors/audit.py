"""``fair_adaptors.evaluate``: a pipeline with adaptors and without, from one call to a result that can be read."""

import logging
import shutil
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from fair_adaptors.adaptor.bases import plugin_of
from fair_adaptors.adaptor.registry import default_for
from fair_adaptors.adaptor.results import FlooredEstimate, Results, Shift, VariantResults, headline
from fair_adaptors.evaluation.asked import Asked, drawn_as_usual, prepare
from fair_adaptors.evaluation.harm import Harm, harms, not_aimed_at, shift_of
from fair_adaptors.evaluation.run import evaluate as evaluate_prepared
from fair_adaptors.load import in_force

from .errors import ConfigError, MissingExtraError, UnknownAdaptorError, pip_install
from .files import refuse_existing
from .progress import bar

logger = logging.getLogger(__name__)
OnImages = Callable[[int, int], None]


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation measured. ``print`` shows the table of figures, and in words what changed and for whom.

    Attributes:
        results: every figure with its interval, as ``results.json`` has them (docs/evaluation.md).
        folder: where the numbers, a row per image and the images are. If no ``out`` was given it is a temporary one
            that goes with this object: ``save`` keeps it.
    """

    results: Results
    folder: Path

    @property
    def bias(self) -> dict[str, dict[str, FlooredEstimate]]:
        """By variant (``original`` first) and attribute: 0 is fair; with 95 % interval and noise floor.

        It is the mean over pairs of classes of |freq(i) − freq(j)|. Where the target is not the same share for every
        class, it is the total variation, the distance from the target.
        """
        return {
            variant.name: {
                name: headline(self.results.figures(variant, name), target)
                for name, target in self.results.targets.items()
            }
            for variant in self.results.variants
        }

    @property
    def shift(self) -> dict[str, dict[str, Shift]]:
        """By adaptor and attribute that it is not aimed at: how far it moved from the original, from 0 to 1."""
        return {
            variant.name: {
                name: found
                for name in not_aimed_at(self.results, variant)
                if (found := shift_of(self.results, variant, name)) is not None
            }
            for variant in self.results.variants[1:]
        }

    @property
    def harms(self) -> dict[str, list[Harm]]:
        """By adaptor, what it does to somebody, or to what should stay, beyond doubt; the worst kind first."""
        return {variant.name: harms(self.results, variant) for variant in self.results.variants[1:]}

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame`` with a row for each variant and target.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            pandas = import_module("pandas")
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"pandas is not installed: {pip_install('pandas')}") from error
        rows = [self._row(variant, name) for variant in self.results.variants for name in self.results.targets]
        return pandas.DataFrame(rows)

    def report(self, path: str | Path) -> Path:
        """Write the report: one HTML file with tables, charts and pictures that needs no network.

        Raises:
            ConfigError: ``path`` does not end in .html, or cannot be written.
        """
        from fair_adaptors.report.page import page_of

        path = Path(path).expanduser()
        if path.suffix.lower() not in (".html", ".htm"):
            raise ConfigError(f"a report is an HTML file: `path` must end in .html (got {path})")
        text = page_of(self.folder, command="fair_adaptors.evaluate(…)")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}; name another place") from error
        return path

    def save(self, folder: str | Path) -> Path:
        """Copy everything into a new folder: ``results.json``, ``images.csv`` and the images.

        Raises:
            ConfigError: the folder holds something already, or cannot be written.
        """
        folder = Path(folder).expanduser()
        refuse_existing(folder)
        try:
            shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{folder} cannot be written: {error.strerror or error}; name another place") from error
        return folder

    def __str__(self) -> str:
        from fair_adaptors.report.terminal import headline_text

        return headline_text(self.results)

    def _row(self, variant: VariantResults, name: str) -> dict[str, Any]:
        found, target = self.results.figures(variant, name), self.results.targets[name]
        bias, shift = headline(found, target), found.change and found.change.shift
        least = min(zip(found.frequencies, target.classes, strict=True), key=lambda one: one[0].value)
        return {
            "variant": variant.name,
            "target": name,
            "aimed": name in variant.aimed,
            "classifier": self.results.seen_by(name),
            "bias": bias.value,
            "bias_low": bias.low,
            "bias_high": bias.high,
            "bias_floor": bias.floor,
            "shift": shift and shift.value,
            "shift_low": shift and shift.low,
            "shift_high": shift and shift.high,
            "smallest_class": least[1],
            "smallest_share": least[0].value,
            "effective_classes": found.effective_classes and found.effective_classes.value,
            "undetermined": found.undetermined.value,
        }


def evaluate(
    pipe: Any,
    adaptors: str | Path | Sequence[str | Path] = (),
    *,
    prompts: str | Path | Sequence[str] | None = None,
    images_per_prompt: int = 60,
    classifiers: str | Sequence[str] = (),
    targets: str | Sequence[str] = (),
    encoders: str | Sequence[str] = (),
    weights: Sequence[float] = (),
    baselines: str | Sequence[str] = (),
    faces: str | None = None,
    seed: int = 0,
    num_steps: int | None = None,
    guidance_scale: float | None = None,
    batch_size: int | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    on_images: OnImages | None = None,
) -> EvaluationResult:
    """Measure whom a pipeline shows, with and without adaptors, from the same noise. The pipeline is left as it was.

    What you leave out is chosen for the pipeline's base: its test prompts, steps, guidance and classifiers.

    Args:
        pipe: a text-to-image pipeline of a known family, with no adaptor loaded.
        adaptors: one or several names, folders or Hub ids. Without any, the pipeline alone is measured.
        prompts: a prompt set (``fair-adaptors evaluate BASE --prompts list``), a file, or a list of prompts. By
            default the base's test prompts.
        images_per_prompt: how many images of each prompt every variant draws. More images, narrower intervals.
        classifiers: tell what the people look like, such as ``clip:ORG/NAME``. The first one gives the headline
            figures. By default the base's own.
        targets: what should be fair, such as ``gender``, or ``age=0.75,0.25`` with shares. By default what the
            adaptors were trained for.
        encoders: tell how much of each image stays as it was, such as ``clip:ORG/NAME``.
        weights: strengths to try for each adaptor. By default its own.
        baselines: methods of others to compare with (``fair-adaptors evaluate BASE --baseline list``).
        faces: face detector: ``yunet``, ``yunet:PATH``, ``insightface``, ``whole`` or ``MODULE:OBJECT``. By default
            the base's own.
        seed: the seed of each image follows from it, the prompt and the image's number.
        num_steps: sampling steps. By default as usual for the base.
        guidance_scale: classifier-free guidance. By default as usual for the base.
        batch_size: images drawn at once. More needs more memory. By default as usual for the base.
        out: folder for numbers and images. An interrupted evaluation goes on there. By default a temporary folder.
        overwrite: delete another evaluation that is in ``out``.
        on_images: called with the number of images drawn so far and in all. By default a progress bar is shown.

    Raises:
        ConfigError: an unknown name, or something that does not fit.
        FairAdaptorError: an adaptor is loaded in the pipeline, cannot be had, or is for another base.
        MissingExtraError: an instrument needs a package that is not installed.
    """
    if loaded := in_force(pipe):
        raise ConfigError(
            f"the pipeline has the adaptor {', '.join(loaded)} in it, so the original model could not be measured."
            " Call `unload()` or `disable()` on it first, and name it in `adaptors`"
        )
    asked = Asked(
        base_name(pipe),
        [str(one) for one in _listed(adaptors)],
        weights,
        _listed(baselines),
        prompts,
        _listed(targets),
        _listed(classifiers),
        _listed(encoders),
        faces,
        images_per_prompt,
        seed,
        num_steps,
        guidance_scale,
        batch_size,
    )
    prepared = prepare(asked)
    for warning in prepared.warnings:
        logger.warning(warning)
    folder = Path(mkdtemp(prefix="fair-adaptors-") if out is None else out).expanduser()
    with _quiet_steps(pipe), _progress(on_images) as advance:
        results = evaluate_prepared(
            pipe,
            drawn_as_usual(prepared.evaluation, asked, pipe),
            prepared.variants,
            prepared.instruments,
            folder,
            overwrite=overwrite,
            on_images=advance,
        )
    found = EvaluationResult(results, folder)
    if out is None:
        weakref.finalize(found, shutil.rmtree, folder, ignore_errors=True)
    return found


def base_name(pipe: Any) -> str:
    """Return what records call a pipeline's base: an embedded base's name, else what it was loaded from."""
    try:
        known = default_for(pipe).base_model
    except UnknownAdaptorError:
        known = ""
    return known if plugin_of(known) else str(pipe.config.get("_name_or_path") or type(pipe).__name__)


def _listed(given: Any) -> list[Any]:
    return [given] if isinstance(given, str | Path) else list(given)


@contextmanager
def _quiet_steps(pipe: Any) -> Iterator[None]:
    """Within the block the pipeline shows no bar of its own for the steps of every batch."""
    before = dict(getattr(pipe, "_progress_bar_config", {}))
    pipe.set_progress_bar_config(**before | {"disable": True})
    try:
        yield
    finally:
        pipe.set_progress_bar_config(**before)


@contextmanager
def _progress(on_images: OnImages | None) -> Iterator[OnImages]:
    if on_images is not None:
        yield on_images
        return
    with bar() as (_, advance):
        yield advance
