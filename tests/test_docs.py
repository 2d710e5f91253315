"""What the documents show is what there is."""

import re
import subprocess
from pathlib import Path

import pytest

from fair_adaptors.registry import EMBEDDED

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("script", sorted((ROOT / "docs" / "scripts").glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_shell(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert script.stat().st_mode & 0o111


@pytest.mark.parametrize("folder", sorted(EMBEDDED.iterdir()), ids=lambda path: path.name)
def test_cards_are_what_their_results_say(folder: Path) -> None:
    import json

    from fair_adaptors.training.publish import card

    from fair_adaptors.formats import read_config

    config, results = read_config(folder), json.loads((folder / "results.json").read_text())
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text == card(config, results) == (ROOT / "cards" / f"{folder.name}.md").read_text(encoding="utf-8")
    assert results["files"] == {file: record["sha256"] for file, record in config["files"].items()}
