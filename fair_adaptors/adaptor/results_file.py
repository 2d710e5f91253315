"""``results.json``: written from the typed records of an evaluation, and read back and checked."""

import dataclasses
import hashlib
import json
import logging
import math
import types
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from fair_adaptors.errors import InvalidAdaptorError, InvalidResultsError

from .record import RESULTS_FILE, RESULTS_SCHEMA, AdaptorRecord, read_record
from .results import Results, VariantResults

logger = logging.getLogger(__name__)
DIGITS = 6
"""Decimals of a number in the file."""


def to_json(value: Any) -> Any:
    """Return what ``results.json`` holds of a record, or of a part of one: numbers with six digits.

    A field that has a default is left out where it has it.
    """
    if dataclasses.is_dataclass(value):
        return {
            field.name: to_json(part)
            for field in dataclasses.fields(value)
            if (part := getattr(value, field.name)) != field.default
        }
    if isinstance(value, Mapping):
        return {str(key): to_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(part) for part in value]
    if isinstance(value, float):  # also numpy's
        return round(float(value), DIGITS) if math.isfinite(value) else None
    return value


def from_json(content: Any, name: str = RESULTS_FILE) -> Results:
    """Return the record of what a results file holds.

    Args:
        content: what JSON made of it.
        name: what errors call the file.

    Raises:
        InvalidResultsError: it is of another schema, or not what an evaluation writes.
    """
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != RESULTS_SCHEMA:
        raise InvalidResultsError(
            f"{name} is of schema {schema!r}, this fair-adaptors reads {RESULTS_SCHEMA}: its numbers cannot be shown."
            " Evaluate again"
        )
    try:
        results: Results = _parsed(Results, content, "")
        _check(results)
    except ValueError as error:
        raise InvalidResultsError(
            f"{name} is not what `fair-adaptors evaluate` writes: {error}. Evaluate again, or delete it"
        ) from error
    return results


def load_results(path: Path) -> Results:
    """Read a results file.

    Raises:
        InvalidResultsError: it is not there, is not JSON, or see ``from_json``.
    """
    return from_json(_read_json(path), str(path))


def read_results(folder: str | Path) -> Results | None:
    """Read ``results.json`` of an adaptor's folder; None if there is none, or it is of another kind or version than
    this package's, which is said of a version.

    Raises:
        InvalidAdaptorError: it is not JSON, not what an evaluation writes, or without this adaptor's weights.
    """
    path = Path(folder) / RESULTS_FILE
    if not path.is_file():
        return None
    try:
        content = _read_json(path)
        if not isinstance(content, dict) or "schema" not in content:
            return None
        if content["schema"] != RESULTS_SCHEMA:
            logger.warning(
                f"{path} is of schema {content['schema']!r}, this fair-adaptors reads {RESULTS_SCHEMA}: its numbers"
                " are not shown. Evaluate again"
            )
            return None
        results = from_json(content, str(path))
    except InvalidResultsError as error:
        raise InvalidAdaptorError(str(error)) from error
    variant_of(read_record(folder), results)
    return results


def variant_of(record: AdaptorRecord, results: Results) -> VariantResults:
    """Return the results of the adaptor itself, at its own strength, among those that were compared.

    Raises:
        InvalidAdaptorError: there are none.
    """
    identity = hashlib.sha256(f"{record.identity} {record.default_weight:g}".encode()).hexdigest()
    for variant in results.variants[1:]:
        if variant.identity == identity:
            return variant
    raise InvalidAdaptorError(
        f"{RESULTS_FILE} belongs to other weights than those of {record.name!r} at strength"
        f" {record.default_weight:g}. Evaluate again, or delete it"
    )


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InvalidResultsError(
            f"there is no evaluation at {path}; give its folder, or its {RESULTS_FILE}"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidResultsError(f"{path} cannot be read: {error}. Write it again, or delete it") from error


def _parsed(kind: Any, value: Any, at: str) -> Any:
    """Return a JSON value as one of a type, or raise ValueError that tells where it is none."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints, needed = _fields(kind)
        if missing := sorted(needed - value.keys()):
            raise ValueError(f"{at or 'it'} has no {missing[0]}")
        if unknown := sorted(value.keys() - hints.keys()):
            raise ValueError(f"{at or 'it'} has {unknown[0][:40]!r}, which is not known")
        return kind(**{key: _parsed(hints[key], part, f"{at}.{key}".lstrip(".")) for key, part in value.items()})
    origin, inside = get_origin(kind), get_args(kind)
    if origin is types.UnionType:
        return None if value is None else _parsed(inside[0], value, at)
    if origin is tuple and isinstance(value, list):
        return tuple([_parsed(inside[0], part, at) for part in value])
    if origin is Mapping and isinstance(value, dict):
        return {key: _parsed(inside[1], part, f"{at} {key}") for key, part in value.items()}
    if kind is float and (value is None or isinstance(value, int | float) and not isinstance(value, bool)):
        return math.nan if value is None else value
    if isinstance(kind, type) and type(value) is kind:
        return value
    raise ValueError(f"{at or 'it'} is {str(value)[:40]!r}")


@cache
def _fields(kind: type) -> tuple[dict[str, Any], set[str]]:
    """Return the types of a dataclass's fields, and the names of those that have to be there."""
    needed = {field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING}
    return get_type_hints(kind), needed


def _check(results: Results) -> None:
    """Raise ValueError where one part of the results does not fit another."""
    for name in ("classifiers", "targets", "variants"):
        if not getattr(results, name):
            raise ValueError(f"it has no {name}")
    if len(results.labels) != len(results.settings.prompts):
        raise ValueError("it does not have as many labels as prompts")
    _check_expected(results)
    if any(not 1 < len(target.classes) == len(target.shares) for target in results.targets.values()):
        raise ValueError("a target does not have as many shares as classes")
    told = _told(results.original)
    if list(told[0]) != list(results.classifiers) or set().union(*told[0].values()) != set(results.targets):
        raise ValueError("its figures are not those of its classifiers and targets")
    for variant in results.variants:
        if _told(variant) != told:
            raise ValueError(f"the variant {variant.name!r} has other figures than the original")
        for name, target in results.targets.items():
            figures = results.figures(variant, name)
            if len(figures.prompts) != len(results.labels) or len(figures.frequencies) != len(target.classes):
                raise ValueError(f"the variant {variant.name!r} does not have the figures of every prompt and class")
            if variant is results.original:
                continue
            if figures.change is None:
                raise ValueError(f"the variant {variant.name!r} has no change")
            sizes = {len(row) for row in (figures.change.classes, *figures.change.prompts)}
            if sizes != {len(target.classes)} or len(figures.change.prompts) != len(results.labels):
                raise ValueError(f"the variant {variant.name!r} does not have the change of every prompt and class")
        if unknown := {*variant.aimed, *(one.target for one in variant.erasures)} - set(results.targets):
            raise ValueError(f"the variant {variant.name!r} has no figures of {sorted(unknown)[0]}")


def _check_expected(results: Results) -> None:
    """Raise ValueError where what prompts name does not fit the rest."""
    if not results.expected and any(variant.obeyed for variant in results.variants):
        raise ValueError(
            "its prompts name classes, but it does not say which. An earlier version of fair-adaptors wrote it, and"
            " counted those prompts in every bias"
        )
    if results.expected and len(results.expected) != len(results.labels):
        raise ValueError("it names classes of prompts that it does not have")
    known = {(name, one) for name, target in results.targets.items() for one in target.classes}
    if unknown := {pair for named in results.expected for pair in named.items()} - known:
        raise ValueError(f"a prompt names {' '.join(sorted(unknown)[0])}, which is not a class of it")


def _told(variant: VariantResults) -> tuple[dict[str, set[str]], bool, set[str], set[str]]:
    """Return what is told of a variant: of all the same."""
    targets = {classifier: set(found) for classifier, found in variant.bias.items()}
    return targets, variant.kept is None, set(variant.text_alignment), set(variant.diversity)
