"""The prompts that a configuration names: known sets, or files with a prompt per line."""

from collections.abc import Sequence
from pathlib import Path

from fair_adaptors.errors import ConfigError, did_you_mean
from fair_adaptors.evaluation.prompts import list_prompt_sets, load_prompts

from .config import TrainConfig


def prompt_sets(config: TrainConfig) -> dict[str, tuple[str, ...]]:
    """Return the prompts of each of the configuration's sets: known ones, or files.

    Raises:
        ConfigError: a set that is not known and no file, or a file without prompts.
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
    names = [*known, *list_prompt_sets()]
    if name in names or Path(name).suffix.lower() in (".json", ".yaml", ".yml"):
        return load_prompts(name).prompts
    return _prompt_file(setting, name, names)


def _sandbox_sets() -> dict[str, tuple[str, ...]]:
    from fair_adaptors.sandbox.prompts import AGES, TEMPLATE, occupations, prompts

    return {
        "train": prompts("train"),
        "bare": tuple(f"a {occupation}" for occupation in occupations("train")),
        "aged": tuple(TEMPLATE.format(f"{age} {occupation}") for occupation in occupations("train") for age in AGES),
        "validation": prompts("validation"),
    }


def _prompt_file(setting: str, name: str, known: Sequence[str]) -> tuple[str, ...]:
    path = Path(name).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"{setting}: there is no set or file {name!r}.{did_you_mean(name, known)} Sets: {', '.join(known)}"
        )
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{setting}: {path} cannot be read as text: {error}") from error
    if not any(lines):
        raise ConfigError(f"{setting}: {path} has no prompts; write one per line")
    return tuple(line for line in lines if line)
