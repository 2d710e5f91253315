"""The prompts that a configuration names: known sets, or files."""

from collections.abc import Mapping

from fair_adaptors.errors import ConfigError
from fair_adaptors.hub.parts import KIND, find_part, is_here
from fair_adaptors.prompts.authors import AUTHORS_PROMPTS
from fair_adaptors.prompts.sets import PromptSet, load_prompts

from .config import TrainConfig


def check_prompts(config: TrainConfig) -> None:
    """Read the prompts of a configuration; of the authors' only the names are looked at while nothing is fetched.

    Raises:
        ConfigError: as ``prompt_sets``.
    """
    named = [("prompt_sets", name) for name, _ in config.prompt_sets] + [("validation_set", config.validation_set)]
    for setting, name in named:
        kind, _, rest = name.partition(":")
        if kind == KIND and not is_here():
            find_part(AUTHORS_PROMPTS, rest, of="prompt set")
        else:
            _prompts(setting, name, config.base)


def prompt_sets(config: TrainConfig) -> dict[str, tuple[str, ...]]:
    """Return the prompts of each of the configuration's sets: known ones, or files.

    Raises:
        ConfigError: a set that is not known and no file, or a file that ``load_prompts`` refuses.
    """
    return {name: _prompts("prompt_sets", name, config.base) for name, _ in config.prompt_sets}


def named_classes(config: TrainConfig) -> dict[str, Mapping[str, str]]:
    """Return what the configuration's prompts name of the attributes to make fair: of each such prompt their classes.

    Raises:
        ConfigError: as ``prompt_sets``, or a prompt names a class that the attribute does not have.
    """
    aimed = {attribute.name: attribute.classes for attribute in config.attributes}
    found: dict[str, Mapping[str, str]] = {}
    for name in (name for name, _ in config.prompt_sets if not name.startswith(f"{KIND}:")):  # theirs name none
        prompts = _load("prompt_sets", name, config.base)
        for prompt, expected in zip(prompts.prompts, prompts.expected, strict=bool(prompts.expected)):
            named = {attribute: label for attribute, label in expected.items() if attribute in aimed}
            for attribute, label in named.items():
                if label not in aimed[attribute]:
                    raise ConfigError(
                        f"prompt_sets: {prompts.name}: {prompt[:60]!r} names the {attribute} {label!r}; its classes"
                        f" are {', '.join(aimed[attribute])}"
                    )
            if named:
                found[prompt] = named
    return found


def validation_prompts(config: TrainConfig) -> tuple[str, ...]:
    """Return the prompts to validate on.

    Raises:
        ConfigError: as ``prompt_sets``.
    """
    return _prompts("validation_set", config.validation_set, config.base)


def _prompts(setting: str, name: str, base: str) -> tuple[str, ...]:
    return _load(setting, name, base).prompts


def _load(setting: str, name: str, base: str) -> PromptSet:
    try:
        return load_prompts(name, base=base)
    except ConfigError as error:
        raise ConfigError(f"{setting}: {error}") from error
