"""Brings a LoRA that is not an adaptor of this package from the Hub, for ``convert``."""

from pathlib import Path

from fair_adaptors.adaptor.record import CONFIG_FILE, WEIGHTS_FILE
from fair_adaptors.errors import InvalidAdaptorError, UnknownAdaptorError, did_you_mean

from .client import check_repo_id, connect, fetch_file, look_up
from .files import MOST_BYTES

_USUAL = (WEIGHTS_FILE, "adapter_model.safetensors")
_BESIDE = "adapter_config.json"


def fetch_lora(place: str) -> tuple[Path, str]:
    """Return a LoRA's file in the Hub's cache, and where it is from, as ORG/NAME/FILE@COMMIT.

    Args:
        place: ORG/NAME, ORG/NAME/FILE, or either with @REVISION. Without a file it is the one that diffusers or peft
            writes, or else the only safetensors file.

    Raises:
        UnknownAdaptorError: no such repository, revision or file, or several that could be meant.
        InvalidAdaptorError: it is an adaptor of this package, or too large.
        HubError: no access, or no answer.
    """
    named, _, revision = place.partition("@")
    owner, name, file = (*named.split("/", 2), "")[:3]
    repo_id = f"{owner}/{name}"
    check_repo_id(repo_id)
    info = look_up(connect(None, None), repo_id, revision or None)
    sizes = {str(sibling.rfilename): sibling.size or 0 for sibling in info.siblings or ()}
    if CONFIG_FILE in sizes:
        raise InvalidAdaptorError(f"{repo_id} is already an adaptor of this package: use load_fair_adaptor")
    file = file or _only_lora(repo_id, list(sizes))
    if file not in sizes:
        raise UnknownAdaptorError(f"{repo_id} has no file {file!r}.{did_you_mean(file, sizes)}")
    if sizes[file] > MOST_BYTES:
        raise InvalidAdaptorError(f"{repo_id}: {file} has {sizes[file]:,} bytes; no LoRA is that large")
    beside = str(Path(file).with_name(_BESIDE))
    if beside in sizes:  # peft's file is read with its settings
        fetch_file(repo_id, beside, info.sha)
    return fetch_file(repo_id, file, info.sha), f"{repo_id}/{file}@{info.sha}"


def _only_lora(repo_id: str, files: list[str]) -> str:
    """Return the file that is meant where none was named."""
    found = [name for name in files if "/" not in name and name.endswith(".safetensors")]
    usual = [name for name in _USUAL if name in found] or found
    if len(usual) != 1:
        what = f"several files that could be meant: {', '.join(found[:9])}" if found else "no .safetensors file"
        raise UnknownAdaptorError(f"{repo_id} has {what}. Name the file, as in {repo_id}/FILE")
    return usual[0]
