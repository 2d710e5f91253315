"""The adaptors that the paper's authors published: fetched, converted, and kept in the cache as folders."""

import logging
import os
import shutil
import tempfile
from pathlib import Path

from fair_adaptors.adaptor.archives import ARCHIVES, Archive
from fair_adaptors.adaptor.bases import find_base, imported
from fair_adaptors.adaptor.record import CARD_FILE, read_record
from fair_adaptors.adaptor.registry import AUTHORS, AdaptorInfo, folder_in_cache
from fair_adaptors.convert.importing import convert, describe
from fair_adaptors.errors import InvalidAdaptorError

from .archive import alone_in_the_cache, archive_path, fetch_archive
from .download import is_whole

logger = logging.getLogger(__name__)
CARD = "fair_adaptors.report.card:card_of"
"""What writes a card: by its name, as it stands far above this room."""
MEGABYTES = {"text_encoder": 33.2, "unet": 39.9, "tokens": 0.0}
"""Of the weights of each part, as the authors publish them."""


def fetch_published(
    info: AdaptorInfo,
    *,
    source: str | Path | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force: bool = False,
) -> Path:
    """Return the folder in the cache of an adaptor that the authors published.

    The first time its archive is fetched, and of the run's weights the exponential moving average (``_EMA``) is
    converted: that is what the authors evaluate. What is done is told on the terminal. Later nobody is asked.

    Args:
        info: a row of the registry with a ``checkpoint``.
        source: its archive, fetched by hand, to take instead of a download.
        cache_dir: a folder to use in place of ``cache_folder()``.
        local_files_only: fetch nothing, as with ``HF_HUB_OFFLINE``.
        force: convert it again even if the cache has it.

    Raises:
        ArchiveError: the archive cannot be had, or is not what it should be.
        InvalidAdaptorError: a tensor in it is not what it should be. Nothing is kept.
    """
    from huggingface_hub import is_offline_mode

    assert info.checkpoint is not None
    archive, folder = ARCHIVES[info.checkpoint.archive], folder_in_cache(info.name, cache_dir)
    if source is None and not force and _is_current(folder, archive):
        return folder
    local_files_only = local_files_only or is_offline_mode()
    takes_a_download = not (source or local_files_only or archive_path(archive, cache_dir).is_file())
    if takes_a_download:
        _announce(info, archive)
    packed = fetch_archive(archive, source=source, cache_dir=cache_dir, local_files_only=local_files_only)
    if not takes_a_download:
        _announce(info, archive)
    with alone_in_the_cache(folder):
        if source is None and not force and _is_current(folder, archive):  # another process was quicker
            return folder
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as aside:
            made = _convert(info, packed, Path(aside) / info.name)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(made, folder)
    logger.warning(describe(folder))
    return folder


def _is_current(folder: Path, archive: Archive) -> bool:
    """Tell whether the cache has the adaptor whole, and made of the archive that the table names."""
    if not is_whole(folder):
        return False
    return archive.sha256 in (None, read_record(folder).training.get("converted_from", {}).get("sha256"))


def _announce(info: AdaptorInfo, archive: Archive) -> None:
    assert info.checkpoint is not None
    size = sum(MEGABYTES[part] for part in info.trained_parts)
    logger.warning(
        f"{info.name}: published by the authors of the paper, {AUTHORS}\n"
        f"  {info.checkpoint.member} of {archive.name}, {archive.page}\n"
        f"  about {size:.0f} MB of weights, under {info.licence} as {info.base_model}; the authors' code is MIT"
    )


def _convert(info: AdaptorInfo, packed: Path, out: Path) -> Path:
    """Make the adaptor's folder, with its card.

    Raises:
        InvalidAdaptorError: the archive holds other parts than the table says, or what none should.
    """
    base, checkpoint = find_base(info.base_model), info.checkpoint
    assert base is not None and checkpoint is not None
    made = convert(packed, out, base=base.short_name, name=info.name, folder=checkpoint.member)
    found = read_record(made).trained_parts
    if found != info.trained_parts:
        raise InvalidAdaptorError(
            f"{checkpoint.member} in {packed} has weights of {' and '.join(found)}, and {info.name!r} should have"
            f" those of {' and '.join(info.trained_parts)}. Nothing was kept"
        )
    (made / CARD_FILE).write_text(imported(CARD)(made, info=info), encoding="utf-8")
    return made
