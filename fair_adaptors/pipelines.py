"""Loads a base's pipeline by its name."""

from typing import Any

from fair_adaptors.adaptor.bases import imported, plugin_of
from fair_adaptors.errors import ConfigError


def load_pipeline(base: str, *, dtype: Any = "auto", local_files_only: bool = False) -> Any:
    """Return the pipeline of a base, on the CPU, without progress bars.

    Args:
        base: an embedded base's name, a folder, or a Hub repository, as ORG/NAME or ORG/NAME@COMMIT.
        dtype: of the weights; "auto" for that of the files. An embedded base is always float32.
        local_files_only: download nothing. Then only safetensors are read.

    Raises:
        ConfigError: it cannot be loaded.
    """
    if plugin := plugin_of(base):
        return imported(plugin.load)()
    from diffusers import DiffusionPipeline

    from fair_adaptors.hub.client import split_revision

    place, revision = split_revision(base)
    safe = {"local_files_only": True, "use_safetensors": True} if local_files_only else {}
    try:
        pipe = DiffusionPipeline.from_pretrained(place, revision=revision, dtype=dtype, **safe)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{base} is no pipeline that can be loaded: {str(error).strip().splitlines()[0]}") from error
    pipe.set_progress_bar_config(disable=True)
    return pipe
