"""``results.json`` of an adaptor's folder: what an evaluation measured of these very weights."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import InvalidAdaptorError
from .formats import RESULTS_FILE, RESULTS_SCHEMA, AdaptorFiles, read_config

logger = logging.getLogger(__name__)


def read_results(folder: str | Path) -> dict[str, Any] | None:
    """Read ``results.json`` of an adaptor folder; None if there is none, or it is of another kind or version than this
    package's, which is said of a version.

    Raises:
        InvalidAdaptorError: it is no JSON, or of an evaluation without this adaptor's weights.
    """
    path = Path(folder) / RESULTS_FILE
    if not path.is_file():
        return None
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidAdaptorError(f"{path} cannot be read: {error}. Write it again, or take it away") from error
    if not isinstance(results, dict) or "schema" not in results:
        return None
    if results["schema"] != RESULTS_SCHEMA:
        logger.warning(
            f"{path} is of schema {results['schema']!r}, this fair-adaptors reads {RESULTS_SCHEMA}: its numbers are"
            " not shown. Evaluate again"
        )
        return None
    variant_of(read_config(folder), results)
    return results


def variant_of(config: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results of the adaptor itself, at its own strength, among those that were compared.

    Raises:
        InvalidAdaptorError: there are none.
    """
    weights = AdaptorFiles(dict(config), {}, {}).identity
    identity = hashlib.sha256(f"{weights} {config['default_weight']:g}".encode()).hexdigest()
    variants = results.get("variants")
    for variant in variants if isinstance(variants, list) else ():
        if isinstance(variant, dict) and variant.get("identity") == identity:
            return variant
    raise InvalidAdaptorError(
        f"{RESULTS_FILE} is of other weights than those of {config['name']!r} at strength"
        f" {config['default_weight']:g}. Evaluate again, or take it away"
    )
