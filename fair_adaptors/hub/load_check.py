"""An adaptor is loaded into its base on trial, if that is on this machine."""

import threading
from pathlib import Path
from typing import Any

from fair_adaptors.adaptor.bases import find_base
from fair_adaptors.adaptor.record import read_record
from fair_adaptors.load import load_fair_adaptor
from fair_adaptors.pipelines import load_pipeline

_LOCK = threading.Lock()
"""Two threads that load models at once may leave each other's without weights (transformers 5, diffusers 0.42)."""


def load_on_trial(folder: Path) -> str | None:
    """Load an adaptor into its base and take it out again. Nothing is downloaded.

    Returns:
        The base; None if it is neither embedded, nor a folder, nor in the Hub's cache.

    Raises:
        FairAdaptorError: it cannot be loaded.
    """
    name = read_record(folder).base_model
    with _LOCK:
        pipe = _base_on_this_machine(name)
    if pipe is None:
        return None
    load_fair_adaptor(pipe, folder).unload()
    return str(name)


def _base_on_this_machine(name: str) -> Any:
    known = find_base(name)
    for alias in known.names if known else (name,):
        try:
            return load_pipeline(alias, local_files_only=True)
        except Exception:  # it is not here, or not whole, of which diffusers may raise nearly anything
            continue
    return None
