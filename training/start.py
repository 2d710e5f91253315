"""``fair_adaptors.train``: from a recipe's name, settings and targets to a run. Loads torch only when it is called."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import TrainConfig


def train(
    recipe: "str | TrainConfig",
    out: str | Path | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    targets: Mapping[str, Sequence[float]] | None = None,
    resume: bool | str | Path = False,
    overwrite: bool = False,
    images_per_prompt: int = 32,
    on_iteration: Callable[[int, int], None] | None = None,
) -> Path | None:
    """Train an adaptor. Ctrl-C stops the run after the current iteration and saves a checkpoint to resume from.

    Args:
        recipe: the name of a recipe (``fair-adaptors train list``), or a whole configuration.
        out: the adaptor's folder. ``runs/NAME`` by default.
        settings: settings that replace the recipe's (docs/settings.md), such as ``{"iterations": 50, "seed": 1}``.
        targets: attributes to make fair, in place of the recipe's, with the share of each class, such as
            ``{"age": (0.75, 0.25)}``. The shares sum to 1.
        resume: True to go on from the latest checkpoint in ``out`` with the run's own settings, or a checkpoint.
        overwrite: delete the checkpoints of an earlier run in ``out``.
        images_per_prompt: how many images the numbers before and after training are measured on. 0 for no numbers.
        on_iteration: called with the iterations that are done and all there will be, and what is said of the run goes
            to the logger ``fair_adaptors``; None shows a bar and prints.

    Returns:
        The adaptor's folder, for ``load_fair_adaptor``. None if the run was stopped before its end.

    Raises:
        ConfigError: no such recipe, setting or attribute, or shares that do not fit.
        CheckpointError: there is nothing to resume, or an earlier run is in the way.
        MissingExtraError: a package of the extra ``train`` is not installed.
        TrainingError: the run cannot go on.
    """
    from fair_adaptors.errors import missing_extra
    from fair_adaptors.files import check_writable

    try:
        from .run.train import train as run
    except ModuleNotFoundError as error:
        raise missing_extra(error.name, "train") from error

    name = recipe if isinstance(recipe, str) else recipe.name
    folder = Path(out or Path("runs") / name).expanduser()
    config = configured(recipe, folder, settings=settings or {}, targets=targets or {}, resume=bool(resume))
    check_writable(folder)
    start = None if resume is False else "latest" if resume is True else str(resume)
    finished = run(
        config,
        folder,
        recipe=name,
        resume=start,
        overwrite=overwrite,
        images_per_prompt=images_per_prompt,
        on_iteration=on_iteration,
    )
    return folder if finished else None


def configured(
    recipe: "str | TrainConfig",
    folder: Path,
    *,
    settings: Mapping[str, Any],
    targets: Mapping[str, Sequence[float]],
    resume: bool = False,
) -> "TrainConfig":
    """Return a recipe with settings and targets replaced, or the configuration of the run to go on with.

    A run that torchrun has started again goes on, too.

    Raises:
        ConfigError, CheckpointError: as ``train``.
    """
    from fair_adaptors.errors import ConfigError

    from .recipes import get_recipe, with_settings
    from .run.record import read_run, was_restarted

    wanted = [(name, tuple(map(float, shares))) for name, shares in targets.items()]
    config = get_recipe(recipe, settings, wanted) if isinstance(recipe, str) else with_settings(recipe, settings)
    if not (resume or was_restarted(folder)):
        return config
    resumed = read_run(folder, recipe if isinstance(recipe, str) else recipe.name)
    if targets and resumed.attributes != config.attributes:
        raise ConfigError("`target` cannot change a run that is resumed")
    return with_settings(resumed, settings)
