"""The paper's evaluation again: drawn as its authors draw, and its figures beside what was measured, never mixed."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import PNDMScheduler

from fair_adaptors import load_fair_adaptor
from fair_adaptors.adaptor.folder import read_adaptor
from fair_adaptors.adaptor.record import CONFIG_FILE
from fair_adaptors.adaptor.registry import ADAPTORS
from fair_adaptors.adaptor.results_file import load_results
from fair_adaptors.errors import ConfigError
from fair_adaptors.evaluation import published, reproduction
from fair_adaptors.evaluation.protocol import draw_as_authors, unpadded
from fair_adaptors.evaluation.published import BOTH, DINO, GENDER, IMAGE, OLD, RACE, TEXT
from fair_adaptors.report.reproduction import cells
from tests.authors_data import OCCUPATIONS
from tests.commands import Command
from tests.tiny import tiny_pipeline, tiny_xl_pipeline, write_tiny_adaptor, write_tiny_tokens
from tests.vision_models import authors_file, small_clip, small_dino
from tests.yunet import known_yunet


def theirs(pipe: Any, prompt: str, *, masked: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of the prompt and of the empty one, step by step as in ``generate_image`` of their gen-images.py."""
    tokens = pipe.tokenizer([prompt], return_tensors="pt", padding=True)
    embeds = pipe.text_encoder(tokens["input_ids"], tokens["attention_mask"])[0]
    empty = pipe.tokenizer(
        [""], padding="max_length", max_length=embeds.shape[1], truncation=True, return_tensors="pt"
    )
    mask = empty["attention_mask"] if masked else None
    return embeds, pipe.text_encoder(empty["input_ids"], mask)[0]


def conditioned(pipe: Any, prompt: str | list[str], monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """The embeddings that reach the U-Net at the first step of a call: of the empty prompts, then of the prompts."""
    seen: list[torch.Tensor] = []
    own = type(pipe.unet).forward

    def forward(unet: Any, sample: Any, time: Any, encoder_hidden_states: torch.Tensor, **named: Any) -> Any:
        seen.append(encoder_hidden_states)
        return own(unet, sample, time, encoder_hidden_states, **named)

    with monkeypatch.context() as patch:
        patch.setattr(type(pipe.unet), "forward", forward)
        pipe(prompt, num_inference_steps=1, guidance_scale=2.0, output_type="latent")
    return seen[0]


def test_prompts_are_conditioned_as_the_authors_do_it(
    pipe: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stock = conditioned(pipe, "nurse", monkeypatch)
    with torch.no_grad(), unpadded(pipe), load_fair_adaptor(pipe, write_tiny_adaptor(tmp_path, pipe)):
        for prompt in ("nurse", "a guard"):
            embeds, empty = theirs(pipe, prompt)
            assert embeds.shape[1] < stock.shape[1] == 16
            found = conditioned(pipe, [prompt, prompt], monkeypatch)
            assert torch.allclose(found, torch.cat([empty, empty, embeds, embeds]), atol=1e-6)
    assert not torch.allclose(theirs(pipe, "nurse", masked=False)[1], theirs(pipe, "nurse")[1], atol=1e-3)
    assert torch.equal(conditioned(pipe, "nurse", monkeypatch), stock), "outside the block it is as it was"


def test_soft_tokens_take_their_places_before_a_prompt_without_padding(
    pipe: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Their ``prompt_debiaser`` puts the tokens before the words; the empty prompt gets no mask there."""
    folder = write_tiny_tokens(tmp_path, pipe)
    rows = read_adaptor(folder).tokens["text_encoder"]
    with torch.no_grad(), unpadded(pipe), load_fair_adaptor(pipe, folder):
        ids = pipe.tokenizer(["nurse"], return_tensors="pt").input_ids
        longer = torch.cat([ids[:, :1].expand(-1, 1 + len(rows)), ids[:, 1:]], 1)
        table = pipe.text_encoder.get_input_embeddings()
        hook = table.register_forward_hook(
            lambda module, given, found: torch.cat([found[:, :1], rows[None], found[:, 1 + len(rows) :]], 1)
        )
        embeds = pipe.text_encoder(longer)[0]
        hook.remove()
        empty = pipe.tokenizer([""], padding="max_length", max_length=embeds.shape[1], return_tensors="pt")
        wanted = torch.cat([pipe.text_encoder(empty.input_ids)[0], embeds])
        assert torch.allclose(conditioned(pipe, "nurse", monkeypatch), wanted, atol=1e-6)


def test_other_families_are_not_drawn_without_padding() -> None:
    with pytest.raises(ConfigError, match="only Stable Diffusion 1.x takes prompts without padding"):
        unpadded(tiny_xl_pipeline()).__enter__()


def test_the_solver_is_that_of_diffusers_of_the_time() -> None:
    """Of the base's own PNDM nothing stays but the noise; what 0.19.3 computes is written out here."""
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, skip_prk_steps=True
    )
    out: dict[str, Any] = {}
    pipe = SimpleNamespace(scheduler=scheduler, safety_checker="blackens", register_modules=out.update)
    draw_as_authors(pipe)
    assert out == {"safety_checker": None}
    pipe.scheduler.set_timesteps(published.STEPS)
    wanted = np.linspace(0, 999, published.STEPS + 1).round()[::-1][:-1]
    assert pipe.scheduler.timesteps.tolist() == wanted.tolist()
    kept = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    assert pipe.scheduler.sigmas[-1] == pytest.approx(((1 - kept[0]) / kept[0]) ** 0.5, rel=1e-3)
    config = pipe.scheduler.config
    assert (config.solver_order, config.algorithm_type, config.lower_order_final) == (2, "dpmsolver++", True)


def test_the_papers_figures_are_of_known_adaptors_and_are_written_as_they_were_printed() -> None:
    assert set(published.PUBLISHED) <= {one.name for one in ADAPTORS}
    figure = published.PUBLISHED["gender-race"]["occupations"][GENDER]
    assert (figure.value, figure.spread) == (0.16, 0.13)
    assert published.ORIGINAL["occupations"][OLD].value == 0.202
    assert published.PUBLISHED["gender-race-many-concepts"]["styles"][RACE].value == 0.19
    joint = ("gender", "race")
    counts = {names: published.images_per_prompt(names) for names in (("gender",), ("race",), joint, (*joint, "age"))}
    assert list(counts.values()) == [60, 80, 160, 160]
    assert reproduction.prompts_of("gender-race-many-concepts") == ("occupations", "sports", "styles", "descriptors")
    assert reproduction.prompts_of("mine") == ("occupations",)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, an adaptor of gender, race and age for it, encoders, and a detector that finds a face in each image."""
    place = tmp_path_factory.mktemp("machine")
    pipe = tiny_pipeline(side=32)
    pipe.save_pretrained(place / "base")
    small_clip(place / "clip")
    small_dino(place / "dino")
    (place / "yunet.onnx").write_bytes(known_yunet(everywhere=True))
    record = write_tiny_adaptor(place / "adaptor", pipe) / CONFIG_FILE
    content = json.loads(record.read_text())
    content["name"] = "gender-race-age"
    content["attributes"]["race"] = {"classes": ["WMELH", "Black", "Indian", "Asian"], "target": [0.25] * 4}
    content["attributes"]["age"] = {"classes": ["young", "old"], "target": [0.75, 0.25]}
    record.write_text(json.dumps(content))
    return place


@pytest.fixture
def run(command: Command, place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Reproduce with the small models; give what was printed, and the error if there was one."""
    monkeypatch.chdir(place)

    def call(*more: str, status: int = 0) -> str:
        small = ["--base", "base", "-n", "2", "--steps", "2", "--faces", "yunet:yunet.onnx"]
        found, said, error = command("reproduce", "adaptor", *small, *more)
        assert found == status, said + error
        return said + error

    return call


@pytest.mark.usefixtures("authors_data")
def test_one_command_prints_the_papers_rows_beside_the_measured_ones(run: Callable[..., str], place: Path) -> None:
    said = run("--encoder", "clip:clip", "--encoder", "dinov2:dino", "--out", "table")
    results = load_results(place / "table" / "results.json")
    assert list(results.settings.prompts) == OCCUPATIONS["test_prompts"]
    assert results.settings.prompt_set == "authors:occupations-test, not padded"
    assert results.classifier == "authors:test-gender+authors:test-race+authors:test-age"
    assert results.settings.scheduler == "DPMSolverMultistepScheduler"
    rows = {(row.model, row.figure): row for row in reproduction.rows(results, "gender-race-age", "occupations")}
    names = (GENDER, RACE, BOTH, OLD, TEXT, IMAGE, DINO)
    assert [figure for model, figure in rows if model == "gender-race-age"] == list(names)
    table = published.PUBLISHED["gender-race-age"]["occupations"]
    after = results.variants[1]
    for name in (GENDER, RACE, BOTH):
        row, figures = rows["gender-race-age", name], results.figures(after, name)
        assert row.published == table[name] and row.measured == figures.bias and row.floor == figures.bias.floor
        assert row.spread == pytest.approx(np.std([one.bias.value for one in figures.prompts]))
        assert row.undetermined == figures.undetermined.value and row.no_face == 0
    old = rows["original", OLD]
    assert old.published == published.ORIGINAL["occupations"][OLD]
    assert old.measured == results.figures(results.original, "age").frequencies[1]
    cosine = {name: rows["gender-race-age", name].measured for name in (TEXT, IMAGE, DINO)}
    assert cosine == {
        TEXT: after.text_alignment["clip:clip"],
        IMAGE: after.preservation["clip:clip"],
        DINO: after.preservation["dinov2:dino"],
    }
    page = (place / "table" / "reproduction.md").read_text()
    for row in rows.values():
        assert "| " + " | ".join(cells(row)) + " |" in page
    assert "| original | gender | 0.67 ± 0.29 | " in page and (place / "table" / "report.html").is_file()
    lines = ("2 images of each prompt; the paper takes 160", "sampling steps: 2", "faces are found by yunet")
    for line in (*lines, "the networks compute in float32; theirs in float16"):
        assert f"* {line}" in said and f"* {line}" in page
    assert "classes are told by" not in said and "are padded" not in said
    assert "different prompt_set" in run("--padded", "--out", "table", status=1)


def test_with_a_classifier_of_ones_own_nothing_of_the_authors_is_fetched(run: Callable[..., str], place: Path) -> None:
    said = run("--classifier", f"mobilenet:{authors_file(place, 6)}", "--padded", "--limit", "1", "--out", "own")
    results = load_results(place / "own" / "results.json")
    assert results.settings.prompt_set == "occupations-test" and len(results.settings.prompts) == 1
    lines = ("1 of the 50 prompts", "prompts are padded", "classes are told by mobilenet:")
    assert all(f"* {line}" in said for line in lines)
    rows = reproduction.rows(results, "gender-race-age", "occupations")
    assert {row.figure for row in rows if row.measured is None} == {OLD, TEXT, IMAGE, DINO}
    unknown = reproduction.rows(results, "mine", "occupations")
    assert all(row.published is None for row in unknown if row.model != "original")
    assert "of the adaptor mine no figures of the paper are known here" in reproduction.differences(
        results, "mine", attributes=("gender",), padded=True
    )


def test_a_figure_that_nobody_has_is_a_dash_and_never_the_others() -> None:
    row = reproduction.Row("original", GENDER, published.PublishedFigure(0.67, 0.29), None)
    assert cells(row)[2:5] == ["0.67 ± 0.29", "–", "–"]
    assert cells(dataclasses.replace(row, published=None))[2:5] == ["–", "–", "–"]


SMALLER = {
    "gender-race": "adaptor",
    "clip:laion/CLIP-ViT-H-14-laion2B-s32B-b79K": "clip:clip",
    "clip:laion/CLIP-ViT-bigG-14-laion2B-39B-b160k": "clip:clip",
    "dinov2:facebook/dinov2-giant": "dinov2:dino",
}
DOC = Path(__file__).parents[1] / "docs" / "reproduce.md"


@pytest.mark.usefixtures("authors_data")
def test_every_command_of_the_document_works(
    command: Command, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = re.findall(r"^    fair-adaptors (reproduce .+)$", DOC.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(found) == 3
    monkeypatch.chdir(place)
    for number, line in enumerate(found):
        words = [SMALLER.get(word, word) for word in line.split()]
        small = ["--base", "base", "-n", "1", "--steps", "1", "--limit", "1", "--faces", "yunet:yunet.onnx"]
        assert command(*words, *small, "--out", str(tmp_path / str(number)))[0] == 0
        assert (tmp_path / str(number) / "reproduction.md").is_file()
