"""Loads a base's pipeline by its name."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fair_adaptors.adaptor.bases import base_place, by_short_name, find_base, imported, plugin_of
from fair_adaptors.errors import ConfigError, first_line
from fair_adaptors.families.table import family_named, family_with
from fair_adaptors.files import public_name

_FLOWS = ("double_blocks.0.", "joint_blocks.0.", "context_refiner.0.")
"""In the names of the weights of FLUX, Stable Diffusion 3 and Z-Image, in their original layout."""


def load_pipeline(
    base: str,
    *,
    dtype: Any = "auto",
    variant: str | None = None,
    base_config: str | None = None,
    local_files_only: bool = False,
    safety_checker: bool = True,
    without: Sequence[str] = (),
) -> Any:
    """Return the pipeline of a base, on the CPU, without progress bars for its steps.

    Args:
        base: an embedded base's name, a folder, a Hub repository, as ORG/NAME or ORG/NAME@COMMIT, or one
            ``.safetensors`` file with the whole model, in the layout of the original code.
        dtype: of the weights; "auto" for that of the files, which is float32 for one file. Or a mapping of parts and
            ``default`` to theirs, for a folder or a repository; one file is float32 then. An embedded base always is.
        variant: which files of a folder or a repository, such as ``fp16``.
        base_config: the folder or Hub repository from which to take what one file leaves out: configurations and the
            tokenizer. By default diffusers asks the Hub for those of the model that the file resembles.
        local_files_only: download nothing. Then only safetensors are read.
        safety_checker: whether to load that of a folder or a repository, if it has one.
        without: parts of a folder or a repository that are not loaded.

    Raises:
        ConfigError: it cannot be loaded, or a setting is of no use for it.
    """
    base = base_place(base)
    one_file = is_file(base)
    if base_config is not None and not one_file:
        raise ConfigError(f"`base_config` is for a base that is one file; {base} has its own configuration")
    if variant is not None and (one_file or plugin_of(base)):
        raise ConfigError(f"`variant` chooses among the files of a folder or a repository; {base} has one kind")
    if plugin := plugin_of(base):
        return imported(plugin.load)()
    if one_file:
        pipe = _from_file(base, dtype, base_config, local_files_only)
    else:
        without = without if safety_checker else (*without, "safety_checker")
        pipe = _from_folder(base, dtype, variant, local_files_only, without)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def half_precision(base: str) -> str:
    """Return the dtype of two bytes to load a base in: float16, or bfloat16 where its family overflows in that.

    Told by the table of bases, or the pipeline's own list of its parts; where there is none to be had, float16.
    """
    from fair_adaptors.hub.client import split_revision

    base = base_place(base)
    known = find_base(base.partition("@")[0])
    family = family_named(known.family) if known else None
    if family is None and not is_file(base):
        place, revision = split_revision(base)
        try:
            index = _index(place, revision, local_files_only=False)
        except (OSError, ValueError):  # of the Hub too: loading the base will say it
            index = {}
        family = family_with({name: kind[1] for name, kind in index.items() if isinstance(kind, list) and kind[1]})
    return family.half_precision if family else "float16"


def is_file(base: str) -> bool:
    """Tell whether a base is one file, and not an embedded base, a folder or a Hub repository."""
    return Path(base).expanduser().is_file()


def name_in_record(base: str, pipe: Any) -> str:
    """Return what an adaptor's record calls its base: its name, or its Hub id without a commit.

    A file or folder lies where nobody else finds it. The record has the Hub id that the folder says it came from; or
    that of a published base whose network has the same shapes, since the same adaptors fit; or else what
    ``place_in_record`` returns.
    """
    from fair_adaptors.adaptor.architecture import hub_id_of, kind_of
    from fair_adaptors.adaptor.modules import shape_signature
    from fair_adaptors.hub.client import split_revision

    place, path = split_revision(base)[0], Path(base).expanduser()
    if plugin_of(base) or not path.exists():
        return public_name(place)
    known = by_short_name(kind_of(shape_signature(pipe)) or "")
    return hub_id_of(path) or (known.names[0] if known else place_in_record(base))


def place_in_record(base: str) -> str:
    """Return what a record calls a base: one file by name and sha256, a folder by its name, anything else as it is."""
    path = Path(base).expanduser()
    if path.is_dir():
        return path.resolve().name
    if not path.is_file():
        return public_name(base)
    with path.open("rb") as file:
        return f"{path.name} (sha256 {hashlib.file_digest(file, 'sha256').hexdigest()})"


def class_in_file(base: str) -> str:
    """Return the name of diffusers' class for the model in one file: Stable Diffusion 1.x and 2.x, or XL.

    Raises:
        ConfigError: it is not a safetensors file, or damaged, or of another family.
    """
    from safetensors import SafetensorError, safe_open

    if not base.endswith(".safetensors"):
        raise ConfigError(f"{base} must be a .safetensors file: other formats can run code when they are read")
    try:
        with safe_open(Path(base).expanduser(), "pt") as file:
            names = list(file.keys())
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{base} cannot be loaded as a whole model: {first_line(error)}") from error
    if any(part in name for name in names for part in _FLOWS):
        raise ConfigError(
            f"{base} is of a newer family than Stable Diffusion XL, whose files are not read whole: give the folder or"
            " Hub id of its pipeline"
        )
    xl = any(name.startswith("conditioner.embedders.") for name in names)  # its text encoders
    return "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline"


def _from_folder(base: str, dtype: Any, variant: str | None, local_files_only: bool, without: Sequence[str]) -> Any:
    from diffusers import DiffusionPipeline

    from fair_adaptors.hub.client import bounded, split_revision
    from fair_adaptors.hub.errors import is_offline, when_offline

    place, revision = split_revision(base)
    settings: dict[str, Any] = {"local_files_only": True, "use_safetensors": True} if local_files_only else {}
    try:
        with bounded():
            index = _index(place, revision, local_files_only) if without else {}
            settings |= {name: None for name in without if name in index}
            if "safety_checker" in settings:
                settings["requires_safety_checker"] = False
            load = DiffusionPipeline.from_pretrained
            return load(place, revision=revision, dtype=dtype, variant=variant, **settings)
    except (OSError, ValueError) as error:
        if is_offline(error) and not Path(place).is_dir():
            raise ConfigError(f"{base} cannot be fetched: {when_offline()}") from error
        raise ConfigError(f"{base} cannot be loaded as a pipeline: {first_line(error)}") from error


def _index(place: str, revision: str | None, local_files_only: bool) -> dict[str, Any]:
    from huggingface_hub import hf_hub_download

    name = "model_index.json"
    file = Path(place) / name
    if not Path(place).is_dir():
        file = Path(hf_hub_download(place, name, revision=revision, local_files_only=local_files_only))
    return dict(json.loads(file.read_text(encoding="utf-8")))


def _from_file(base: str, dtype: Any, base_config: str | None, local_files_only: bool) -> Any:
    import diffusers

    kind, path = getattr(diffusers, class_in_file(base)), Path(base).expanduser()
    settings = {"config": base_config, "local_files_only": local_files_only}
    try:
        own = dtype == "auto" or isinstance(dtype, Mapping)
        return kind.from_single_file(str(path), dtype=None if own else dtype, **settings)
    except Exception as error:  # of a file of another kind, or without a configuration, nearly anything
        remedy = (
            ". What it leaves out comes from the Hub, or from `base_config`, the folder or Hub id of a pipeline alike"
        )
        raise ConfigError(
            f"{base} cannot be loaded as a whole model: {first_line(error)}{'' if base_config else remedy}"
        ) from error
