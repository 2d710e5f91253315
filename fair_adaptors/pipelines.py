"""Loads a base's pipeline by its name."""

from pathlib import Path
from typing import Any

from fair_adaptors.adaptor.bases import imported, plugin_of
from fair_adaptors.errors import ConfigError


def load_pipeline(
    base: str,
    *,
    dtype: Any = "auto",
    variant: str | None = None,
    base_config: str | None = None,
    local_files_only: bool = False,
) -> Any:
    """Return the pipeline of a base, on the CPU, without progress bars for its steps.

    Args:
        base: an embedded base's name, a folder, a Hub repository, as ORG/NAME or ORG/NAME@COMMIT, or one
            ``.safetensors`` file with the whole model, in the layout of the original code.
        dtype: of the weights; "auto" for that of the files, which is float32 for one file. An embedded base is always
            float32.
        variant: which files of a folder or a repository, such as ``fp16``.
        base_config: the folder or Hub repository from which to take what one file leaves out: configurations and the
            tokenizer. By default diffusers asks the Hub for those of the model that the file resembles.
        local_files_only: download nothing. Then only safetensors are read.

    Raises:
        ConfigError: it cannot be loaded, or a setting is of no use for it.
    """
    is_file = Path(base).expanduser().is_file()
    if is_file and not base.endswith(".safetensors"):
        raise ConfigError(f"{base} is no safetensors file: others can run code when they are read")
    if base_config is not None and not is_file:
        raise ConfigError(f"`base_config` is for a base that is one file; {base} has its own configuration")
    if variant is not None and (is_file or plugin_of(base)):
        raise ConfigError(f"`variant` chooses among the files of a folder or a repository; {base} has one kind")
    if plugin := plugin_of(base):
        return imported(plugin.load)()
    if is_file:
        pipe = _from_file(base, dtype, base_config, local_files_only)
    else:
        pipe = _from_folder(base, dtype, variant, local_files_only)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _from_folder(base: str, dtype: Any, variant: str | None, local_files_only: bool) -> Any:
    from diffusers import DiffusionPipeline

    from fair_adaptors.hub.client import split_revision

    place, revision = split_revision(base)
    safe = {"local_files_only": True, "use_safetensors": True} if local_files_only else {}
    try:
        return DiffusionPipeline.from_pretrained(place, revision=revision, dtype=dtype, variant=variant, **safe)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{base} is no pipeline that can be loaded: {_said(error)}") from error


def _from_file(base: str, dtype: Any, base_config: str | None, local_files_only: bool) -> Any:
    """Load a file of Stable Diffusion 1.x, 2.x or XL; that of XL calls its text encoders embedders."""
    import diffusers
    from safetensors import safe_open

    path = Path(base).expanduser()
    settings = {"config": base_config, "local_files_only": local_files_only}
    try:
        with safe_open(path, "pt") as file:
            xl = any(key.startswith("conditioner.embedders.") for key in file.keys())  # noqa: SIM118
        kind = diffusers.StableDiffusionXLPipeline if xl else diffusers.StableDiffusionPipeline
        return kind.from_single_file(str(path), dtype=None if dtype == "auto" else dtype, **settings)
    except Exception as error:  # of a file of another kind, or without a configuration, nearly anything
        remedy = (
            ". What it leaves out comes from the Hub, or from `base_config`, the folder or Hub id of a pipeline alike"
        )
        raise ConfigError(
            f"{base} is no whole model that can be loaded: {_said(error)}{'' if base_config else remedy}"
        ) from error


def _said(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
