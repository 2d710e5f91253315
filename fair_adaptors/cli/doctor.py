"""The command that looks at this machine: what works here, and what to install for the rest."""

import importlib.util
import os
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import typer

from fair_adaptors.progress import waiting

from .common import AsJson, print_json, quiet

PURPOSES = {
    "train": "to train an adaptor",
    "classifier": "to train a classifier, or make a bank of faces",
    "8bit": "for the optimiser adamw8bit",
    "eval": "to measure people in photographs, and for plots",
    "app": "for the page in the browser",
    "docs": "to build the documentation",
    "dev": "to change and test this package",
}
LIBRARIES = ("torch", "diffusers", "transformers", "peft", "huggingface_hub", "safetensors")


def doctor(as_json: AsJson = False) -> None:
    """Check this machine: versions, device, extras, caches, network and disk, and what is left to install."""
    quiet()
    with waiting("looking"):
        facts = dict(_facts())
    if as_json:
        print_json(facts)
        return
    for name, said in facts.items():
        typer.echo(f"{name:14}{said}")


def _facts() -> Iterator[tuple[str, str]]:
    from fair_adaptors.errors import install_hint
    from fair_adaptors.files import cache_folder
    from fair_adaptors.hub.errors import cached_repositories

    versions = [f"{name} {metadata.version(name)}" for name in ("fair-adaptors", *LIBRARIES)]
    yield "versions", f"{', '.join(versions)}; Python {sys.version.split()[0]}"
    yield "device", _device()
    for extra, missing in _extras().items():
        state = f"missing {', '.join(missing)}. Install it with: {install_hint(extra)}" if missing else "installed"
        yield f"[{extra}]", f"{PURPOSES.get(extra, extra)}: {state}"
    from huggingface_hub import constants

    own = cache_folder() / "adaptors"
    names = sorted(path.name for path in own.glob("*")) if own.is_dir() else []
    yield "Hub cache", f"{constants.HF_HUB_CACHE}: {', '.join(cached_repositories()) or 'empty'}"
    yield "own cache", f"{cache_folder()}: {', '.join(names) or 'no adaptor'}"
    yield "network", _network()
    for what, folder in (("here", Path.cwd()), ("cache", _existing(Path(constants.HF_HUB_CACHE)))):
        free = shutil.disk_usage(folder).free / 1e9
        writable = "writable" if os.access(folder, os.W_OK) else "not writable"
        yield f"disk {what}", f"{free:,.0f} GB free, {writable} ({folder})"


def _device() -> str:
    import torch

    from fair_adaptors.devices import accelerator

    place = accelerator()
    if not place.startswith("cuda"):
        return f"{place}, {os.cpu_count()} cores" if place == "cpu" else place
    found: Any = torch.cuda.get_device_properties(place)
    return f"{place}: {found.name}, {found.total_memory / 1e9:.0f} GB"


def _extras() -> dict[str, list[str]]:
    """Return the packages that are missing of each extra."""
    missing: dict[str, list[str]] = defaultdict(list)
    for line in metadata.requires("fair-adaptors") or ():
        requirement, _, marker = line.partition(";")
        if "extra ==" in marker:
            extra = marker.rpartition("==")[2].strip(" '\"")
            name = next(iter(re.findall(r"^[\w-]+", requirement)))
            missing[extra] += [] if _is_there(name) else [name]
    missing.pop("all", None)  # made of the others
    return dict(missing)


def _is_there(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return importlib.util.find_spec(package) is not None if package.isidentifier() else False
    return True


def _network() -> str:
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return "not asked, because HF_HUB_OFFLINE is set: only what is in the cache can be used"
    try:
        get_session().head(constants.ENDPOINT, timeout=3)
    except Exception as error:  # whatever the client raises, it has not answered
        return f"{constants.ENDPOINT} cannot be reached ({error}): only what is in the cache can be used"
    return f"{constants.ENDPOINT} answers"


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)
