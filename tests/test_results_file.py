"""``results.json`` comes back as it was written, and what is no such file is refused by name."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fair_adaptors.adaptor.bases import EMBEDDED
from fair_adaptors.adaptor.record import RESULTS_FILE
from fair_adaptors.adaptor.results import Estimate
from fair_adaptors.adaptor.results_file import from_json, load_results, to_json
from fair_adaptors.errors import InvalidResultsError

FILES = sorted(EMBEDDED.glob(f"*/{RESULTS_FILE}"))


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILES[0].read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_what_is_read_is_written_as_it_was(path: Path) -> None:
    text = json.dumps(to_json(load_results(path)), indent=2, ensure_ascii=False) + "\n"
    assert text == path.read_text(encoding="utf-8")
    assert load_results(path) == load_results(path)


def test_what_cannot_be_told_is_null_in_the_file_and_nan_in_memory(content: dict[str, Any]) -> None:
    assert to_json(Estimate(0.12345678, math.nan, math.inf)) == {"value": 0.123457, "low": None, "high": None}
    changed = copy.deepcopy(content)
    changed["variants"][1]["kept"] = {"value": None, "low": None, "high": None}
    results = from_json(changed)
    assert results.variants[1].kept is not None and math.isnan(results.variants[1].kept.value)
    assert to_json(results) == changed


def put(value: Any, *keys: Any) -> Callable[[dict[str, Any]], None]:
    """What puts a value at a place; it takes away what is there if there is no value."""

    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        if value is None:
            del content[keys[-1]]
        else:
            content[keys[-1]] = value

    return change


OF_GENDER = ("bias", "sandbox:evaluation", "gender")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put(1, "schema"), "is of schema 1, this fair-adaptors reads 3"),
        (put(None, "targets"), "it has no targets"),
        (put([], "classifiers"), "it has no classifiers"),
        (put([], "variants"), "it has no variants"),
        (put(5, "labels"), "labels is '5'"),
        (put("many", "settings", "seed"), "settings.seed is 'many'"),
        (put(True, "settings", "guidance_scale"), "settings.guidance_scale is 'True'"),
        (put("<b>", "variants", 1, *OF_GENDER, "bias", "value"), "value is '<b>'"),
        (put(0.5, "variants", 1, *OF_GENDER, "surprise"), "has 'surprise', which is not known"),
        (put(["one"], "labels"), "not have as many labels as prompts"),
        (put([1.0], "targets", "gender", "shares"), "not have as many shares as classes"),
        (put({}, "variants", 0, "bias"), "not those of its classifiers and targets"),
        (put({}, "variants", 1, "diversity"), "other figures than the original"),
        (put(None, "variants", 1, *OF_GENDER, "change"), "has no change"),
        (put([], "variants", 1, *OF_GENDER, "change", "classes"), "not have the change of every prompt and class"),
        (put([], "variants", 1, *OF_GENDER, "change", "prompts"), "not have the change of every prompt and class"),
        (put(["hair"], "variants", 1, "aimed"), "no figures of hair"),
        (put([], "variants", 1, *OF_GENDER, "prompts"), "not have the figures of every prompt and class"),
    ],
)
def test_what_no_evaluation_writes_is_refused(
    content: dict[str, Any], change: Callable[[dict[str, Any]], None], said: str
) -> None:
    changed = copy.deepcopy(content)
    change(changed)
    with pytest.raises(InvalidResultsError, match=said):
        from_json(changed)


@pytest.mark.parametrize("text", ["no JSON", "[]", "3", '{"accuracy": 1}', "[" * 100_000])
def test_other_files_are_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / RESULTS_FILE
    with pytest.raises(InvalidResultsError, match=RESULTS_FILE):
        load_results(path)
    path.write_text(text)
    with pytest.raises(InvalidResultsError, match=RESULTS_FILE):
        load_results(path)
