"""The command line as a stranger uses it, with wrong input too."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from fair_adaptors import __version__
from fair_adaptors.cli import main


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Run the command in this process: (exit status, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "160")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fair-adaptors", *arguments])
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def test_the_demo_prints_numbers_and_leaves_a_grid_a_report_and_results(run, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    status, printed, _ = run("demo", "-n", "8", "--out", str(out))
    assert status == 0
    assert "gender bias" in printed and "noise floor" in printed and "occupation right" in printed
    with Image.open(out / "grid.png") as grid:
        assert grid.width > 500
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "data:image/png" in page and "noise floor" in page.lower()
    assert "http://" not in page.replace("http://www.w3.org/", "") and "https://" not in page and "<script" not in page
    results = json.loads((out / "results.json").read_text())
    gender = results["bias"]["gender"]
    assert gender["after"]["value"] < gender["before"]["value"] - 0.2
    assert gender["after"]["low"] <= gender["after"]["value"] <= gender["after"]["high"]
    assert len(results["prompts"]) == 16


def test_the_joint_adaptor_can_be_shown_too(run, tmp_path: Path) -> None:
    status, printed, _ = run("demo", "-n", "4", "--adaptor", "sandbox-gender-tone", "--out", str(tmp_path))
    assert status == 0 and "gender bias" in printed and "tone bias" in printed


def test_generate_draws_a_grid_and_the_adaptor_changes_it(run, tmp_path: Path) -> None:
    plain, fair = tmp_path / "plain.png", tmp_path / "fair.png"
    prompt = "A photo of the face of a hospital nurse, a person"
    assert run("generate", prompt, "-n", "2", "--out", str(plain), "--seed", "3")[0] == 0
    status, printed, _ = run(
        "generate", prompt, "--adaptor", "sandbox-gender", "-n", "2", "--out", str(fair), "--seed", "3"
    )
    assert status == 0 and "2 images" in printed
    assert plain.read_bytes() != fair.read_bytes()


def test_list_names_every_adaptor_and_its_status(run) -> None:
    status, printed, _ = run("list")
    assert status == 0
    for word in ("sandbox-gender", "sandbox-gender-tone", "gender-race-age", "embedded", "recipe"):
        assert word in printed


def test_info_shows_the_card_of_a_shipped_adaptor(run) -> None:
    status, printed, _ = run("info", "sandbox-gender")
    assert status == 0
    assert "female 50%" in printed and "noise floor" in printed and "Limits" in printed


def test_info_of_a_recipe_says_that_nothing_is_published(run) -> None:
    status, printed, _ = run("info", "gender-race")
    assert status == 0 and "Not published" in printed


def test_the_version_is_printed(run) -> None:
    assert run("--version")[:2] == (0, f"{__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "sandbox-gendr"], "Did you mean 'sandbox-gender'"),
        (["demo", "--adaptor", "nothing"], "there is no adaptor"),
        (["generate", "a nurse", "--adaptor", "gender-race"], "not published"),
        (["generate", "a nurse", "--adaptor", "./nowhere"], "no folder"),
        (["generate", "a nurse", "--base", "./nowhere"], "no pipeline"),
        (["generate", "a nurse", "--out", "grid.txt"], "no picture file"),
        (["generate", "a nurse", "--adaptor", "sandbox-gender", "--weight", "nan"], "weight"),
        (["train", "sandbox-gendr"], "Did you mean 'sandbox-gender'"),
        (["train", "sandbox-gender", "--set", "rnk=3"], "Did you mean 'rank'"),
        (["train", "sandbox-gender", "--set", "rank"], "KEY=VALUE"),
    ],
)
def test_wrong_input_is_one_line_that_helps(run, arguments: list[str], message: str) -> None:
    status, _, error = run(*arguments)
    assert status == 1
    assert message in error and error.startswith("fair-adaptors: ") and error.count("\n") == 1


@pytest.mark.parametrize("arguments", [["demo", "-n", "0"], ["demo", "--seed", "-1"], ["generate"], ["paint"]])
def test_wrong_usage_exits_with_2(run, arguments: list[str]) -> None:
    assert run(*arguments)[0] == 2


def test_train_leaves_an_adaptor_with_pictures_of_the_way(run, tmp_path: Path) -> None:
    settings = ["iterations=2", "images_per_prompt=4", "num_steps=3", "gradient_steps=2", "sample_every=1"]
    options = [word for setting in settings for word in ("--set", setting)]
    status, printed, _ = run("train", "sandbox-gender", "--out", str(tmp_path / "a"), *options)
    assert status == 0
    assert "validation" in printed and "before" in printed and "after" in printed
    assert {file.name for file in (tmp_path / "a" / "samples").iterdir()} == {
        f"iteration_{i:05d}.png" for i in range(3)
    }
    assert (tmp_path / "a" / "fair_adaptor.json").exists()
    assert run("info", str(tmp_path / "a"))[0] == 0
