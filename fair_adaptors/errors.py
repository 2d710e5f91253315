"""One exception tree: whatever this package refuses, it refuses with a `FairAdaptorError`."""

import collections.abc
import difflib
import os.path
import shlex
import shutil
import sys


class FairAdaptorError(Exception):
    """Base of every error raised on purpose by this package."""


class UnknownAdaptorError(FairAdaptorError, ValueError):
    """No adaptor, folder or Hub repository goes by the given name."""


class NotPublishedError(FairAdaptorError):
    """The adaptor is known, but only as a recipe: nobody has published its weights."""


class WrongBaseError(FairAdaptorError, ValueError):
    """The adaptor was trained for another base model than the pipeline's."""


class InvalidAdaptorError(FairAdaptorError, ValueError):
    """The adaptor's files are damaged, incomplete or in a format that is not ours."""


class InvalidResultsError(FairAdaptorError, ValueError):
    """An evaluation's results are absent, damaged, or of another version."""


class HubError(FairAdaptorError):
    """The Hub refuses what it is asked for, or somebody else was there first."""


class HubUnreachableError(HubError):
    """The Hub does not answer, or not as it should: what is asked for may work later."""


class ArchiveError(FairAdaptorError):
    """An archive of the paper's authors cannot be fetched, or is not what it should be."""


class UnsupportedSchedulerError(FairAdaptorError, ValueError):
    """The scheduler's steps are not affine in the model output, so their gradients cannot be adjusted."""


class ConfigError(FairAdaptorError, ValueError):
    """A configuration has an unknown field or a value out of range."""


class MissingExtraError(FairAdaptorError, ImportError):
    """A package that belongs to an optional extra is not installed."""


class TrainingError(FairAdaptorError, RuntimeError):
    """A training run cannot go on."""


class PeersLostError(TrainingError):
    """Another process of the run has ended: to start all of them again may help."""


class CheckpointError(FairAdaptorError, ValueError):
    """A checkpoint is absent, damaged, or of another run."""


def did_you_mean(name: str, known: collections.abc.Iterable[str]) -> str:
    """Return a hint at the closest known name, to stand behind a sentence; nothing if none is close."""
    close = difflib.get_close_matches(name, list(known), 1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def first_line(error: Exception) -> str:
    """Return the first line of what an error says; its kind, if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def missing_extra(package: str | None, extra: str) -> MissingExtraError:
    """Return the error for a package that is not installed, with the command that installs it."""
    return MissingExtraError(f"{package} is not installed: {install_hint(extra)}")


def install_hint(extra: str) -> str:
    """Return the command that installs an extra, into this Python and from where this package came."""
    import json
    from importlib import metadata
    from urllib.parse import unquote, urlparse

    try:
        origin = json.loads(metadata.distribution("fair-adaptors").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        origin = {}
    place = urlparse(origin.get("url", ""))
    what = unquote(place.path) if place.scheme == "file" else "fair-adaptors"
    editable = ["-e"] if origin.get("dir_info", {}).get("editable") else []
    return pip_install(*editable, f"{what}[{extra}]")


def pip_install(*words: str) -> str:
    """Return the command that installs packages into this Python, whatever `pip` the shell may find."""
    pip = shutil.which("pip")
    here = pip is not None and os.path.dirname(pip) == os.path.dirname(sys.executable)
    call = ["pip"] if here else [sys.executable, "-m", "pip"]
    return shlex.join([*call, "install", *words])
