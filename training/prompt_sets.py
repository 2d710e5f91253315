"""The prompts that a configuration names: known sets, or files."""

from fair_adaptors.errors import ConfigError
from fair_adaptors.prompts.sets import load_prompts

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
    try:
        return load_prompts(name, base=base).prompts
    except ConfigError as error:
        raise ConfigError(f"{setting}: {error}") from error
