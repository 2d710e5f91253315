"""What the paper's authors published loads in one line: fetched and converted once, then at hand without a network."""

import dataclasses
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fair_adaptors import InvalidAdaptorError, evaluate, load_fair_adaptor
from fair_adaptors.adaptor import bases
from fair_adaptors.adaptor.archives import ARCHIVES
from fair_adaptors.adaptor.bases import STABLE_DIFFUSION_1_5
from fair_adaptors.adaptor.folder import read_adaptor
from fair_adaptors.adaptor.record import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE
from fair_adaptors.adaptor.registry import AdaptorInfo, default_for, find, folder_in_cache
from fair_adaptors.adaptor.results_file import load_results
from fair_adaptors.errors import ArchiveError, ConfigError, UnknownAdaptorError
from fair_adaptors.evaluation.published import PublishedFigure
from fair_adaptors.evaluation.reproduction import rows
from fair_adaptors.files import CACHE
from fair_adaptors.hub import pull
from fair_adaptors.hub.archive import archive_path
from fair_adaptors.hub.published import fetch_published
from fair_adaptors.hub.resolve import resolve
from tests.checkpoints import (
    FILES,
    PUBLISHED,
    SD15_UNET,
    as_bytes,
    changes,
    converted_changes,
    largest_difference,
    members,
    our_name,
    packed,
    published_weights,
    text_checkpoint,
    unet_checkpoint,
    zipped,
)
from tests.commands import Command
from tests.drive import Drive, drive_server
from tests.tiny import image, tiny_pipeline
from tests.vision_models import authors_file


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A tiny pipeline that goes by the name of Stable Diffusion 1.5, and stands in the table in its place."""
    pipe = tiny_pipeline()
    pipe.register_to_config(_name_or_path=STABLE_DIFFUSION_1_5)
    parts = {
        "text_encoder": pipe.text_encoder.config.to_dict(),
        "unet": {key: value for key, value in pipe.unet.config.items() if not key.startswith("_")},
        "vae": {},
    }
    rows = [dataclasses.replace(b, configurations=parts) if b.short_name == "sd15" else b for b in bases.BASES]
    monkeypatch.setattr(bases, "BASES", tuple(rows))
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    return pipe


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The authors' six archives of checkpoints, by their ids."""
    path, names = tmp_path_factory.mktemp("archives"), [name for name in ARCHIVES if name != "data.zip"]
    return {ARCHIVES[name].file_id: packed(path, name).read_bytes() for name in names}


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch, pipe: Any, archives: dict[str, bytes]) -> Iterator[Drive]:
    """Google Drive with them."""
    with drive_server(monkeypatch) as server:
        server.files |= archives
        yield server


def test_the_one_line_fetches_converts_tells_and_changes_the_images(
    drive: Drive,
    pipe: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = image(pipe)
    with load_fair_adaptor(pipe) as adaptor:
        assert adaptor.info.name == "gender-race" and tuple(adaptor.info.attributes) == ("gender", "race")
        first = image(pipe)
    assert abs(first - before).max() > 1e-3 and (image(pipe) == before).all()
    told = capsys.readouterr().err + caplog.text
    caplog.clear()
    for words in (
        ARCHIVES["exp-3-checkpoints.zip"].page,
        "from-paper_finetune-text-encoder_09190230/checkpoint-12200_exported",
        "about 33 MB",
        "creativeml-openrail-m",
        "MIT",
        "sha256",
        "100%",
        "text_encoder_lora_EMA.pth (authors, moving average of the training)",
        "text_encoder_lora.pth: left out, because its moving average is there",
    ):
        assert words in told
    # From now on without a network, and without the archive.
    asked = len(drive.log)
    shutil.rmtree(archive_path(ARCHIVES["exp-3-checkpoints.zip"]).parent)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with load_fair_adaptor(pipe, "gender-race"):
        assert (image(pipe) == first).all()
    assert capsys.readouterr().err + caplog.text == "" and len(drive.log) == asked


@pytest.mark.parametrize("info", PUBLISHED, ids=lambda info: info.name)
def test_every_row_loads_its_own_run_as_the_authors_evaluate_it(drive: Drive, pipe: Any, info: AdaptorInfo) -> None:
    folder = resolve(info.name)
    files = read_adaptor(folder)
    assert (files.record.name, files.record.trained_parts) == (info.name, info.trained_parts)
    assert tuple(files.record.attributes) == info.attributes and files.record.base_model == STABLE_DIFFUSION_1_5
    assert files.record.attributes["gender" if "gender" in info.attributes else "race"].target[0] in (0.5, 0.25)
    averaged = [published_weights(part, PUBLISHED.index(info) + 11) for part in info.trained_parts]
    if info.trained_parts == ("tokens",):
        assert files.tokens["text_encoder"].equal(averaged[0]["token_embedding.weight"][1:])
    else:
        expected = {our_name(key): change for one in averaged for key, change in changes(one).items()}
        assert largest_difference(converted_changes(folder), expected) < 1e-6
    origin = files.record.training["converted_from"]
    assert all(file["averaged"] for file in origin["files"]) and len(origin["left_out"]) == len(averaged)
    with load_fair_adaptor(pipe, info.name):
        pass
    assert (folder / CARD_FILE).read_text(encoding="utf-8").count(f'load_fair_adaptor(pipe, "{info.name}")') == 1


def test_adaptors_of_one_archive_fetch_it_once(drive: Drive) -> None:
    names = [info.name for info in PUBLISHED if info.checkpoint and info.checkpoint.archive == "exp-1-checkpoints.zip"]
    assert len({read_adaptor(resolve(name)).record.identity for name in names}) == 3 and len(drive.starts) == 1


def test_it_works_on_the_real_shapes(tmp_path: Path) -> None:
    """Of Stable Diffusion 1.5, with fewer ranks than the authors have."""
    info = find("gender-both")
    assert info.checkpoint is not None
    tensors = {
        "text_encoder": text_checkpoint(layers=12, width=768, inner=3072, rank=2),
        "unet": unet_checkpoint(SD15_UNET, width=768, rank=2),
    }
    files = {f"{info.checkpoint.member}/{FILES[part]}_EMA.pth": as_bytes(tensors[part]) for part in tensors}
    others = {f"{run}/x.pth": b"" for run in ARCHIVES[info.checkpoint.archive].holds}
    source = zipped(tmp_path / "exp-1-checkpoints.zip", others | files)
    folder = fetch_published(info, source=source, cache_dir=tmp_path / "cache")
    assert folder == folder_in_cache("gender-both", tmp_path / "cache")
    assert len(read_adaptor(folder).tensors) == 144 + 256


def test_an_archive_that_was_fetched_by_hand_serves_all_its_adaptors(
    command: Command, pipe: Any, tmp_path: Path
) -> None:
    source = packed(tmp_path, "exp-1-checkpoints.zip").rename(tmp_path / "download (1).zip")
    assert command("pull", "gender", "--from", str(source))[:2] == (0, f"{folder_in_cache('gender')}\n")
    source.unlink()
    assert pull("gender-unet", out=tmp_path / "mine") == tmp_path / "mine"
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {CONFIG_FILE, WEIGHTS_FILE, CARD_FILE}
    packed(tmp_path, "exp-2-checkpoints.zip")
    pull("exp-2-checkpoints.zip", source=tmp_path / "exp-2-checkpoints.zip")
    with load_fair_adaptor(pipe, "gender-tokens"):
        pass


def test_offline_the_page_is_named_and_the_pipeline_is_as_it_was(pipe: Any) -> None:
    before = image(pipe)
    for options in ({}, {"local_files_only": True}):
        with pytest.raises(ArchiveError, match="nothing was fetched.*pull exp-3-checkpoints.zip --from FILE"):
            load_fair_adaptor(pipe, **options)
    assert (image(pipe) == before).all()


def test_a_folder_that_was_damaged_is_made_again_of_the_archive_that_is_here(drive: Drive) -> None:
    folder = resolve("race")
    whole, asked = (folder / WEIGHTS_FILE).read_bytes(), len(drive.log)
    (folder / WEIGHTS_FILE).write_bytes(whole[:-100])
    assert (resolve("race") / WEIGHTS_FILE).read_bytes() == whole
    (folder / WEIGHTS_FILE).write_bytes(whole[:-1] + b"\xff")
    assert (pull("race") / WEIGHTS_FILE).read_bytes() == whole and len(drive.log) == asked


def test_a_conversion_of_other_bytes_than_the_table_names_is_not_used(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve("race")
    name = "exp-6-checkpoints.zip"
    monkeypatch.setitem(ARCHIVES, name, dataclasses.replace(ARCHIVES[name], sha256="0" * 64))  # type: ignore[arg-type]
    with pytest.raises(ArchiveError, match="in the table of this package"):
        resolve("race")


def test_what_is_in_the_archive_is_checked_before_anything_is_kept(pipe: Any, tmp_path: Path) -> None:
    info = find("gender-race")
    assert info.checkpoint is not None
    run = info.checkpoint.member
    good = members(info)
    incomplete = text_checkpoint()
    incomplete.popitem()
    for files, message in (
        ({f"{run}/text_encoder_lora_EMA.pth": as_bytes([1, 2])}, "no dictionary of tensors"),
        ({f"{run}/text_encoder_lora_EMA.pth": as_bytes(incomplete)}, "missing"),
        ({f"{run}/notes.txt": b"nothing"}, "no file of weights"),
        ({f"{info.checkpoint.run}/checkpoint-1_exported/a.pth": b""}, "should have one folder"),
        ({**good, f"twice/{run}/text_encoder_lora_EMA.pth": b""}, "should have one folder"),
        ({f"{run}/{FILES['unet']}_EMA.pth": as_bytes(published_weights("unet", 1))}, "has weights of unet"),
    ):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        with pytest.raises(InvalidAdaptorError, match=message):
            fetch_published(info, source=zipped(tmp_path / "bad.zip", files))
        assert [path.name for path in (tmp_path / "cache" / "adaptors").iterdir() if path.suffix != ".lock"] == []
    # What the Finder adds, and a folder around all, do no harm.
    shutil.rmtree(tmp_path / "cache")
    files = {f"exp-3/{name}": data for name, data in good.items()} | {f"__MACOSX/exp-3/{run}/._x.pth": b"x"}
    assert read_adaptor(fetch_published(info, source=zipped(tmp_path / "around.zip", files))).record.rank == 3


def test_another_zip_is_not_taken_for_the_archive(pipe: Any, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="no folder from-paper_finetune-text-encoder_09190230, so it is another"):
        pull("gender-race", source=packed(tmp_path, "exp-6-checkpoints.zip"))
    assert not archive_path(ARCHIVES["exp-3-checkpoints.zip"]).with_suffix(".zip.sha256").exists()
    for name in ("sandbox-gender", "sd21-gender-race", "org/name"):
        with pytest.raises(ConfigError, match="not an adaptor of the paper's authors"):
            pull(name, source=tmp_path / "exp-6-checkpoints.zip")
    with pytest.raises(ConfigError, match="stays in the cache"):
        pull("exp-6-checkpoints.zip", source=tmp_path / "exp-6-checkpoints.zip", out=tmp_path / "out")
    with pytest.raises(UnknownAdaptorError, match="have no revisions"):
        pull("gender-race", revision="v1")


def test_the_first_example_of_the_readme_is_what_it_says(
    drive: Drive, pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Word for word, on a stand-in without a GPU; of the evaluation a few images, by a classifier that is here."""
    few = {"prompts": ["a photo of a nurse"], "images_per_prompt": 2, "num_steps": 1, "faces": "whole", "encoders": ()}
    judge = f"mobilenet:{authors_file(tmp_path, 6)}"

    def small(pipe: Any, adaptors: str, **asked: Any) -> Any:
        return evaluate(pipe, adaptors, classifiers=judge, **(asked | few))

    monkeypatch.setattr("diffusers.DiffusionPipeline.from_pretrained", {STABLE_DIFFUSION_1_5: pipe}.__getitem__)
    monkeypatch.setattr(pipe, "to", {"cuda": pipe}.__getitem__)
    monkeypatch.setattr("fair_adaptors.evaluate", small)
    monkeypatch.chdir(tmp_path)
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    before, names = image(pipe), {}  # type: ignore[var-annotated]
    exec(readme.partition("```python\n")[2].partition("```")[0], names)
    assert set(names["result"].bias) == {"original", "gender-race"} and (image(pipe) == before).all()
    assert Path("senator.png").stat().st_size > 100 and Path("report.html").stat().st_size > 10_000
    assert len(PUBLISHED) == 8


def test_the_default_is_known_by_the_shapes_of_its_base_too(pipe: Any) -> None:
    """A single file, a folder of one's own and a model made from Stable Diffusion 1.5 have another name, or none."""
    pipe.register_to_config(_name_or_path="/models/my-own")
    assert default_for(pipe).name == "gender-race"
    with pytest.raises(UnknownAdaptorError, match="no adaptor is known for this base"):
        default_for(tiny_pipeline(width=64))


def test_a_strangers_path_from_the_one_line_to_the_report(
    command: Command, drive: Drive, pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Load, generate, evaluate, reproduce, report. With an empty cache each command fetches, and shows how far."""
    before = image(pipe)
    with load_fair_adaptor(pipe) as adaptor:
        assert adaptor.info.name == "gender-race" and abs(image(pipe) - before).max() > 1e-3
    monkeypatch.chdir(tmp_path)
    pipe.save_pretrained("base")
    Path("few.txt").write_text("a photo of a nurse\n")
    few = ["--adaptor", "gender-race", "-n", "2", "--steps", "1"]
    judge = ["--classifier", f"mobilenet:{authors_file(tmp_path, 6)}", "--faces", "whole"]
    table = ["-n", "2", "--steps", "1", "--limit", "1", "--padded", "--out", "table"]
    for words in (
        ["generate", "a nurse", "--base", "base", *few],
        ["evaluate", "base", "--prompts", "few.txt", "--target", "gender", *judge, *few],
        ["reproduce", "gender-race", "--base", "base", *judge, *table],
    ):
        shutil.rmtree("cache")
        status, _, error = command(*words)
        assert status == 0 and re.search("exp-3-checkpoints.zip: *100%", error), error
    with Image.open("grid.png") as grid:
        assert grid.width > 2 * 16
    for folder in (Path("evaluation"), Path("table")):
        results = load_results(folder / "results.json")
        assert [one.adaptor for one in results.variants] == [None, "gender-race"]
        pictures = {path.read_bytes() for path in (folder / "images").rglob("*.png")}
        assert results.settings.images_per_prompt == 2 and len(pictures) == 4  # those with it are others
        assert "gender-race" in (folder / "report.html").read_text(encoding="utf-8")
    row = next(row for row in rows(results, "gender-race", "occupations") if row.model == "gender-race")
    assert (row.figure, row.published) == ("gender", PublishedFigure(0.16, 0.13)) and row.measured is not None
    assert "| gender-race | gender | 0.16 ± 0.13 | " in Path("table/reproduction.md").read_text(encoding="utf-8")
    assert "occupations, gender: 0.67 ± 0.29 → 0.16 ± 0.13" in command("info", "gender-race")[1]
