"""A card of a record or results that strangers wrote, damaged or hostile: shown as text, or refused."""

import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from fair_adaptors.adaptor.bases import EMBEDDED
from fair_adaptors.adaptor.record import CONFIG_FILE, RESULTS_FILE, AttributeTarget, read_record
from fair_adaptors.adaptor.results_file import from_json, read_results, to_json
from fair_adaptors.errors import InvalidAdaptorError
from fair_adaptors.report.card import card_of, escape, render_card

FOLDER = EMBEDDED / "sandbox-gender"
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "](javascript:alert(1)) ![x](http://evil/x.png)",
    "| a | b |\n|---|---|\n# Title\n---\nlicense: mit\n---",
    "`code` ``` **bold** _it_ ~~no~~ $x$",
    "&lt;b&gt; &amp; http://evil.example www.evil.example a@evil.example",
    "{{ 7 * 7 }} {% raw %} {# #}",
    "a: b\n- c: [d, {e: f}] # & * ! %",
    "\x1b[2J\u202e\ud800 end",
]


class Tags(HTMLParser):
    """The tags and links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        self.links |= {value or "" for name, value in attrs if name in ("href", "src")}


def page_of(card: str) -> tuple[Tags, str]:
    """What a reader of GitHub's Markdown makes of the page, raw HTML allowed."""
    page = MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(
        re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.S)
    )
    tags = Tags()
    tags.feed(page)
    return tags, page


@pytest.mark.parametrize("text", HOSTILE)
def test_strangers_words_are_shown_and_do_nothing(text: str) -> None:
    record, read = read_record(FOLDER), read_results(FOLDER)
    assert read is not None
    honest, _ = page_of(render_card(record, read, images=["x.png"]))
    results = to_json(read)
    shown = "".join(letter for letter in " ".join(text.split()) if letter.isprintable())
    record = replace(
        record,
        name=shown,
        base_model=shown,
        attributes={shown: AttributeTarget((shown, "other"), (0.5, 0.5))},
        versions={"fair-adaptors": text, text: text},
        training={**record.training, text: text, "seed": text, "name": [text], "seconds": text},
    )
    results["settings"]["prompt_set"] = text
    results["targets"]["gender"] |= {"attributes": [shown], "classes": [text, text]}
    renamed = json.loads(json.dumps(results).replace('"sandbox:evaluation"', json.dumps(text)))
    card = render_card(record, from_json(renamed), images=["x.png"])
    card.encode()
    tags, page = page_of(card)
    assert (tags.found, tags.links) == (honest.found, honest.links)
    assert " ".join(shown.split()) in " ".join(html.unescape(re.sub(r"<[^>]+>", "", page)).split())
    data = ModelCard(card).data.to_dict()
    assert data["library_name"] == "diffusers" and data["model-index"][0]["name"] == shown
    assert data.get("license") is None and "base_model" not in data
    assert yaml.safe_load(card.split("---\n")[1])["pipeline_tag"] == "text-to-image"


@pytest.mark.parametrize(
    "training",
    [
        {"converted_from": 5},
        {"converted_from": {"files": [1, {"name": None}]}},
        {"seconds": "x", "processes": None},
        {"kept_attributes": 5},
        {"kept_attributes": [1, None]},
        {"named_attributes": 5},
        {"named_attributes": [1, None]},
        {},
    ],
)
def test_a_record_of_anything_has_a_card(training: dict[str, Any]) -> None:
    assert ModelCard(render_card(replace(read_record(FOLDER), training=training))).data.library_name == "diffusers"


def test_escaping_leaves_plain_words_alone() -> None:
    assert escape("sandbox-gender, 50% (a: b)") == "sandbox-gender, 50% (a: b)"
    assert escape("http://x www.x") == "http\\://x www\\.x"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no JSON", "cannot be read"),
        ('{"schema": 3}', "is not what `fair-adaptors evaluate` writes"),
        ('{"schema": 3, "variants": 3}', "is not what `fair-adaptors evaluate` writes"),
        (
            (FOLDER.with_name("sandbox-gender-tone") / RESULTS_FILE).read_text(encoding="utf-8"),
            "belongs to other weights",
        ),
    ],
)
def test_results_that_are_damaged_or_of_other_weights_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / CONFIG_FILE).write_bytes((FOLDER / CONFIG_FILE).read_bytes())
    (tmp_path / RESULTS_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(InvalidAdaptorError, match=message):
        read_results(tmp_path)
    with pytest.raises(InvalidAdaptorError, match=message):
        card_of(tmp_path)


def test_only_pictures_are_shown(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / CONFIG_FILE).write_bytes((FOLDER / CONFIG_FILE).read_bytes())
    for name in ("before_after.png", "a (b).png", "x.svg", "two-dancers.jpg"):
        (tmp_path / "images" / name).touch()
    shown = {row["output"]["url"]: row["text"] for row in ModelCard(card_of(tmp_path)).data["widget"]}
    assert set(shown) == {"images/before_after.png", "images/two-dancers.jpg"}
    assert shown["images/two-dancers.jpg"] == "two dancers"


def test_results_of_another_kind_or_version_are_not_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / CONFIG_FILE).write_bytes((FOLDER / CONFIG_FILE).read_bytes())
    (tmp_path / RESULTS_FILE).write_text('{"accuracy": 0.99}')
    assert "0.99" not in card_of(tmp_path) and read_results(tmp_path) is None
    (tmp_path / RESULTS_FILE).write_text('{"schema": 1, "accuracy": 0.99}')
    assert "0.99" not in card_of(tmp_path) and "is of schema 1, this fair-adaptors reads 3" in caplog.text
