"""The prompts that a configuration names: known sets, or files."""

from pathlib import Path

from fair_adaptors.errors import ConfigError, did_you_mean
from fair_adaptors.prompts.sets import list_prompt_sets, load_prompts

from .config import TrainConfig


def prompt_sets(config: TrainConfig) -> dict[str, tuple[str, ...]]:
    """Return the prompts of each of the configuration's sets: known ones, or files.

    Raises:
        ConfigError: a set that is not known and no file, or a file that ``load_prompts`` refuses.
    """
    return {name: _prompts("prompt_sets", name, config.base) for name, _ in config.prompt_sets}


def validation_prompts(config: TrainConfig) -> tuple[str, ...]:
    """Return the prompts to validate on.

    Raises:
        ConfigError: as ``prompt_sets``.
    """
    return _prompts("validation_set", config.validation_set, config.base)


def _prompts(setting: str, name: str, base: str) -> tuple[str, ...]:
    known = _sandbox_sets() if base == "sandbox" else {}
    if name in known:
        return known[name]
    sets = [*known, *list_prompt_sets()]
    if name not in sets and not Path(name).suffix:
        raise ConfigError(
            f"{setting}: there is no prompt set {name!r}.{did_you_mean(name, sets)} Sets: {', '.join(sets)}; or give a"
            " file of prompts, .txt, .json or .yaml"
        )
    try:
        return load_prompts(name).prompts
    except ConfigError as error:
        raise ConfigError(f"{setting}: {error}") from error


def _sandbox_sets() -> dict[str, tuple[str, ...]]:
    from fair_adaptors.sandbox.prompts import AGES, TEMPLATE, occupations, prompts

    return {
        "train": prompts("train"),
        "bare": tuple(f"a {occupation}" for occupation in occupations("train")),
        "aged": tuple(TEMPLATE.format(f"{age} {occupation}") for occupation in occupations("train") for age in AGES),
        "validation": prompts("validation"),
    }
