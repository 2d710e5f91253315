"""The command line as a stranger uses it, with wrong input too."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from fair_adaptors import __version__
from fair_adaptors.adaptor.archives import ARCHIVES
from fair_adaptors.adaptor.bases import EMBEDDED
from fair_adaptors.adaptor.registry import list_adaptors
from tests.commands import Command


def test_the_demo_prints_numbers_and_leaves_a_grid_a_report_and_results(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    status, printed, _ = command("demo", "-n", "4", "--out", str(out))
    assert status == 0 and "noise floor" in printed and "side effects" in " ".join(printed.lower().split())
    table = [line.split() for line in printed.splitlines() if line.startswith(" sandbox-gender")]
    assert [row[1:3] for row in table[:3]] == [["yes", "bias"], ["no", "shift"], ["no", "shift"]]
    assert len(table) == 8, "and five lines on variety"
    with Image.open(out / "plots" / "grid_sandbox-gender.png") as grid:
        assert grid.width > 500
    page = (out / "report.html").read_text(encoding="utf-8")
    assert (
        "Gender bias falls" in page
        and "a small drawn world" in page
        and f"fair-adaptors demo -n 4 --out {out}" in page
    )
    results = json.loads((out / "results.json").read_text())
    assert list(results["targets"]) == ["gender", "tone", "age"], "what it was trained for, and what it was not"
    assert results["variants"][1]["bias"]["sandbox:evaluation"]["gender"]["change"]["bias"]["high"] < 0
    status, _, error = command("demo", "-n", "9", "--out", str(out))
    assert status == 1 and "--overwrite" in error


def test_the_demo_needs_no_extra_and_shows_the_joint_adaptor_too(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in ("matplotlib", "cv2")] + ["matplotlib", "cv2"]:
        monkeypatch.setitem(sys.modules, name, None)
    status, printed, _ = command("demo", "-n", "2", "--adaptor", "sandbox-gender-tone", "--out", str(tmp_path))
    assert status == 0 and "gender × tone bias" in printed and "[eval]" in printed
    assert (tmp_path / "report.html").exists()
    assert [path.name for path in tmp_path.glob("plots/*")] == ["grid_sandbox-gender-tone.png"]


def test_generate_draws_a_grid_and_the_adaptor_changes_it(command: Command, tmp_path: Path) -> None:
    plain, fair = tmp_path / "plain.png", tmp_path / "fair.png"
    prompt = "A photo of the face of a hospital nurse, a person"
    assert command("generate", prompt, "-n", "2", "--out", str(plain), "--seed", "3")[0] == 0
    status, printed, _ = command(
        "generate", prompt, "--adaptor", "sandbox-gender", "-n", "2", "--out", str(fair), "--seed", "3"
    )
    assert status == 0 and "2 images" in printed
    assert plain.read_bytes() != fair.read_bytes()


def test_list_names_every_adaptor_and_its_status(command: Command) -> None:
    status, printed, _ = command("list")
    assert status == 0
    for word in ("sandbox-gender", "sandbox-gender-tone", "gender-race-age", "embedded", "published", "recipe-only"):
        assert word in printed


def test_info_shows_the_card_of_a_shipped_adaptor(command: Command) -> None:
    status, printed, _ = command("info", "sandbox-gender")
    assert status == 0
    assert "female 50%" in printed and "noise floor" in printed and "Limits" in printed


def test_what_others_published_and_what_was_measured_stand_apart(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The paper's figures have columns, lines and fields of their own, and only where the weights are the authors'."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    line = next(line for line in command("list")[1].splitlines() if "gender 0.67 → 0.16" in line)
    measured, published = line.split("│")[-3:-1]
    assert not measured.strip() and published.strip() == "gender 0.67 → 0.16"
    status, printed, _ = command("info", "gender-race-age")
    told, figures = printed.split("as published, not measured here (")
    assert status == 0 and "checkpoint-11800_exported" in told and "creativeml-openrail-m" in told and "MIT" in told
    assert "fair-adaptors pull gender-race-age" in told and ARCHIVES["exp-4-checkpoints.zip"].page in told
    assert "gender: 0.67 ± 0.29 → 0.15\n" in figures and "share of old: 0.202 ± 0.263 → 0.248 ± 0.091" in figures
    assert "no figures of this run" in command("info", "gender-tokens")[1]
    rows = {row["name"]: row for row in json.loads(command("list", "--json")[1])}
    for info in list_adaptors():
        row = rows[info.name]
        assert (row["measured"] is not None) == (info.status == "embedded")
        assert not row["as_published"] or info.checkpoint and row["checkpoint"]["step"] == info.checkpoint.step
    first = rows["gender-race"]["as_published"]["figures"][0]
    assert first == {
        "prompts": "occupations",
        "figure": "gender",
        "original": {"value": 0.67, "spread": 0.29},
        "adaptor": {"value": 0.16, "spread": 0.13},
    }


def test_info_of_a_planned_one_says_that_nothing_is_published(command: Command) -> None:
    status, printed, _ = command("info", "sd21-gender-race")
    assert status == 0 and "Not published" in printed


def test_the_version_is_printed(command: Command) -> None:
    assert command("--version")[:2] == (0, f"{__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "sandbox-gendr"], "Did you mean 'sandbox-gender'"),
        (["demo", "--adaptor", "nothing"], "there is no adaptor"),
        (["reproduce", "sd21-gender-race"], "not published"),
        (["generate", "a nurse", "--adaptor", "./nowhere"], "no folder"),
        (["generate", "a nurse", "--base", "./nowhere"], "there is no folder or file ./nowhere"),
        (["generate", "a nurse", "--out", "grid.txt"], "--out must end in .png, .jpg, .jpeg or .webp (got grid.txt)"),
        (["generate", "a nurse", "--adaptor", "sandbox-gender", "--weight", "nan"], "weight"),
        (["train", "sandbox-gendr"], "Did you mean 'sandbox-gender'"),
        (["train", "sandbox-gender", "--set", "rnk=3"], "Did you mean 'rank'"),
        (["train", "sandbox-gender", "--set", "rank"], "KEY=VALUE"),
        (["train", "sandbox-gender", "--set", "preservation=nan"], "finite"),
        (["train", "sandbox-gender", "--set", "name="], "line of text"),
        (["train", "sandbox-gender", "--set", "parts=unet,unet"], "twice"),
        (["train", "sandbox-gender", "--set", "prompt_sets=trian:1"], "Did you mean 'train'"),
        (["train", "sandbox-gender", "--target", "gendr=0.5,0.5"], "Did you mean 'gender'"),
        (["train", "sandbox-gender", "--target", "gender=0.5,0.4"], "add up to 1"),
        (["train", "sandbox-gender", "--target", "gender=1"], "needs 2 shares"),
        (["train", "sandbox-gender", "--target", "age=0.5,0.5", "--target", "age=0.5,0.5"], "given twice"),
        (["train", "sandbox-gender", "--config", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["train", "sandbox-gender", "--resume", "--out", "nowhere"], "no run to resume"),
        (["train", "sandbox-gender", "--num-processes", "0"], "at least 1"),
        (["generate", "a nurse", "--weight", "1"], "name one with --adaptor"),
        (["generate", "a nurse", "--adaptor", "gender-race"], "not for sandbox. Give that base, or"),
        (["evaluate", "sandbox", "--adaptor", "gender-race"], "for sandbox: sandbox-gender, sandbox-gender-tone"),
        (["generate", "a nurse", "--device", "gpu"], "cannot be used here: write cuda, cuda:1, xpu, mps or cpu"),
        (["make", "sanbox", "--attribute", "gender", "--out", "new"], "Did you mean 'sandbox'"),
        (["make", "sandbox", "--attribute", "gendr", "--out", "new"], "Did you mean 'gender'"),
        (["train", "sandbox-gender", "--base", "sanbox"], "Did you mean 'sandbox'"),
        (["export", "sandbox-gender", "--format", "kohy", "--out", "new"], "Did you mean 'kohya'"),
        (["pull", "data.zip", "--from", "nofile.zip"], "there is no file nofile.zip"),
        (["push", "nowhere", "ORG/NAME"], "'nowhere' is not there"),
        (["generate", "a nurse", "--guidance", "inf"], "--guidance"),
        (["generate", "a nurse", "--adaptor", "~nobody_at_all/x"], "neither a folder nor a name"),
        (["evaluate", "./nowhere"], "there is no folder or file ./nowhere"),
        (["evaluate", "sanbox"], "there is no base 'sanbox'. Did you mean 'sandbox'? Give sandbox, "),
        (["generate", "a nurse", "--base", "sanbox"], "Did you mean 'sandbox'"),
        (["app", "--base", "sanbox"], "Did you mean 'sandbox'"),
        (["convert", "nofile.zip", "--out", "new"], "there is no file or folder nofile.zip"),
        (["convert", "setup.cfg", "--out", "new", "--base", "sanbox"], "Did you mean 'sandbox'"),
        (["card", "nowhere"], "nowhere"),
        (["compare", "nowhere", "nowhere"], "nowhere"),
        (["evaluate", "sandbox", "--encoder", "sandbox"], "name a --classifier as well"),
        (["evaluate", "sandbox", "--prompts", "sandbox-tst"], "Did you mean 'sandbox-test'"),
        (["evaluate", "sandbox", "--adaptor", "sandbox-gendr"], "Did you mean 'sandbox-gender'"),
        (
            ["evaluate", "sandbox", "--weight", "1"],
            "--weight is the strength of an adaptor: name an --adaptor as well",
        ),
        (["evaluate", "sandbox", "--adaptor", "sandbox-gender", "--adaptor", "sandbox-gender"], "given twice"),
        (["evaluate", "sandbox", "--target", "gendr"], "Did you mean 'gender'"),
        (["evaluate", "sandbox", "--target", "gender=0.5,0.4"], "add up to 1"),
        (["evaluate", "sandbox", "--target", "gender=1"], "needs 2 shares"),
        (["evaluate", "sandbox", "--target", "gender", "--target", "gender"], "given twice"),
        (["evaluate", "sandbox", "--target", "=0.5,0.5"], "name the attribute"),
        (["evaluate", "sandbox", "--baseline", "ethical-intervention", "--baseline", "ethical-intervention"], "twice"),
        (["evaluate", "sandbox", "--fail-above", "gendr=0.3"], "--fail-above 'gendr=0.3': nothing called 'gendr'"),
        (["evaluate", "sandbox", "--fail-on-harm"], "--fail-on-harm compares with the original model"),
        (["evaluate", "sandbox", "--out", "/etc/hosts"], "must be the name of a folder, but /etc/hosts is a file"),
        (["evaluate", "sandbox", "--classifier", "nothing"], "MODULE:OBJECT"),
        (["evaluate", "sandbox", "--baseline", "attribute-injction"], "Did you mean 'attribute-injection'"),
        (["evaluate", "sandbox", "--plan", "2"], "between 0 and 1"),
    ],
)
def test_wrong_input_is_one_line_that_helps(command: Command, arguments: list[str], message: str) -> None:
    status, _, error = command(*arguments)
    assert status == 1
    assert message in error and error.startswith("fair-adaptors: ") and error.count("\n") == 1


def test_evaluate_prints_the_headline_and_leaves_a_report_that_says_how_to_repeat_it(
    command: Command, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("A photo of the face of a hospital nurse, a person\n", encoding="utf-8")
    words = ["evaluate", "sandbox", "--adaptor", "sandbox-gender", "--weight", "0.5", "--prompts", str(prompts)]
    words += ["--baseline", "attribute-injection", "-n", "4", "--steps", "2", "--out", str(tmp_path / "out")]
    status, printed, _ = command(*words, "--classifier", "sandbox:evaluation", "--encoder", "sandbox")
    assert status == 0
    assert "sandbox-gender × 0.5" in printed and "attribute injection" in printed and "12/12" in printed
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "fair-adaptors evaluate sandbox --adaptor sandbox-gender --weight 0.5" in page
    assert len(list((tmp_path / "out").glob("images/*/0000/*.png"))) == 12
    assert {path.name for path in (tmp_path / "out" / "plots").iterdir()} >= {"bias.png", "pareto.png"}


def test_evaluate_only_plans_if_asked_to(command: Command, tmp_path: Path) -> None:
    status, printed, _ = command("evaluate", "sandbox", "--plan", "0.1", "--out", str(tmp_path / "none"))
    assert status == 0 and "99 images per prompt" in printed and not (tmp_path / "none").exists()
    for what in (["--prompts", "list"], ["--baseline", "list"]):
        status, printed, _ = command("evaluate", "sandbox", *what)
        assert status == 0 and ("authors:occupations-test" in printed or "semantic-guidance" in printed)


@pytest.mark.parametrize("arguments", [["demo", "-n", "0"], ["demo", "--seed", "-1"], ["generate"], ["paint"]])
def test_wrong_usage_exits_with_2(command: Command, arguments: list[str]) -> None:
    assert command(*arguments)[0] == 2


def test_train_leaves_an_adaptor_with_pictures_of_the_way(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fair_adaptors.cli.train.IMAGES", 2)  # of a prompt, for the numbers before and after
    settings = ["iterations=2", "images_per_prompt=4", "num_steps=3", "gradient_steps=2", "sample_every=1"]
    options = [word for setting in settings for word in ("--set", setting)]
    status, printed, _ = command("train", "sandbox-gender", "--out", str(tmp_path / "a"), *options)
    assert status == 0
    assert "validation" in printed and "before" in printed and "after" in printed
    assert {file.name for file in (tmp_path / "a" / "samples").iterdir()} == {
        f"iteration_{i:05d}.png" for i in range(3)
    }
    assert (tmp_path / "a" / "fair_adaptor.json").exists()
    assert command("info", str(tmp_path / "a"))[0] == 0


def test_a_dry_run_prints_settings_that_can_be_read_back_and_the_plan(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    status, printed, _ = command(
        "train", "sandbox-gender", "--dry-run", "--target", "age=0.75,0.25", "--set", "optimizer=adamw8bit"
    )
    assert status == 0 and "# --target age=0.75,0.25" in printed
    assert "300 iterations of 48 images" in printed and "through the network" in printed and "MB" in printed
    assert "missing: bitsandbytes" in printed
    (tmp_path / "settings.yaml").write_text(printed)
    options = ["--target", "age=0.75,0.25", "--config", str(tmp_path / "settings.yaml")]
    assert command("train", "sandbox-gender", "--dry-run", *options)[1] == printed


def test_settings_of_a_file_come_before_those_of_the_command_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(
        "iterations: 7\nrank: 3\nprompt_sets: {train: 2, bare: 1}\nparts: [unet]\n"
    )
    options = ["--config", str(tmp_path / "settings.yaml"), "--set", "rank=5"]
    status, printed, _ = command("train", "sandbox-gender", "--dry-run", *options)
    assert status == 0 and "iterations: 7\n" in printed and "rank: 5\n" in printed and "bare: 1.0" in printed
    (tmp_path / "settings.yaml").write_text("iteration: 7")
    status, _, error = command("train", "sandbox-gender", "--dry-run", *options)
    assert status == 1 and "Did you mean 'iterations'" in error


def test_what_an_adaptor_folder_says_is_shown_as_it_is(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "a[red]b"
    shutil.copytree(EMBEDDED / "sandbox-gender", folder)
    (folder / "README.md").write_bytes(b"---\n---\n\xff\xfe not UTF-8")
    status, printed, _ = command("info", str(folder))
    assert status == 0 and "a[red]b" in printed and "not UTF-8" in printed


def test_info_shows_a_folder_s_own_card_and_card_writes_one(command: Command, adaptor: Path) -> None:
    assert command("info", str(adaptor))[1].count("fair") and not (adaptor / "README.md").exists()
    assert command("card", str(adaptor))[:2] == (0, f"written: {adaptor / 'README.md'}\n")
    (adaptor / "README.md").write_text("---\n---\nMy own words.\n")
    assert "My own words." in command("info", str(adaptor))[1]
    assert "--overwrite replaces it" in command("card", str(adaptor))[2]
    assert command("card", str(adaptor), "--overwrite")[0] == 0 and "My own" not in command("info", str(adaptor))[1]


def test_info_is_there_for_programs(command: Command) -> None:
    found = json.loads(command("info", "sandbox-gender", "--json")[1])
    assert found["known"]["status"] == "embedded" and found["record"]["name"] == "sandbox-gender"
    assert found["results"]["targets"]["gender"]["classes"] == ["female", "male"]
    assert json.loads(command("info", "sd21-gender-race", "--json")[1])["record"] is None


def test_two_evaluations_are_laid_side_by_side_or_refused(command: Command, tmp_path: Path) -> None:
    same = EMBEDDED / "sandbox-gender" / "results.json"
    printed = command("compare", str(same.parent), str(same))[1]
    assert "gender bias" in printed and "tone shift" in printed and "│ yes" not in printed
    other = json.loads(same.read_text())
    other["settings"]["num_steps"] += 1
    (tmp_path / "results.json").write_text(json.dumps(other))
    status, _, said = command("compare", str(same), str(tmp_path))
    assert status == 1 and "cannot be compared: they differ in num steps" in said
    status, _, said = command("compare", str(same), "nowhere")
    assert (
        status == 1
        and said == "fair-adaptors: there is no evaluation at nowhere; give its folder, or its results.json\n"
    )
