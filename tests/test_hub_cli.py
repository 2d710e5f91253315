"""The commands that talk to the Hub, as they are meant and as strangers use them."""

import logging
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from fair_adaptors.adaptor.registry import NAMESPACE
from fair_adaptors.files import CACHE
from fair_adaptors.hub import client
from fair_adaptors.hub.files import MOST_BYTES
from tests.commands import Command
from tests.hub.connection import Hub
from tests.hub.fixtures import ADAPTOR, NOWHERE, contents, retitle


def test_an_adaptor_goes_to_the_hub_and_comes_back(
    hub: Hub, sandbox_copy: Path, command: Command, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    printed = command("push", str(ADAPTOR), "ann/cli", "--dry-run")[1]
    assert "376,944 bytes  pytorch_lora_weights.safetensors" in printed and "loaded into sandbox" in printed
    assert "Nothing was published" in printed and "ann/cli" not in hub.repositories
    status, printed, _ = command("push", str(ADAPTOR), "ann/cli", "--tag", "v1", "--private")
    assert status == 0 and "5 files pushed" in printed and hub.repositories["ann/cli"].private
    assert "Its files were checked first, and it was loaded into sandbox." in printed
    assert 'load_fair_adaptor(pipe, "ann/cli", revision="v1")' in printed
    assert "Nothing to push" in command("push", str(ADAPTOR), "ann/cli")[1]
    assert "5 files pushed" in command("push", str(retitle(sandbox_copy, "b")), "ann/cli", "--revision", "trial")[1]
    assert set(hub.repositories["ann/cli"].refs("heads")) == {"main", "trial"}
    told = command("info", "ann/cli", "--revision", "v1")[1]
    assert "female 50%" in told and "Perceived attributes are not identity" in told and "models--ann--cli" in told
    assert command("pull", "ann/cli", "--revision", "v1", "--out", str(out)) == (0, f"{out}\n", "")
    assert contents(out) == contents(ADAPTOR)
    assert "ann/cli" in command("search", "--attribute", "gender", "--namespace", "ann")[1]
    assert command("search", "--base", "none such") == (0, "No adaptor was found.\n", "")
    kohya = tmp_path / "kohya"
    assert command("export", "ann/cli", "--format", "kohya", "--out", str(kohya))[0] == 0 and list(kohya.iterdir())


def test_the_table_says_what_each_row_needs(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    printed = command("list")[1]
    assert all(word in printed for word in ("nothing", "training", "download")) and "download of" not in printed
    monkeypatch.setenv(NAMESPACE, "my-lab")
    assert "download of my-lab/sd21-gender-race" in command("list")[1]


def test_in_a_namespace_of_ones_own_a_name_of_the_table_is_pulled_from_there(
    hub: Hub, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert command("push", str(ADAPTOR), "ann/sd21-gender-race")[0] == 0
    monkeypatch.setenv(NAMESPACE, "ann")
    assert command("pull", "sd21-gender-race", "--out", str(tmp_path / "out"))[0] == 0
    assert contents(tmp_path / "out") == contents(ADAPTOR)


def test_the_document_says_what_can_be_set_and_what_the_limits_are() -> None:
    said = (Path(__file__).parents[1] / "docs" / "hub.md").read_text(encoding="utf-8")
    names = {NAMESPACE, CACHE, "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE=1", "HF_HOME", "HF_HUB_DISABLE_XET=1"}
    assert set(re.findall("`([A-Z_]+(?:=1)?)`", said)) == names
    assert f"more than {MOST_BYTES / 1e9:g} GB" in said


@pytest.fixture
def place(sandbox_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with all that a stranger may name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "für 心").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "file.safetensors").write_bytes(b"{}")


WEIGHTS = "adaptor/pytorch_lora_weights.safetensors"
STRANGE = [
    ("push nowhere org/x", "'nowhere' is not there; `fair-adaptors train` and `convert` make such folders"),
    ("push file org/x", "'file' is a file; give the folder"),
    ("push empty org/x", "empty is not an adaptor folder: it has no fair_adaptor.json"),
    ("push für+心 org/x", "für 心 is not an adaptor folder"),
    ("push adaptor ../x", "write it as ORG/NAME"),
    ("push adaptor x", "write it as ORG/NAME"),
    ("push adaptor org/心", "write it as ORG/NAME"),
    ("push adaptor org/x --tag ../x", "cannot be the name of a tag; use letters"),
    ("push adaptor org/x --revision a+b", "cannot be the name of a branch; use letters"),
    ("push adaptor org/x", "HF_HUB_OFFLINE is set; unset it"),
    ("pull nowhere", "Known: sandbox-gender"),
    ("pull sandbox-gendr", "Did you mean 'sandbox-gender'"),
    ("pull adaptor", "is a folder on this machine"),
    ("pull ../x", "write it as ORG/NAME"),
    ("pull org/心", "write it as ORG/NAME"),
    ("pull org/x", "not in the cache, and the Hub was not asked, because HF_HUB_OFFLINE"),
    ("pull org/x --revision ..", "no branch, tag or commit can have this name"),
    ("pull sd21-gender-race", "fair-adaptors train sd21-gender-race"),
    ("pull gender", "fair-adaptors pull exp-1-checkpoints.zip --from FILE"),
    ("pull gender --from empty", "there is no file empty"),
    ("pull gender --from file", "it is not a zip"),
    ("pull org/x --from file", "not an adaptor of the paper's authors"),
    ("pull sandbox-gender --revision v1", "has no revisions"),
    ("pull sandbox-gender --out adaptor", "exists already and will not be overwritten; choose another name"),
    ("pull sandbox-gender --out file", "exists already and will not be overwritten; choose another name"),
    ("pull sandbox-gender --out file/below", "file"),
    ("search", "HF_HUB_OFFLINE is set; unset it"),
    ("info nowhere", "Known: sandbox-gender"),
    ("info file", "'file' is a file; give the folder that holds it and its fair_adaptor.json"),
    ("info empty", "empty is not an adaptor folder"),
    ("info ../x", "there is no folder '../x'"),
    ("info org/x", "HF_HUB_OFFLINE"),
    ("convert nowhere --out out --attribute gender", "there is no file or folder nowhere"),
    ("convert empty --out out --attribute gender", "none ends with .pth"),
    ("convert file --out out --attribute gender", "none ends with .pth"),
    ("convert file.safetensors --out out --attribute gender", "neither safetensors nor a file of torch.save"),
    ("convert adaptor --out out --attribute gender", "use load_fair_adaptor"),
    (f"convert {WEIGHTS} --out out", "give --attribute, such as gender"),
    (f"convert {WEIGHTS} --out out --attribute gendr", "Did you mean 'gender'"),
    (f"convert {WEIGHTS} --out out --attribute gender", "Is the base right?"),
    (f"convert {WEIGHTS} --out out --attribute gender --base sd-15", "Did you mean 'sd15'"),
    (f"convert {WEIGHTS} --out out --attribute gender --base empty", "is not a folder of a known pipeline"),
    (f"convert {WEIGHTS} --out file --attribute gender --base sandbox", "exists already and will not be overwritten"),
    (f"convert {WEIGHTS} --out file/x --attribute gender --base sandbox", "file"),
    ("export nowhere --out out --format kohya", "there is no adaptor 'nowhere'"),
    ("export file --out out --format kohya", "'file' is a file; give the folder"),
    ("export empty --out out --format kohya", "empty is not an adaptor folder"),
    ("export ../x --out out --format kohya", "there is no folder '../x'"),
    ("export org/x --out out --format kohya", "HF_HUB_OFFLINE"),
    ("export adaptor --out out --format kohia", "Did you mean 'kohya'? Known: kohya, diffusers, peft, merged"),
    ("export adaptor --out adaptor --format peft", "exists already and will not be overwritten"),
    ("export adaptor --out file --format kohya", "file"),
    ("export adaptor --out file/x --format diffusers", "file"),
    ("export adaptor --out out --format merged --base nowhere", "there is no base 'nowhere'"),
]


@pytest.mark.parametrize(("line", "message"), STRANGE, ids=[line for line, _ in STRANGE])
def test_wrong_input_is_one_line_that_helps(
    place: None, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, message: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    before = contents(tmp_path)
    status, printed, error = command(*[word.replace("+", " ") for word in line.split()])
    assert (status, printed) == (1, "")
    assert message in error and error.startswith("fair-adaptors: ") and error.count("\n") == 1
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "line", ["push adaptor org/x", "pull org/x", "info org/x", "search", "export org/x --format peft --out out"]
)
def test_a_server_that_is_not_there_is_named(
    online: None,
    place: None,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    line: str,
) -> None:
    caplog.set_level(logging.ERROR, "huggingface_hub")  # what its client tells of each attempt
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", NOWHERE)
    monkeypatch.setattr(client, "PATIENCE", 0)
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda seconds: None))
    status, printed, error = command(*line.split())
    assert (status, printed) == (1, "") and "Traceback" not in error
    assert f"{NOWHERE} did not answer as it should" in error and "Check the network, and HF_ENDPOINT" in error
