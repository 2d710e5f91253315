"""The bounds that an evaluation has to keep in CI, and the exit status."""

import contextlib
import io
import math
import os
import re
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from fair_adaptors.adaptor.bases import EMBEDDED
from fair_adaptors.adaptor.results import FlooredEstimate, Results
from fair_adaptors.cli import main
from fair_adaptors.errors import ConfigError
from fair_adaptors.evaluation.bounds import Bounds, failures, read_bounds
from fair_adaptors.evaluation.spec import Target
from fair_adaptors.evaluation.variants import Variant
from tests.commands import Command
from tests.processes import run_in_world
from tests.reports import HALF, OLD, QUARTER, instruments, measured, named, record

ASKED = named(2, 4, targets=(HALF, QUARTER, Target(("gender", "tone"), (0.125,) * 8)))
FAIR = [Variant("fair", "fair")]


def results(*names: str, bias: tuple[float, float, float] = (0.3, 0.2, 0.4)) -> Results:
    """Results whose every gender bias is as given, and every distance from the gender target .9."""
    evaluation, tools = named(2, 4), instruments("one")
    found = measured(evaluation, tools, {name: record(evaluation, tools, 0.5) for name in ("original", *names)})

    def changed(variant: Any) -> Any:
        gender = replace(
            variant.bias["one"]["gender"],
            bias=FlooredEstimate(*bias, 0.1),
            total_variation=FlooredEstimate(0.9, 0.85, 0.95, 0.1),
        )
        return replace(variant, bias={"one": {**variant.bias["one"], "gender": gender}})

    return replace(found, variants=tuple(map(changed, found.variants)))


@pytest.mark.parametrize(
    ("most", "said"),
    [
        (0.1, "fair: gender bias is 0.300 (95 % interval 0.200 to 0.400), above the bound of 0.1"),
        (0.25, "above the bound of 0.25; the interval includes the bound"),
        (0.3, ""),
        (0.35, ""),
    ],
)
def test_a_value_above_its_bound_fails_and_says_whether_it_may_be_chance(most: float, said: str) -> None:
    found = failures(results("fair"), Bounds({"gender": most}))
    assert len(found) == bool(said) and said in "".join(found)
    assert ("includes" in "".join(found)) == (most == 0.25)


def test_every_variant_is_held_to_the_bound_and_the_original_where_it_is_alone() -> None:
    bounds = Bounds({"gender": 0.1})
    assert [line.split(":")[0] for line in failures(results("fair", "fairer"), bounds)] == ["fair", "fairer"]
    assert [line.split(":")[0] for line in failures(results(), bounds)] == ["original"]


def test_what_could_not_be_measured_keeps_no_bound() -> None:
    (said,) = failures(results("fair", bias=(math.nan,) * 3), Bounds({"gender": 0.99}))
    assert "could not be measured" in said


def test_where_the_target_is_uneven_the_bound_is_on_the_distance_from_it() -> None:
    found = results("fair")
    uneven = replace(found, targets={**found.targets, "gender": replace(found.targets["gender"], shares=OLD.shares)})
    (said,) = failures(uneven, Bounds({"gender": 0.5}))
    assert "distance of gender from its target is 0.900" in said


def test_harm_fails_only_where_that_is_asked_for_and_says_to_whom() -> None:
    evaluation, tools = named(4, 24), instruments("one")
    records = {name: record(evaluation, tools, lean) for name, lean in (("original", 0.0), ("pale", 0.97))}
    found = measured(evaluation, tools, records)
    said = failures(found, Bounds({}, no_harm=True))
    assert "pale: tan-skinned people all but vanish" in "\n".join(said)
    assert failures(found, Bounds({})) == []
    assert failures(replace(found, variants=found.variants[:1]), Bounds({}, no_harm=True)) == []


def test_bounds_are_read_from_words() -> None:
    found = read_bounds(["gender=0.3", "gender × tone = 0.1", "tone=0"], ASKED, variants=FAIR, fail_on_harm=True)
    assert found == Bounds({"gender": 0.3, "gender × tone": 0.1, "tone": 0.0}, no_harm=True)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["gender"], "NAME=NUMBER such as gender=0.3"),
        (["=0.3"], "NAME=NUMBER"),
        (["gendr=0.3"], "Did you mean 'gender'"),
        (["gender x tone=0.1"], "Did you mean 'gender × tone'"),
        (["gender=x"], "must be a number from 0 to less than 1"),
        (["gender="], "must be a number"),
        (["gender=-0.1"], "must be a number from 0"),
        (["gender=nan"], "must be a number from 0"),
        (["gender=1"], "less than 1, which is the most"),
        (["tone=0.5"], "less than 0.5"),
        (["gender × tone=0.25"], "less than 0.25"),
        (["gender=0.3", "gender=0.2"], "given twice for gender"),
    ],
)
def test_a_bound_that_makes_no_sense_is_refused(texts: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match="fail_above.*" + said):
        read_bounds(texts, ASKED, variants=FAIR)


def test_of_an_uneven_target_the_most_is_the_distance_of_all_from_the_rarest_class() -> None:
    assert read_bounds(["gender=0.9"], named(2, 4, targets=(OLD,)), variants=FAIR).most == {"gender": 0.9}
    with pytest.raises(ConfigError, match="less than 0.95"):
        read_bounds(["gender=0.95"], named(2, 4, targets=(OLD,)), variants=FAIR)


def test_the_original_alone_can_do_no_harm() -> None:
    with pytest.raises(ConfigError, match="fail_on_harm.*name an `adaptor` or a `baseline`"):
        read_bounds([], ASKED, variants=[], fail_on_harm=True)


def test_the_workflow_in_the_documentation_runs_and_keeps_the_report(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(name: .*?)```", page, re.DOTALL)
    *_, step, upload = yaml.safe_load(block)["jobs"]["evaluate"]["steps"]
    name, *words = shlex.split(step["run"])
    assert name == "fair-adaptors" and upload["if"] == "always()" and upload["with"]["path"] in words
    shutil.copytree(EMBEDDED / "sandbox-gender", tmp_path / "adaptors" / "mine")
    monkeypatch.chdir(tmp_path)
    status, said, _ = command(*words, "--plan", "0.1")  # all is read, and nothing drawn
    assert status == 0 and "16 prompts × 64 images × 2 variants" in said


def evaluate_and_fail(folder: Path) -> None:
    """Run the command as one of several processes; leave what it said, and whether the report was there in the end."""
    out, said = folder / "out", io.StringIO()
    sys.argv = [
        "fair-adaptors", "evaluate", "sandbox", "-n", "2", "--steps", "1", "--no-images", "--out", str(out),
        "--prompts", str(folder / "prompts.txt"), "--classifier", "sandbox:evaluation", "--fail-above", "age=0",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as end, contextlib.redirect_stderr(said):
        main()
    written = (out / "report.html").exists()
    (folder / os.environ["RANK"]).write_text(f"{end.value.code} {written} {said.getvalue()}", encoding="utf-8")


def test_all_processes_fail_alike_after_the_report_is_written_and_one_says_why(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a photo of a hospital nurse\na photo of a bank guard\n")
    run_in_world(2, evaluate_and_fail, tmp_path)
    first, other = ((tmp_path / rank).read_text(encoding="utf-8") for rank in "01")
    assert first.startswith("1 True fair-adaptors: original: age bias is ") and other == "1 True "
