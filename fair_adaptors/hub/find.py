"""Find adaptors on the Hub."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fair_adaptors.adaptor.bases import find_base
from fair_adaptors.adaptor.record import TAG, read_record
from fair_adaptors.errors import FairAdaptorError

from .client import ask, check_repo_id, connect
from .download import fetch_config


@dataclass(frozen=True)
class Found:
    """An adaptor on the Hub."""

    repo_id: str
    commit: str
    base_model: str
    attributes: tuple[str, ...]
    downloads: int


def search(
    *,
    base: str | None = None,
    attribute: str | None = None,
    namespace: str | None = None,
    limit: int = 50,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
) -> list[Found]:
    """Find adaptors on the Hub by their tag. Base and attributes come from each one's ``fair_adaptor.json``.

    Args:
        base: only adaptors for this base model, under any of its names.
        attribute: only adaptors that make this fair, such as ``gender``.
        namespace: only this user's or organisation's adaptors.
        limit: look at this many repositories at most, the most downloaded first.
        cache_dir: cache folder, as in ``from_pretrained``.
        token: as for ``huggingface_hub.HfApi``.
        endpoint: another server than huggingface.co.
    """
    api = connect(endpoint, token)
    known = find_base(base) if base else None
    bases = known.names if known else (base,)

    def listing() -> list[Any]:
        tags = [TAG, *([f"base_model:{base}"] if base and "/" in base and len(bases) == 1 else [])]
        return list(api.list_models(filter=tags, author=namespace, sort="downloads", limit=limit, full=True))

    models = ask(api, "the list of adaptors", listing)

    def look(model: Any) -> Found | None:
        try:
            check_repo_id(str(model.id))
            record = read_record(fetch_config(api, model.id, str(model.sha), cache_dir=cache_dir))
        except FairAdaptorError:  # it has our tag, and is not an adaptor or may not be read
            return None
        found = Found(model.id, str(model.sha), record.base_model, tuple(record.attributes), model.downloads or 0)
        wrong = (base is not None and found.base_model not in bases) or (attribute not in (None, *found.attributes))
        return None if wrong else found

    with ThreadPoolExecutor(8) as pool:
        return [found for found in pool.map(look, models) if found is not None]
