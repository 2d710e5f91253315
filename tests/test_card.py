"""A card says what record and results say, to the Hub and to people, and nothing else whatever is in them."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import EvalResult, ModelCard

from fair_adaptors.adaptor.archives import ARCHIVES
from fair_adaptors.adaptor.bases import BASES, EMBEDDED, STABLE_DIFFUSION_1_5
from fair_adaptors.adaptor.record import CARD_FILE, TAG, AdaptorRecord, read_record
from fair_adaptors.adaptor.registry import find
from fair_adaptors.adaptor.results import ClassChange, Erasure, Estimate, Results
from fair_adaptors.adaptor.results_file import from_json, read_results, to_json, variant_of
from fair_adaptors.evaluation.variants import with_adaptor
from fair_adaptors.report.card import TEMPLATE, card_of, escape, render_card

ROOT = Path(__file__).parents[1]
FOLDERS = [EMBEDDED / "sandbox-gender", EMBEDDED / "sandbox-gender-tone"]
PROSE = {"95", "2024", "2311.07604", "2308.14761", "0"}
"""Numbers of the template itself: the level of an interval, years and addresses of papers, and what fair is not."""
NUMBER = re.compile(r"(?<![\w.])[+\u2212-]?\d+(?:\.\d+)*(?:e-?\d+)?(?!\w)")

embedded = pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)


def parts_of(folder: Path) -> tuple[AdaptorRecord, Results]:
    results = read_results(folder)
    assert results is not None
    return read_record(folder), results


@embedded
def test_the_committed_cards_are_what_registry_record_and_results_make(folder: Path) -> None:
    text = (folder / CARD_FILE).read_text(encoding="utf-8")
    assert text == card_of(folder, info=find(folder.name))
    assert text == (ROOT / "cards" / f"{folder.name}.md").read_text(encoding="utf-8")


def test_every_card_is_of_an_adaptor_in_the_registry() -> None:
    assert {path.stem for path in (ROOT / "cards").glob("*.md")} == {folder.name for folder in FOLDERS}


@embedded
def test_the_results_are_of_the_very_weights(folder: Path) -> None:
    record, results = parts_of(folder)
    assert variant_of(record, results).identity == with_adaptor(str(folder)).identity


@embedded
def test_the_hubs_own_classes_read_the_metadata(folder: Path) -> None:
    data = ModelCard.load(folder / CARD_FILE).data
    record, results = parts_of(folder)
    assert data.library_name == "diffusers" and data.pipeline_tag == "text-to-image"
    assert data.base_model == "sandbox" and data["base_model_relation"] == "adapter" and data.license == "apache-2.0"
    assert {"lora", "template:sd-lora", "fairness", TAG} == set(data.tags)
    assert all((folder / row["output"]["url"]).is_file() and row["text"] for row in data["widget"])
    assert data.model_name == folder.name
    found = {row.metric_name: row for row in data.eval_results or []}
    after = variant_of(record, results)
    shown = {f"{name} {'bias' if name in after.aimed else 'shift'}" for name in results.targets}
    assert set(found) == shown and set(after.aimed) >= set(record.attributes)
    for name, row in found.items():
        assert isinstance(row, EvalResult) and row.task_type == "text-to-image" and row.dataset_name == "sandbox-test"
        target, kind = name.rsplit(" ", 1)
        figures = results.figures(after, target)
        told = to_json(figures.bias if kind == "bias" else figures.change.shift)
        assert all(told[key] == row.metric_args[key] for key in ("low", "high", "floor"))
        assert told["value"] == row.metric_value and row.metric_type == kind


def numbers_in(value: Any) -> Iterator[float]:
    """Every number of a JSON value, and how long its lists are."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return
    if isinstance(value, int | float):
        yield float(value)
        return
    yield float(len(value))
    for inner in value.values() if isinstance(value, dict) else value:
        yield from numbers_in(inner)


def unfounded(card: str, *sources: Any) -> list[str]:
    """Numbers of a card that no source has, as they are, rounded, or in percent."""
    known = sorted({abs(number) for source in sources for number in numbers_in(source)})
    words = " ".join(json.dumps(source, ensure_ascii=False) for source in sources)
    found = []
    for match in NUMBER.finditer(card):
        text = match[0].lstrip("+\u2212-")
        if text in PROSE or text.count(".") > 1:
            found += [] if text in PROSE or text in words else [text]
            continue
        scale = 0.01 if card[match.end() : match.end() + 1] == "%" else 1.0
        near = 0.5000001 * scale * 10.0 ** -len(text.partition(".")[2])
        if not any(abs(float(text) * scale - number) <= near for number in known):
            found += [] if re.search(rf"(?<![\d.]){re.escape(text)}(?![\d.])", words) else [text]
    return found


@embedded
def test_no_number_is_in_a_card_that_is_in_none_of_its_sources(folder: Path) -> None:
    record, results = parts_of(folder)
    assert unfounded((folder / CARD_FILE).read_text(encoding="utf-8"), record.to_json(), to_json(results)) == []


def test_a_number_from_elsewhere_would_be_noticed() -> None:
    record, results = parts_of(FOLDERS[0])
    for foreign in ("| 0.123456 |", "41.3719%", "7654321 MB"):
        assert unfounded(f"text {foreign}", record.to_json(), to_json(results))


def test_the_template_has_no_numbers_but_those_of_its_prose() -> None:
    template = (ROOT / "fair_adaptors" / "report" / TEMPLATE).read_text(encoding="utf-8")
    said = re.sub(r"\{\{.*?\}\}|\{%.*?%\}", "", template)
    assert {match[0] for match in NUMBER.finditer(said)} <= PROSE


def test_every_figure_moves_with_its_source() -> None:
    """Changed by a distinct amount each, no shown estimate keeps the text it had."""
    record, results = parts_of(FOLDERS[0])
    marked = to_json(results)
    after = marked["variants"][results.variants.index(variant_of(record, results))]
    figures = after["bias"][results.classifier]["gender"]
    figures["bias"] |= {"value": 0.1111, "low": 0.0211, "high": 0.3111, "floor": 0.0911}
    figures["change"]["bias"] |= {"value": -0.7311, "low": -0.7711, "high": -0.6911}
    figures["undetermined"]["value"] = 0.0777
    figures["frequencies"][0] |= {"value": 0.4321, "low": 0.4123, "high": 0.4567}
    after["kept"] |= {"value": 0.8888, "low": 0.8111, "high": 0.9222}
    card = render_card(record, from_json(marked))
    minus = "\u2212"
    for said in (
        "0.11 (0.02 to 0.31)",
        f"{minus}0.73 ({minus}0.77 to {minus}0.69)",
        "→ 7.8%",
        "43.2% (41.2% to 45.7%)",
        "88.9% (81.1% to 92.2%)",
    ):
        assert said in card and said not in render_card(record, results)
    assert unfounded(card, record.to_json(), to_json(results))


def with_harm() -> tuple[AdaptorRecord, Results]:
    """The gender adaptor, as if with it nobody dark were shown, and the third prompt had lost its occupation."""
    record, results = parts_of(FOLDERS[0])
    after = variant_of(record, results)
    gone = ClassChange(-0.1, -0.2, -0.05, before=0.1, after=0.0)
    erasures = tuple(Erasure("tone", "dark", prompt, gone, 0.001) for prompt in (None, 3))
    lost = replace(after.kept_prompts[2], value=0.5, low=0.3, high=0.7)
    kept = (*after.kept_prompts[:2], lost, *after.kept_prompts[3:])
    harmful = replace(after, erasures=erasures, kept_prompts=kept)
    return record, replace(results, variants=tuple(harmful if one is after else one for one in results.variants))


def test_a_card_says_who_is_harmed_before_anything_else() -> None:
    record, results = with_harm()
    card = render_card(record, results)
    top = card.split("---\n", 2)[2].partition("## Use")[0]
    label = escape(results.labels[3])
    gone = "**⚠ Side effects: dark-skinned people all but vanish (10% → 0%)"
    assert top.index("**Gender bias falls from") < top.index(gone)
    assert f"in 1 of 16 prompts they all but vanish ({label} 10% → 0%)" in top
    assert f"falls for {results.labels[2]} (100% → 50%)" in top and "tone bias" not in top
    assert f"| tone | dark | {label} | 10% | 0% | −0.10 (−0.20 to −0.05) |" in card
    assert f"| {results.labels[2]} | 100% (" in card and "| 50% (30% to 70%) |" in card
    assert re.search(r"\n\| tone bias \| no \| sandbox:evaluation \| [^|]+ \| [^|]+ \| – \|", card), "no change of it"
    assert re.search(r"\n\| tone \| 0\.\d\d \(0\.\d\d to 0\.\d\d\) \| 0\.\d\d \|", card), "its shift and floor"
    assert re.search(r"\n\| tone \| gender \| [\d.]+% \(", card), "how often it changes where gender does"
    after = variant_of(record, results)
    good = replace(after, erasures=(), kept_prompts=results.original.kept_prompts, bias={
        name: {target: replace(found, change=replace(found.change, shift=replace(
            found.change.shift, floor_removed=Estimate(0.0, -0.1, 0.1)))) for target, found in figures.items()}
        for name, figures in after.bias.items()
    })  # fmt: skip
    fine = replace(results, variants=tuple(good if one is after else one for one in results.variants))
    assert "⚠" not in render_card(record, fine)


def test_a_target_of_other_shares_is_told_by_its_distance() -> None:
    record, results = parts_of(FOLDERS[0])
    target = replace(results.targets["gender"], shares=(0.75, 0.25))
    card = render_card(record, replace(results, targets={**results.targets, "gender": target}))
    assert "gender off target" in card and "gender bias |" in card.partition("worst tenth")[2]
    assert ModelCard(card).data.eval_results[0].metric_type == "total_variation"


def test_a_card_says_all_that_it_should() -> None:
    card = card_of(FOLDERS[1], info=find("sandbox-gender-tone"))
    for words in (
        "What it changes, and what it does not",
        "| gender × tone bias | yes | sandbox:evaluation |",
        "| age bias | no |",
        "| tone | brown | yes | 25% |",
        "noise floor",
        "95 % interval",
        "Limits of the classifiers",
        "Perceived attributes are not identity",
        "scheme of the paper",
        "Training configuration",
        "| learning\\_rate | 0.0035 |",
        f"Cost: {read_record(FOLDERS[1]).training['seconds']} s, 1 process",
        "fair-adaptors train sandbox-gender-tone",
        "--prompts sandbox-test -n 64 --seed 2026 --steps 10 --guidance 1.5",
        "shen2024finetuning",
        "@software{fair_adaptors",
        read_record(FOLDERS[1]).files["pytorch_lora_weights.safetensors"].sha256,
    ):
        assert words in card, words


def test_without_results_it_says_that_nothing_is_known() -> None:
    record, _ = parts_of(FOLDERS[0])
    card = render_card(record, repo_id="org/mine")
    assert 'load_fair_adaptor(pipe, "org/mine")' in card and "it is not known how close" in card
    assert ModelCard(card).data.eval_results is None and unfounded(card, record.to_json()) == []


def test_a_converted_adaptor_has_a_card() -> None:
    record, _ = parts_of(FOLDERS[0])
    files = [{"name": "run/text_encoder_lora_EMA.pth", "sha256": "ab" * 32, "layout": "authors", "averaged": True}]
    origin = {"converted_from": {"name": "x.zip", "files": files}}
    record = replace(record, base_model=STABLE_DIFFUSION_1_5, training=origin)
    card = render_card(record, repo_id="org/gender")
    assert "Converted by" in card and "ab" * 32 in card and "Training configuration" not in card
    assert "trained elsewhere" in card and "authors trained" not in card
    published = render_card(record, info=find("gender"))
    assert "| occupations | gender | 0.67 ± 0.29 | 0.23 ± 0.16 |" in published.partition("## As published")[2]
    assert "As published" not in card and ModelCard(published).data.eval_results is None
    assert "9800 iterations" in published and ARCHIVES["exp-1-checkpoints.zip"].page in published
    data = ModelCard(card).data
    assert data.base_model == STABLE_DIFFUSION_1_5 and data.license == "creativeml-openrail-m"
    assert f'from_pretrained("{STABLE_DIFFUSION_1_5}")' in card and 'load_fair_adaptor(pipe, "org/gender")' in card


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ({"kept_attributes": ["tone", "age"]}, "above, and to leave tone, age (by image, weight 2) as the base"),
        ({"kept_attributes": []}, "above, and to leave no other attribute as the base"),
        ({}, "above. A prompt that\nnames a class"),
        ({"named_attributes": []}, "above. A prompt that\nnames a class"),
        ({"named_attributes": ["race", "tone"]}, "above. It\nwas also trained to show the race or tone that a p"),
    ],
)
def test_a_card_says_what_the_training_kept(kept: dict[str, Any], said: str) -> None:
    record, _ = parts_of(FOLDERS[0])
    training = {"keep_by": "image", "keep_weight": 2, **kept}
    assert f"It was trained to change what is named {said}" in render_card(replace(record, training=training))


def test_soft_tokens_are_no_lora() -> None:
    record, _ = parts_of(FOLDERS[0])
    card = render_card(replace(record, trained_parts=("tokens",)))
    assert "lora" not in ModelCard(card).data.tags and "put before every prompt" in card and "of rank" not in card


@pytest.mark.parametrize("base", [name for base in BASES for name in base.names] + ["my model", "a/b/c", "x: y"])
def test_a_base_is_named_to_the_hub_if_it_can_be_one(base: str) -> None:
    record, _ = parts_of(FOLDERS[0])
    card = render_card(replace(record, base_model=base))
    known = {name: one.licence for one in BASES for name in one.names}
    assert (ModelCard(card).data.base_model, ModelCard(card).data.license) == (
        (base, known[base]) if base in known else (None, None)
    )
