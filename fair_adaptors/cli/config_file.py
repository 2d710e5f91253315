"""Options out of a YAML file: what stands there takes the place of a command's defaults."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

from fair_adaptors.errors import ConfigError, did_you_mean


def take_options(context: typer.Context, file: Path | None) -> Path | None:
    """Let a command take from a file what its command line leaves out. Names are those of the options, without dashes.

    Raises:
        ConfigError: the file cannot be read, is no mapping, or names what is no option.
    """
    if file is not None and not context.resilient_parsing:
        context.default_map = dict(_options(file, context.command.params))
    return file


def _options(file: Path, known: Iterable[Any]) -> Iterable[tuple[str, Any]]:
    import yaml

    if not file.expanduser().is_file():
        raise ConfigError(f"there is no file {file}")
    try:
        values = yaml.safe_load(file.expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file} holds no options; write lines such as adaptor: gender-race")
    spelled = {_plain(word): one for one in known for word in (*one.opts, one.name) if one.name != "config"}
    for key, value in values.items():
        if (one := spelled.get(_plain(str(key)))) is None:
            raise ConfigError(f"{file}: there is no option {key!r}.{did_you_mean(_plain(str(key)), spelled)}")
        listed = value if isinstance(value, list) else [value]
        if len(listed) != 1 and not getattr(one, "multiple", False):
            raise ConfigError(f"{file}: {key} takes one value, and {len(listed)} are given")
        texts = [each if isinstance(each, bool) else str(each) for each in listed]
        yield one.name, texts if getattr(one, "multiple", False) else texts[0]


def _plain(word: str) -> str:
    return word.lstrip("-").replace("_", "-")
