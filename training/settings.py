"""Settings as text: read from the command line's words, from YAML and from records, and written as YAML."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from fair_adaptors.errors import ConfigError, did_you_mean
from fair_adaptors.hub.parts import KIND

from .config import Attribute, Share, TrainConfig


def override(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """Return a configuration with fields replaced by values as text, or as a YAML file has them.

    Raises:
        ConfigError: no such field (with a suggestion), or a value that does not fit it.
    """
    fields = {field.name: field.type for field in dataclasses.fields(config) if field.name != "attributes"}
    changes = {}
    for key, value in values.items():
        name = "prompt_sets" if key == "prompts" else key  # as the command line calls them elsewhere
        if name not in fields:
            raise ConfigError(
                f"there is no setting {name!r}.{did_you_mean(str(name), fields)} Settings: {', '.join(fields)}."
            )
        try:
            changes[name] = _parse(fields[name], _as_text(value))
        except (ValueError, OverflowError) as error:
            raise ConfigError(f"{name}: {value!r} is not {_words(fields[name])}") from error
    return dataclasses.replace(config, **changes)


def from_dict(values: Mapping[str, Any]) -> TrainConfig:
    """Return the configuration that ``dataclasses.asdict`` made ``values`` of, also after a way through JSON.

    Raises:
        ConfigError: of another version of this package.
    """
    try:
        attributes = tuple(Attribute(**{k: _tuple(v) for k, v in row.items()}) for row in values["attributes"])
        return TrainConfig(**{**{k: _tuple(v) for k, v in values.items()}, "attributes": attributes})
    except (TypeError, KeyError) as error:
        raise ConfigError(f"the settings are not those of this version of fair-adaptors: {error}") from error


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list | tuple) else value


def read_config_file(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings.

    Raises:
        ConfigError: absent, no YAML, or no mapping.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ConfigError(f"{path} cannot be read: {reason}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no settings; write lines such as iterations: 500")
    return values


def as_yaml(config: TrainConfig) -> str:
    """Write the settings as a file for ``read_config_file``, the targets as comments."""
    import yaml

    values = {
        key: value for key, value in dataclasses.asdict(config).items() if key not in ("attributes", "name", "base")
    }
    values["prompt_sets"] = dict(config.prompt_sets)
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
    targets = [f"# --target {a.name}={','.join(f'{share:g}' for share in a.target)}\n" for a in config.attributes]
    return f"# {config.name} on {config.base}\n{''.join(targets)}{yaml.safe_dump(plain, sort_keys=False)}".rstrip()


def is_true(name: str, value: Any) -> bool:
    """Read a setting that is true or false.

    Raises:
        ConfigError: it is neither.
    """
    try:
        return bool(_parse(bool, _as_text(value)))
    except ValueError as error:
        raise ConfigError(f"{name}: {value!r} is not {_words(bool)}") from error


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{key}:{share}" for key, share in value.items())
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value)


def _parse(kind: Any, text: str) -> Any:
    if kind is bool:
        return {"true": True, "yes": True, "on": True, "1": True}.get(text.lower()) or _false(text)
    if kind in (int, float):
        return kind(text)
    if get_origin(kind) is tuple:
        parts = tuple(part.strip() for part in text.split(",") if part.strip())
        return tuple(map(_share, parts)) if get_args(kind)[0] == Share else parts
    if get_origin(kind) is Literal and text not in get_args(kind):
        raise ValueError(text)
    return text


def _false(text: str) -> bool:
    if text.lower() not in ("false", "no", "off", "0"):
        raise ValueError(text)
    return False


def _share(text: str) -> Share:
    name, colon, share = text.rpartition(":")
    return (name, float(share)) if colon and name != KIND else (text, 1.0)  # authors:NAME has no share yet


def _words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "a list such as a,b")
