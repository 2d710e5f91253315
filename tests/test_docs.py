"""What the documents show is what there is."""

import dataclasses
import json
import re
import subprocess
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.cost import BASES, CARDS, VISION, passes
from fair_adaptors.training.recipes import RECIPES

from benchmarks import (
    commands_page,
    cost,
    gate,
    model_zoo_page,
    models_page,
    results_page,
    sandbox_bias,
    scaling,
    settings_page,
)
from benchmarks._passes import FORMS, count_passes
from benchmarks._report import RESULTS, tables_in
from fair_adaptors.adaptor.record import RESULTS_SCHEMA
from fair_adaptors.adaptor.results import Results
from tests.rooms import ROOMS

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_site_has_every_page_and_no_other() -> None:
    navigation = re.findall(r"^ +- .+: ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(navigation) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def headings(document: Path) -> set[str]:
    """The headings of a document, as GitHub calls them in links."""
    found = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", heading).strip().lower().replace(" ", "-") for heading in found}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]*))?\)", document.read_text(encoding="utf-8"))
    for path, heading in links:
        target = document.parent / path if path else document
        assert target.exists(), path
        assert not heading or heading in headings(target), f"{path}#{heading}"


@pytest.mark.parametrize("script", sorted((ROOT / "docs" / "scripts").glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_shell(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert script.stat().st_mode & 0o111


def test_slurm_warns_long_before_a_prompt_of_any_recipe_is_over_on_any_card() -> None:
    """A run stops between prompts; here within half the warning, so that there is time to save."""
    script = (ROOT / "docs" / "scripts" / "slurm.sh").read_text(encoding="utf-8")
    nodes, gpus, warning = (
        int(re.findall(rf"#SBATCH --{what}(\d+)", script)[0])
        for what in ("nodes=", "gpus-per-node=", "signal=B:TERM@")
    )
    for row in results("cost")["rows"]:
        share = -(-row["images"] // (nodes * gpus)) / row["images"]
        assert max(row[f"{card}, seconds"] for card in CARDS) * share < warning / 2, row["recipe"]


def results(benchmark: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{benchmark}.json").read_text(encoding="utf-8"))


def test_tables_are_those_of_the_benchmarks() -> None:
    costs, scales = results("cost"), results("scaling")
    details = {name: costs[name] for name in ("options", "forms", "bases", "vision", "sustained")}
    assert tables_in("cost") == cost.tables(costs["rows"], **details)
    assert tables_in("scaling") == scaling.tables(*(scales[name] for name in ("rows", "works", "predicted", "split")))
    assert tables_in("results") == results_page.tables()
    seconds = {row["recipe"]: row[f"{scaling.CARD}, seconds"] for row in costs["rows"]}
    for work in scales["works"]:  # of the recipes as they are
        assert work["images"] * work["seconds per image"] == pytest.approx(seconds[work["recipe"]], rel=1e-3)


def test_what_is_said_of_the_gate_is_what_it_does() -> None:
    """Else: python -m benchmarks.gate."""
    _, rows, languages = gate.measured()
    assert (rows, languages) == (results("gate")["rows"], results("gate")["languages"])
    assert tables_in("steering") == gate.tables(rows, languages)


def test_a_bar_is_for_the_mean_of_the_seeds_and_for_the_worst_seed_where_nothing_may_go_wrong() -> None:
    def row(after: dict[str, float]) -> dict[str, Any]:
        where = {"recipe": "r", "prompts": "validation", "aimed": ("gender",), "minutes": 1.0, "megabytes": None}
        shifts = {"tone shift": 0.1, "tone shift floor": 0.05, "age shift": 0.1}
        before = {"gender": 0.8, "occupation": 1.0, sandbox_bias.WORST: 1.0}
        return {**where, "before": before, "after": {"gender": 0.2, sandbox_bias.SHARE: 0.01, **shifts, **after}}

    rows = [
        row({"occupation": 0.98, sandbox_bias.WORST: 0.8, sandbox_bias.ALARMS: 0}),
        row({"occupation": 1.0, sandbox_bias.WORST: 1.0, sandbox_bias.ALARMS: 1}),
    ]
    bars = {"occupation": 0.015, sandbox_bias.WORST: (0.85, 1), sandbox_bias.ALARMS: (0, 0), "gender": (0, 0.2)}
    lines = {line["what"]: line for line in sandbox_bias.summary(rows, {("r", "test"): bars})}
    held = {name: lines[name]["held"] for name in (*bars, "tone shift", "minutes")}
    assert list(held.values()) == [True, False, False, True, "–", True]
    assert lines[sandbox_bias.WORST]["after"] == 0.8 and lines[sandbox_bias.ALARMS]["seeds"] == "0, 1"
    assert lines["occupation"]["after"] == pytest.approx(0.99) and lines["tone shift"]["floor"] == 0.05


def test_the_settings_page_is_what_the_code_says_of_every_setting() -> None:
    assert tables_in("settings") == settings_page.tables()
    assert list(settings_page.documentation()) == [field.name for field in dataclasses.fields(TrainConfig)]


def test_the_pages_of_commands_and_of_adaptors_are_what_the_code_says() -> None:
    """Else: python -m benchmarks.commands_page; python -m benchmarks.model_zoo_page; … .models_page."""
    assert tables_in("commands") == [commands_page.text()]
    assert tables_in("model-zoo") == model_zoo_page.tables()
    assert tables_in("models") == models_page.tables()


def test_a_dry_run_estimates_hours_from_the_operations_that_the_benchmark_counted() -> None:
    counted = results("cost")
    vision = {name: one for name, (one, _) in counted["vision"].items()}
    assert BASES.keys() == counted["bases"].keys() and VISION.keys() == vision.keys()
    for base, models in counted["bases"].items():
        assert all(BASES[base][model] == pytest.approx(one, rel=1e-3) for model, one in models.items())
    assert all(VISION[name] == pytest.approx(one, rel=1e-2) for name, one in vision.items())


def test_what_every_recipe_for_people_costs_is_told() -> None:
    rows = {row["recipe"]: (row["images"], row["iterations"]) for row in results("cost")["rows"]}
    people = {name: recipe() for name, recipe in RECIPES.items() if not name.startswith("sandbox")}
    assert rows == {name: (config.images_per_prompt, config.iterations) for name, config in people.items()}


@pytest.mark.parametrize("form", FORMS)
def test_as_many_rows_go_through_the_models_as_the_formula_says(form: str) -> None:
    assert count_passes(form, 3, 2) == passes(3, 2, **FORMS[form])


def fields(kind: Any) -> set[str]:
    """The names of all fields of a record and of the records inside it."""
    if not dataclasses.is_dataclass(kind):
        return set().union(*map(fields, get_args(kind)))
    return {field.name for field in dataclasses.fields(kind)}.union(*map(fields, get_type_hints(kind).values()))


def test_the_schema_of_the_results_names_every_field_and_no_other() -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    title, schema = re.findall(r"^## `results.json`, schema (\d+)$(.*)", page, re.MULTILINE | re.DOTALL)[0]
    names = fields(Results)
    assert int(title) == RESULTS_SCHEMA and len(names) > 60
    assert {name for name in names if not re.search(rf"\b{name}\b", schema)} == set()
    assert set(re.findall(r"\b[a-z]+_[a-z_]+\b", schema)) <= names


def folders_with_modules() -> set[str]:
    folders = [ROOT / "fair_adaptors", ROOT / "training"]
    return {f"{path.parent.relative_to(ROOT)}/" for folder in folders for path in folder.rglob("*.py")}


def test_the_tree_of_the_architecture_page_is_that_of_the_folders() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^    ((?:fair_adaptors|training)/\S*)", page, re.MULTILINE)) == folders_with_modules()


def test_what_the_architecture_page_names_is_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w./]+\.(?:py|jinja)|[\w./]+/)`", page)
    roots = (ROOT, ROOT / "fair_adaptors", ROOT / "training")
    assert len(named) > 40 and [name for name in named if not any((root / name).exists() for root in roots)] == []


def test_the_arrows_of_the_architecture_page_are_those_that_are_tested() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert ROOMS.strip("\n") in page
